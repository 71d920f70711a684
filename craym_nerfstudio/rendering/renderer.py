"""Rays to pixels: SDF, colour and background, rendered for plain rays and enriched key rays in one batch."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from craym_nerfstudio.fields.background import BackgroundField
from craym_nerfstudio.fields.color_field import ColorField, spherical_harmonics
from craym_nerfstudio.fields.sdf_field import SDFField, SurfacePoint
from craym_nerfstudio.rendering.key_rays import enrich
from craym_nerfstudio.rendering.neus import accumulate, entering_slope, expected_depth, neus_alpha, render_weights
from craym_nerfstudio.rendering.precision import reduced_precision
from craym_nerfstudio.rendering.sampling import (
    DistanceGrid,
    RaySamples,
    sample_rays,
    scatter_active,
    sphere_bounds,
    within_budget,
)


@dataclass(frozen=True)
class RenderState:
    """What depends on the training step alone."""

    level_weights: Float[Tensor, " levels"]
    cosine_anneal: float = 1.0
    generator: torch.Generator | None = None
    """Source of the sampling jitter; None renders without jitter."""
    interval: float = 0.1
    """Distance from the cached surface within which rays are sampled, in units of the field."""
    color_dtype: torch.dtype | None = None
    """Reduced precision of the colour nets; None computes everything in float32."""


@dataclass(frozen=True)
class KeyLayout:
    """The last ``groups * (1 + aux)`` rays of a batch are key rays, each followed by its auxiliary rays."""

    groups: int
    aux: int
    enrich: bool

    @property
    def rays(self) -> int:
        """Number of rays that belong to the groups."""
        return self.groups * (1 + self.aux)


@dataclass
class Rendered:
    """Results per ray, and the SDF gradients of all evaluated points for the eikonal loss."""

    rgb: Float[Tensor, "rays 3"]
    accumulation: Float[Tensor, " rays"]
    depth: Float[Tensor, " rays"]
    normal: Float[Tensor, "rays 3"]
    ray_feature: Float[Tensor, "groups feat"] | None
    gradients: Float[Tensor, "n 3"]
    rendered: Bool[Tensor, " rays"]
    """False for rays that the budget left out; their results mean nothing."""


class SceneRenderer(nn.Module):
    """Everything that is rendered, in the field frame (the region of interest is the unit sphere)."""

    def __init__(
        self,
        field: SDFField,
        color: ColorField,
        background: BackgroundField | None,
        *,
        grid_resolution: int,
        coarse_samples: int,
        fine_samples: int,
        eikonal_points: int,
        section_budget: int = 0,
        initial_variance: float = 0.3,
    ) -> None:
        super().__init__()
        self.field, self.color, self.background = field, color, background
        self.grid = DistanceGrid(grid_resolution)
        self.coarse_samples, self.fine_samples, self.eikonal_points = coarse_samples, fine_samples, eikonal_points
        self.section_budget = section_budget
        self.variance = nn.Parameter(torch.tensor(initial_variance))

    @property
    def inv_s(self) -> Float[Tensor, ""]:
        """Sharpness of the logistic density, ``exp(10 v)``."""
        return torch.exp(10.0 * self.variance).clamp(1.0, 1e5)

    def refresh_grid(self, level_weights: Float[Tensor, " levels"], part: int = 0, parts: int = 1) -> None:
        """Read the SDF anew into the cached grid, or into one of its slabs."""
        self.grid.refresh(lambda points: self.field.sdf(points, level_weights), part, parts)

    def forward(
        self,
        origins: Float[Tensor, "rays 3"],
        directions: Float[Tensor, "rays 3"],
        background_color: Float[Tensor, "rays 3"],
        state: RenderState,
        keys: KeyLayout | None = None,
    ) -> Rendered:
        """Render rays; enrichment (KRE) applies to the key rays of `keys` alone."""
        keys = keys or KeyLayout(0, 0, False)
        plain = origins.shape[0] - keys.rays
        samples = self._samples(origins, directions, plain, keys, state)
        rendered = torch.ones_like(samples.active[:, 0])
        if self.section_budget and state.generator is not None:
            rendered[:plain] = within_budget(samples.active[:plain], self.section_budget)
            samples.active &= rendered[:, None]
        index, plain_count = _active_index(samples.active, plain, keys)
        ray = index // self.fine_samples
        middles = samples.middles.flatten()[index]
        # `index_select` is differentiated much faster than indexing by brackets; one gather serves all that rays carry.
        per_ray = torch.cat([origins, directions, spherical_harmonics(directions)], dim=-1)
        start, towards, harmonics = per_ray.index_select(0, ray).split([3, 3, 16], dim=-1)
        points = start + towards * middles[:, None]
        surface, gradients = self._surface(points, plain_count, keys, state)

        cosine = (surface.gradient * towards).sum(-1)
        slope = entering_slope(cosine, state.cosine_anneal)
        alpha = neus_alpha(surface.sdf, slope, samples.steps.flatten()[index], self.inv_s)
        normal = F.normalize(surface.gradient, dim=-1)
        with reduced_precision(origins.device, state.color_dtype):
            color = self.color(surface.feature, harmonics, normal).to(normal.dtype)

        dense = scatter_active(torch.cat([alpha[:, None], color, normal], dim=-1), samples.active, index)
        opacity, values = dense.split([1, 6], dim=-1)
        weights = render_weights(opacity[..., 0])
        out = accumulate(weights, values)
        accumulation = weights.sum(-1)
        behind = self._background(origins, directions, background_color, state)
        ray_feature = None
        if keys.groups:
            part = index[plain_count:] - plain * self.fine_samples
            _, key_feature = surface.feature.split([plain_count, len(part)])
            feature = scatter_active(key_feature, samples.active[plain:], part)
            heads = feature.view(keys.groups, 1 + keys.aux, self.fine_samples, -1)[:, 0]
            ray_feature = accumulate(weights[plain :: 1 + keys.aux], heads)
        return Rendered(
            rgb=out[:, :3] + (1.0 - accumulation[:, None]) * behind,
            accumulation=accumulation,
            depth=expected_depth(weights, samples.middles),
            normal=out[:, 3:],
            ray_feature=ray_feature,
            gradients=gradients,
            rendered=rendered,
        )

    def _samples(self, origins, directions, plain: int, keys: KeyLayout, state: RenderState) -> RaySamples:
        """Sections of every ray; an auxiliary ray shares the distances of its key ray (q_i lies at p_k's depth)."""
        own = torch.cat([torch.arange(plain), torch.arange(plain, origins.shape[0], 1 + keys.aux)]).to(origins.device)
        jitter = None
        if state.generator is not None:
            jitter = torch.rand((own.shape[0], 1), generator=state.generator, device=origins.device)
        samples = sample_rays(
            self.grid,
            origins.detach()[own],
            directions.detach()[own],
            coarse=self.coarse_samples,
            fine=self.fine_samples,
            inv_s=self.inv_s.detach(),
            interval=state.interval,
            keep_below=1e-3,
            jitter=jitter,
        )
        if not keys.groups:
            return samples

        def spread(values: Tensor) -> Tensor:
            return torch.cat([values[:plain], values[plain:].repeat_interleave(1 + keys.aux, dim=0)])

        return RaySamples(spread(samples.middles), spread(samples.steps), spread(samples.active))

    def _surface(
        self, points: Float[Tensor, "n 3"], plain_count: int, keys: KeyLayout, state: RenderState
    ) -> tuple[SurfacePoint, Float[Tensor, "m 3"]]:
        """Geometry at all points, with free points for the eikonal loss appended while training."""
        count = points.shape[0]
        if state.generator is not None and self.eikonal_points:
            free = torch.rand((self.eikonal_points, 3), generator=state.generator, device=points.device) * 2.0 - 1.0
            points = torch.cat([points, free])
        features, pullback = self.field.encode(points, state.level_weights)
        chain = pullback
        if keys.groups and keys.enrich and count > plain_count:
            sizes = (plain_count, count - plain_count, points.shape[0] - count)
            plain_part, key_part, free_part = features.split(sizes)
            group = key_part.view(-1, 1 + keys.aux, features.shape[-1])
            key, around = group.split([1, keys.aux], dim=1)
            enriched = enrich(key[:, 0], around)
            tokens = torch.cat([enriched.features[:, None], around], dim=1).flatten(0, 1)
            features = torch.cat([plain_part, tokens, free_part])

            def chain(gradient: Tensor) -> Tensor:
                of_plain, of_keys, of_free = gradient.split(sizes)
                of_key, of_around = of_keys.view(-1, 1 + keys.aux, gradient.shape[-1]).split([1, keys.aux], dim=1)
                of_keys = torch.cat([enriched.pull_back(of_key[:, 0])[:, None], of_around], dim=1).flatten(0, 1)
                return pullback(torch.cat([of_plain, of_keys, of_free]))

        surface = self.field.surface(points, features, chain)
        parts = (count, points.shape[0] - count)
        on_rays = [value.split(parts)[0] for value in (surface.sdf, surface.gradient, surface.feature)]
        return SurfacePoint(*on_rays), surface.gradient

    def _background(self, origins, directions, background_color, state: RenderState) -> Tensor:
        if self.background is None:
            return background_color
        _, leave, meets = sphere_bounds(origins, directions)
        # A ray that misses the sphere starts where it is closest to it.
        closest = -(origins * directions).sum(-1).clamp(max=-0.05)
        start = torch.where(meets, leave, closest)
        jitter = None
        if state.generator is not None:
            jitter = torch.rand((origins.shape[0], 1), generator=state.generator, device=origins.device)
        with reduced_precision(origins.device, state.color_dtype):
            return self.background(origins, directions, start, jitter).to(origins.dtype)


def _active_index(active: Tensor, plain: int, keys: KeyLayout) -> tuple[Int[Tensor, " n"], int]:
    """Flat numbers of the active sections: those of plain rays, then section by section each key with its auxiliaries.

    The second part can be viewed as ``[points, 1 + aux]``, which is what enrichment attends over.
    """
    samples = active.shape[1]
    first = active[:plain].flatten().nonzero()[:, 0]
    if not keys.groups:
        return first, first.shape[0]
    group, section = active[plain :: 1 + keys.aux].nonzero(as_tuple=True)
    member = torch.arange(1 + keys.aux, device=active.device)
    second = (plain + group[:, None] * (1 + keys.aux) + member) * samples + section[:, None]
    return torch.cat([first, second.flatten()]), first.shape[0]
