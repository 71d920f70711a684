"""SDF field, colour and background: exact gradients, orthonormal harmonics, contraction."""

import numpy as np
import pytest
import torch

from craym_nerfstudio.fields.background import BackgroundField, contract
from craym_nerfstudio.fields.color_field import ColorField, spherical_harmonics
from craym_nerfstudio.fields.sdf_field import SDFField, SDFFieldConfig
from craym_nerfstudio.kernels import chunks


def small_field() -> SDFField:
    """A field with features large enough to matter, in float64."""
    torch.manual_seed(0)
    config = SDFFieldConfig(
        encoding="torch",
        num_levels=4,
        log2_table_size=9,
        base_resolution=4,
        hidden_width=16,
        feature_size=5,
    )
    field = SDFField(config, image_px=11)
    torch.nn.init.normal_(field.encoding.table, std=0.3)
    torch.nn.init.normal_(field.geometry.hidden[0].weight, std=0.3)
    return field.double()


def ball_points(count: int) -> torch.Tensor:
    """Points inside the unit sphere."""
    points = torch.randn((count, 3), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return (points / points.norm(dim=-1, keepdim=True) * torch.linspace(0.1, 0.95, count)[:, None]).requires_grad_()


def test_sdf_gradient_equals_autograd() -> None:
    field, points = small_field(), ball_points(30)
    weights = torch.tensor([1.0, 1.0, 0.5, 0.0])
    surface = field.surface(points, *field.encode(points, weights))
    sdf = field.sdf(points, weights)
    torch.testing.assert_close(surface.sdf, sdf, rtol=0, atol=1e-12)
    torch.testing.assert_close(surface.gradient, torch.autograd.grad(sdf.sum(), points)[0], rtol=0, atol=1e-7)
    assert surface.feature.shape == (30, 5 + 4 * 2)  # f'', and two features of each level


def test_masked_levels_have_no_influence() -> None:
    field, points = small_field(), ball_points(10)
    coarse = torch.tensor([1.0, 0.0, 0.0, 0.0])
    before = field.sdf(points, coarse)
    start = field.encoding.spec.n_entries // 2
    with torch.no_grad():
        field.encoding.table[start:] += 1.0
    torch.testing.assert_close(field.sdf(points, coarse), before, rtol=0, atol=0)


def sphere_quadrature() -> tuple[torch.Tensor, torch.Tensor]:
    """Directions and weights that integrate polynomials up to degree 11 over the sphere exactly."""
    height, weight = np.polynomial.legendre.leggauss(6)
    angle = np.arange(12) * (2 * np.pi / 12)
    ring = np.sqrt(1 - height**2)[:, None]
    z = np.broadcast_to(height[:, None], (6, 12))
    directions = np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=-1).reshape(-1, 3)
    return torch.from_numpy(directions), torch.from_numpy(np.repeat(weight * 2 * np.pi / 12, 12))


def test_spherical_harmonics_are_orthonormal() -> None:
    directions, weights = sphere_quadrature()
    values = spherical_harmonics(directions)
    gram = values.T @ (weights[:, None] * values)
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_chunked_texture_net_equals_its_layers(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Colours, and gradients by inputs and parameters, in chunks that do not divide the number of points."""
    monkeypatch.setattr(chunks, "CHUNK", 9)
    torch.manual_seed(0)
    field, before = ColorField(5, 8, 2).double(), torch.get_num_threads()
    parts = [torch.randn((50, size), dtype=torch.float64, requires_grad=True) for size in (5, 16, 3)]
    upstream, wanted = torch.randn((50, 3), dtype=torch.float64), [*parts, *field.parameters()]
    plain = field.net(torch.cat(parts, dim=-1))
    theirs = torch.autograd.grad(plain, wanted, upstream)
    torch.set_num_threads(threads)
    try:
        colors = field(*parts)
        ours = torch.autograd.grad(colors, wanted, upstream)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(colors, plain)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_contraction() -> None:
    """The unit ball stays, the rest lands between radius 1 and 2 in the same direction, continuously."""
    inside, outside = torch.tensor([[0.3, -0.4, 0.5]]), torch.tensor([[3.0, 0.0, 4.0], [300.0, 0.0, 400.0]])
    torch.testing.assert_close(contract(inside), inside)
    torch.testing.assert_close(contract(outside[:1]), torch.tensor([[0.6, 0.0, 0.8]]) * (2 - 1 / 5))
    assert 1.99 < contract(outside[1:]).norm() < 2.0
    edge = torch.tensor([[0.0, 0.0, 1.0 - 1e-4], [0.0, 0.0, 1.0 + 1e-4]])
    assert (contract(edge).diff(dim=0)).norm() < 1e-3


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_background_of_no_rays(backend: str) -> None:
    """None is asked for where a surface stops the light of every ray."""
    none = torch.empty(0, 3)
    assert BackgroundField(backend, log2_table_size=9)(none, none, torch.empty(0), None).shape == (0, 16, 4)


def test_background_has_colours_and_an_opaque_end_with_finite_gradients() -> None:
    """From the edge of the unit sphere, from within, and along rays that miss it."""
    torch.manual_seed(0)
    field = BackgroundField("torch", log2_table_size=9, samples=8)
    origins = torch.tensor([[0.0, 0.0, -3.0], [0.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    directions = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], requires_grad=True)
    field(origins, directions, torch.tensor([4.0, 1.0, 0.05]), None).sum().backward()
    assert directions.grad is not None
    assert directions.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in field.parameters() if parameter.grad is not None)
    with torch.no_grad():
        field.colors[-2].weight.zero_()
        field.colors[-2].bias.copy_(torch.tensor([0.0, 1.0, -9.0]))
    alpha, colors = field(origins, directions, torch.tensor([4.0, 1.0, 0.05]), None).split([1, 3], dim=-1)
    torch.testing.assert_close(colors, torch.tensor([0.5, 0.8, 0.0]).expand(3, 8, 3))
    assert (alpha[:, -1] == 1).all()
    assert ((alpha > 0) & (alpha <= 1)).all()
