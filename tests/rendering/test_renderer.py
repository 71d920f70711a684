"""The renderer on an analytic sphere: depth, normal, colour, order of key groups; gradients of enriched points."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from craym_nerfstudio.fields.color_field import ColorField
from craym_nerfstudio.fields.sdf_field import SDFField, SDFFieldConfig, SurfacePoint, shape_and_color
from craym_nerfstudio.layout import RayLayout
from craym_nerfstudio.rendering.config import RenderingConfig
from craym_nerfstudio.rendering.key_rays import enrich
from craym_nerfstudio.rendering.renderer import Rendered, RenderState, SceneRenderer

RADIUS, AUX = 0.5, 3
LAYOUT = RayLayout(plain=2, groups=2, aux=AUX)
STATE = RenderState(torch.ones(4))


class SphereField(nn.Module):
    """A sphere's signed distance in place of a learned field; its feature is the point itself."""

    def encode(self, points: Tensor, level_weights: Tensor):
        """Two features that say nothing, and their empty pullback."""
        return points[:, :2] * 0, lambda gradient: torch.zeros_like(points)

    def surface(self, points: Tensor, features: Tensor, pullback) -> SurfacePoint:
        """Exact distance and normal."""
        norm = points.norm(dim=-1)
        return SurfacePoint(norm - RADIUS, points / norm[:, None], points)

    def outputs(self, points: Tensor, level_weights: Tensor) -> Tensor:
        """Exact distance, and the feature."""
        return torch.cat([self.sdf(points, level_weights)[:, None], points], dim=-1)

    def sdf(self, points: Tensor, level_weights: Tensor) -> Tensor:
        """Exact distance."""
        return points.norm(dim=-1) - RADIUS


class NormalColor(nn.Module):
    """Paints a surface point with its normal."""

    def forward(self, feature: Tensor, harmonics: Tensor, normal: Tensor) -> Tensor:
        """Colours in [0, 1]."""
        return 0.5 * normal + 0.5


def sphere_renderer(variance: float = 0.55) -> SceneRenderer:
    """A renderer of the sphere with a sharp surface (inverse width exp(10 v))."""
    renderer = SceneRenderer(
        SphereField(),  # type: ignore[arg-type]
        NormalColor(),  # type: ignore[arg-type]
        None,
        grid_resolution=48,
        fine_samples=32,
    )
    nn.init.constant_(renderer.variance, variance)
    renderer.refresh_grid(STATE.level_weights)
    return renderer


def rays_at(*targets: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Rays from (0, 0, -3) through points."""
    directions = nn.functional.normalize(torch.tensor(targets) - torch.tensor([0.0, 0.0, -3.0]), dim=-1)
    return torch.tensor([0.0, 0.0, -3.0]).expand_as(directions), directions


def hits(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Exact distances and normals of the sphere's entry points."""
    middle = -(origins * directions).sum(-1)
    depth = middle - (RADIUS**2 - (origins.square().sum(-1) - middle**2)).sqrt()
    return depth, (origins + directions * depth[:, None]) / RADIUS


def test_sphere_has_the_exact_depth_normal_and_colour() -> None:
    origins, directions = rays_at((0.0, 0.0, 0.0), (0.2, 0.0, 0.0), (-0.1, 0.3, 0.0))
    rendered = sphere_renderer()(origins, directions, torch.ones(3, 3), STATE)
    depth, normal = hits(origins, directions)
    torch.testing.assert_close(rendered.accumulation, torch.ones(3), rtol=0, atol=2e-3)
    torch.testing.assert_close(rendered.depth, depth, rtol=0, atol=1e-2)
    torch.testing.assert_close(rendered.normal, normal, rtol=0, atol=2e-2)
    torch.testing.assert_close(rendered.rgb, 0.5 * normal + 0.5, rtol=0, atol=2e-2)
    assert rendered.ray_feature is None


def test_a_sharper_density_tightens_the_depth() -> None:
    rays = rays_at((0.1, 0.2, 0.0))
    errors = [
        (sphere_renderer(variance)(*rays, torch.ones(1, 3), STATE).depth - hits(*rays)[0]).abs().item()
        for variance in (0.35, 0.6)
    ]
    assert errors[1] < errors[0]


def test_rims_are_as_opaque_as_the_closest_place_of_a_ray() -> None:
    """Light that just passes a surface is absorbed by what is closest: 1 - S(nearest) / S(start), NeuS Eq. 10."""
    past = torch.linspace(0.44, 0.52, 41)
    origins = torch.stack([past, torch.zeros_like(past), torch.full_like(past, -3.0)], dim=-1)
    directions = torch.tensor([[0.0, 0.0, 1.0]]).expand_as(origins)
    renderer = sphere_renderer(0.7)
    exact = 1.0 - torch.sigmoid((past - RADIUS) * renderer.inv_s)
    errors = [
        renderer(origins, directions, torch.ones(41, 3), replace(STATE, generator=generator(seed))).accumulation - exact
        for seed in range(4)
    ]
    # Bins of their own weight alone leave it at 0.03.
    assert torch.stack(errors).square().mean().sqrt() < 0.012


def test_background_colour_shows_where_nothing_is_hit() -> None:
    origins, directions = rays_at((2.5, 0.0, 0.0), (0.75, 0.0, 0.0))
    background = torch.tensor([[0.2, 0.4, 0.6], [0.9, 0.1, 0.0]])
    rendered = sphere_renderer()(origins, directions, background, STATE)
    torch.testing.assert_close(rendered.rgb, background, rtol=0, atol=5e-3)
    assert (rendered.accumulation < 5e-3).all()
    assert rendered.depth.isfinite().all()


def test_training_adds_free_points_to_the_eikonal_gradients_and_repeats_exactly() -> None:
    rays = rays_at((0.0, 0.1, 0.0), (2.5, 0.0, 0.0))

    def render(seed: int) -> Rendered:
        generator = torch.Generator().manual_seed(seed)
        return sphere_renderer()(*rays, torch.ones(2, 3), RenderState(torch.ones(4), 1.0, generator))

    first, again, other = render(0), render(0), render(1)
    assert torch.equal(first.rgb, again.rgb)
    assert not torch.equal(first.depth, other.depth)
    torch.testing.assert_close(first.gradients.norm(dim=-1), torch.ones(len(first.gradients)))
    alone = sphere_renderer()(*rays_at((2.5, 0.0, 0.0)), torch.ones(1, 3), RenderState(torch.ones(4), 1.0, generator()))
    assert len(alone.gradients) == 256


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def key_batch() -> tuple[Tensor, Tensor]:
    """Two plain rays, then two keys with three auxiliary rays each, all different."""
    plain = [(0.0, 0.0, 0.0), (0.3, 0.1, 0.0)]
    keys = [(0.1 * group, 0.02 * member - 0.2 * group, 0.0) for group in range(2) for member in range(1 + AUX)]
    return rays_at(*plain, *keys)


def test_key_groups_without_enrichment_render_like_plain_rays() -> None:
    """Every ray's result lands in its own row, and an auxiliary ray loses little by using its key's distances."""
    renderer, rays = sphere_renderer(), key_batch()
    as_plain = renderer(*rays, torch.ones(10, 3), STATE)
    as_keys = renderer(*rays, torch.ones(10, 3), STATE, LAYOUT)
    own = [0, 1, 2, 2 + 1 + AUX]
    for name in ("rgb", "depth", "accumulation", "normal"):
        plain, keyed = getattr(as_plain, name), getattr(as_keys, name)
        torch.testing.assert_close(keyed[own], plain[own], rtol=0, atol=1e-6)
        torch.testing.assert_close(keyed, plain, rtol=0, atol=0.03)


def test_ray_features_are_those_of_the_key_rays() -> None:
    """The feature of a sphere point is the point, so a key ray's feature is where it hits."""
    origins, directions = key_batch()
    rendered = sphere_renderer()(origins, directions, torch.ones(10, 3), STATE, LAYOUT)
    heads = [2, 2 + 1 + AUX]
    depth, _ = hits(origins[heads], directions[heads])
    assert rendered.ray_feature is not None
    expected = origins[heads] + directions[heads] * depth[:, None]
    torch.testing.assert_close(rendered.ray_feature, expected, rtol=0, atol=0.02)


class SpyField(SDFField):
    """A learned field that keeps the points it was asked for."""

    def encode(self, points: Tensor, level_weights: Tensor):
        """As the field does."""
        self.asked = points.detach()
        return super().encode(points, level_weights)


def learned_renderer() -> SceneRenderer:
    """A small learned scene in float64 with features large enough to matter."""
    torch.manual_seed(0)
    config = SDFFieldConfig(
        encoding="torch",
        num_levels=4,
        log2_table_size=9,
        base_resolution=4,
        hidden_width=16,
        feature_size=6,
    )
    field = SpyField(config, image_px=11)
    color = ColorField(field.feature_size, 16, 1)
    renderer = SceneRenderer(field, color, None, grid_resolution=24, fine_samples=8)
    nn.init.normal_(field.encoding.table, std=0.5)
    nn.init.normal_(field.geometry.hidden[0].weight, std=0.3)
    return renderer.double()


@pytest.mark.parametrize("enriched", [False, True])
def test_gradients_of_key_points_equal_autograd(enriched: bool) -> None:
    """The SDF's gradient passes through the attention, with the auxiliary features held fixed."""
    renderer, weights = learned_renderer(), torch.tensor([1.0, 1.0, 0.5, 0.0], dtype=torch.float64)
    renderer.refresh_grid(weights)
    origins, directions = (part.double() for part in key_batch())
    directions = nn.functional.normalize(directions, dim=-1)
    state = RenderState(weights, enrich=enriched)
    background = torch.ones(10, 3, dtype=torch.float64)
    rendered = renderer(origins, directions, background, state, LAYOUT)
    points, field = renderer.field.asked, renderer.field
    # Key points come in groups at the end; without jitter no free points follow.
    first_key = next(n for n in range(len(points) % (1 + AUX), len(points), 1 + AUX) if _are_groups(points[n:]))
    for start in range(first_key, len(points), 1 + AUX):
        key = points[start].clone().requires_grad_()
        feature = field.encoding(key[None] * 0.5 + 0.5, weights)
        around = field.encoding(points[start + 1 : start + 1 + AUX] * 0.5 + 0.5, weights).detach()
        if enriched:
            feature = enrich(feature, around[None]).features
        sdf = field.geometry(torch.cat([key[None], shape_and_color(feature)[0]], dim=-1))[:, 0]
        torch.testing.assert_close(rendered.gradients[start], torch.autograd.grad(sdf, key)[0], rtol=0, atol=1e-7)


def _are_groups(points: Tensor) -> bool:
    """Whether these are keys, each followed by its neighbours: a group lies at one distance from the camera."""
    distance = (points - torch.tensor([0.0, 0.0, -3.0], dtype=points.dtype)).norm(dim=-1).view(-1, 1 + AUX)
    return bool((distance - distance[:, :1]).abs().max() < 1e-9)


def test_colour_gradients_reach_every_part() -> None:
    """One rendered batch moves the table, both networks, the variance and the rays."""
    renderer = learned_renderer()
    weights = torch.ones(4, dtype=torch.float64)
    renderer.refresh_grid(weights)
    origins, directions = (part.double() for part in key_batch())
    origins = origins.clone().requires_grad_()
    state = RenderState(weights, 0.5, enrich=True)
    rendered = renderer(origins, directions, torch.zeros(10, 3, dtype=torch.float64), state, LAYOUT)
    rendered.rgb.sum().backward()
    for name, parameter in renderer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert origins.grad is not None
    assert (origins.grad.abs().sum(-1) > 0).all()


class Backdrop(nn.Module):
    """A background of one colour that remembers for how many rays it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.color = nn.Parameter(torch.tensor([0.1, 0.5, 0.9]))
        self.asked = 0

    def forward(self, origins: Tensor, directions: Tensor, start: Tensor, jitter: Tensor | None) -> Tensor:
        """One section, opaque, of the same colour everywhere."""
        self.asked = len(origins)
        return torch.cat([torch.ones(1), self.color]).expand(len(origins), 1, 4)


@pytest.mark.parametrize("dense", [False, True])
def test_the_background_is_seen_beside_the_surface_and_taught_there_alone(dense: bool) -> None:
    renderer, backdrop = sphere_renderer(), Backdrop()
    renderer.background = backdrop  # type: ignore[assignment]
    origins, directions = rays_at((0.0, 0.0, 0.0), (0.0, 0.8, 0.0), (0.1, 0.0, 0.1), (0.0, -0.9, 0.1))
    state = RenderState(STATE.level_weights, generator=generator(), room=1.0 if dense else None)
    rendered = renderer(origins, directions, torch.zeros(4, 3), state)
    assert rendered.accumulation.tolist() == pytest.approx([1.0, 0.0, 1.0, 0.0], abs=1e-3)
    torch.testing.assert_close(rendered.rgb[[1, 3]], backdrop.color.expand(2, 3), atol=1e-3, rtol=0)
    assert backdrop.asked == (4 if dense else 2)
    # Light that leaks through the surface would teach the background that surface's colour.
    gradients = [torch.autograd.grad(rendered.rgb[k].sum(), backdrop.color, retain_graph=True) for k in range(4)]
    assert [float(gradient[0].sum()) > 1.0 for gradient in gradients] == [False, True, False, True]


def test_a_soft_surface_is_pulled_by_the_background_it_does_not_teach() -> None:
    renderer, backdrop = sphere_renderer(variance=0.3), Backdrop()
    renderer.background = backdrop  # type: ignore[assignment]
    origins, directions = rays_at((0.0, 0.38, 0.0))
    rendered = renderer(origins, directions, torch.zeros(1, 3), RenderState(STATE.level_weights))
    assert 0.01 < 1.0 - float(rendered.accumulation) < 0.2
    by_color, by_variance = torch.autograd.grad(
        rendered.rgb[0, 2], (backdrop.color, renderer.variance), allow_unused=True, materialize_grads=True
    )
    assert not by_color.any() and by_variance != 0


def test_pictures_have_finer_sections_than_training() -> None:
    config, weights = RenderingConfig(), torch.ones(4)
    assert config.state(0, weights, known_surface=False).finer == 1
    with torch.no_grad():
        pictured = config.state(0, weights, known_surface=False)
        assert pictured.finer == 2
        ray, white = rays_at((0.0, 0.2, 0.0)), torch.ones(1, 3)
        few, many = sphere_renderer(), sphere_renderer()
        many.fine_samples = 2 * few.fine_samples
        finer = few(*ray, white, replace(STATE, finer=2))
        torch.testing.assert_close(finer.depth, many(*ray, white, STATE).depth)
        assert finer.depth != few(*ray, white, STATE).depth
