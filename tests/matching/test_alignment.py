"""Keypoints follow the pixels: noisy matches of a scene with exact poses."""

import numpy as np
import pytest
import torch

from craym_nerfstudio.geometry.epipolar import essential, sampson_distance
from craym_nerfstudio.matching.alignment import aligned, match_warps
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.patches import Patch
from craym_nerfstudio.matching.views import Views
from tests.matching import corner_scene

_WARP = np.array([[1.1, 0.2], [-0.1, 0.9]])


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Views:
    return corner_scene.write_views(tmp_path_factory.mktemp("corner"), 3)


def noisy_matches(views: Views, points: np.ndarray, sigma_px: float) -> Matches:
    """Matches of points that every camera sees, in all pairs."""
    random, seen = np.random.RandomState(1), []
    for pose in views.c2w:
        local = (points - pose[:, 3]) @ pose[:, :3]
        plane = local[:, :2] / -local[:, 2:] * [1.0, -1.0] * corner_scene.FOCAL_PX
        seen.append(plane + np.array(corner_scene.SIZE_PX) / 2 + random.normal(0, sigma_px, plane.shape))
    pairs = np.array([[0, 1], [0, 2], [1, 2]], dtype=np.int32)
    keypoints = np.concatenate([np.stack([seen[i], seen[j]], axis=1) for i, j in pairs])
    numbers = np.arange(len(points), dtype=np.int32)
    return Matches(
        names=views.names,
        size_px=views.size_px,
        pairs=pairs,
        rotation=np.tile(np.eye(3), (3, 1, 1)),
        translation=np.tile([1.0, 0.0, 0.0], (3, 1)),
        pair_of_match=np.repeat(np.arange(3, dtype=np.int32), len(points)),
        keypoints=keypoints.astype(np.float32),
        keypoint_ids=np.tile(numbers[:, None], (3, 2)),
        bearings=corner_scene.bearings(0, keypoints.reshape(-1, 2)).reshape(-1, 2, 3).astype(np.float32),
        confidence=np.ones(3 * len(points), np.float32),
        detector="xfeat-lighterglue",
    )


def epipolar_px(matches: Matches, views: Views) -> np.ndarray:
    first, second = (torch.from_numpy(views.c2w[matches.images[:, side]]) for side in (0, 1))
    rays = (torch.from_numpy(matches.bearings[:, side]).double() for side in (0, 1))
    return (sampson_distance(essential(first, second), *rays) * corner_scene.FOCAL_PX).numpy()


@pytest.mark.parametrize("patch", [Patch(0.7, 5), Patch(0.3, 4), Patch(0.3, 4, finer=2)])
def test_noise_of_keypoints_falls_and_bearings_follow(views: Views, patch: Patch) -> None:
    random = np.random.RandomState(0)
    walls = random.uniform(0.4, 1.8, (150, 3))
    walls[np.arange(150), np.arange(150) % 3] = 0.0
    before = noisy_matches(views, walls, sigma_px=0.5)
    after, share = aligned(before, views, patch)
    assert share > 0.8
    assert np.median(epipolar_px(after, views)) < 0.4 * np.median(epipolar_px(before, views))
    again = corner_scene.bearings(0, after.keypoints.reshape(-1, 2)).reshape(-1, 2, 3)
    assert np.abs(after.bearings - again).max() < 1e-5


def test_warps_are_those_of_the_matches_near(views: Views) -> None:
    matches = noisy_matches(views, np.random.RandomState(0).uniform(0.4, 1.8, (40, 3)), 0.0)
    matches.keypoints[:, 1] = (matches.keypoints[:, 0] - 50.0) @ _WARP.T + 60.0
    assert np.abs(match_warps(matches) - _WARP).max() < 0.05
    assert np.abs(match_warps(matches, backward=True) - np.linalg.inv(_WARP)).max() < 0.05
