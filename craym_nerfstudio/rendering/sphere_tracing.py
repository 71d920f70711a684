"""The first surface along rays, found by walking through cached distances (as IDR does), with the colour seen there.

Volume rendering evaluates the field at every section of a ray and is the reference; a sharp surface is found by one or
two evaluations of the distance alone. Rays that graze a surface, or see a background field, are rendered as volumes.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from craym_nerfstudio.fields.color_field import spherical_harmonics
from craym_nerfstudio.fields.sdf_field import SurfacePoint
from craym_nerfstudio.kernels.loader import importable, load_kernels
from craym_nerfstudio.kernels.threads import equal_ranges, run_parallel, thread_count
from craym_nerfstudio.rendering.renderer import Rendered, RenderState, SceneRenderer
from craym_nerfstudio.rendering.sampling import DistanceGrid, sphere_bounds
from craym_nerfstudio.schedules import at_most

_RESOLUTION = 128
"""Of the cached distances."""
_BLOCK = 4
"""Cells on a side of the blocks whose least distance is kept too: it bounds steps far from the surface, and the blocks
fit into a core's own cache, which the distances do not."""
_OPAQUE = 4.0
"""Widths of the logistic density, ``1 / inv_s``, within which a surface neither stops light (98 %) nor lets it pass."""
_SIDES = (-1.9, 1.9)
"""Where, in widths of the density before and behind the surface, the colour is taken too: each third of the light that
is stopped is stopped about one of the three points. The field is trained to be seen through that width, and a single
point of it is noisier, by 1.4 dB on test views of the bundled scene."""
_BLURRED = 64.0
"""Sharpness below which a density is no surface yet."""
_GRAZING_SAMPLES = 16
"""Sections of a ray that grazes a surface."""
_GRAZING_INTERVAL = 0.02
"""Distance from the cached surface within which they lie, in units of the field."""
_TOLERANCE = 2e-3
"""Distance from the surface, in units of the field, from which one more step reaches it."""
_ROUNDS = 6
"""Evaluations of the field per ray at most."""
_CHUNK = 1 << 16
_SECTIONS = 192
"""Look-ups per ray where rays do not walk one by one."""
_RAYS_PER_TASK = 512


@dataclass(frozen=True)
class SurfaceHits:
    """The first surface along each ray, in the frame of the rays; without one the distance is infinite, the rest 0."""

    hit: Bool[Tensor, "*b"]
    distance: Float[Tensor, "*b"]
    normal: Float[Tensor, "*b 3"]
    """Outwards, of unit length."""
    rgb: Float[Tensor, "*b 3"]


@dataclass
class March:
    """What cached distances say about rays."""

    entry: Float[Tensor, " rays"]
    """Where a ray first goes from outside to inside; infinite where it does not."""
    slope: Float[Tensor, " rays"]
    """How fast the distance falls there."""
    clear: Bool[Tensor, " rays"]
    """Whether it passes by no surface closer than the margin before."""
    opaque: Bool[Tensor, " rays"]
    """Whether it gets deeper than the margin before it leaves again."""


class SphereTracer:
    """Finds the first surface of a scene along rays of the unit frame; distances are cached once per trained step."""

    version: Any = None
    """Which field is cached, in the caller's words."""

    def __init__(self, scene: SceneRenderer) -> None:
        self.scene = scene
        nets = (scene.field, scene.color, scene.background)
        self.grazing = SceneRenderer(*nets, grid_resolution=_RESOLUTION, fine_samples=_GRAZING_SAMPLES)
        self.state = RenderState(torch.ones(0))

    @property
    def grid(self) -> DistanceGrid:
        """The cached distances."""
        return self.grazing.grid

    @torch.no_grad()
    def update(self, state: RenderState, version: Any = None) -> None:
        """Read the SDF anew around the surface as the scene's coarser cache knows it; elsewhere that cache will do."""
        self.state, self.version = state, version
        coarse = self.scene.grid
        self.grid.to(coarse.values.device)
        size = (_RESOLUTION,) * 3
        values = F.interpolate(coarse.values, size, mode="trilinear", align_corners=True)
        flat = values.view(-1)
        near = (flat.abs() < 2.0 * coarse.cell).nonzero()[:, 0]
        for part in near.split(_CHUNK):
            flat[part] = self._sdf(self.grid.points[part])
        self.keep(values)

    def keep(self, values: Float[Tensor, "1 1 n n n"]) -> None:
        """Distances to walk through."""
        self.grid.values = values
        self._blocks = -F.max_pool3d(-values, _BLOCK + 1, _BLOCK, ceil_mode=True)[0, 0]

    @torch.no_grad()
    def trace(self, origins: Float[Tensor, "*b 3"], directions: Float[Tensor, "*b 3"]) -> SurfaceHits:
        """The first surface of every ray that enters one, however short its way inside is; unit directions."""
        shape = origins.shape[:-1]
        parts = [
            self._hits(o, d, self.march(o, d))
            for o, d in zip(*(rays.reshape(-1, 3).split(_CHUNK) for rays in (origins, directions)), strict=True)
        ]
        columns = (torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0]))
        return SurfaceHits(*(column.view(*shape, *column.shape[1:]) for column in columns))

    @torch.no_grad()
    def render(
        self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], background: Float[Tensor, "rays 3"]
    ) -> Rendered:
        """What `SceneRenderer.forward` gives, from the first surface alone wherever that is as good."""
        if float(self.scene.inv_s) < _BLURRED:
            return self.scene(origins, directions, background, self.state)
        march = self.march(origins, directions)
        found = self._hits(origins, directions, march)
        sure = march.clear & torch.where(
            march.entry.isfinite(), march.opaque & found.hit, self.scene.background is None
        )
        opacity = found.hit.to(origins)
        rendered = Rendered(
            rgb=torch.where(found.hit[:, None], found.rgb, background),
            accumulation=opacity,
            depth=torch.where(found.hit, found.distance, 0.0),
            normal=found.normal,
            ray_feature=None,
            gradients=origins.new_empty(0, 3),
        )
        rest = (~sure).nonzero()[:, 0]
        if len(rest):
            exact = self._volume(origins[rest], directions[rest], background[rest])
            for name in ("rgb", "accumulation", "depth", "normal"):
                vars(rendered)[name][rest] = vars(exact)[name]
        return rendered

    def showing(self, surface: Float[np.ndarray, "points 3"]) -> "SphereTracer":
        """A tracer of those solids alone whose surface passes through some of these points: floaters are gone."""
        from scipy.ndimage import label

        kept, values = SphereTracer(self.scene), self.grid.values.cpu().numpy()[0, 0]
        solid, _ = label(values < 0.0)
        low = np.floor((surface + 1.0) / self.grid.cell).astype(np.int64)
        known = np.zeros(solid.max() + 1, dtype=bool)
        for corner in np.ndindex(2, 2, 2):
            x, y, z = (low + corner).clip(0, self.grid.resolution - 1).T
            known[solid[z, y, x]] = True
        cleared = np.where(known[solid] | (solid == 0), values, np.maximum(np.abs(values), 2.0 * self.grid.cell))
        kept.keep(torch.from_numpy(cleared)[None, None].to(self.grid.values))
        kept.state, kept.version = self.state, self.version
        return kept

    @torch.no_grad()
    def colors(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Colours of surface points, each seen along its normal."""
        found = []
        for part in points.split(_CHUNK):
            surface = self._surface(part)
            normal = F.normalize(surface.gradient, dim=-1)
            found.append(self.scene.color(surface.feature, spherical_harmonics(-normal), normal))
        return torch.cat(found)

    @torch.no_grad()
    def march(self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> March:
        """Walk through the cached distances."""
        margin = _OPAQUE / float(self.scene.inv_s)
        if origins.device.type == "cpu" and origins.dtype == torch.float32 and importable("numba"):
            return _march_by_kernel(self.grid, self._blocks, origins, directions, margin)
        return _march(self.grid, origins, directions, margin)

    def _volume(self, origins: Tensor, directions: Tensor, background: Tensor) -> Rendered:
        """Rays that a surface point does not tell: as a volume, whose sections the finer cache places well."""
        self.grazing.variance, self.grazing.background = self.scene.variance, self.scene.background
        state = replace(self.state, interval=at_most(self.state.interval, _GRAZING_INTERVAL), finer=1)
        return self.grazing(origins, directions, background, state)

    def _sdf(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return self.scene.field.sdf(points, self.state.level_weights)

    def _surface(self, points: Float[Tensor, "n 3"]) -> SurfacePoint:
        field = self.scene.field
        return field.surface(points, *field.encode(points, self.state.level_weights))

    def _hits(self, origins: Tensor, directions: Tensor, march: March) -> SurfaceHits:
        """Surface points of the field itself near those that the cache says."""
        rays = march.entry.isfinite().nonzero()[:, 0]
        start, towards, entry = origins[rays], directions[rays], march.entry[rays]
        surface = self._surface(start + towards * entry[:, None])
        slope = -(surface.gradient * towards).sum(-1)
        distance = entry + surface.sdf / slope.clamp_min(0.05)
        fine = surface.sdf.abs() < _TOLERANCE
        off = (~fine).nonzero()[:, 0]
        if len(off):
            found = self._refined(start[off], towards[off], entry[off], march.slope[rays[off]])
            distance[off], slope[off], fine[off] = found
            again = self._surface(start[off] + towards[off] * distance[off, None])
            for name, values in vars(again).items():
                vars(surface)[name][off] = values
        normal, rgb = self._appearance(start, towards, distance, slope, surface)
        hits = SurfaceHits(
            torch.zeros(len(origins), dtype=torch.bool, device=origins.device),
            torch.full_like(origins[:, 0], torch.inf),
            torch.zeros_like(origins),
            torch.zeros_like(origins),
        )
        for column, values in zip(vars(hits).values(), (fine, distance, normal, rgb), strict=True):
            column[rays[fine]] = values[fine]
        return hits

    def _appearance(
        self, origins: Tensor, directions: Tensor, distance: Tensor, slope: Tensor, surface: SurfacePoint
    ) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]:
        """Normals at distances along rays, and the colours seen there."""
        width = 1.0 / (float(self.scene.inv_s) * slope.clamp_min(0.1))
        normal = F.normalize(surface.gradient, dim=-1)
        harmonics = spherical_harmonics(directions)
        rgb = self.scene.color(surface.feature, harmonics, normal)
        for logit in _SIDES:
            points = torch.addcmul(origins, directions, (distance + logit * width)[:, None])
            feature = self.scene.field.outputs(points, self.state.level_weights)[:, 1:]
            rgb += self.scene.color(feature, harmonics, normal)
        return normal, rgb / (1 + len(_SIDES))

    def _refined(
        self, origins: Tensor, directions: Tensor, distance: Tensor, slope: Tensor
    ) -> tuple[Float[Tensor, " rays"], Float[Tensor, " rays"], Bool[Tensor, " rays"]]:
        """Distances to the field's own surface, slopes, and where that succeeds: secants in brackets that halve."""
        reach = 3.0 * self.grid.cell
        low, high, distance = distance - reach, distance + reach, distance.clone()
        rays = torch.arange(len(distance), device=distance.device)
        fine = torch.zeros_like(rays, dtype=torch.bool)
        before: tuple[Tensor, Tensor] | None = None
        for _ in range(_ROUNDS):
            at = distance[rays]
            sdf = self._sdf(origins[rays] + directions[rays] * at[:, None])
            if before is not None:
                secant = (before[1] - sdf) / (at - before[0])
                slope[rays] = torch.where(secant > 0.0, secant, slope[rays])
            low[rays], high[rays] = torch.where(sdf > 0.0, at, low[rays]), torch.where(sdf > 0.0, high[rays], at)
            target = at + sdf / slope[rays].clamp_min(0.05)
            inside = (target > low[rays]) & (target < high[rays])
            distance[rays] = torch.where(inside, target, 0.5 * (low[rays] + high[rays]))
            # The step just taken leaves an error that is quadratic in what was off before it.
            settled = sdf.abs() < _TOLERANCE
            fine[rays[settled]] = True
            rays, before = rays[~settled], (at[~settled], sdf[~settled])
            if len(rays) == 0:
                break
        return distance, slope, fine


def _march_by_kernel(grid: DistanceGrid, blocks: Tensor, origins: Tensor, directions: Tensor, margin: float) -> March:
    """`_march` without a fixed step, on all cores of a CPU."""
    native = load_kernels("craym_nerfstudio.rendering.sphere_tracing_kernel", "march", "Sphere tracing")
    rays = len(origins)
    march = March(*(torch.empty(rays, dtype=kind) for kind in (torch.float32, torch.float32, torch.bool, torch.bool)))
    inputs = (grid.values[0, 0], blocks, origins, directions, *sphere_bounds(origins, directions))
    given = [tensor.detach().contiguous().numpy() for tensor in inputs]
    per_unit = np.float32(1.0 / (_BLOCK * grid.cell))
    out = [tensor.numpy() for tensor in vars(march).values()]
    ranges = equal_ranges(rays, max(1, min(4 * thread_count(), rays // _RAYS_PER_TASK)))
    run_parallel([partial(native.march, *ends, *given, per_unit, np.float32(margin), *out) for ends in ranges])
    return march


def _march(grid: DistanceGrid, origins: Tensor, directions: Tensor, margin: float) -> March:
    """The march in equal steps, for devices on which rays go side by side."""
    near, far, meets = sphere_bounds(origins, directions)
    share = torch.linspace(0.0, 1.0, _SECTIONS + 1, device=origins.device)
    edges = near[:, None] + (far - near)[:, None] * share
    sdf = grid.lookup(origins[:, None] + directions[:, None] * edges[..., None])
    number = torch.arange(_SECTIONS, device=origins.device)
    outside, inside = sdf[:, :-1] >= 0.0, sdf[:, 1:] < 0.0
    enters = outside & inside & meets[:, None]
    some, first = enters.any(-1), enters.int().argmax(-1)[:, None]
    before, now = sdf.gather(1, first)[:, 0], sdf.gather(1, first + 1)[:, 0]
    width = (far - near) / _SECTIONS
    entry = edges.gather(1, first)[:, 0] + width * before / (before - now)
    # Minima above the surface that come before the entry, and how deep the ray gets until it leaves again.
    dips = outside[:, 1:] & (sdf[:, 1:-1] < margin) & (sdf[:, 1:-1] <= sdf[:, :-2]) & (sdf[:, 1:-1] < sdf[:, 2:])
    ahead = ~some[:, None] | (number[1:] < first)
    ends_low = ~some & (sdf[:, -1] < margin) & (sdf[:, -1] < sdf[:, -2])
    behind = number >= first
    left = (behind & ~inside).cumsum(-1) > 0
    deep = (behind & ~left & (sdf[:, 1:] <= -margin)).any(-1)
    clear = ~((dips & ahead).any(-1) | ends_low) | ~meets
    infinite = torch.full_like(entry, torch.inf)
    slope = torch.where(some, (before - now) / width, 1.0)
    return March(torch.where(some, entry, infinite), slope, clear, some & deep)
