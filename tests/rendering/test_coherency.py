"""Matched Rays Coherency: accumulated features, matchability, fused colours."""

import pytest
import torch

from craym_nerfstudio.rendering.key_rays import fuse_matched, matchability
from craym_nerfstudio.rendering.neus import accumulate


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal float64 values that ask for gradients."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def test_ray_feature_is_the_weighted_sum_of_its_samples() -> None:
    weights = torch.tensor([[0.5, 0.25], [0.0, 0.0]])
    features = torch.tensor([[[2.0, 0.0], [0.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert accumulate(weights, features).tolist() == [[1.0, 1.0], [0.0, 0.0]]


def matched(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Matchability of features of two rays."""
    return matchability(torch.stack([first, second], dim=-2))


def test_matchability_of_a_known_angle() -> None:
    """The squared cosine: 0.6 ** 2."""
    w = matchability(torch.tensor([[10.0, 0.0], [30.0, 40.0]]))
    assert float(w) == pytest.approx(0.36, rel=1e-5)


def test_matchability_is_bounded_symmetric_and_ignores_length() -> None:
    a, b = random(200, 4), random(200, 4, seed=1)
    w = matched(a, b)
    assert bool(((w >= 0) & (w <= 1)).all())
    assert torch.equal(w, matched(b, a))
    torch.testing.assert_close(matched(50 * a, 7 * b), w, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(matched(a, a), torch.ones(200, dtype=torch.float64), rtol=1e-4, atol=0)
    assert torch.equal(matched(a, -a), torch.zeros(200, dtype=torch.float64))


def test_empty_rays_match_nothing_and_have_finite_gradients() -> None:
    empty, other = torch.zeros(2, 4, requires_grad=True), torch.ones(2, 4, requires_grad=True)
    w = matched(empty, other)
    w.sum().backward()
    assert w.tolist() == [0.0, 0.0]
    assert empty.grad is not None and torch.isfinite(empty.grad).all()


def test_fusion_exchanges_the_shares() -> None:
    red, blue = torch.tensor([[1.0, 0.0, 0.0]] * 3), torch.tensor([[0.0, 0.0, 1.0]] * 3)
    fused_i, fused_j = fuse_matched(torch.stack([red, blue], dim=1), torch.tensor([0.0, 1.0, 0.25])).unbind(1)
    assert fused_i.tolist() == [[1, 0, 0], [0, 0, 1], [0.75, 0, 0.25]]
    assert fused_j.tolist() == [[0, 0, 1], [1, 0, 0], [0.25, 0, 0.75]]
    torch.testing.assert_close(fused_i + fused_j, red + blue)


def test_gradcheck_of_the_whole_module() -> None:
    weights, features = random(2, 2, 4).detach().softmax(-1).requires_grad_(), random(2, 2, 4, 5, seed=1)
    colors = random(2, 2, 3, seed=2)

    def fused(weights, features, colors):
        ray_features = accumulate(weights, features)
        return fuse_matched(colors, matchability(ray_features))

    assert torch.autograd.gradcheck(fused, (weights, features, colors))
