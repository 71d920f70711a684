"""Marching cubes on a signed distance that is evaluated near its zero level alone."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from craym_nerfstudio.console import progress
from craym_nerfstudio.errors import InputError

Distance = Callable[[Float[Tensor, "n 3"]], Float[Tensor, " n"]]

_CHUNK = 1 << 16
_BLOCK = 4
"""Cells along the edge of a block that is evaluated as a whole or not at all."""
_SLACK = 1.5
"""A learned distance may be this much too large: blocks are left out beyond it."""


def extract_surface(
    sdf: Distance, resolution: int, device: torch.device, closed: bool = False
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"]]:
    """Vertices and faces of the zero level of `sdf` inside the unit sphere.

    A coarse grid tells which blocks can hold the surface; where a surface then leaves the blocks that were evaluated,
    their neighbours follow, so that it is that of the full grid. One pass of marching cubes leaves no seams.

    Args:
        resolution: samples along each axis of the cube around the sphere.
        closed: where the sphere cuts a solid, close it by the sphere; otherwise it stays open there.

    Raises:
        InputError: there is no surface inside the sphere.
    """
    from skimage.measure import marching_cubes

    cell = 2.0 / (resolution - 1)
    grid = _BlockGrid(_capped(sdf, 1.0 - cell) if closed else sdf, resolution, cell, device)
    grid.evaluate()
    try:
        vertices, faces, _, _ = marching_cubes(
            grid.volume, 0.0, mask=None if closed else _inside(len(grid.volume), cell)
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            "The SDF has no surface inside the region", remedy="Train longer, or on more images."
        ) from error
    return vertices.astype(np.float64) * cell - 1.0, faces.astype(np.int64)


def _capped(sdf: Distance, radius: float) -> Distance:
    """The solid inside a ball alone, which ends within the grid."""
    return lambda points: torch.maximum(sdf(points), points.norm(dim=-1) - radius)


def _inside(side: int, cell: float) -> Bool[np.ndarray, "x y z"]:
    squared = np.square(np.arange(side, dtype=np.float32) * cell - 1.0)
    plane, inside = squared[:, None] + squared, np.empty((side,) * 3, dtype=bool)
    for number, value in enumerate(squared):
        np.less(plane, 1.0 - value, out=inside[number])
    return inside


class _BlockGrid:
    """The samples of a cube, filled block by block; what is never evaluated has the sign of its surroundings."""

    def __init__(self, sdf: Distance, resolution: int, cell: float, device: torch.device) -> None:
        self.sdf, self.cell, self.device = sdf, cell, device
        self.blocks = -(-(resolution - 1) // _BLOCK)
        side = self.blocks * _BLOCK + 1
        self.volume = np.empty((side,) * 3, dtype=np.float32)

    def evaluate(self) -> None:
        """Fill the volume."""
        corners = np.ones((self.blocks + 1,) * 3, dtype=np.float32)
        with progress() as bars:
            task = bars.add_task("Evaluating the SDF", total=None)
            corners[:] = self._values(np.arange(corners.size), self.blocks + 1, _BLOCK).reshape(corners.shape)
            active = self._may_hold(corners)
            # Signs of blocks that stay empty: every corner has the same.
            sign = np.where(corners[:-1, :-1, :-1] < 0, np.float32(-1), np.float32(1))
            self.volume[:] = 1.0
            for number, layer in enumerate(sign.repeat(_BLOCK, 1).repeat(_BLOCK, 2)):
                self.volume[number * _BLOCK : (number + 1) * _BLOCK, :-1, :-1] = layer
            done = np.zeros_like(active)
            while active.any():
                self._fill(active, bars, task)
                done |= active
                active = _grown(self._crossed(active)) & ~done

    def _may_hold(self, corners: np.ndarray) -> Bool[np.ndarray, "x y z"]:
        """Blocks that a distance function with these corners may cross zero in."""
        reach = 0.5 * 3**0.5 * _BLOCK * self.cell * _SLACK
        near, negative = np.abs(corners) < reach, corners < 0
        some = [_over_corners(flags, np.logical_or) for flags in (near, negative)]
        return some[0] | (some[1] & ~_over_corners(negative, np.logical_and))

    def _fill(self, active: Bool[np.ndarray, "x y z"], bars, task) -> None:
        side, wanted = len(self.volume), np.zeros(self.volume.size, dtype=bool)
        first = np.argwhere(active) @ [_BLOCK * side * side, _BLOCK * side, _BLOCK]
        within = np.arange(_BLOCK + 1)
        for node in (within[:, None, None] * side * side + within[:, None] * side + within).ravel():
            wanted[first + node] = True
        index = np.flatnonzero(wanted)
        bars.update(task, total=len(index), completed=0)
        flat = self.volume.reshape(-1)
        for start in range(0, len(index), 16 * _CHUNK):
            part = index[start : start + 16 * _CHUNK]
            flat[part] = self._values(part, len(self.volume), 1)
            bars.advance(task, len(part))

    def _values(self, index: Int[np.ndarray, " n"], side: int, stride: int) -> Float[np.ndarray, " n"]:
        """Distances at nodes of a grid of `side` nodes an axis, 1 outside of the sphere."""
        values = np.ones(len(index), dtype=np.float32)
        for start in range(0, len(index), _CHUNK):
            part = torch.from_numpy(index[start : start + _CHUNK]).to(self.device)
            node = torch.stack([part // (side * side), part // side % side, part % side], dim=-1)
            points = node.float() * (stride * self.cell) - 1.0
            # Cubes at the rim have corners outside: the field is asked a little beyond the sphere.
            near = (points.norm(dim=-1) < 1.0 + 2.0 * stride * self.cell).nonzero()[:, 0]
            if len(near):
                values[start + near.cpu().numpy()] = self.sdf(points[near]).float().cpu().numpy()
        return values

    def _crossed(self, active: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
        """Blocks that were evaluated and hold both signs."""
        crossed = np.zeros_like(active)
        for x, y, z in np.argwhere(active):
            block = self.volume[tuple(slice(_BLOCK * n, _BLOCK * n + _BLOCK + 1) for n in (x, y, z))]
            crossed[x, y, z] = block.min() < 0 < block.max()
        return crossed


def _over_corners(flags: Bool[np.ndarray, "x y z"], combine: np.ufunc) -> Bool[np.ndarray, "x2 y2 z2"]:
    """A flag per node, combined over the eight corners of each block."""
    for axis in range(3):
        low, high = np.moveaxis(flags, axis, 0)[:-1], np.moveaxis(flags, axis, 0)[1:]
        flags = np.moveaxis(combine(low, high), 0, axis)
    return flags


def _grown(blocks: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """The blocks and all that touch them."""
    from scipy.ndimage import binary_dilation

    return binary_dilation(blocks, np.ones((3, 3, 3), dtype=bool))
