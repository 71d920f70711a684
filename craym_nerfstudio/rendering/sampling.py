"""Where to sample a ray: sphere bounds, a cached grid of signed distances, and importance sampling from it."""

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from craym_nerfstudio.kernels.loader import importable, load_kernels, on_device, triton_runs
from craym_nerfstudio.kernels.threads import equal_ranges, run_parallel, thread_count
from craym_nerfstudio.schedules import Scalar, filled

_RAYS_PER_TASK = 64
LONGEST = 1.0 / 64.0
"""Longest section, in parts of the way through the sphere. Longer ones lie where the cache sees nothing; linearising
the SDF over them would extrapolate through surfaces."""


@dataclass
class RaySamples:
    """Sections of rays; sections outside `active` are known to be empty or hidden and are not evaluated."""

    middles: Float[Tensor, "rays samples"]
    steps: Float[Tensor, "rays samples"]
    active: Bool[Tensor, "rays samples"]


def sphere_bounds(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], near: float = 0.02
) -> tuple[Float[Tensor, " rays"], Float[Tensor, " rays"], Bool[Tensor, " rays"]]:
    """Distances at which unit-direction rays enter and leave the unit sphere, and whether they meet it."""
    middle = -(origins * directions).sum(-1)
    closest_sq = (origins * origins).sum(-1) - middle * middle
    half = (1.0 - closest_sq).clamp_min(1e-6).sqrt()
    enter = (middle - half).clamp_min(near)
    leave = (middle + half).clamp_min(near + 1e-3)
    return enter, leave, (closest_sq < 1.0) & (middle + half > near)


class DistanceGrid(nn.Module):
    """A coarse cache of the SDF over the cube [-1, 1]^3, refreshed on a schedule, that tells where surfaces may be."""

    values: Tensor

    def __init__(self, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution
        # It could be recomputed from the field, but a resumed run must equal an uninterrupted one: it is state.
        self.register_buffer("values", torch.zeros(1, 1, resolution, resolution, resolution))

    @property
    def cell(self) -> float:
        """Edge of one cell, in units of the field."""
        return 2.0 / (self.resolution - 1)

    @property
    def points(self) -> Float[Tensor, "points 3"]:
        """Positions of the grid's nodes, x fastest."""
        return _nodes(self.resolution, self.values.device)

    @torch.no_grad()
    def refresh(self, sdf, step: Scalar = 0, parts: int = 1) -> None:
        """Evaluate with ``sdf(points) -> [points]`` that one of `parts` slabs of the grid whose turn a step is."""
        total, flat = self.resolution**3, self.values.view(-1)
        size = -(-total // parts)
        numbers = ((step % parts * size + _numbers(size, flat.device)) % total).long()
        for nodes in numbers.split(1 << 17):
            flat.index_copy_(0, nodes, sdf(self.points.index_select(0, nodes)).to(flat.dtype))

    def lookup(self, points: Float[Tensor, "rays n 3"]) -> Float[Tensor, "rays n"]:
        """Trilinear interpolation of the cached distances."""
        # On a CPU torch spreads this over threads image by image: every ray gets the grid as an image of its own.
        grids = self.values.expand(points.shape[0], -1, -1, -1, -1)
        found = F.grid_sample(grids, points[:, :, None, None], "bilinear", "border", align_corners=True)
        return found[:, 0, :, 0, 0]


@lru_cache(maxsize=2)
def _numbers(count: int, device: torch.device) -> Int[Tensor, " count"]:
    return torch.arange(count).to(device)


@lru_cache(maxsize=2)
def _nodes(resolution: int, device: torch.device) -> Float[Tensor, "nodes 3"]:
    """Positions of all nodes of a grid, x fastest."""
    index = torch.arange(resolution**3)
    axis = torch.stack([index % resolution, index // resolution % resolution, index // resolution**2], dim=-1)
    return (axis.float() * (2.0 / (resolution - 1)) - 1.0).to(device)


def stratified(count: int, rays: int, jitter: Float[Tensor, "rays 1"] | None, device) -> Float[Tensor, "rays count"]:
    """Ascending numbers in (0, 1), one per equal bin, shifted together by each ray's jitter (0.5 when None)."""
    steps = torch.arange(count, device=device, dtype=torch.float32)
    shift = jitter if jitter is not None else torch.full((rays, 1), 0.5, device=device)
    return (steps + shift) / count


def sample_pdf(
    edges: Float[Tensor, "rays bins+1"], weights: Float[Tensor, "rays bins"], quantiles: Float[Tensor, "rays n"]
) -> Float[Tensor, "rays n"]:
    """Invert the piecewise-linear distribution with the given weight per bin at the given quantiles."""
    density = weights / weights.sum(-1, keepdim=True)
    cdf = torch.cat([torch.zeros_like(density[:, :1]), density.cumsum(-1)], dim=-1)
    upper = torch.searchsorted(cdf, quantiles.contiguous(), right=True).clamp(1, weights.shape[-1])
    lower = upper - 1
    cdf_low, cdf_high = cdf.gather(-1, lower), cdf.gather(-1, upper)
    edge_low, edge_high = edges.gather(-1, lower), edges.gather(-1, upper)
    fraction = ((quantiles - cdf_low) / (cdf_high - cdf_low).clamp_min(1e-8)).clamp(0.0, 1.0)
    return edge_low + fraction * (edge_high - edge_low)


@dataclass
class Placing:
    """How the sections of rays are placed."""

    coarse: int
    """Look-ups of the cached distances per ray."""
    fine: int
    """Sections per ray."""
    inv_s: Float[Tensor, ""]
    """Sharpness of the density that is rendered."""
    interval: Scalar
    """Distance from the cached surface within which sections are placed while the density is sharper than that."""
    keep_below: float
    """Sections whose expected contribution falls below this are left out of `RaySamples.active`."""
    jitter: Float[Tensor, "rays 1"] | None = None

    @property
    def sharpness(self) -> Float[Tensor, ""]:
        """That of the density that sections are placed by: a logistic density ends at 6 of its widths."""
        return self.inv_s.clamp(max=6.0 / self.interval)

    @property
    def doubt(self) -> Scalar:
        """How far the cached distances may be off."""
        return self.interval / 3.0


@torch.no_grad()
def sample_rays(
    grid: DistanceGrid, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], placing: Placing
) -> RaySamples:
    """Sections where the cached distances expect the surface (NeuS-style importance sampling)."""
    single, kind = origins.dtype == torch.float32, origins.device.type
    if single and kind == "cpu" and importable("numba"):
        return _place_by_kernel(grid, origins, directions, placing)
    if single and triton_runs(origins.device):
        return _place_by_triton(grid, origins, directions, placing)
    return _place(grid, origins, directions, placing)


def _place(grid: DistanceGrid, origins: Tensor, directions: Tensor, placing: Placing) -> RaySamples:
    """`sample_rays` as operations on tensors, on any device: what the kernel is tested against."""
    near, far, meets = sphere_bounds(origins, directions)
    rays, device, coarse, sharpness = origins.shape[0], origins.device, placing.coarse, placing.sharpness
    bins = torch.linspace(0.0, 1.0, coarse + 1, device=device)
    edges = near[:, None] + (far - near)[:, None] * bins
    sdf = grid.lookup(origins[:, None] + directions[:, None] * edges[..., None])
    weights = _section_weights(sdf, sharpness)
    # A little everywhere: a surface that the cache has not seen must still be found.
    spread = weights + 0.02 / coarse * weights.sum(-1, keepdim=True) + 1e-4 / coarse
    fine_edges = sample_pdf(edges, spread, stratified(placing.fine + 1, rays, placing.jitter, device))
    middles = 0.5 * (fine_edges[:, 1:] + fine_edges[:, :-1])
    steps = (fine_edges[:, 1:] - fine_edges[:, :-1]).minimum(LONGEST * (far - near)[:, None])
    expected = _largest_weight(grid, origins, directions, fine_edges, sharpness, placing.doubt)
    return RaySamples(middles, steps, meets[:, None] & (expected > placing.keep_below))


def _place_by_kernel(grid: DistanceGrid, origins: Tensor, directions: Tensor, placing: Placing) -> RaySamples:
    """`sample_rays` in one pass on all cores of a CPU."""
    native = load_kernels("craym_nerfstudio.rendering.sampling_kernel", "sample", "Ray sampling")
    rays, (near, far, meets) = len(origins), sphere_bounds(origins, directions)
    shift = torch.full((rays,), 0.5) if placing.jitter is None else placing.jitter[:, 0]
    shape = (rays, placing.fine)
    samples = RaySamples(torch.empty(shape), torch.empty(shape), torch.empty(shape, dtype=torch.bool))
    inputs = (grid.values[0, 0], origins, directions, near, far, meets, shift)
    given = [tensor.contiguous().numpy() for tensor in inputs]
    numbers = (placing.sharpness, placing.doubt, placing.keep_below, LONGEST)
    limits = [np.float32(float(number)) for number in numbers]
    out = [tensor.numpy() for tensor in (samples.middles, samples.steps, samples.active)]
    parts = max(1, min(4 * thread_count(), rays // _RAYS_PER_TASK))
    ranges = equal_ranges(rays, parts)
    run_parallel([partial(native.sample, *ends, *given, *limits, placing.coarse, *out) for ends in ranges])
    return samples


def _place_by_triton(grid: DistanceGrid, origins: Tensor, directions: Tensor, placing: Placing) -> RaySamples:
    """`sample_rays` in one launch on a GPU."""
    from craym_nerfstudio.rendering import triton_kernels as native

    rays, coarse, fine, device = len(origins), placing.coarse, placing.fine, origins.device
    jitter = torch.full((rays, 1), 0.5, device=device) if placing.jitter is None else placing.jitter
    middles, steps = torch.empty(2, rays, fine, device=device).unbind(0)
    active = torch.empty(rays, fine, dtype=torch.bool, device=device)
    scratch = torch.empty(coarse + fine + 1, rays, device=device)
    sharpness = placing.sharpness
    doubt = filled(sharpness, placing.doubt)
    inputs = (grid.values, origins.contiguous(), directions.contiguous(), jitter, sharpness, doubt)
    out = (scratch, middles, steps, active.view(torch.int8))
    sizes = {"SIDE": grid.resolution, "COARSE": coarse, "FINE": fine, "BLOCK": native.BLOCK}
    if rays > 0:
        with on_device(device):
            native.place[(-(-rays // native.BLOCK),)](
                *inputs, *out, rays, placing.keep_below, LONGEST, **sizes, num_warps=1
            )
    return RaySamples(middles, steps, active)


def _section_weights(sdf: Float[Tensor, "rays edges"], sharpness: Tensor) -> Float[Tensor, "rays bins"]:
    """What bins contribute, front to back; where a ray leaves a surface, what they would seen from the other side.

    Light is absorbed on the way in alone. But where the cache sees a ray just pass, the field may hold an edge that the
    ray meets only behind the place where the cache has it closest: without sections there it would stay unseen. And
    that place itself, where distances hardly change along the ray, absorbs most of all: there bins weigh as much as the
    heaviest around them.
    """
    enter, leave = torch.sigmoid(sdf[:, :-1] * sharpness), torch.sigmoid(sdf[:, 1:] * sharpness)
    absorbed = ((enter - leave) / (enter + 1e-5)).clamp(0.0, 1.0)
    nearing = (enter - leave) / (torch.maximum(enter, leave) + 1e-5)
    transmittance = torch.cumprod(1.0 - absorbed + 1e-7, dim=-1)
    nearing = torch.cat([nearing[:, :1], nearing[:, 1:] * transmittance[:, :-1]], dim=-1)
    around = F.pad(nearing, (2, 2)).unfold(1, 5, 1)
    from_behind = around.flip(-1).cummin(-1).values.flip(-1)
    passes = ((around[..., :-1] > 0) & (from_behind[..., 1:] < 0)).any(-1)
    return torch.where(passes, around.abs().amax(-1), nearing.abs())


def _largest_weight(
    grid, origins, directions, edges, sharpness: Tensor, doubt: Scalar
) -> Float[Tensor, "rays samples"]:
    """Upper bound of each section's weight, given that the cache is coarse, a few steps old, and off by `doubt`."""
    sdf = grid.lookup(origins[:, None] + directions[:, None] * edges[..., None])
    half = 0.5 * (edges[:, 1:] - edges[:, :-1])
    nearest = torch.minimum(sdf[:, :-1], sdf[:, 1:]) - doubt
    alpha = 1.0 - torch.sigmoid((nearest - half) * sharpness) / torch.sigmoid((nearest + half) * sharpness)
    behind = torch.sigmoid((sdf + doubt) * sharpness)
    # Light that reaches a section is what the most opaque point before it lets through.
    reaching = torch.cummin(behind, dim=-1).values[:, :-1] / behind[:, :1]
    return alpha * reaching.clamp(max=1.0)
