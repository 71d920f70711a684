"""Key rays: draws that follow the matches' confidence, layout of auxiliary rays, jitter in pixels."""

import numpy as np
import pytest
import torch

from craym_nerfstudio.data.key_rays import KeyRaySource
from craym_nerfstudio.matching.matches import Matches

CONFIDENCE = (0.1, 0.2, 0.7)


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def three_matches(width_px: int = 400) -> KeyRaySource:
    """Two matches between images 0 and 2, one between 1 and 2."""
    bearings = np.random.default_rng(0).normal(size=(3, 2, 3))
    matches = Matches(
        names=["a.png", "b.png", "c.png"],
        size_px=np.full((3, 2), width_px),
        pairs=np.array([[0, 2], [1, 2]], dtype=np.int32),
        rotation=np.stack([np.eye(3)] * 2),
        translation=np.array([[1.0, 0.0, 0.0]] * 2),
        pair_of_match=np.array([0, 0, 1], dtype=np.int32),
        keypoints=np.arange(12, dtype=np.float32).reshape(3, 2, 2) * 10 + 100.25,
        keypoint_ids=np.zeros((3, 2), dtype=np.int32),
        bearings=(bearings / np.linalg.norm(bearings, axis=-1, keepdims=True)).astype(np.float32),
        confidence=np.array(CONFIDENCE, dtype=np.float32),
        detector="none",
    )
    return KeyRaySource(matches, np.array([500.0, 600.0, 700.0]), np.full((3, 2), width_px))


def test_draws_follow_confidence() -> None:
    pairs = three_matches().pairs(20000, generator())
    for confidence in CONFIDENCE:
        share = (pairs.confidence == confidence).float().mean().item()
        assert share == pytest.approx(confidence, abs=0.02)


def test_what_belongs_to_a_match_stays_together() -> None:
    """Cameras, bearings, focal length (mean of both images) and keypoints of a drawn match."""
    source = three_matches()
    pairs = source.pairs(50, generator())
    number = torch.tensor([CONFIDENCE.index(round(value, 1)) for value in pairs.confidence.tolist()])
    assert torch.equal(pairs.cameras, torch.tensor([[0, 2], [0, 2], [1, 2]])[number])
    assert torch.equal(pairs.focal_px, torch.tensor([600.0, 600.0, 650.0])[number])
    assert torch.equal(pairs.bearings.flatten(1), source._numbers[number, :6])


def test_a_key_leads_its_auxiliary_rays() -> None:
    image, xy, pairs = three_matches().key_pixels(40, 5, generator())
    image, xy = image.view(40, 2, 6), xy.view(40, 2, 6, 2)
    assert torch.equal(image, pairs.cameras[..., None].expand(-1, -1, 6))
    heads = xy[:, :, 0]
    assert torch.equal(heads % 1, torch.full_like(heads, 0.25))
    around = xy[:, :, 1:]
    assert torch.equal(around % 1, torch.full_like(around, 0.5))
    assert (around - heads[:, :, None]).abs().max() < 15


@pytest.mark.parametrize(("width_px", "sigma_px"), [(100, 1.0), (400, 2.0), (600, 3.0), (4000, 4.0)])
def test_auxiliary_rays_scatter_with_the_resolution(width_px: int, sigma_px: float) -> None:
    source = three_matches(width_px)
    assert source.jitter_px == sigma_px
    xy = source.key_pixels(2000, 4, generator())[1].view(2000, 2, 5, 2)
    offset = xy[:, :, 1:] - xy[:, :, :1]
    # Rounding to pixel centres adds the variance of a uniform pixel.
    assert offset.std().item() == pytest.approx((sigma_px**2 + 1 / 12) ** 0.5, rel=0.05)
    assert offset.mean().abs() < 0.1


def test_no_auxiliary_rays_leave_the_keys_alone() -> None:
    _, xy, _ = three_matches().key_pixels(7, 0, generator())
    assert xy.shape == (14, 2)


def test_draws_follow_from_the_generator_alone() -> None:
    source = three_matches()
    first, again, other = (source.key_pixels(9, 3, generator(seed))[1] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
