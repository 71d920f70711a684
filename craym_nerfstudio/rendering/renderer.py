"""Rays to pixels: SDF, colour and background, rendered for plain rays and enriched key rays in one batch."""

import math
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from craym_nerfstudio.fields.background import BackgroundField
from craym_nerfstudio.fields.color_field import ColorField, spherical_harmonics
from craym_nerfstudio.fields.encoding import LevelWeights
from craym_nerfstudio.fields.sdf_field import SDFField, SurfacePoint
from craym_nerfstudio.layout import RayLayout
from craym_nerfstudio.rendering.key_rays import enrich
from craym_nerfstudio.rendering.neus import (
    Crossing,
    accumulate,
    composite,
    first_crossing,
    iter_cos,
    neus_alpha,
    unit_vectors,
)
from craym_nerfstudio.rendering.sampling import (
    DistanceGrid,
    Placing,
    RaySamples,
    sample_rays,
    sphere_bounds,
)
from craym_nerfstudio.rendering.sections import Sections, active_sections, roomy_sections
from craym_nerfstudio.schedules import Scalar

_COARSE_SAMPLES = 128
"""Look-ups of the cached distances per ray: one per cell of the larger cache (`craym`), two per cell of the smaller."""
_EIKONAL_POINTS = 256
"""Points of free space per step at which the eikonal loss also holds."""
_LEAST_SEEN, _LEAST_TRAINED = 0.002, 0.01
"""Share of a ray's light from which on its background is looked up: half of an 8-bit step, and more while training."""
_LEAST_TEACHING = 0.2
"""Share of a ray's light from which on it teaches the background: what leaks through a surface that is still soft would
paint that surface's colours behind it, where views past its edge see them."""
_LOG_SHARPEST = math.log(1e5)
"""Logarithm of the sharpest density."""
_INITIAL_VARIANCE = 0.3
"""NeuS's: a density that is 1/20 wide."""


@dataclass(frozen=True)
class RenderState:
    """What depends on the training step alone."""

    level_weights: LevelWeights
    cosine_anneal: Scalar = 1.0
    generator: torch.Generator | None = None
    """Source of the sampling jitter; None renders without jitter."""
    interval: Scalar = 0.1
    """Distance from the cached surface within which rays are sampled, in units of the field."""
    enrich: bool = False
    """Whether key rays are enriched by their auxiliary rays (KRE)."""
    room: float | None = None
    """Share of the sections of plain rays that are evaluated, however many are active: shapes then hang on no number,
    which spares a GPU two waits. Without it the active ones alone are."""
    probes: Float[Tensor, "probes 3"] | None = None
    """Further points at which the signed distance is asked for."""
    crossing: int = 0
    """Of how many of the first rays it is asked where they meet the surface."""
    finer: int = 1
    """By what the number of sections per ray is multiplied."""

    def jitter(self, rays: Tensor) -> Float[Tensor, "rays 1"] | None:
        """A random number in (0, 1) for each row of a tensor; None without jitter."""
        if self.generator is None:
            return None
        return torch.rand((len(rays), 1), generator=self.generator, device=rays.device)


@dataclass
class Rendered:
    """Results per ray, and the SDF gradients of all evaluated points for the eikonal loss."""

    rgb: Float[Tensor, "rays 3"]
    accumulation: Float[Tensor, " rays"]
    depth: Float[Tensor, " rays"]
    normal: Float[Tensor, "rays 3"]
    ray_feature: Float[Tensor, "groups feat"] | None
    gradients: Float[Tensor, "n 3"]
    gradient_weights: Float[Tensor, " n"] | None = None
    """0 for points that count for nothing; None where all count."""
    probed: Float[Tensor, " probes"] | None = None
    """Signed distance at the probes."""
    crossing: Crossing | None = None
    """Of the first rays, where the state asks for it."""
    active_share: Float[Tensor, ""] | None = None
    """Of the sections of plain rays, where room was made for some of them."""

    @property
    def further(self) -> dict[str, Tensor]:
        """What losses and plans ask for beside what rays show, as far as there is any."""
        names = "gradients", "gradient_weights", "probed", "active_share"
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class SceneRenderer(nn.Module):
    """Everything that is rendered, in the unit frame."""

    def __init__(
        self,
        field: SDFField,
        color: ColorField,
        background: BackgroundField | None,
        *,
        grid_resolution: int,
        fine_samples: int,
    ) -> None:
        super().__init__()
        self.field, self.color, self.background = field, color, background
        self.grid = DistanceGrid(grid_resolution)
        self.fine_samples = fine_samples
        self.variance = nn.Parameter(torch.tensor(_INITIAL_VARIANCE))

    @property
    def inv_s(self) -> Float[Tensor, ""]:
        """Sharpness of the logistic density, ``exp(10 v)``."""
        return torch.exp(F.hardtanh(10.0 * self.variance, 0.0, _LOG_SHARPEST))

    def refresh_grid(self, level_weights: LevelWeights, step: Scalar = 0, parts: int = 1) -> None:
        """Read the SDF anew into the cached grid, or into one of its slabs."""
        self.grid.refresh(lambda points: self.field.sdf(points, level_weights), step, parts)

    def forward(
        self,
        origins: Float[Tensor, "rays 3"],
        directions: Float[Tensor, "rays 3"],
        background_color: Float[Tensor, "rays 3"],
        state: RenderState,
        layout: RayLayout | None = None,
    ) -> Rendered:
        """Render rays; enrichment (KRE) applies to the key rays of the layout alone."""
        layout = layout or RayLayout(origins.shape[0])
        inv_s = self.inv_s
        samples = self._samples(origins, directions, layout, inv_s.detach(), state)
        plan = active_sections if state.room is None else partial(roomy_sections, share=state.room)
        active = plan(samples.active, layout)
        surface, every, evaluated = self._evaluate(origins, directions, samples, active, layout, inv_s, state)
        dense = active.spread(evaluated, samples.active.shape)
        sums, accumulation, weights = composite(dense)
        _, rgb, depth, normal = sums[:, :8].split([1, 3, 1, 3], dim=-1)
        behind = self._behind(origins, directions, background_color, rgb.detach(), accumulation.detach(), state)
        return Rendered(
            rgb=torch.addcmul(rgb, 1.0 - accumulation[:, None], behind),
            accumulation=accumulation,
            # The mean distance at which a ray is absorbed.
            depth=depth[:, 0] / F.threshold(accumulation, 1e-6, 1e-6),
            normal=normal,
            ray_feature=self._ray_feature(samples, active, surface, weights, layout),
            gradients=every.gradient,
            gradient_weights=_padded_with_ones(active.counts, len(every.gradient)),
            probed=None if state.probes is None else every.sdf[len(every.sdf) - len(state.probes) :],
            crossing=_crossing(samples, dense, state.crossing) if state.crossing else None,
            active_share=active.active_share,
        )

    def _evaluate(
        self,
        origins: Tensor,
        directions: Tensor,
        samples: RaySamples,
        active: Sections,
        layout: RayLayout,
        inv_s: Tensor,
        state: RenderState,
    ) -> tuple[SurfacePoint, SurfacePoint, Float[Tensor, "n carried"]]:
        """Geometry of the active sections, that of all points evaluated, and what sections carry: opacity, colour,
        distance, normal, and where crossings are asked for the signed distance."""
        middles = samples.middles.flatten().index_select(0, active.index)
        # `index_select` is differentiated much faster than indexing by brackets; one gather serves all that rays carry.
        per_ray = torch.cat([origins, directions, spherical_harmonics(directions)], dim=-1)
        chosen = per_ray.index_select(0, active.index // samples.middles.shape[1])
        start, towards, harmonics = chosen.split([3, 3, 16], dim=-1)
        surface, every = self._surface(start + towards * middles[:, None], active.plain, layout, state)
        slope = iter_cos((surface.gradient * towards).sum(-1), state.cosine_anneal)
        alpha = neus_alpha(surface.sdf, slope, samples.steps.flatten().index_select(0, active.index), inv_s)
        if active.counts is not None:
            alpha = alpha * active.counts
        normal = unit_vectors(surface.gradient)
        color = self.color(surface.feature, harmonics, normal)
        carried = [alpha[:, None], color, middles[:, None], normal, *([surface.sdf[:, None]] if state.crossing else [])]
        return surface, every, torch.cat(carried, dim=-1)

    def _ray_feature(
        self, samples: RaySamples, active: Sections, surface: SurfacePoint, weights: Tensor, layout: RayLayout
    ) -> Float[Tensor, "groups feat"] | None:
        """Feature of every key ray, composited with the weights that also make its colour (Eq. 3)."""
        if not layout.groups:
            return None
        sections = samples.middles.shape[1]
        part = Sections(active.index[active.plain :] - layout.plain * sections, plain=0)
        key_feature = surface.feature[active.plain :]
        feature = part.spread(key_feature, samples.active[layout.plain :].shape)
        heads = feature.view(layout.groups, layout.group_size, sections, -1)[:, 0]
        return accumulate(weights[layout.heads], heads)

    def _samples(
        self, origins: Tensor, directions: Tensor, layout: RayLayout, inv_s: Tensor, state: RenderState
    ) -> RaySamples:
        """Sections of every ray; an auxiliary ray shares the distances of its key ray (q_i lies at p_k's depth)."""
        own, shared = _sharing(layout, origins.device)
        sections = self.fine_samples * state.finer
        placing = Placing(_COARSE_SAMPLES, sections, inv_s, state.interval, 1e-3, state.jitter(own))
        start, towards = origins.detach().index_select(0, own), directions.detach().index_select(0, own)
        samples = sample_rays(self.grid, start, towards, placing)
        if not layout.groups:
            return samples
        return RaySamples(*(values.index_select(0, shared) for values in vars(samples).values()))

    def _surface(
        self, points: Float[Tensor, "n 3"], plain_count: int, layout: RayLayout, state: RenderState
    ) -> tuple[SurfacePoint, SurfacePoint]:
        """Geometry at the points; and with those appended that training asks for: free points, then the probes."""
        count = points.shape[0]
        if state.generator is not None:
            free = points.new_empty(_EIKONAL_POINTS, 3).uniform_(-1.0, 1.0, generator=state.generator)
            points = torch.cat([points, free] if state.probes is None else [points, free, state.probes])
        features, pullback = self.field.encode(points, state.level_weights)
        chain = pullback
        if layout.groups and layout.aux and state.enrich and count > plain_count:
            sizes = (plain_count, count - plain_count, points.shape[0] - count)
            plain_part, key_part, free_part = features.split(sizes)
            group = key_part.view(-1, layout.group_size, features.shape[-1])
            key, around = group.split([1, layout.aux], dim=1)
            enriched = enrich(key[:, 0], around)
            tokens = torch.cat([enriched.features[:, None], around], dim=1).flatten(0, 1)
            features = torch.cat([plain_part, tokens, free_part])

            def chain(gradient: Tensor) -> Tensor:
                of_plain, of_keys, of_free = gradient.split(sizes)
                of_group = of_keys.view(-1, layout.group_size, gradient.shape[-1])
                of_key, of_around = of_group.split([1, layout.aux], dim=1)
                of_keys = torch.cat([enriched.pull_back(of_key[:, 0])[:, None], of_around], dim=1).flatten(0, 1)
                return pullback(torch.cat([of_plain, of_keys, of_free]))

        surface = self.field.surface(points, features, chain)
        on_rays = (value.split((count, len(points) - count))[0] for value in vars(surface).values())
        return SurfacePoint(*on_rays), surface

    def _behind(
        self, origins: Tensor, directions: Tensor, color: Tensor, seen: Tensor, accumulation: Tensor, state: RenderState
    ) -> Float[Tensor, "rays 3"]:
        """Colour behind the region: one, or the background field's, asked for where it can be seen."""
        if self.background is None:
            return color
        with torch.no_grad():
            _, leave, meets = sphere_bounds(origins, directions)
            # A ray that misses the sphere starts where it is closest to it.
            closest = -(origins * directions).sum(-1).clamp(max=-0.05)
            start, jitter = torch.where(meets, leave, closest), state.jitter(origins)
        passing = 1.0 - accumulation
        if state.room is not None:
            found = _light(self.background(origins, directions, start, jitter))
            return torch.where(passing[:, None] > _LEAST_TEACHING, found, found.detach())
        rays = (passing > (_LEAST_SEEN if jitter is None else _LEAST_TRAINED)).nonzero()[:, 0]
        values = (value.index_select(0, rays) for value in (origins, directions, start))
        found = _light(self.background(*values, None if jitter is None else jitter.index_select(0, rays)))
        teaches = passing.index_select(0, rays)[:, None] > _LEAST_TEACHING
        # Elsewhere it may have any colour; that of the surface before it pulls no opacity up or down.
        return seen.index_copy(0, rays, torch.where(teaches, found, found.detach()))


def _light(sections: Float[Tensor, "rays samples 4"]) -> Float[Tensor, "rays 3"]:
    """Colour that sections of opacity and colour send along their rays."""
    return composite(sections)[0][:, 1:]


def _crossing(samples: RaySamples, carried: Float[Tensor, "all samples carried"], rays: int) -> Crossing:
    """Where the first rays meet the surface."""
    return first_crossing(carried[:rays, :, 5:], samples.middles[:rays], samples.active[:rays])


def _padded_with_ones(counts: Float[Tensor, " n"] | None, size: int) -> Float[Tensor, " size"] | None:
    """Free points, which follow those on rays, all count."""
    return None if counts is None else F.pad(counts, (0, size - len(counts)), value=1.0)


@lru_cache(maxsize=8)
def _sharing(layout: RayLayout, device: torch.device) -> tuple[Int[Tensor, " own"], Int[Tensor, " rays"]]:
    """Rays that have distances of their own, and whose of these every ray takes."""
    plain, numbers = layout.plain, torch.arange(layout.plain + layout.groups)
    own = torch.cat([numbers[:plain], plain + layout.group_size * torch.arange(layout.groups)])
    shared = torch.cat([numbers[:plain], numbers[plain:].repeat_interleave(layout.group_size)])
    return own.to(device), shared.to(device)
