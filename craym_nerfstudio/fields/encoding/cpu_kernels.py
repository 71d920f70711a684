"""Numba kernels of the hash grid; importing this module imports numba, so only ``cpu_backend`` does, at first use.

The kernels are serial and release the GIL; ``cpu_backend`` runs them on disjoint blocks of points (forward) or on
disjoint levels (backward), so that no two threads ever write to the same memory and results do not depend on timing.
"""

import numba
import numpy as np

# No "nnan"/"ninf": a NaN point must be recognised, or its cell would be an arbitrary address.
FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}
ONE, TWO, THREE, SIX, TWELVE, HALF, ZERO = (np.float32(v) for v in (1, 2, 3, 6, 12, 0.5, 0))
PRIME_Y, PRIME_Z = np.uint32(2654435761), np.uint32(805459861)


@numba.njit(inline="always", fastmath=FAST)
def _axis(x, scale, smooth):
    """Along one axis: cell, weight of its upper vertex, and that weight's first and second derivative by x."""
    inside = x >= ZERO and x <= ONE
    clamped = x
    if x < ZERO:
        clamped = ZERO
    if x > ONE:
        clamped = ONE
    position = clamped * scale + HALF
    cell = np.int32(0)
    if position >= HALF:
        cell = np.int32(position)
    t = position - np.float32(cell)
    slope = scale if inside else ZERO
    if smooth:
        return cell, t * t * (THREE - TWO * t), SIX * t * (ONE - t) * slope, (SIX - TWELVE * t) * slope * slope
    return cell, t, slope, ZERO


@numba.njit(inline="always")
def _rows(cx, cy, cz, res, size):
    """Rows of the eight vertices of a cell inside their level's table, x fastest; ``res`` is 0 on hashed levels."""
    if res > 0:
        r00 = cx + cy * res + cz * res * res
        r10, r01, r11 = r00 + res, r00 + res * res, r00 + res + res * res
        rows = (r00, r00 + 1, r10, r10 + 1, r01, r01 + 1, r11, r11 + 1)
        if r11 + 1 < size:
            return rows
        return (rows[0] % size, rows[1] % size, rows[2] % size, rows[3] % size,
                rows[4] % size, rows[5] % size, rows[6] % size, rows[7] % size)  # fmt: skip
    mask = np.uint32(size - 1)
    x0, x1 = np.uint32(cx), np.uint32(cx + 1)
    y0, z0 = np.uint32(np.uint32(cy) * PRIME_Y), np.uint32(np.uint32(cz) * PRIME_Z)
    y1, z1 = np.uint32(y0 + PRIME_Y), np.uint32(z0 + PRIME_Z)
    a, b, c, d = y0 ^ z0, y1 ^ z0, y0 ^ z1, y1 ^ z1
    return (np.int64((x0 ^ a) & mask), np.int64((x1 ^ a) & mask), np.int64((x0 ^ b) & mask), np.int64((x1 ^ b) & mask),
            np.int64((x0 ^ c) & mask), np.int64((x1 ^ c) & mask), np.int64((x0 ^ d) & mask), np.int64((x1 ^ d) & mask))  # fmt: skip


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def forward(x, table, scales, integers, weights, smooth, features, jacobian):
    """Write features [n, L*F] and, where it is not empty, the Jacobian [n, 3, L*F] of the active levels."""
    n_features = table.shape[1]
    with_jacobian = jacobian.shape[0] > 0
    block = 256
    for start in range(0, x.shape[0], block):
        stop = min(start + block, x.shape[0])
        for k in range(scales.shape[0]):
            scale, weight = scales[k], weights[k]
            level, offset, size, res = integers[k, 0], integers[k, 1], integers[k, 2], integers[k, 3]
            for p in range(start, stop):
                cx, tx, sx, _ = _axis(x[p, 0], scale, smooth)
                cy, ty, sy, _ = _axis(x[p, 1], scale, smooth)
                cz, tz, sz, _ = _axis(x[p, 2], scale, smooth)
                rows = _rows(np.int64(cx), np.int64(cy), np.int64(cz), res, size)
                for f in range(n_features):
                    v0, v1 = table[offset + rows[0], f], table[offset + rows[1], f]
                    v2, v3 = table[offset + rows[2], f], table[offset + rows[3], f]
                    v4, v5 = table[offset + rows[4], f], table[offset + rows[5], f]
                    v6, v7 = table[offset + rows[6], f], table[offset + rows[7], f]
                    d0, d1, d2, d3 = v1 - v0, v3 - v2, v5 - v4, v7 - v6
                    a0, a1, a2, a3 = v0 + tx * d0, v2 + tx * d1, v4 + tx * d2, v6 + tx * d3
                    b0, b1 = a0 + ty * (a1 - a0), a2 + ty * (a3 - a2)
                    column = level * n_features + f
                    features[p, column] = weight * (b0 + tz * (b1 - b0))
                    if with_jacobian:
                        dx0, dx1 = d0 + ty * (d1 - d0), d2 + ty * (d3 - d2)
                        dy0, dy1 = a1 - a0, a3 - a2
                        jacobian[p, 0, column] = weight * sx * (dx0 + tz * (dx1 - dx0))
                        jacobian[p, 1, column] = weight * sy * (dy0 + tz * (dy1 - dy0))
                        jacobian[p, 2, column] = weight * sz * (b1 - b0)


@numba.njit(inline="always", fastmath=FAST)
def _scatter(table, row, f, value):
    table[row, f] += value


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def backward(
    x,
    table,
    scales,
    integers,
    weights,
    smooth,
    grad_features,
    grad_jacobian,
    direction,
    grad_pulled,
    grad_table,
    grad_x,
):
    """Add the gradients of a block of points on some levels to ``grad_table`` [entries, F] and ``grad_x`` [n, 3].

    The gradient by the Jacobian [n, 3, L*F] is either given (``grad_jacobian``) or, for the pulled back vector ``J^T
    direction``, the outer product of ``direction`` [n, L*F] and ``grad_pulled`` [n, 3]. Empty arrays stand for what
    is absent or not wanted.
    """
    n_features = table.shape[1]
    has_features, has_jacobian = grad_features.shape[0] > 0, grad_jacobian.shape[0] > 0
    has_pulled, wants_table, wants_x = grad_pulled.shape[0] > 0, grad_table.shape[0] > 0, grad_x.shape[0] > 0
    second_order = has_jacobian or has_pulled
    block = 1024
    for start in range(0, x.shape[0], block):
        stop = min(start + block, x.shape[0])
        for k in range(scales.shape[0]):
            scale, weight = scales[k], weights[k]
            level, offset, size, res = integers[k, 0], integers[k, 1], integers[k, 2], integers[k, 3]
            for p in range(start, stop):
                cx, tx, sx, hx = _axis(x[p, 0], scale, smooth)
                cy, ty, sy, hy = _axis(x[p, 1], scale, smooth)
                cz, tz, sz, hz = _axis(x[p, 2], scale, smooth)
                rows = _rows(np.int64(cx), np.int64(cy), np.int64(cz), res, size)
                for f in range(n_features):
                    column = level * n_features + f
                    g = weight * grad_features[p, column] if has_features else ZERO
                    jx, jy, jz = ZERO, ZERO, ZERO
                    if has_jacobian:
                        jx, jy, jz = (
                            grad_jacobian[p, 0, column],
                            grad_jacobian[p, 1, column],
                            grad_jacobian[p, 2, column],
                        )
                    elif has_pulled:
                        along = direction[p, column]
                        jx, jy, jz = along * grad_pulled[p, 0], along * grad_pulled[p, 1], along * grad_pulled[p, 2]
                    jx, jy, jz = weight * jx, weight * jy, weight * jz
                    if wants_table:
                        ux, uy, uz = sx * jx, sy * jy, sz * jz
                        a0, a1 = (ONE - tx) * g - ux, tx * g + ux
                        b0, b1 = (ONE - tx) * uy, tx * uy
                        c0, c1 = (ONE - tx) * uz, tx * uz
                        p00, p10 = (ONE - ty) * a0 - b0, (ONE - ty) * a1 - b1
                        p01, p11 = ty * a0 + b0, ty * a1 + b1
                        q00, q10, q01, q11 = (ONE - ty) * c0, (ONE - ty) * c1, ty * c0, ty * c1
                        _scatter(grad_table, offset + rows[0], f, (ONE - tz) * p00 - q00)
                        _scatter(grad_table, offset + rows[1], f, (ONE - tz) * p10 - q10)
                        _scatter(grad_table, offset + rows[2], f, (ONE - tz) * p01 - q01)
                        _scatter(grad_table, offset + rows[3], f, (ONE - tz) * p11 - q11)
                        _scatter(grad_table, offset + rows[4], f, tz * p00 + q00)
                        _scatter(grad_table, offset + rows[5], f, tz * p10 + q10)
                        _scatter(grad_table, offset + rows[6], f, tz * p01 + q01)
                        _scatter(grad_table, offset + rows[7], f, tz * p11 + q11)
                    if wants_x:
                        v0, v1 = table[offset + rows[0], f], table[offset + rows[1], f]
                        v2, v3 = table[offset + rows[2], f], table[offset + rows[3], f]
                        v4, v5 = table[offset + rows[4], f], table[offset + rows[5], f]
                        v6, v7 = table[offset + rows[6], f], table[offset + rows[7], f]
                        d0, d1, d2, d3 = v1 - v0, v3 - v2, v5 - v4, v7 - v6
                        e0, e1, e2, e3 = v0 + tx * d0, v2 + tx * d1, v4 + tx * d2, v6 + tx * d3
                        y0, y1 = e1 - e0, e3 - e2
                        z0, z1 = e0 + ty * y0, e2 + ty * y1
                        x0, x1 = d0 + ty * (d1 - d0), d2 + ty * (d3 - d2)
                        by_x, by_y, by_z = x0 + tz * (x1 - x0), y0 + tz * (y1 - y0), z1 - z0
                        gx, gy, gz = g * sx * by_x, g * sy * by_y, g * sz * by_z
                        if second_order:
                            xy = sx * sy * ((d1 - d0) + tz * ((d3 - d2) - (d1 - d0)))
                            xz, yz = sx * sz * (x1 - x0), sy * sz * (y1 - y0)
                            gx += hx * by_x * jx + xy * jy + xz * jz
                            gy += xy * jx + hy * by_y * jy + yz * jz
                            gz += xz * jx + yz * jy + hz * by_z * jz
                        grad_x[p, 0] += gx
                        grad_x[p, 1] += gy
                        grad_x[p, 2] += gz


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def pull(jacobian, direction, pulled):
    """``J^T direction``: [n, 3, feat] and [n, feat] to [n, 3]."""
    for p in range(direction.shape[0]):
        for axis in range(3):
            total = ZERO
            for column in range(direction.shape[1]):
                total += jacobian[p, axis, column] * direction[p, column]
            pulled[p, axis] = total


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def push(jacobian, tangent, pushed):
    """``J tangent``: [n, 3, feat] and [n, 3] to [n, feat]."""
    for p in range(tangent.shape[0]):
        tx, ty, tz = tangent[p, 0], tangent[p, 1], tangent[p, 2]
        for column in range(pushed.shape[1]):
            pushed[p, column] = jacobian[p, 0, column] * tx + jacobian[p, 1, column] * ty + jacobian[p, 2, column] * tz
