"""Triton kernels of the hash grid; importing this module imports triton, so only ``triton_backend`` does, at first use.

One program handles ``BLOCK`` points on one active level; programs of one level run together, so that only one level's
table competes for the cache. Jacobians are stored level by level, [levels, n, 3, F], which is how programs write
them. The grid is described by ``weights`` [levels], ``scales`` [active] and ``integers`` [active, 4]: level, offset,
size, and resolution (0 if hashed).
"""

import triton
import triton.language as tl

BLOCK = 128
"""Points of a program: of 64 to 512, measured on an H100, the fastest or within a tenth of it, in every kernel."""


@triton.jit
def _locate_axis(x, scale, SMOOTH: tl.constexpr):
    """Along one axis: cell, weight of its upper vertex, and that weight's first and second derivative by x."""
    inside_scale = tl.where((x >= 0.0) & (x <= 1.0), scale, 0.0)
    clamped = tl.where(x < 0.0, 0.0, x)
    clamped = tl.where(clamped > 1.0, 1.0, clamped)
    position = clamped * scale + 0.5
    # A NaN compares false and lands in cell 0: its features are NaN, its address is valid.
    cell = tl.where(position >= 0.5, position, 0.5).to(tl.int32)
    t = position - cell.to(tl.float32)
    if SMOOTH:
        bend = (6.0 - 12.0 * t) * inside_scale * inside_scale
        return cell, t * t * (3.0 - 2.0 * t), 6.0 * t * (1.0 - t) * inside_scale, bend
    return cell, t, inside_scale, t * 0.0


@triton.jit
def _level(scales, integers, weights, k):
    """Scale and weight of an active level, and its row of ``integers``."""
    level, offset = tl.load(integers + 4 * k), tl.load(integers + 4 * k + 1)
    size, resolution = tl.load(integers + 4 * k + 2), tl.load(integers + 4 * k + 3)
    return tl.load(scales + k), tl.load(weights + level), level, offset, size, resolution


@triton.jit
def _row(cx, cy, cz, offset, size, resolution):
    """Row of a vertex in the table of all levels, as a column [BLOCK, 1]."""
    dense = cx + (cy + cz * resolution) * resolution
    dense = tl.where(dense >= size, dense - size, dense)
    mixed = cx.to(tl.uint32) ^ (cy.to(tl.uint32) * 2654435761) ^ (cz.to(tl.uint32) * 805459861)
    hashed = (mixed & (size - 1).to(tl.uint32)).to(tl.int32)
    return (tl.where(resolution > 0, dense, hashed) + offset)[:, None]


@triton.jit
def _rows(cx, cy, cz, offset, size, resolution):
    """Rows of the eight vertices of a cell, x fastest."""
    r0 = _row(cx, cy, cz, offset, size, resolution)
    r1 = _row(cx + 1, cy, cz, offset, size, resolution)
    r2 = _row(cx, cy + 1, cz, offset, size, resolution)
    r3 = _row(cx + 1, cy + 1, cz, offset, size, resolution)
    r4 = _row(cx, cy, cz + 1, offset, size, resolution)
    r5 = _row(cx + 1, cy, cz + 1, offset, size, resolution)
    r6 = _row(cx, cy + 1, cz + 1, offset, size, resolution)
    r7 = _row(cx + 1, cy + 1, cz + 1, offset, size, resolution)
    return r0, r1, r2, r3, r4, r5, r6, r7


@triton.jit
def _read(table, row, f, mask, F: tl.constexpr):
    return tl.load(table + row * F + f, mask=mask, other=0.0)


@triton.jit
def _read_cell(table, r0, r1, r2, r3, r4, r5, r6, r7, tx, f, mask, F: tl.constexpr):
    """The four edges along x of a cell: values at tx and differences."""
    v0, v2 = _read(table, r0, f, mask, F), _read(table, r2, f, mask, F)
    v4, v6 = _read(table, r4, f, mask, F), _read(table, r6, f, mask, F)
    d0, d1 = _read(table, r1, f, mask, F) - v0, _read(table, r3, f, mask, F) - v2
    d2, d3 = _read(table, r5, f, mask, F) - v4, _read(table, r7, f, mask, F) - v6
    return v0 + tx * d0, v2 + tx * d1, v4 + tx * d2, v6 + tx * d3, d0, d1, d2, d3


@triton.jit(do_not_specialize=["n"])
def forward(
    x, table, scales, integers, weights, features, jacobian, n, n_features,
    F: tl.constexpr, SMOOTH: tl.constexpr, JACOBIAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Features [n, n_features] and, if wanted, the Jacobian [levels, n, 3, F] of points [n, 3]."""
    points = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    k, inside = tl.program_id(1), points < n
    scale, weight, level, offset, size, resolution = _level(scales, integers, weights, k)
    cx, tx, sx, _ = _locate_axis(tl.load(x + points * 3, mask=inside, other=0.0), scale, SMOOTH)
    cy, ty, sy, _ = _locate_axis(tl.load(x + points * 3 + 1, mask=inside, other=0.0), scale, SMOOTH)
    cz, tz, sz, _ = _locate_axis(tl.load(x + points * 3 + 2, mask=inside, other=0.0), scale, SMOOTH)
    r0, r1, r2, r3, r4, r5, r6, r7 = _rows(cx, cy, cz, offset, size, resolution)
    f, mask = tl.arange(0, F)[None, :], inside[:, None]
    tx, ty, tz = tx[:, None], ty[:, None], tz[:, None]
    a0, a1, a2, a3, d0, d1, d2, d3 = _read_cell(table, r0, r1, r2, r3, r4, r5, r6, r7, tx, f, mask, F)
    y0, y1 = a1 - a0, a3 - a2
    b0, b1 = a0 + ty * y0, a2 + ty * y1
    column = points[:, None].to(tl.int64) * n_features + level * F + f
    tl.store(features + column, weight * (b0 + tz * (b1 - b0)), mask=mask)
    if JACOBIAN:
        out = level.to(tl.int64) * n + points[:, None]
        x0, x1 = d0 + ty * (d1 - d0), d2 + ty * (d3 - d2)
        tl.store(jacobian + out * 3 * F + f, weight * sx[:, None] * (x0 + tz * (x1 - x0)), mask=mask)
        tl.store(jacobian + out * 3 * F + F + f, weight * sy[:, None] * (y0 + tz * (y1 - y0)), mask=mask)
        tl.store(jacobian + out * 3 * F + 2 * F + f, weight * sz[:, None] * (b1 - b0), mask=mask)


@triton.jit
def _add(grad_table, row, f, value, mask, F: tl.constexpr):
    tl.atomic_add(grad_table + row * F + f, value, mask=mask, sem="relaxed")


@triton.jit
def _add_point(grad_x, points, axis: tl.constexpr, value, inside):
    tl.atomic_add(grad_x + points * 3 + axis, tl.sum(value, 1), mask=inside, sem="relaxed")


@triton.jit
def _upstream(
    grad_features, direction, grad_pulled, points, column, weight, inside,
    F: tl.constexpr, FEATURES: tl.constexpr, PULLED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients by a level's weighted features and by their derivatives along x, y, z, each [BLOCK, F]."""
    g = tl.zeros([BLOCK, F], tl.float32)
    jx, jy, jz = g, g, g
    if FEATURES:
        g = weight * tl.load(grad_features + column, mask=inside[:, None], other=0.0)
    if PULLED:
        along = weight * tl.load(direction + column, mask=inside[:, None], other=0.0)
        jx = along * tl.load(grad_pulled + points * 3, mask=inside, other=0.0)[:, None]
        jy = along * tl.load(grad_pulled + points * 3 + 1, mask=inside, other=0.0)[:, None]
        jz = along * tl.load(grad_pulled + points * 3 + 2, mask=inside, other=0.0)[:, None]
    return g, jx, jy, jz


@triton.jit
def _to_vertices(tx, ty, tz, g, ux, uy, uz):
    """Transpose of the interpolation: gradients by the eight vertices of a cell, x fastest."""
    a1, b1, c1 = tx * g + ux, tx * uy, tx * uz
    a0, b0, c0 = g - a1, uy - b1, uz - c1
    p01, p11, q01, q11 = ty * a0 + b0, ty * a1 + b1, ty * c0, ty * c1
    p00, p10, q00, q10 = a0 - p01, a1 - p11, c0 - q01, c1 - q11
    v4, v5, v6, v7 = tz * p00 + q00, tz * p10 + q10, tz * p01 + q01, tz * p11 + q11
    return p00 - v4, p10 - v5, p01 - v6, p11 - v7, v4, v5, v6, v7


@triton.jit(do_not_specialize=["n"])
def backward(
    x, table, scales, integers, weights, grad_features, direction, grad_pulled, grad_table, grad_x, n, n_features,
    F: tl.constexpr, SMOOTH: tl.constexpr, FEATURES: tl.constexpr, PULLED: tl.constexpr, TABLE: tl.constexpr,
    POINTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add gradients to ``grad_table`` [entries, F] and ``grad_x`` [n, 3].

    Given are those by the features [n, n_features] (``FEATURES``) and by ``J^T direction``, as ``direction``
    [n, n_features] and ``grad_pulled`` [n, 3] (``PULLED``).
    """
    points = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    k, inside = tl.program_id(1), points < n
    scale, weight, level, offset, size, resolution = _level(scales, integers, weights, k)
    cx, tx, sx, hx = _locate_axis(tl.load(x + points * 3, mask=inside, other=0.0), scale, SMOOTH)
    cy, ty, sy, hy = _locate_axis(tl.load(x + points * 3 + 1, mask=inside, other=0.0), scale, SMOOTH)
    cz, tz, sz, hz = _locate_axis(tl.load(x + points * 3 + 2, mask=inside, other=0.0), scale, SMOOTH)
    r0, r1, r2, r3, r4, r5, r6, r7 = _rows(cx, cy, cz, offset, size, resolution)
    f, mask = tl.arange(0, F)[None, :], inside[:, None]
    tx, ty, tz, sx, sy, sz = tx[:, None], ty[:, None], tz[:, None], sx[:, None], sy[:, None], sz[:, None]
    column = points[:, None].to(tl.int64) * n_features + level * F + f
    g, jx, jy, jz = _upstream(
        grad_features, direction, grad_pulled, points, column, weight, inside, F, FEATURES, PULLED, BLOCK
    )
    if TABLE:
        v0, v1, v2, v3, v4, v5, v6, v7 = _to_vertices(tx, ty, tz, g, sx * jx, sy * jy, sz * jz)
        _add(grad_table, r0, f, v0, mask, F)
        _add(grad_table, r1, f, v1, mask, F)
        _add(grad_table, r2, f, v2, mask, F)
        _add(grad_table, r3, f, v3, mask, F)
        _add(grad_table, r4, f, v4, mask, F)
        _add(grad_table, r5, f, v5, mask, F)
        _add(grad_table, r6, f, v6, mask, F)
        _add(grad_table, r7, f, v7, mask, F)
    if POINTS:
        e0, e1, e2, e3, d0, d1, d2, d3 = _read_cell(table, r0, r1, r2, r3, r4, r5, r6, r7, tx, f, mask, F)
        y0, y1 = e1 - e0, e3 - e2
        x0, x1 = d0 + ty * (d1 - d0), d2 + ty * (d3 - d2)
        by_x, by_y, by_z = x0 + tz * (x1 - x0), y0 + tz * (y1 - y0), e2 + ty * y1 - e0 - ty * y0
        xy = sx * sy * ((d1 - d0) + tz * ((d3 - d2) - (d1 - d0)))
        xz, yz = sx * sz * (x1 - x0), sy * sz * (y1 - y0)
        _add_point(grad_x, points, 0, (g * sx + hx[:, None] * jx) * by_x + xy * jy + xz * jz, inside)
        _add_point(grad_x, points, 1, (g * sy + hy[:, None] * jy) * by_y + xy * jx + yz * jz, inside)
        _add_point(grad_x, points, 2, (g * sz + hz[:, None] * jz) * by_z + xz * jx + yz * jy, inside)


@triton.jit(do_not_specialize=["n"])
def pull(jacobian, direction, pulled, n, LEVELS: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr):
    """``J^T direction``: [levels, n, 3, F] and [n, levels * F] to [n, 3]."""
    points = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, f = points < n, tl.arange(0, F)[None, :]
    mask, total = inside[:, None], tl.zeros([BLOCK, F], tl.float32)
    px, py, pz = total, total, total
    rows = points[:, None].to(tl.int64)
    for level in range(LEVELS):
        along = tl.load(direction + rows * (LEVELS * F) + level * F + f, mask=mask, other=0.0)
        base = jacobian + (level * n + rows) * 3 * F + f
        px += along * tl.load(base, mask=mask, other=0.0)
        py += along * tl.load(base + F, mask=mask, other=0.0)
        pz += along * tl.load(base + 2 * F, mask=mask, other=0.0)
    tl.store(pulled + points * 3, tl.sum(px, 1), mask=inside)
    tl.store(pulled + points * 3 + 1, tl.sum(py, 1), mask=inside)
    tl.store(pulled + points * 3 + 2, tl.sum(pz, 1), mask=inside)


@triton.jit(do_not_specialize=["n"])
def push(jacobian, tangent, pushed, n, LEVELS: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr):
    """``J tangent``: [levels, n, 3, F] and [n, 3] to [n, levels * F]."""
    points = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, f = points < n, tl.arange(0, F)[None, :]
    mask, rows = inside[:, None], points[:, None].to(tl.int64)
    tx = tl.load(tangent + points * 3, mask=inside, other=0.0)[:, None]
    ty = tl.load(tangent + points * 3 + 1, mask=inside, other=0.0)[:, None]
    tz = tl.load(tangent + points * 3 + 2, mask=inside, other=0.0)[:, None]
    for level in range(LEVELS):
        base = jacobian + (level * n + rows) * 3 * F + f
        value = tx * tl.load(base, mask=mask, other=0.0) + ty * tl.load(base + F, mask=mask, other=0.0)
        value += tz * tl.load(base + 2 * F, mask=mask, other=0.0)
        tl.store(pushed + rows * (LEVELS * F) + level * F + f, value, mask=mask)
