"""A reference surface from depth maps: the points of all views, fused, and what the views could judge."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.evaluation.surfaces import Cloud, Points, SurfaceReference
from craym_nerfstudio.geometry.pinhole import Pinhole

_FAR = 8.0
"""Distance along the ray that the darkest pixel stands for: range = 8 (1 - v / 255), and v = 0 is background."""
_STEP = _FAR / 255
_CELL = 0.01
"""Side of the cells of which each keeps one fused point."""
_REACH = 0.04
"""Distance up to which points are averaged: 8 bit leave an error of up to half a step, 0.016, in each of them."""
_NEIGHBOURS = 48
_MARGIN = 0.1
"""Depth behind the surface of every view from which on nothing was observed."""


@dataclass(frozen=True)
class DepthView:
    """One depth map: distances along the rays through the pixel centres, infinite where there is nothing."""

    camera: Pinhole
    depth: Float[np.ndarray, "h w"]

    def points(self) -> tuple[Points, Float[np.ndarray, "n 3"]]:
        """World points of the pixels away from depth edges, and the directions of their rays."""
        row, column = np.nonzero(_away_from_edges(self.depth))
        rays = self.camera.rays(np.stack([column, row], axis=-1) + 0.5)
        return self.camera.c2w[:, 3] + self.depth[row, column, None] * rays, rays

    def judges(self, points: Points) -> Bool[np.ndarray, " n"]:
        """Whether points lie in the image and no further behind its surface than the margin."""
        pixels, nearness = self.camera.project(points)
        framed = (nearness > 0) & self.camera.shows(pixels)
        column, row = np.floor(pixels[framed]).astype(np.int64).T
        distance = np.linalg.norm(points[framed] - self.camera.c2w[:, 3], axis=-1)
        behind = distance - self.depth[row, column]
        framed[framed] = behind < _MARGIN
        return framed


def _judged(views: list[DepthView], points: Points) -> Bool[np.ndarray, " n"]:
    """Points that some view could see or sees through."""
    seen = np.zeros(len(points), dtype=bool)
    for view in views:
        open_ = np.flatnonzero(~seen)
        seen[open_] = view.judges(points[open_])
    return seen


def _fused(views: list[DepthView]) -> Cloud:
    """One point per cell, moved to the plane through the points of similar views around it; normals face them."""
    points, rays = (np.concatenate(parts) for parts in zip(*(view.points() for view in views), strict=True))
    if len(points) == 0:
        raise InputError("The depth maps show nothing", remedy="Give depth maps with range = 8 (1 - v / 255).")
    # Random order: the point that a cell keeps must not prefer one view.
    order = np.random.default_rng(0).permutation(len(points))
    kept = order[_one_per_cell(points[order], _CELL)]
    points, rays = points[kept], rays[kept]
    measured = points
    for _ in range(2):
        points, normals = _onto_planes(points, measured, rays)
    kept = _one_per_cell(points, _CELL)
    # Depths of 8 bits are not worth more, and the cloud is kept on disk.
    return Cloud(points[kept].astype(np.float32), normals[kept].astype(np.float32))


def _away_from_edges(depth: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose four neighbours lie at nearly their depth: files mix the depths of both sides of an edge."""
    padded = np.pad(depth, 1, constant_values=np.inf)
    around = np.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
    with np.errstate(invalid="ignore"):
        return np.isfinite(depth) & (np.abs(around - depth) < 3.5 * _STEP).all(0)


def _one_per_cell(points: Points, cell: float) -> Int[np.ndarray, " cells"]:
    """The first point of every occupied cell."""
    return np.unique(np.floor(points / cell).astype(np.int64), axis=0, return_index=True)[1]


def _onto_planes(points: Points, measured: Points, rays: Float[np.ndarray, "n 3"]) -> tuple[Points, Points]:
    """Points moved along the normal of the plane fitted to the measured points around, and those normals.

    Only points seen from a similar side count, so that both sides of a thin part stay apart.
    """
    from scipy.spatial import cKDTree

    moved, normals = np.empty_like(points), np.empty_like(points)
    tree = cKDTree(measured)
    generator = np.random.default_rng(0)
    for start in range(0, len(points), 4096):
        part = slice(start, start + 4096)
        rows = tree.query_ball_point(points[part], _REACH, return_sorted=False)
        # A random choice of neighbours, not the nearest: those would favour the error of the point itself.
        index = np.stack([generator.choice(row, _NEIGHBOURS) for row in rows])
        weight = (np.einsum("nkd,nd->nk", rays[index], rays[part]) > 0.5).astype(np.float64)
        weight[:, 0] += 1e-9
        weight /= weight.sum(1, keepdims=True)
        mean = np.einsum("nk,nkd->nd", weight, measured[index])
        offset = measured[index] - mean[:, None]
        normal = np.linalg.eigh(np.einsum("nk,nkd,nke->nde", weight, offset, offset))[1][..., 0]
        towards = np.einsum("nk,nkd,nd->n", weight, rays[index], normal) > 0
        normal = np.where(towards[:, None], -normal, normal)
        height = ((points[part] - mean) * normal).sum(-1, keepdims=True)
        moved[part], normals[part] = points[part] - height * normal, normal
    return moved, normals


def read_depth_maps(folder: Path) -> SurfaceReference | None:
    """The reference of a data folder whose images have ``NAME_depth_*.png`` beside them; None where none has.

    Raises:
        InputError: a depth map cannot be read or has another size than its image.
    """
    frames = detect_and_read(folder)
    views = []
    for number, path in enumerate(frames.paths):
        found = sorted(path.parent.glob(f"{path.stem}_depth_*.png"))
        if found:
            views.append(_read_view(frames, number, found[0]))
    if not views:
        return None
    cloud = _fused(views)
    left_out = (
        f"Fused from {len(views)} depth maps in steps of {_STEP:.3f}. Left out: surfaces that none of them shows, and "
        f"parts of the mesh more than {_MARGIN} behind the surface in all of them."
    )
    return SurfaceReference("ray depths", cloud, cloud, left_out, partial(_judged, views))


def _read_view(frames: Frames, number: int, path: Path) -> DepthView:
    from PIL import Image

    try:
        with Image.open(path) as image:
            value = np.asarray(image.convert("L"), dtype=np.float64)
    except OSError as error:
        raise InputError("Unreadable depth map", path, "Replace or remove the file.") from error
    width, height = frames.size_px[number]
    if value.shape != (height, width):
        problem = f"Depth map of {value.shape[1]} x {value.shape[0]} px beside an image of {width} x {height}"
        raise InputError(problem, path, "Give both the same size.")
    depth = np.where(value > 0, _FAR * (1.0 - value / 255.0), np.inf)
    focal_px, center_px = np.split(frames.intrinsics_px[number], 2)
    return DepthView(Pinhole(frames.c2w[number], focal_px, center_px, (int(width), int(height))), depth)
