"""The z-buffer: filled pixels, order in depth, interpolation, framing."""

import numpy as np

from craym_nerfstudio.export.preview import spread_views
from craym_nerfstudio.export.rasterise import interpolate, rasterise
from craym_nerfstudio.geometry.pinhole import Pinhole


def front_camera(size_px: tuple[int, int] = (8, 6)) -> Pinhole:
    """At the origin, looking along -z; a unit at distance 1 is 4 px."""
    return Pinhole(np.eye(3, 4), np.array([4.0, 4.0]), np.array([4.0, 3.0]), size_px)


def square(depth: float, half: float) -> np.ndarray:
    corners = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    return np.concatenate([corners, np.full((4, 1), -depth)], axis=1)


FACES = np.array([[0, 1, 2], [0, 2, 3]])


def test_pixels_are_filled_by_their_centres() -> None:
    raster = rasterise(square(2.0, 1.0), FACES, front_camera())
    # The square spans 2..6 px in x and 1..5 px in y.
    expected = np.zeros((6, 8), dtype=bool)
    expected[1:5, 2:6] = True
    np.testing.assert_array_equal(raster.face >= 0, expected)
    np.testing.assert_allclose(raster.nearness[expected], 0.5)


def test_the_nearer_face_wins_in_any_order() -> None:
    vertices = np.concatenate([square(2.0, 2.0), square(1.0, 0.25)])
    near, far = FACES + 4, FACES
    for faces, is_near in ((np.concatenate([near, far]), (0, 1)), (np.concatenate([far, near]), (2, 3))):
        raster = rasterise(vertices, faces, front_camera())
        assert set(raster.face[2:4, 3:5].flatten()) <= set(is_near)
        assert raster.nearness[2, 3] == 1.0 and raster.nearness[0, 0] == 0.5


def test_faces_behind_the_camera_are_left_out() -> None:
    vertices = square(1.0, 1.0)
    vertices[0, 2] = 1.0
    raster = rasterise(vertices, FACES, front_camera())
    assert (raster.face == -1).all()


def test_interpolation_reproduces_a_linear_function() -> None:
    vertices = square(2.0, 1.0)
    raster = rasterise(vertices, FACES, front_camera())
    values = interpolate(vertices[:, :2], FACES, raster)
    row, column = np.nonzero(raster.face >= 0)
    expected = np.stack([(column + 0.5 - 4.0) / 2.0, -(row + 0.5 - 3.0) / 2.0], axis=-1)
    np.testing.assert_allclose(values, expected, atol=1e-12)


def test_spread_views_are_far_apart() -> None:
    angles = np.deg2rad([0, 1, 2, 90, 91, 180, 181, 270])
    poses = [np.concatenate([np.eye(3), [[np.cos(a)], [np.sin(a)], [0]]], axis=1) for a in angles]
    views = [Pinhole(pose, np.ones(2), np.zeros(2), (2, 2)) for pose in poses]
    centers = np.stack([view.c2w[:, 3] for view in spread_views(views, 4)])
    distance = np.linalg.norm(centers[:, None] - centers, axis=-1) + 9 * np.eye(4)
    assert distance.min() > 1.3
    assert len(spread_views(views[:2], 4)) == 2
