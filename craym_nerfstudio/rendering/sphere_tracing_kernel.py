"""Numba kernel of `sphere_tracing.march` on a CPU: every ray walks by itself and stops where it is done."""

import math

import numba
import numpy as np

from craym_nerfstudio.rendering.sampling_kernel import FAST, ONE, ZERO, distance

STEP, FINEST, CLOSE = np.float32(0.9), np.float32(0.5), np.float32(1.0)
"""Share of the distance that is stepped (fields are not exact distances), the least step in cells, and from how many
cells beyond the margin on distances are interpolated: farther off, the least of a block of cells will do."""


@numba.njit(fastmath=FAST, inline="always")
def _at(grid, origins, directions, ray, t):
    return distance(
        grid,
        origins[ray, 0] + t * directions[ray, 0],
        origins[ray, 1] + t * directions[ray, 1],
        origins[ray, 2] + t * directions[ray, 2],
    )


@numba.njit(fastmath=FAST, inline="always")
def _block(position, per_unit, last):
    return min(max(np.int32((position + ONE) * per_unit), np.int32(0)), np.int32(last))


@numba.njit(fastmath=FAST, inline="always")
def _bound(blocks, per_unit, origins, directions, ray, t):
    """What the distance is at least; the blocks fit into a core's own cache, the distances do not."""
    last = blocks.shape[0] - 1
    i = _block(origins[ray, 0] + t * directions[ray, 0], per_unit, last)
    j = _block(origins[ray, 1] + t * directions[ray, 1], per_unit, last)
    k = _block(origins[ray, 2] + t * directions[ray, 2], per_unit, last)
    return blocks[k, j, i]


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def march(
    first, last, grid, blocks, origins, directions, near, far, meets, per_unit, margin, entry, slope, clear, opaque
):  # fmt: skip
    """Rays number first:last through cached distances; see `sphere_tracing.March` for what is written.

    The least distances of `blocks`, `per_unit` of which are a unit long, bound steps far from the surface.
    """
    cell = np.float32(2.0) / np.float32(grid.shape[0] - 1)
    least, close = FINEST * cell, margin + CLOSE * cell
    for ray in range(first, last):
        entry[ray], slope[ray], clear[ray], opaque[ray] = np.float32(math.inf), ONE, True, False
        if not meets[ray]:
            continue
        t, end = near[ray], far[ray]
        before = _bound(blocks, per_unit, origins, directions, ray, t)
        if before <= close:
            before = _at(grid, origins, directions, ray, t)
        while before < ZERO and t < end:  # light only enters: a ray that starts inside goes on to the outside
            t += max(-before * STEP, least)
            before = _at(grid, origins, directions, ray, t)
        falling = False
        while t < end:
            step = max(before * STEP, least)
            t += step
            now = _bound(blocks, per_unit, origins, directions, ray, t)
            if now > close:
                falling, before = True, now
                continue
            now = _at(grid, origins, directions, ray, t)
            if now < ZERO:
                share = before / (before - now)
                entry[ray], slope[ray] = t - step * (ONE - share), (before - now) / step
                break
            # A minimum above the surface: the ray passes it by, but not without being dimmed.
            if falling and now > before and before < margin:
                clear[ray] = False
            falling = now <= before or before > close
            before = now
        if entry[ray] > end:
            if falling and before < margin:
                clear[ray] = False
            continue
        deepest = now
        while now < ZERO and now > -margin and t < end:
            t += least
            now = _at(grid, origins, directions, ray, t)
            deepest = min(deepest, now)
        opaque[ray] = deepest <= -margin
