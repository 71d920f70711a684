"""Numba kernel that samples rays one after the other: `sampling.sample_rays` on a CPU, in one pass.

Importing this module imports numba, so only ``sampling`` does, at first use. What a ray needs fits into a core's
smallest cache; as operations on tensors the same takes some fifty passes over memory.
"""

import math

import numba
import numpy as np

FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}
ZERO, HALF, ONE, TINY = (np.float32(v) for v in (0, 0.5, 1, 1e-8))


@numba.njit(fastmath=FAST, inline="always")
def _sigmoid(x):
    return ONE / (ONE + np.float32(math.exp(-x)))


@numba.njit(fastmath=FAST, inline="always")
def axis_cell(x, last):
    """Cell and share of a position on one axis of the grid, border values beyond it."""
    place = (x + ONE) * HALF * last
    place = min(max(place, ZERO), last)
    cell = min(np.int32(place), np.int32(last) - np.int32(1))
    return cell, place - np.float32(cell)


@numba.njit(fastmath=FAST)
def distance(grid, x, y, z):
    """Trilinear interpolation of the cached distances [z, y, x]."""
    last = np.float32(grid.shape[0] - 1)
    (i, u), (j, v), (k, w) = axis_cell(x, last), axis_cell(y, last), axis_cell(z, last)
    a = grid[k, j, i] + u * (grid[k, j, i + 1] - grid[k, j, i])
    b = grid[k, j + 1, i] + u * (grid[k, j + 1, i + 1] - grid[k, j + 1, i])
    c = grid[k + 1, j, i] + u * (grid[k + 1, j, i + 1] - grid[k + 1, j, i])
    d = grid[k + 1, j + 1, i] + u * (grid[k + 1, j + 1, i + 1] - grid[k + 1, j + 1, i])
    low, high = a + v * (b - a), c + v * (d - c)
    return low + w * (high - low)


@numba.njit(fastmath=FAST)
def _section_weights(sdf, sharpness, nearing, weights):
    """As `sampling._section_weights`, and their sum."""
    bins, transmittance, total = weights.shape[0], ONE, ZERO
    enter = _sigmoid(sdf[0] * sharpness)
    for k in range(bins):
        leave = _sigmoid(sdf[k + 1] * sharpness)
        absorbed = min(max((enter - leave) / (enter + np.float32(1e-5)), ZERO), ONE)
        nearing[k] = (enter - leave) / (max(enter, leave) + np.float32(1e-5)) * transmittance
        transmittance *= ONE - absorbed + np.float32(1e-7)
        enter = leave
    # A bin, and the two on both sides of it.
    a, b, c, d = ZERO, ZERO, nearing[0], nearing[1]
    for k in range(bins):
        e = nearing[k + 2] if k + 2 < bins else ZERO
        from_d = min(d, e)
        from_c = min(c, from_d)
        passes = (a > ZERO and min(b, from_c) < ZERO) or (b > ZERO and from_c < ZERO)
        passes = passes or (c > ZERO and from_d < ZERO) or (d > ZERO and e < ZERO)
        weights[k] = max(max(abs(a), abs(b)), max(abs(d), abs(e)), abs(c)) if passes else abs(c)
        total += weights[k]
        a, b, c, d = b, c, d, e
    return total


@numba.njit(fastmath=FAST)
def _invert(near, width, weights, total, shift, edges):
    """Distances at equally spaced quantiles of the distribution over equal bins; `edges` are ascending."""
    bins, count = weights.shape[0], edges.shape[0]
    floor = np.float32(0.02) / np.float32(bins) * total + np.float32(1e-4) / np.float32(bins)
    scale = ONE / (total + np.float32(bins) * floor)
    k, low = 0, ZERO
    high = (weights[0] + floor) * scale
    for n in range(count):
        quantile = (np.float32(n) + shift) / np.float32(count)
        while high <= quantile and k < bins - 1:
            k += 1
            low = high
            high += (weights[k] + floor) * scale
        share = min(max((quantile - low) / max(high - low, TINY), ZERO), ONE)
        edges[n] = near + width * (np.float32(k) + share)


@numba.njit(fastmath=FAST)
def _mark(sdf, edges, sharpness, doubt, keep_below, active):
    """Sections whose largest possible weight, given what the cache cannot know, is above a bound."""
    first = _sigmoid((sdf[0] + doubt) * sharpness)
    least = first
    for k in range(active.shape[0]):
        half = HALF * (edges[k + 1] - edges[k])
        nearest = min(sdf[k], sdf[k + 1]) - doubt
        alpha = ONE - _sigmoid((nearest - half) * sharpness) / _sigmoid((nearest + half) * sharpness)
        active[k] = alpha * min(least / first, ONE) > keep_below
        least = min(least, _sigmoid((sdf[k + 1] + doubt) * sharpness))


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def sample(
    first, last, grid, origins, directions, near, far, meets, jitter, sharpness, doubt, keep_below, longest, coarse,
    middles, steps, active,
):  # fmt: skip
    """Sections of rays number first:last, into `middles`, `steps` and `active` [rays, samples]."""
    fine = middles.shape[1]
    weights, nearing = np.empty(coarse, np.float32), np.empty(coarse, np.float32)
    sdf = np.empty(max(coarse, fine) + 1, np.float32)
    edges = np.empty(fine + 1, np.float32)
    for ray in range(first, last):
        if not meets[ray]:
            for k in range(fine):
                middles[ray, k], steps[ray, k], active[ray, k] = near[ray], ZERO, False
            continue
        ox, oy, oz = origins[ray, 0], origins[ray, 1], origins[ray, 2]
        dx, dy, dz = directions[ray, 0], directions[ray, 1], directions[ray, 2]
        width = (far[ray] - near[ray]) / np.float32(coarse)
        for k in range(coarse + 1):
            t = near[ray] + width * np.float32(k)
            sdf[k] = distance(grid, ox + t * dx, oy + t * dy, oz + t * dz)
        total = _section_weights(sdf, sharpness, nearing, weights)
        _invert(near[ray], width, weights, total, jitter[ray], edges)
        for k in range(fine + 1):
            sdf[k] = distance(grid, ox + edges[k] * dx, oy + edges[k] * dy, oz + edges[k] * dz)
        _mark(sdf, edges, sharpness, doubt, keep_below, active[ray])
        for k in range(fine):
            middles[ray, k] = HALF * (edges[k + 1] + edges[k])
            steps[ray, k] = min(edges[k + 1] - edges[k], longest * (far[ray] - near[ray]))
