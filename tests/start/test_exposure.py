"""Exposure from matched colours: gains are found, left alone where there are none, and outvote wrong matches."""

import numpy as np
import pytest
import torch

from craym_nerfstudio.evaluation.exposure import fitted_gain
from craym_nerfstudio.start.exposure import exposure_of

IMAGES = 12


def pairs_of_colors(log_gain: np.ndarray, noise: float, wrong: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images, and what they show of common points under their gains."""
    random = np.random.default_rng(3)
    images = np.stack([random.integers(0, IMAGES - 1, 4000), np.full(4000, IMAGES - 1)], axis=1)
    images[:, 1] = images[:, 0] + 1 + random.integers(0, IMAGES, 4000) % (IMAGES - 1 - images[:, 0])
    color = random.uniform(0.2, 0.6, (4000, 1, 3)).repeat(2, axis=1)
    strange = random.random(4000) < wrong
    color[strange, 1] = random.uniform(0.2, 0.6, (int(strange.sum()), 3))
    return images, color * np.exp(log_gain[images] + random.normal(scale=noise, size=color.shape))


def test_gains_are_found_among_wrong_matches() -> None:
    truth = np.random.default_rng(1).normal(scale=0.15, size=(IMAGES, 3))
    truth -= truth.mean(0)
    found = exposure_of(*pairs_of_colors(truth, noise=0.03, wrong=0.3), IMAGES)
    np.testing.assert_allclose(found.log_gain, truth, atol=0.012)
    assert found.needed
    assert found.spread == pytest.approx(truth.std(0).max(), abs=0.01)


def test_images_taken_alike_are_left_alone() -> None:
    found = exposure_of(*pairs_of_colors(np.zeros((IMAGES, 3)), noise=0.05, wrong=0.3), IMAGES)
    assert not found.needed


def test_an_image_without_matches_keeps_the_mean_exposure() -> None:
    truth = np.zeros((IMAGES, 3))
    truth[:6] = 0.3
    images, colors = pairs_of_colors(truth, noise=0.01, wrong=0.0)
    lonely = (images != 2).all(1)
    found = exposure_of(images[lonely], colors[lonely], IMAGES)
    others = np.delete(found.log_gain, 2, axis=0)
    assert others.min() < found.log_gain[2].min() and found.log_gain[2].max() < others.max()


def test_black_and_blown_out_colours_tell_nothing() -> None:
    found = exposure_of(np.array([[0, 1]]), np.array([[[0.5, 0.5, 0.0], [0.9, 0.5, 0.5]]]), 2)
    assert not found.log_gain.any() and not found.needed


def test_a_gain_is_fitted_inside_the_mask() -> None:
    rendered = torch.rand(6, 5, 3, generator=torch.Generator().manual_seed(0))
    gain, mask = torch.tensor([0.8, 1.0, 1.25]), torch.ones(6, 5, 1, dtype=torch.bool)
    image = rendered * gain
    image[0], mask[0] = 1.0, False
    torch.testing.assert_close(fitted_gain(rendered, image, mask), gain, rtol=1e-4, atol=1e-4)
