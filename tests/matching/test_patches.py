"""Patches are found again in an image that was warped, shifted, and changed in brightness by known amounts."""

import numpy as np
import pytest
import torch

from craym_nerfstudio.matching.images import Picture
from craym_nerfstudio.matching.patches import Brightness, Patch, align_patches, brightness, cut_out

_WARP = np.array([[1.1, 0.2], [-0.1, 0.9]])
_CENTRE = np.array([40.0, 40.0])
_SIDE = torch.arange(-5, 6, dtype=torch.float32)
_GRID = torch.cartesian_prod(_SIDE, _SIDE).flip(-1)


def waves(points: np.ndarray) -> np.ndarray:
    """A smooth picture that is defined everywhere, and different everywhere."""
    x, y = points[..., 0], points[..., 1]
    return np.sin(0.55 * x + 0.2 * y) + np.sin(0.6 * y - 0.25 * x + 1.0) + np.sin(0.3 * x * y / 20)


def picture(values: np.ndarray) -> Brightness:
    down, right = np.gradient(values)
    return Brightness(torch.from_numpy(np.stack([values, right, down])[None]).float())


def normalised(patch: np.ndarray) -> torch.Tensor:
    """As `align_patches` wants it: mean 0 and spread 1 under its weight."""
    weight = np.exp(-0.5 * (_GRID.numpy() ** 2).sum(-1) / 9.0)
    weight /= weight.sum()
    centred = patch - (weight * patch).sum()
    return torch.from_numpy(centred / np.sqrt((weight * centred**2).sum()))[None].float()


def pixel_centres(size: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), axis=-1)


@pytest.mark.parametrize("warp_is_known", [False, True])
def test_a_patch_is_found_again_whatever_warp_brightness_and_contrast(warp_is_known: bool) -> None:
    back = (pixel_centres(80) - _CENTRE) @ np.linalg.inv(_WARP).T + _CENTRE
    pixels = picture(0.3 * waves(back) + 0.4)
    patch = normalised(waves(_CENTRE + _GRID.numpy()))
    start = torch.tensor([[40.9, 39.3]])
    guess = torch.from_numpy(_WARP).float()[None] if warp_is_known else torch.eye(2)[None]
    found = align_patches(patch, pixels, start, guess, warp_is_known)
    assert np.abs(found.at_px.numpy() - _CENTRE).max() < 0.1
    assert np.abs(found.warp[0].numpy() - _WARP).max() < 0.1
    assert found.agreement > 0.98 > found.agreement_before


@pytest.mark.parametrize("values", [np.full((80, 80), 0.5), np.random.RandomState(0).uniform(size=(80, 80))])
def test_what_looks_different_does_not_agree(values: np.ndarray) -> None:
    patch = normalised(waves(_CENTRE + _GRID.numpy()))
    assert align_patches(patch, picture(values), torch.tensor([[40.9, 39.3]]), torch.eye(2)[None]).agreement < 0.8


def error_px(finer: int) -> float:
    """How far off patches of a sharp picture are found that was drawn anew, shifted by parts of a pixel."""
    patch, worst = Patch(0.3, 4, finer), []
    centres = torch.tensor([[20.5 + 8 * (k % 6), 20.5 + 8 * (k // 6)] for k in range(36)])

    def drawn(shift: np.ndarray) -> Brightness:
        points = pixel_centres(80) - shift
        values = np.sin(1.6 * points[..., 0] + 0.4) * np.sin(1.3 * points[..., 1]) + 0.3 * waves(points)
        grey = ((values + 2.0) / 4.0 * 255).round().astype(np.uint8)
        return brightness(Picture(np.repeat(grey[..., None], 3, axis=-1), None), 1.0, patch)

    patches = cut_out(drawn(np.zeros(2)), centres, patch)
    for shift in np.random.RandomState(0).uniform(-0.5, 0.5, (5, 2)):
        found = align_patches(patches, drawn(shift), centres, torch.eye(2).expand(36, 2, 2), warp_is_known=True)
        worst.append((found.at_px - centres).numpy() - shift)
    return float(np.linalg.norm(np.concatenate(worst), axis=1).mean())


def test_a_magnified_image_tells_parts_of_a_pixel_better() -> None:
    assert error_px(2) < 0.6 * error_px(1)


def test_an_image_is_shrunk_as_asked_and_derivatives_are_per_pixel() -> None:
    ramp = np.repeat(np.repeat(np.linspace(0, 255, 100)[None, :, None], 60, axis=0), 3, axis=-1).astype(np.uint8)
    for finer in (1, 2):
        image = brightness(Picture(ramp, None), 0.5, Patch(0.3, 3, finer))
        assert image.values.shape[-2:] == (30 * finer, 50 * finer)
        value, right, down = image.at(torch.tensor([[[25.0, 15.0]]]))[:, 0, 0].tolist()
        assert value == pytest.approx(0.5, abs=0.01)
        assert right == pytest.approx(2 / 99, rel=0.05) and down == pytest.approx(0.0, abs=1e-6)
