"""The first surface of an analytic sphere: exact distances, normals and colours, and who is rendered as a volume."""

import pytest
import torch
from torch import Tensor, nn

from craym_nerfstudio.rendering import sphere_tracing
from craym_nerfstudio.rendering.sphere_tracing import SphereTracer
from tests.rendering.test_renderer import RADIUS, STATE, hits, rays_at, sphere_renderer

INSIDE = [(0.0, 0.0, 0.0), (0.2, 0.0, 0.0), (-0.1, 0.3, 0.0)]
OUTSIDE = [(0.7, 0.0, 0.0), (0.0, -2.0, 0.0)]


def tracer(variance: float = 0.55) -> SphereTracer:
    """Of the sphere, whose density is 1 / exp(10 variance) wide."""
    result = SphereTracer(sphere_renderer(variance))
    result.update(STATE)
    return result


@pytest.fixture(params=["kernel", "side by side"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to march."""
    if request.param != "kernel":
        monkeypatch.setattr(sphere_tracing, "importable", lambda module: False)
    return request.param


def test_hits_are_exact_and_misses_infinite(way: str) -> None:
    found = tracer().trace(*rays_at(*INSIDE, *OUTSIDE))
    depth, normal = hits(*rays_at(*INSIDE))
    assert found.hit.tolist() == [True] * 3 + [False] * 2
    torch.testing.assert_close(found.distance[:3], depth, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.normal[:3], normal, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.rgb[:3], 0.5 * normal + 0.5, rtol=0, atol=1e-3)
    assert found.distance[3:].isinf().all() and (found.normal[3:] == 0).all()


def test_shapes_follow_the_rays() -> None:
    origins, directions = (rays.view(1, 5, 3) for rays in rays_at(*INSIDE, *OUTSIDE))
    found = tracer().trace(origins, directions)
    assert found.distance.shape == (1, 5) and found.rgb.shape == (1, 5, 3)
    assert found.distance.requires_grad is False


@pytest.mark.parametrize("offset", [-0.03, 0.03], ids=["cache thinks it farther", "cache thinks it nearer"])
def test_the_field_corrects_the_cache(way: str, offset: float) -> None:
    stale = tracer()
    stale.keep(stale.grid.values - offset)
    found = stale.trace(*rays_at(*INSIDE))
    torch.testing.assert_close(found.distance, hits(*rays_at(*INSIDE))[0], rtol=0, atol=5e-5)


def test_a_floater_is_left_out_with_what_it_hides(way: str) -> None:
    """A speck before the sphere, planted into the cache: rays stop at it, unless only the sphere is to be shown."""
    littered, (origins, directions) = tracer(), rays_at(INSIDE[0], OUTSIDE[0])
    specks = origins + torch.tensor([[2.2], [2.6]]) * directions
    away = torch.cdist(littered.grid.points, specks).min(-1).values - 3.0 * littered.grid.cell
    littered.keep(torch.minimum(littered.grid.values, away.view_as(littered.grid.values)))
    assert littered.march(origins, directions).entry.isfinite().all()
    poles = RADIUS * torch.eye(3).numpy()
    clean = littered.showing(poles).march(origins, directions).entry
    torch.testing.assert_close(clean[:1], hits(origins[:1], directions[:1])[0], rtol=0, atol=2e-2)
    assert clean[1].isinf()


def test_a_camera_inside_sees_no_surface_that_it_leaves(way: str) -> None:
    found = tracer().trace(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]))
    assert not found.hit.any()


def test_grazing_rays_are_told(way: str) -> None:
    # The density's margin is 4 / exp(5.5) = 0.016: what passes by closer, or cuts off less, is not told by one point.
    origin = torch.tensor([[0.0, 0.0, -3.0]])
    heights = torch.tensor([0.40, RADIUS - 0.004, RADIUS + 0.006, RADIUS + 0.06])
    origins = origin + heights[:, None] * torch.tensor([1.0, 0.0, 0.0])
    march = tracer().march(origins, torch.tensor([[0.0, 0.0, 1.0]]).expand(4, 3))
    assert march.entry.isfinite().tolist() == [True, True, False, False]
    assert march.opaque.tolist()[:2] == [True, False]
    assert march.clear.tolist()[2:] == [False, True]


def sweep() -> tuple[Tensor, Tensor]:
    """Rays side by side across the sphere's rim."""
    x = torch.linspace(-0.6, 0.6, 241)
    origins = torch.stack([x, torch.zeros_like(x), torch.full_like(x, -3.0)], dim=-1)
    return origins, torch.tensor([[0.0, 0.0, 1.0]]).expand_as(origins)


def test_rendering_equals_the_volume(way: str) -> None:
    """One of very many sections; the few of the rays that graze the rim are placed well."""
    traced, volume, white = tracer(0.7), sphere_renderer(0.7), torch.ones(241, 3)
    volume.fine_samples = 512
    rendered, exact = traced.render(*sweep(), white), volume(*sweep(), white, STATE)
    assert (rendered.rgb - exact.rgb).abs().max() < 0.01
    assert (rendered.accumulation - exact.accumulation).abs().max() < 0.01
    shown = exact.accumulation > 0.5
    assert (rendered.depth - exact.depth)[shown].abs().max() < 0.01


def test_blocks_change_no_ray() -> None:
    """Rays all round through a sphere with a speck beside it walk the same with and without them."""
    torch.manual_seed(0)
    walked, origins = tracer(), nn.functional.normalize(torch.randn(2000, 3), dim=-1) * 2.0
    directions = nn.functional.normalize(0.4 * torch.randn(2000, 3) - origins, dim=-1)
    speck = (walked.grid.points - torch.tensor([0.7, 0.1, 0.0])).norm(dim=-1) - 0.05
    walked.keep(torch.minimum(walked.grid.values, speck.view_as(walked.grid.values)))
    quick = walked.march(origins, directions)
    walked._blocks.fill_(-1.0)
    slow = walked.march(origins, directions)
    assert 300 < quick.entry.isfinite().sum() < 1700
    both = quick.clear & slow.clear
    assert both.float().mean() > 0.9 and (quick.clear ^ slow.clear).float().mean() < 0.01
    torch.testing.assert_close(quick.entry[both], slow.entry[both], rtol=0, atol=1e-3)


class Sky(nn.Module):
    """A background field of one colour."""

    def forward(self, origins: Tensor, directions: Tensor, start: Tensor, jitter: Tensor | None) -> Tensor:
        """Blue."""
        return torch.tensor([1.0, 0.0, 0.0, 1.0]).expand(len(origins), 1, 4)


def test_a_background_field_is_seen_where_rays_miss() -> None:
    traced = tracer()
    traced.scene.background = Sky()  # type: ignore[assignment]
    rendered = traced.render(*rays_at(*INSIDE, *OUTSIDE), torch.ones(5, 3))
    torch.testing.assert_close(rendered.rgb[3:], torch.tensor([[0.0, 0.0, 1.0]]).expand(2, 3))
    torch.testing.assert_close(rendered.rgb[:3], 0.5 * hits(*rays_at(*INSIDE))[1] + 0.5, rtol=0, atol=1e-3)


def test_a_blurred_surface_is_rendered_as_a_volume() -> None:
    blurred, white = tracer(0.3), torch.ones(241, 3)
    rendered, exact = blurred.render(*sweep(), white), blurred.scene(*sweep(), white, STATE)
    torch.testing.assert_close(rendered.rgb, exact.rgb)
