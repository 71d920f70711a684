"""Key Rays Enrichment: hand values, its analytic vector-Jacobian product against autograd, gradients in float64."""

import pytest
import torch

from craym_nerfstudio.rendering.key_rays import enrich


def features(*batch: int, aux: int = 3, feat: int = 5, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Random key features, auxiliary features and an incoming gradient."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(*batch, feat), (*batch, aux, feat), (*batch, feat)]
    key, auxiliary, gradient = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return key.requires_grad_(), auxiliary.requires_grad_(), gradient


def test_hand_value() -> None:
    """Scores are ln 3 (key) and 0 (auxiliary) after scaling by 1/2: attention 3/4 and 1/4."""
    length = (2 * torch.log(torch.tensor(3.0))).sqrt()
    key, other = torch.zeros(4), torch.zeros(1, 4)
    key[0], other[0, 1] = length, 8.0
    enriched = enrich(key, other)
    torch.testing.assert_close(enriched.attention, torch.tensor([0.75, 0.25]))
    torch.testing.assert_close(enriched.features, torch.tensor([0.75 * length, 2.0, 0.0, 0.0]))


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_pull_back_is_the_vector_jacobian_product(batch: tuple[int, ...]) -> None:
    key, auxiliary, gradient = features(*batch)
    _, product = torch.func.vjp(lambda f: enrich(f, auxiliary).features, key)
    torch.testing.assert_close(enrich(key, auxiliary).pull_back(gradient), product(gradient)[0], rtol=0, atol=1e-13)


def test_pull_back_differentiates_like_autograd() -> None:
    """Second derivatives, as the eikonal loss needs them, agree with double backward."""
    key, auxiliary, gradient = features(4)
    gradient.requires_grad_()
    inputs = (key, auxiliary, gradient)
    analytic = enrich(key, auxiliary).pull_back(gradient)
    (automatic,) = torch.autograd.grad(enrich(key, auxiliary).features, key, gradient, create_graph=True)
    probe = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad((analytic * probe).sum(), inputs),
        torch.autograd.grad((automatic * probe).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_gradcheck() -> None:
    key, auxiliary, gradient = features(2)
    assert torch.autograd.gradcheck(lambda f, q: enrich(f, q).features, (key, auxiliary))
    assert torch.autograd.gradcheck(lambda f, q: enrich(f, q).pull_back(gradient), (key, auxiliary))


def test_order_of_auxiliary_points_does_not_matter() -> None:
    key, auxiliary, gradient = features(4)
    enriched, flipped = enrich(key, auxiliary), enrich(key, auxiliary.flip(-2))
    torch.testing.assert_close(enriched.features, flipped.features)
    torch.testing.assert_close(enriched.pull_back(gradient), flipped.pull_back(gradient))


def test_a_key_without_auxiliary_points_stays_as_it_is() -> None:
    key, auxiliary, gradient = features(4, aux=0)
    enriched = enrich(key, auxiliary)
    assert torch.equal(enriched.features, key)
    torch.testing.assert_close(enriched.pull_back(gradient), gradient)


def test_zero_features_give_finite_gradients() -> None:
    key = torch.zeros(3, 4, requires_grad=True)
    enriched = enrich(key, torch.zeros(3, 8, 4))
    assert torch.allclose(enriched.attention, torch.tensor(1 / 9))
    (enriched.features.sum() + enriched.pull_back(torch.ones(3, 4)).sum()).backward()
    assert key.grad is not None and torch.isfinite(key.grad).all()
