"""NeuS rendering equations: hand values, telescoping products, gradients in float64."""

import math

import pytest
import torch

from craym_nerfstudio.rendering.neus import (
    accumulate,
    composite,
    first_crossing,
    iter_cos,
    neus_alpha,
    unit_vectors,
)


def render_weights(alpha: torch.Tensor) -> torch.Tensor:
    """Weights of samples that carry their opacity alone."""
    return composite(alpha[..., None])[2]


def scalar(value: float) -> torch.Tensor:
    """A float64 scalar."""
    return torch.tensor(value, dtype=torch.float64)


def test_alpha_hand_value() -> None:
    """A ray that crosses the surface in the middle of a section of length 0.2 at sharpness 10: Phi(1) and Phi(-1)."""
    enter, leave = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))
    alpha = neus_alpha(scalar(0.0), scalar(-1.0), scalar(0.2), scalar(10.0))
    assert alpha.item() == pytest.approx((enter - leave) / enter, abs=1e-5)


@pytest.mark.parametrize(("sdf", "slope", "expected"), [(50.0, -1.0, 0.0), (0.3, 0.0, 0.0), (-50.0, -1.0, 1.0)])
def test_alpha_limits(sdf: float, slope: float, expected: float) -> None:
    """Empty far outside and where the ray runs along the surface; opaque, and finite, far inside."""
    alpha = neus_alpha(scalar(sdf), scalar(slope), scalar(0.1), scalar(200.0))
    assert alpha.item() == pytest.approx(expected, abs=2e-5)


def test_alpha_gradients() -> None:
    generator = torch.Generator().manual_seed(1)
    sdf, step = torch.rand((2, 8), generator=generator, dtype=torch.float64) * 0.2 + 0.02
    slope = -0.2 - 0.8 * torch.rand(8, generator=generator, dtype=torch.float64)
    inputs = [value.requires_grad_() for value in (sdf - 0.1, slope, step, scalar(12.0))]
    assert torch.autograd.gradcheck(neus_alpha, inputs)
    assert torch.autograd.gradgradcheck(neus_alpha, inputs)


def test_transmittance_of_a_plane_telescopes() -> None:
    """Sections of a plane's SDF share their edges, so what passes all of them is Phi(last edge) / Phi(first edge)."""
    edges = torch.linspace(1.0, -0.1, 41, dtype=torch.float64)
    step = edges[:-1] - edges[1:]
    inv_s = scalar(20.0)
    alpha = neus_alpha(0.5 * (edges[1:] + edges[:-1]), -torch.ones(40, dtype=torch.float64), step, inv_s)
    expected = torch.sigmoid(edges[-1] * inv_s) / torch.sigmoid(edges[0] * inv_s)
    torch.testing.assert_close((1 - alpha).prod(), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(1 - render_weights(alpha).sum(), (1 - alpha).prod(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("cosine", "anneal", "expected"),
    [(-0.5, 1.0, -0.5), (0.5, 1.0, 0.0), (-1.0, 0.0, -1.0), (0.0, 0.0, -0.5), (1.0, 0.0, 0.0), (0.0, 0.5, -0.25)],
)
def test_iter_cos_hand_values(cosine: float, anneal: float, expected: float) -> None:
    assert iter_cos(scalar(cosine), anneal).item() == pytest.approx(expected)


def test_iter_cos_never_lets_light_out() -> None:
    cosine = torch.linspace(-1, 1, 101)
    for anneal in (0.0, 0.3, 1.0):
        assert (iter_cos(cosine, anneal) <= 0).all()


def test_weights_hand_values() -> None:
    weights = render_weights(torch.tensor([[0.5, 0.5, 1.0, 0.7], [0.0, 0.2, 0.0, 0.0]]))
    expected = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.0, 0.2, 0.0, 0.0]])
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-6)


def test_weight_gradients_are_finite_behind_an_opaque_section() -> None:
    alpha = torch.tensor([0.3, 1.0, 0.5], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(render_weights(alpha).square().sum(), alpha)
    assert gradient.isfinite().all()
    inner = torch.rand(2, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(render_weights, [inner])


def test_accumulate_hand_values() -> None:
    weights = torch.tensor([[0.25, 0.25, 0.0], [0.0, 0.0, 0.0]])
    distances = torch.tensor([[1.0, 3.0, 9.0], [1.0, 2.0, 3.0]])
    values = torch.stack([distances, torch.ones_like(distances)], dim=-1)
    torch.testing.assert_close(accumulate(weights, values), torch.tensor([[1.0, 0.5], [0.0, 0.0]]))


def test_sums_are_of_what_samples_carry() -> None:
    generator = torch.Generator().manual_seed(3)
    carried = (0.05 + 0.9 * torch.rand(3, 6, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    sums, total, weights = composite(carried)
    torch.testing.assert_close(sums, accumulate(weights, carried))
    torch.testing.assert_close(total, weights.sum(-1))
    assert torch.autograd.gradcheck(lambda values: composite(values)[:2], [carried])


def test_unit_vectors_and_their_gradients() -> None:
    vectors = torch.randn(5, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64).requires_grad_()
    torch.testing.assert_close(unit_vectors(vectors), torch.nn.functional.normalize(vectors, dim=-1))
    assert torch.autograd.gradcheck(unit_vectors, [vectors])
    assert unit_vectors(torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]


def crossing_of(
    sdf: list[float], active: list[bool] | None = None, normals: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Distances [1], normals [1, 3] and the SDF [1, n], of one ray sampled at 1, 2, 3, ..."""
    values = torch.tensor([sdf], dtype=torch.float64).requires_grad_()
    count = len(sdf)
    places = torch.arange(1.0, count + 1.0, dtype=torch.float64)[None]
    known = torch.tensor([active or [True] * count])
    normals = torch.zeros(1, count, 3, dtype=torch.float64) if normals is None else normals
    found = first_crossing(torch.cat([normals, values[..., None]], dim=-1), places, known)
    return found.distance, found.normal, values


def test_the_first_crossing_lies_on_the_line_between_its_samples() -> None:
    distance, _, sdf = crossing_of([0.5, 0.3, -0.1, 0.2, -0.4])
    assert float(distance) == pytest.approx(2.75)
    distance.backward()
    assert sdf.grad is not None
    # d/ds of 2 + s0 / (s0 - s1): -s1 / (s0 - s1)^2 and s0 / (s0 - s1)^2.
    assert sdf.grad[0].tolist() == pytest.approx([0.0, 0.1 / 0.16, 0.3 / 0.16, 0.0, 0.0])


@pytest.mark.parametrize(
    ("sdf", "active", "expected"),
    [
        ([0.5, 0.2, 0.1], None, 0.0),
        ([-0.5, -0.2, 0.1], None, 0.0),
        ([0.1, -0.1, 0.3, -0.3], [True, False, True, True], 3.5),
        ([0.1, 0.0, -0.1], None, 0.0),  # 0: left out for want of room
    ],
)
def test_no_surface_and_sections_that_were_not_evaluated(sdf: list, active: list | None, expected: float) -> None:
    distance, _, values = crossing_of(sdf, active)
    assert float(distance) == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(distance.sum(), values)
    assert gradient.isfinite().all()


def test_the_normal_at_a_crossing_is_that_between_its_samples() -> None:
    normals = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]], dtype=torch.float64)
    _, normal, _ = crossing_of([0.5, 0.2, -0.2], normals=normals)
    expected = torch.tensor([[0.0, math.sqrt(0.5), math.sqrt(0.5)]], dtype=torch.float64)
    torch.testing.assert_close(normal, expected)
