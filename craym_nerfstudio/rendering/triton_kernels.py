"""Triton kernel that samples rays: `sampling.sample_rays` on a GPU, in one launch instead of a hundred.

Importing this module imports triton, so only ``sampling`` does, at first use. A program follows ``BLOCK`` rays, each of
them as the CPU's kernel does (`sampling_kernel`); what a ray needs between the passes lies in ``scratch``
[1 + coarse + fine, rays].
"""

import triton
import triton.language as tl

BLOCK = 32


@triton.jit
def _axis(x, LAST: tl.constexpr):
    """Cell and share of a position on one axis of the grid, border values beyond it."""
    place = tl.minimum(tl.maximum((x + 1.0) * 0.5 * LAST, 0.0), LAST * 1.0)
    cell = tl.minimum(place.to(tl.int32), LAST - 1)
    return cell, place - cell.to(tl.float32)


@triton.jit
def _edge(grid, row, u, mask):
    low = tl.load(grid + row, mask=mask, other=0.0)
    return low + u * (tl.load(grid + row + 1, mask=mask, other=0.0) - low)


@triton.jit
def _distance(grid, x, y, z, mask, SIDE: tl.constexpr):
    """Trilinear interpolation of the cached distances [z, y, x]."""
    i, u = _axis(x, SIDE - 1)
    j, v = _axis(y, SIDE - 1)
    k, w = _axis(z, SIDE - 1)
    row = (k * SIDE + j) * SIDE + i
    a, b = _edge(grid, row, u, mask), _edge(grid, row + SIDE, u, mask)
    c = _edge(grid, row + SIDE * SIDE, u, mask)
    d = _edge(grid, row + SIDE * SIDE + SIDE, u, mask)
    low, high = a + v * (b - a), c + v * (d - c)
    return low + w * (high - low)


@triton.jit
def _weigh(nearing, total, rays, inside, COARSE: tl.constexpr):
    """Weights of bins in place of how much nearer the surface comes in each [coarse, rays], and their sum.

    See `sampling._section_weights`; a bin and the two on both sides of it are followed along the rays.
    """
    a, b = total * 0.0, total * 0.0
    c, d = tl.load(nearing, mask=inside, other=0.0), tl.load(nearing + rays, mask=inside, other=0.0)
    for k in range(COARSE):
        e = tl.load(nearing + (k + 2) * rays, mask=inside & (k + 2 < COARSE), other=0.0)
        from_d = tl.minimum(d, e)
        from_c = tl.minimum(c, from_d)
        passes = ((a > 0) & (tl.minimum(b, from_c) < 0)) | ((b > 0) & (from_c < 0))
        passes = passes | ((c > 0) & (from_d < 0)) | ((d > 0) & (e < 0))
        heaviest = tl.maximum(tl.maximum(tl.abs(a), tl.abs(b)), tl.maximum(tl.abs(d), tl.abs(e)))
        weight = tl.where(passes, tl.maximum(heaviest, tl.abs(c)), tl.abs(c))
        tl.store(nearing + k * rays, weight, mask=inside)
        total += weight
        a, b, c, d = b, c, d, e
    return total


@triton.jit
def _invert(
    scratch, edges, near, width, shift, total, points, rays, inside, COARSE: tl.constexpr, FINE: tl.constexpr
):  # fmt: skip
    """Distances at equally spaced quantiles of the distribution over equal bins, into ``edges`` [fine + 1, rays]."""
    floor = 0.02 / COARSE * total + 1e-4 / COARSE
    scale = 1.0 / (total + COARSE * floor)
    k, n = tl.zeros_like(points), tl.zeros_like(points)
    low = total * 0.0
    high = (tl.load(scratch + points, mask=inside, other=0.0) + floor) * scale
    # Either the next bin or the next quantile: so many turns are enough for every ray.
    for _ in range(COARSE + FINE):
        quantile = (n.to(tl.float32) + shift) / (FINE + 1)
        advance = (n <= FINE) & (high <= quantile) & (k < COARSE - 1)
        emit = (n <= FINE) & (advance == 0)
        share = tl.minimum(tl.maximum((quantile - low) / tl.maximum(high - low, 1e-8), 0.0), 1.0)
        tl.store(edges + n * rays + points, near + width * (k.to(tl.float32) + share), mask=inside & emit)
        k = tl.where(advance, k + 1, k)
        weight = tl.load(scratch + k * rays + points, mask=inside & advance, other=0.0)
        low = tl.where(advance, high, low)
        high = tl.where(advance, high + (weight + floor) * scale, high)
        n = tl.where(emit, n + 1, n)


@triton.jit(do_not_specialize=["rays"])
def place(
    grid, origins, directions, jitter, sharpness, allowance, scratch, middles, steps, active, rays, keep_below, longest,
    SIDE: tl.constexpr, COARSE: tl.constexpr, FINE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sections of rays, into ``middles``, ``steps`` and ``active`` [rays, fine]."""
    points = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = points < rays
    ox = tl.load(origins + 3 * points, mask=inside, other=0.0)
    oy = tl.load(origins + 3 * points + 1, mask=inside, other=0.0)
    oz = tl.load(origins + 3 * points + 2, mask=inside, other=0.0)
    dx = tl.load(directions + 3 * points, mask=inside, other=1.0)
    dy = tl.load(directions + 3 * points + 1, mask=inside, other=0.0)
    dz = tl.load(directions + 3 * points + 2, mask=inside, other=0.0)
    sharp, doubt = tl.load(sharpness), tl.load(allowance)
    # As `sampling.sphere_bounds`.
    middle = -(ox * dx + oy * dy + oz * dz)
    closest = ox * ox + oy * oy + oz * oz - middle * middle
    half = tl.sqrt(tl.maximum(1.0 - closest, 1e-6))
    near, far = tl.maximum(middle - half, 0.02), tl.maximum(middle + half, 0.02 + 1e-3)
    meets = inside & (closest < 1.0) & (middle + half > 0.02)
    width = (far - near) / COARSE
    enter = tl.sigmoid(_distance(grid, ox + near * dx, oy + near * dy, oz + near * dz, inside, SIDE) * sharp)
    transmittance, total = enter * 0.0 + 1.0, enter * 0.0
    for k in range(COARSE):
        t = near + width * (k + 1)
        leave = tl.sigmoid(_distance(grid, ox + t * dx, oy + t * dy, oz + t * dz, inside, SIDE) * sharp)
        absorbed = tl.minimum(tl.maximum((enter - leave) / (enter + 1e-5), 0.0), 1.0)
        nearing = (enter - leave) / (tl.maximum(enter, leave) + 1e-5) * transmittance
        tl.store(scratch + k * rays + points, nearing, mask=inside)
        transmittance *= 1.0 - absorbed + 1e-7
        enter = leave
    # What a program has stored may be read by another of its threads.
    tl.debug_barrier()
    total = _weigh(scratch + points, total, rays, inside, COARSE)
    tl.debug_barrier()
    edges = scratch + COARSE * rays
    shift = tl.load(jitter + points, mask=inside, other=0.5)
    _invert(scratch, edges, near, width, shift, total, points, rays, inside, COARSE, FINE)
    tl.debug_barrier()
    start = tl.load(edges + points, mask=inside, other=0.0)
    before = _distance(grid, ox + start * dx, oy + start * dy, oz + start * dz, inside, SIDE)
    first = tl.sigmoid((before + doubt) * sharp)
    least = first
    for n in range(FINE):
        end = tl.load(edges + (n + 1) * rays + points, mask=inside, other=0.0)
        behind = _distance(grid, ox + end * dx, oy + end * dy, oz + end * dz, inside, SIDE)
        reach, nearest = 0.5 * (end - start), tl.minimum(before, behind) - doubt
        alpha = 1.0 - tl.sigmoid((nearest - reach) * sharp) / tl.sigmoid((nearest + reach) * sharp)
        marked = meets & (alpha * tl.minimum(least / first, 1.0) > keep_below)
        tl.store(middles + points * FINE + n, 0.5 * (start + end), mask=inside)
        tl.store(steps + points * FINE + n, tl.minimum(end - start, longest * (far - near)), mask=inside)
        tl.store(active + points * FINE + n, marked.to(tl.int8), mask=inside)
        least = tl.minimum(least, tl.sigmoid((behind + doubt) * sharp))
        start, before = end, behind
