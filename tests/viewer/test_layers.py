"""What the viewer's scene shows, in numbers: poses there and back, colours, rays that meet in their points."""

import numpy as np

from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.sfm.result import Decision, StageZero
from craym_nerfstudio.viewer.curves import Curve
from craym_nerfstudio.viewer.layers import ViserPose, partners, rays_of_matches, rays_of_tracks, traffic_light

POINTS = np.array([[0.1, 0.2, 0.0], [-0.3, 0.1, 0.2], [0.0, 0.0, 0.4]])


def looking_down(x: float) -> np.ndarray:
    """A camera at (x, 0, 3) that looks along -z."""
    return np.concatenate([np.eye(3), [[x], [0.0], [3.0]]], axis=1)


CAMERAS = np.stack([looking_down(x) for x in (0.0, 1.0, 2.0)])


def matches() -> Matches:
    """All points between cameras 0 and 2, two of them between 0 and 1."""
    seen = [((0, 1), POINTS[:2]), ((0, 2), POINTS)]
    towards = [np.stack([points - CAMERAS[camera][:, 3] for camera in pair], axis=1) for pair, points in seen]
    bearings = np.concatenate(towards)
    bearings /= np.linalg.norm(bearings, axis=-1, keepdims=True)
    return Matches(
        names=["a", "b", "c"],
        size_px=np.full((3, 2), 64),
        pairs=np.array([[0, 1], [0, 2]], dtype=np.int32),
        rotation=np.stack([np.eye(3)] * 2),
        translation=np.array([[-1.0, 0.0, 0.0]] * 2),
        pair_of_match=np.array([0, 0, 1, 1, 1], dtype=np.int32),
        keypoints=np.zeros((5, 2, 2), dtype=np.float32),
        keypoint_ids=np.zeros((5, 2), dtype=np.int32),
        bearings=bearings.astype(np.float32),
        confidence=np.ones(5, dtype=np.float32),
        detector="exact",
    )


def test_a_camera_looks_along_visers_z() -> None:
    pose = ViserPose.of(looking_down(0.5))
    # Half a turn about x takes the OpenGL axes to OpenCV's; the viewer's scene is ten times as large.
    np.testing.assert_allclose(np.abs(pose.wxyz), [0.0, 1.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(pose.position, [5.0, 0.0, 30.0])
    np.testing.assert_allclose(pose.c2w(), looking_down(0.5), atol=1e-12)


def test_colours_by_hand() -> None:
    colors = traffic_light(np.array([0.0, 0.5, 1.0, 7.0, np.nan]))
    assert colors.tolist() == [[40, 190, 90], [250, 200, 40], [230, 50, 40], [230, 50, 40], [128, 128, 128]]


def test_matched_rays_meet_in_their_points_whichever_camera_is_first() -> None:
    for pair in ((0, 2), (2, 0)):
        rays = rays_of_matches(matches(), CAMERAS, *pair)
        np.testing.assert_allclose(rays.points, POINTS, atol=1e-4)
        for side, camera in enumerate(pair):
            towards = POINTS - CAMERAS[camera][:, 3]
            np.testing.assert_allclose(np.cross(rays.bearings[:, side], towards), 0.0, atol=1e-6)
    assert len(rays_of_matches(matches(), CAMERAS, 1, 2).points) == 0


def stage() -> StageZero:
    """Point 0 seen by cameras 0 and 2, point 1 by all, point 2 by camera 1 alone."""
    ray_image, ray_point = np.array([0, 2, 2, 1, 0, 1]), np.array([0, 0, 1, 1, 1, 2])
    towards = POINTS[ray_point] - CAMERAS[ray_image][:, :, 3]
    per_camera, per_point = np.zeros(3), np.zeros(3)
    return StageZero(
        names=["a", "b", "c"],
        c2w=CAMERAS,
        state=["adjusted"] * 3,
        component=np.zeros(3, dtype=int),
        rotation_sigma_deg=per_camera,
        translation_sigma=per_camera,
        num_rays=np.array([2, 2, 2]),
        epipolar_before_px=per_camera,
        epipolar_after_px=per_camera,
        points=np.full((3, 3), 9.0),
        point_sigma=per_point,
        track_length=np.array([2, 3, 1]),
        ray_point=ray_point,
        ray_image=ray_image,
        ray_keypoint_px=np.zeros((6, 2)),
        ray_bearing=towards / np.linalg.norm(towards, axis=-1, keepdims=True),
        match_weight=np.zeros(0),
        keypoint_sigma_px=0.3,
        decision=Decision("solution", "", 0, 1.0, 1.0),
    )


def test_rays_of_tracks_meet_where_the_poses_of_now_say() -> None:
    for pair, ids in (((0, 2), [0, 1]), ((2, 0), [0, 1]), ((1, 0), [1])):
        rays = rays_of_tracks(stage(), CAMERAS, *pair)
        np.testing.assert_allclose(rays.points, POINTS[ids], atol=1e-6)
        for side, camera in enumerate(pair):
            towards = POINTS[ids] - CAMERAS[camera][:, 3]
            np.testing.assert_allclose(np.cross(rays.bearings[:, side], towards), 0.0, atol=1e-9)
    assert partners(stage(), None, 0).tolist() == [2, 1]


def test_partners_come_by_their_number_of_matches() -> None:
    assert partners(None, matches(), 0).tolist() == [2, 1]
    assert partners(None, matches(), 1).tolist() == [0]
    assert partners(None, None, 0).tolist() == []


def test_a_long_curve_is_thinned() -> None:
    curve = Curve("Loss")
    for step in range(1000):
        curve.add(step, 1.0 / (1 + step))
    assert len(curve.steps) <= 400 and curve.steps[0] == 0 and np.diff(curve.steps).min() > 0
