"""Keypoints follow the pixels: an image warped by known amounts, and noisy matches of a scene with exact poses."""

import numpy as np
import pytest
import torch

from craym_nerfstudio.geometry.epipolar import essential, sampson_distance
from craym_nerfstudio.matching.alignment import Patch, align_patches, aligned, match_warps
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.views import Views
from tests.matching import corner_scene

_WARP = np.array([[1.1, 0.2], [-0.1, 0.9]])
_CENTRE = np.array([40.0, 40.0])
_SIDE = torch.arange(-5, 6, dtype=torch.float32)
_GRID = torch.cartesian_prod(_SIDE, _SIDE).flip(-1)


def waves(points: np.ndarray) -> np.ndarray:
    """A smooth picture that is defined everywhere, and different everywhere."""
    x, y = points[..., 0], points[..., 1]
    return np.sin(0.55 * x + 0.2 * y) + np.sin(0.6 * y - 0.25 * x + 1.0) + np.sin(0.3 * x * y / 20)


def picture(values: np.ndarray) -> torch.Tensor:
    down, right = np.gradient(values)
    return torch.from_numpy(np.stack([values, right, down])[None]).float()


def normalised(patch: np.ndarray) -> torch.Tensor:
    """As `align_patches` wants it: mean 0 and spread 1 under its weight."""
    weight = np.exp(-0.5 * (_GRID.numpy() ** 2).sum(-1) / 9.0)
    weight /= weight.sum()
    centred = patch - (weight * patch).sum()
    return torch.from_numpy(centred / np.sqrt((weight * centred**2).sum()))[None].float()


def test_a_patch_is_found_again_whatever_warp_brightness_and_contrast() -> None:
    columns, rows = np.meshgrid(np.arange(80) + 0.5, np.arange(80) + 0.5)
    back = (np.stack([columns, rows], axis=-1) - _CENTRE) @ np.linalg.inv(_WARP).T + _CENTRE
    pixels = picture(0.3 * waves(back) + 0.4)
    patch = normalised(waves(_CENTRE + _GRID.numpy()))
    start, guess = torch.tensor([[40.9, 39.3]]), torch.eye(2)[None]
    found, good = align_patches(patch, pixels, start, guess)
    assert bool(good)
    assert np.abs(found.numpy() - _CENTRE).max() < 0.1


@pytest.mark.parametrize("values", [np.full((80, 80), 0.5), np.random.RandomState(0).uniform(size=(80, 80))])
def test_what_looks_different_stays(values: np.ndarray) -> None:
    patch = normalised(waves(_CENTRE + _GRID.numpy()))
    assert not align_patches(patch, picture(values), torch.tensor([[40.9, 39.3]]), torch.eye(2)[None])[1]


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


@pytest.mark.parametrize("patch", [Patch(0.7, 5), Patch(0.3, 4)])
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
