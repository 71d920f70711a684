"""Numba kernels of the hash grid; importing this module imports numba, so only ``cpu_backend`` does, at first use.

The kernels are serial and release the GIL; ``cpu_backend`` runs them on disjoint blocks of points (forward) or on
disjoint levels (backward), so that no two threads ever write to the same memory and results do not depend on timing.
All arrays are contiguous, ranges of points are given by numbers: every call has one signature, compiled once.

Each level is done in blocks of ``BLOCK`` points, stage by stage with the points innermost: arithmetic becomes SIMD,
and the table reads of one stage are independent of each other, so that many cache misses are under way at once.
``lanes`` is any tuple of F elements: its length is known to the compiler, which unrolls the loops over features.
Jacobians are stored block by block, [blocks, L*F, 3, BLOCK], and ranges of points start at a block's first point.
"""

import numba
import numpy as np

BLOCK = 128
# No "nnan"/"ninf": a NaN point must be recognised, or its cell would be an arbitrary address.
FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}
ONE, TWO, THREE, SIX, TWELVE, HALF, ZERO = (np.float32(v) for v in (1, 2, 3, 6, 12, 0.5, 0))
PRIME_Y, PRIME_Z = np.uint32(2654435761), np.uint32(805459861)


@numba.njit(fastmath=FAST)
def _scratch(lanes):
    """Cells [3 n], weight of the upper vertex and its two derivatives [3 3 n], rows [8 n], vertex values [F, 8 n]."""
    n = len(lanes)
    return (
        np.empty(3 * BLOCK, np.int32),
        np.empty(9 * BLOCK, np.float32),
        np.empty(8 * BLOCK, np.int32),
        np.empty((n, 8 * BLOCK), np.float32),
    )


@numba.njit(fastmath=FAST)
def _locate_axis(x, scale, smooth, cell, weights):
    """Along one axis: cell, weight of its upper vertex, and that weight's first and second derivative by x."""
    for p in range(x.shape[0]):
        inside_scale = scale if x[p] >= ZERO and x[p] <= ONE else ZERO
        clamped = ZERO if x[p] < ZERO else x[p]
        clamped = ONE if clamped > ONE else clamped
        position = clamped * scale + HALF
        vertex = np.int32(position if position >= HALF else HALF)
        t = position - np.float32(vertex)
        cell[p] = vertex
        if smooth:
            weights[p] = t * t * (THREE - TWO * t)
            weights[3 * BLOCK + p] = SIX * t * (ONE - t) * inside_scale
            weights[6 * BLOCK + p] = (SIX - TWELVE * t) * inside_scale * inside_scale
        else:
            weights[p] = t
            weights[3 * BLOCK + p] = inside_scale
            weights[6 * BLOCK + p] = ZERO


@numba.njit(fastmath=FAST)
def _dense_rows(n, cell, offset, size, res, rows):
    offset, size, res, res2 = np.int32(offset), np.int32(size), np.int32(res), np.int32(res * res)
    for corner in range(8):
        step = np.int32(corner & 1) + np.int32((corner >> 1) & 1) * res + np.int32(corner >> 2) * res2
        for p in range(n):
            row = cell[p] + cell[BLOCK + p] * res + cell[2 * BLOCK + p] * res2 + step
            row = row - size if row >= size else row
            rows[corner * BLOCK + p] = row + offset


@numba.njit(fastmath=FAST)
def _hashed_rows(n, cell, offset, size, rows):
    offset, mask = np.uint32(offset), np.uint32(size - 1)
    for corner in range(8):
        ix, iy, iz = np.uint32(corner & 1), np.uint32((corner >> 1) & 1), np.uint32(corner >> 2)
        for p in range(n):
            x = np.uint32(np.uint32(cell[p]) + ix)
            y = np.uint32(np.uint32(np.uint32(cell[BLOCK + p]) + iy) * PRIME_Y)
            z = np.uint32(np.uint32(np.uint32(cell[2 * BLOCK + p]) + iz) * PRIME_Z)
            rows[corner * BLOCK + p] = ((x ^ y ^ z) & mask) + offset


@numba.njit(fastmath=FAST)
def _locate(x, start, stop, scale, integers, smooth, cell, weights, rows):
    """Where points [3, start:stop] fall on a level of ``integers`` (number, offset, size, resolution or 0)."""
    for axis in range(3):
        _locate_axis(x[axis][start:stop], scale, smooth, cell[axis * BLOCK :], weights[axis * BLOCK :])
    if integers[3] > 0:
        _dense_rows(stop - start, cell, integers[1], integers[2], integers[3], rows)
    else:
        _hashed_rows(stop - start, cell, integers[1], integers[2], rows)


@numba.njit(fastmath=FAST)
def _gather(n, table, rows, values, lanes):
    for p in range(n):
        for corner in range(8):
            row = rows[corner * BLOCK + p]
            for f in range(len(lanes)):
                values[f, corner * BLOCK + p] = table[row, f]


@numba.njit(fastmath=FAST)
def _scatter(n, table, rows, values, lanes):
    for p in range(n):
        for corner in range(8):
            row = rows[corner * BLOCK + p]
            for f in range(len(lanes)):
                table[row, f] += values[f, corner * BLOCK + p]


@numba.njit(fastmath=FAST)
def _interpolate(n, v, weights, level_weight, out):
    """Trilinear interpolation of one feature: its value and its derivatives by x, y, z into ``out`` [4 n]."""
    for p in range(n):
        tx, ty, tz = weights[p], weights[BLOCK + p], weights[2 * BLOCK + p]
        v0, v2, v4, v6 = v[p], v[2 * BLOCK + p], v[4 * BLOCK + p], v[6 * BLOCK + p]
        d0, d1 = v[BLOCK + p] - v0, v[3 * BLOCK + p] - v2
        d2, d3 = v[5 * BLOCK + p] - v4, v[7 * BLOCK + p] - v6
        a0, a1, a2, a3 = v0 + tx * d0, v2 + tx * d1, v4 + tx * d2, v6 + tx * d3
        y0, y1 = a1 - a0, a3 - a2
        b0, b1 = a0 + ty * y0, a2 + ty * y1
        x0, x1 = d0 + ty * (d1 - d0), d2 + ty * (d3 - d2)
        out[p] = level_weight * (b0 + tz * (b1 - b0))
        out[BLOCK + p] = level_weight * weights[3 * BLOCK + p] * (x0 + tz * (x1 - x0))
        out[2 * BLOCK + p] = level_weight * weights[4 * BLOCK + p] * (y0 + tz * (y1 - y0))
        out[3 * BLOCK + p] = level_weight * weights[5 * BLOCK + p] * (b1 - b0)


@numba.njit(fastmath=FAST)
def _copy(source, target):
    for p in range(target.shape[0]):
        target[p] = source[p]


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def forward(first, last, x, table, scales, integers, weights, smooth, span, lanes, features, jacobian):
    """Write features [n, L*F] and, where it is not empty, the Jacobian of points [3, first:last].

    ``span`` points are done on one level before the next: many where a table exceeds the cache, few where outputs do.
    """
    cell, interpolation, rows, values = _scratch(lanes)
    out = np.empty((len(lanes), 4 * BLOCK), np.float32)
    for low in range(first, last, span):
        high = min(low + span, last)
        for k in range(scales.shape[0]):
            column = integers[k, 0] * len(lanes)
            for start in range(low, high, BLOCK):
                stop = min(start + BLOCK, high)
                _locate(x, start, stop, scales[k], integers[k], smooth, cell, interpolation, rows)
                _gather(stop - start, table, rows, values, lanes)
                for f in range(len(lanes)):
                    _interpolate(stop - start, values[f], interpolation, weights[k], out[f])
                for p in range(stop - start):
                    for f in range(len(lanes)):
                        features[start + p, column + f] = out[f, p]
                if jacobian.shape[0] > 0:
                    for f in range(len(lanes)):
                        for axis in range(3):
                            _copy(out[f][(1 + axis) * BLOCK :], jacobian[start // BLOCK, column + f, axis])


@numba.njit(fastmath=FAST)
def _outer_product(n, along, pulled_x, pulled_y, pulled_z):
    """Turn ``along`` [n] at the place of the derivative by x into ``along`` times a vector [3], in place."""
    for p in range(n):
        value = along[BLOCK + p]
        along[BLOCK + p] = value * pulled_x[p]
        along[2 * BLOCK + p] = value * pulled_y[p]
        along[3 * BLOCK + p] = value * pulled_z[p]


@numba.njit(fastmath=FAST)
def _upstream(start, stop, column, grad_features, direction, grad_pulled, lanes, out):
    """Gradient by each feature of a level and by its derivatives into ``out`` [F, 4 n]."""
    out[:] = ZERO
    if grad_features.shape[0] > 0:
        for p in range(stop - start):
            for f in range(len(lanes)):
                out[f, p] = grad_features[start + p, column + f]
    if grad_pulled.shape[1] > 0:
        for p in range(stop - start):
            for f in range(len(lanes)):
                out[f, BLOCK + p] = direction[start + p, column + f]
        gx, gy, gz = grad_pulled[0][start:stop], grad_pulled[1][start:stop], grad_pulled[2][start:stop]
        for f in range(len(lanes)):
            _outer_product(stop - start, out[f], gx, gy, gz)


@numba.njit(fastmath=FAST)
def _to_vertices(n, g, weights, level_weight, v):
    """Transpose of ``_interpolate``: the gradient by the eight vertex values of one feature."""
    for p in range(n):
        tx, ty, tz = weights[p], weights[BLOCK + p], weights[2 * BLOCK + p]
        gp = level_weight * g[p]
        ux = level_weight * weights[3 * BLOCK + p] * g[BLOCK + p]
        uy = level_weight * weights[4 * BLOCK + p] * g[2 * BLOCK + p]
        uz = level_weight * weights[5 * BLOCK + p] * g[3 * BLOCK + p]
        a1, b1, c1 = tx * gp + ux, tx * uy, tx * uz
        a0, b0, c0 = gp - a1, uy - b1, uz - c1
        p01, p11, q01, q11 = ty * a0 + b0, ty * a1 + b1, ty * c0, ty * c1
        p00, p10, q00, q10 = a0 - p01, a1 - p11, c0 - q01, c1 - q11
        v4, v5, v6, v7 = tz * p00 + q00, tz * p10 + q10, tz * p01 + q01, tz * p11 + q11
        v[p], v[BLOCK + p], v[2 * BLOCK + p], v[3 * BLOCK + p] = p00 - v4, p10 - v5, p01 - v6, p11 - v7
        v[4 * BLOCK + p], v[5 * BLOCK + p], v[6 * BLOCK + p], v[7 * BLOCK + p] = v4, v5, v6, v7


@numba.njit(fastmath=FAST)
def _to_points(n, v, g, weights, level_weight, grad_x):
    """Add the gradient by x of one feature and of its derivatives (its Hessian's part) to ``grad_x`` [3 n]."""
    for p in range(n):
        tx, ty, tz = weights[p], weights[BLOCK + p], weights[2 * BLOCK + p]
        sx, sy, sz = weights[3 * BLOCK + p], weights[4 * BLOCK + p], weights[5 * BLOCK + p]
        jx, jy, jz = g[BLOCK + p], g[2 * BLOCK + p], g[3 * BLOCK + p]
        v0, v2, v4, v6 = v[p], v[2 * BLOCK + p], v[4 * BLOCK + p], v[6 * BLOCK + p]
        d0, d1 = v[BLOCK + p] - v0, v[3 * BLOCK + p] - v2
        d2, d3 = v[5 * BLOCK + p] - v4, v[7 * BLOCK + p] - v6
        a0, a1, a2, a3 = v0 + tx * d0, v2 + tx * d1, v4 + tx * d2, v6 + tx * d3
        y0, y1 = a1 - a0, a3 - a2
        x0, x1 = d0 + ty * (d1 - d0), d2 + ty * (d3 - d2)
        by_x, by_y, by_z = x0 + tz * (x1 - x0), y0 + tz * (y1 - y0), a2 + ty * y1 - a0 - ty * y0
        xy = sx * sy * ((d1 - d0) + tz * ((d3 - d2) - (d1 - d0)))
        xz, yz = sx * sz * (x1 - x0), sy * sz * (y1 - y0)
        gx = (g[p] * sx + weights[6 * BLOCK + p] * jx) * by_x + xy * jy + xz * jz
        gy = (g[p] * sy + weights[7 * BLOCK + p] * jy) * by_y + xy * jx + yz * jz
        gz = (g[p] * sz + weights[8 * BLOCK + p] * jz) * by_z + xz * jx + yz * jy
        grad_x[p] += level_weight * gx
        grad_x[BLOCK + p] += level_weight * gy
        grad_x[2 * BLOCK + p] += level_weight * gz


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def backward(
    first, last, x, table, scales, integers, weights, smooth, span, lanes,
    grad_features, direction, grad_pulled, grad_table, grad_x,
):  # fmt: skip
    """Gradients of points [3, first:last] on some levels: written to these levels of ``grad_table`` [entries, F], added
    to ``grad_x`` [3, n].

    The gradient by the Jacobian is the outer product of ``direction`` [n, L*F] and ``grad_pulled`` [3, n]. Empty arrays
    stand for what is absent or not wanted.
    """
    cell, interpolation, rows, values = _scratch(lanes)
    upstream, by_x = np.empty((len(lanes), 4 * BLOCK), np.float32), np.empty(3 * BLOCK, np.float32)
    if grad_table.shape[0] > 0:
        for k in range(scales.shape[0]):
            grad_table[integers[k, 1] : integers[k, 1] + integers[k, 2]] = ZERO
    for low in range(first, last, span):
        high = min(low + span, last)
        for k in range(scales.shape[0]):
            column = integers[k, 0] * len(lanes)
            for start in range(low, high, BLOCK):
                stop = min(start + BLOCK, high)
                _locate(x, start, stop, scales[k], integers[k], smooth, cell, interpolation, rows)
                _upstream(start, stop, column, grad_features, direction, grad_pulled, lanes, upstream)
                if grad_x.shape[1] > 0:
                    _gather(stop - start, table, rows, values, lanes)
                    by_x[:] = ZERO
                    for f in range(len(lanes)):
                        _to_points(stop - start, values[f], upstream[f], interpolation, weights[k], by_x)
                    for axis in range(3):
                        for p in range(stop - start):
                            grad_x[axis, start + p] += by_x[axis * BLOCK + p]
                if grad_table.shape[0] > 0:
                    for f in range(len(lanes)):
                        _to_vertices(stop - start, upstream[f], interpolation, weights[k], values[f])
                    _scatter(stop - start, grad_table, rows, values, lanes)


@numba.njit(fastmath=FAST)
def _add_product(a, b, out):
    for p in range(out.shape[0]):
        out[p] += a[p] * b[p]


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def pull(first, last, jacobian, direction, pulled):
    """``J^T direction`` [n, 3] of points first:last, for a direction [n, feat]."""
    along, total = np.empty(BLOCK, np.float32), np.empty((3, BLOCK), np.float32)
    for start in range(first, last, BLOCK):
        stop = min(start + BLOCK, last)
        total[:] = ZERO
        for column in range(direction.shape[1]):
            for p in range(stop - start):
                along[p] = direction[start + p, column]
            for axis in range(3):
                _add_product(along, jacobian[start // BLOCK, column, axis], total[axis])
        for p in range(stop - start):
            for axis in range(3):
                pulled[start + p, axis] = total[axis, p]


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def push(first, last, jacobian, tangent, pushed):
    """``J tangent`` [n, feat] of points first:last, for a tangent [3, n]."""
    total = np.empty(BLOCK, np.float32)
    for start in range(first, last, BLOCK):
        stop = min(start + BLOCK, last)
        for column in range(pushed.shape[1]):
            total[:] = ZERO
            for axis in range(3):
                _add_product(jacobian[start // BLOCK, column, axis], tangent[axis][start:stop], total[: stop - start])
            for p in range(stop - start):
                pushed[start + p, column] = total[p]
