"""A picture of a mesh from the cameras of its run, for eyes."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from craym_nerfstudio.export.mesh import SurfaceMesh
from craym_nerfstudio.export.rasterise import interpolate, rasterise
from craym_nerfstudio.export.run import Run
from craym_nerfstudio.geometry.pinhole import Pinhole
from craym_nerfstudio.storage import write_atomically

_SUPERSAMPLING = 2


def camera_views(run: Run) -> list[Pinhole]:
    """The refined training cameras in the unit frame, as pinholes."""
    unit_from_world = run.pipeline.craym_model.world_from_unit.cpu().inverse()
    cameras = run.pipeline.datamanager.train_dataset.cameras
    c2w = unit_from_world.poses(run.pipeline.refined_c2w().double()).numpy()
    views = []
    for number, pose in enumerate(c2w):
        values = [getattr(cameras, name)[number] for name in ("fx", "fy", "cx", "cy", "width", "height")]
        fx, fy, cx, cy, width, height = (float(value) for value in values)
        views.append(Pinhole(pose, np.array([fx, fy]), np.array([cx, cy]), (int(width), int(height))))
    return views


def spread_views(views: list[Pinhole], count: int) -> list[Pinhole]:
    """Up to `count` views, each as far as can be from those before it."""
    centers = np.stack([view.c2w[:, 3] for view in views])
    chosen: list[int] = []
    reach = np.linalg.norm(centers - centers.mean(0), axis=-1)
    while len(chosen) < min(count, len(views)):
        chosen.append(int(reach.argmax()))
        reach = np.linalg.norm(centers[:, None] - centers[chosen], axis=-1).min(1)
    return [views[number] for number in chosen]


def draw_mesh(mesh: SurfaceMesh, views: list[Pinhole], path: Path, tile_px: int = 360) -> None:
    """Write a PNG of a mesh in the unit frame, a column per view: its colours, and below them its lit shape."""
    from PIL import Image

    columns = []
    for view in views:
        view = _framed(view, mesh.vertices, _SUPERSAMPLING * tile_px)
        raster = rasterise(mesh.vertices, mesh.faces, view)
        filled = raster.face >= 0
        attributes = np.concatenate([mesh.colors, mesh.normals], axis=1)
        values = interpolate(attributes, mesh.faces, raster)
        normal = values[:, 3:] / np.linalg.norm(values[:, 3:], axis=-1, keepdims=True)
        light = 0.25 + 0.7 * np.maximum(normal @ view.c2w[:, 2], 0.0)
        tiles = np.ones((2, *filled.shape, 3))
        tiles[0][filled] = values[:, :3]
        tiles[1][filled] = light[:, None]
        columns.append(np.concatenate([_halved(tile) for tile in tiles]))
    picture = np.concatenate(columns, axis=1)
    image = Image.fromarray(np.round(picture.clip(0, 1) * 255).astype(np.uint8))
    write_atomically(path, lambda file: image.save(file, format="PNG", optimize=True))


def _framed(view: Pinhole, vertices: Float[np.ndarray, "n 3"], side_px: int) -> Pinhole:
    """The same viewpoint with a square image that the mesh just fills."""
    pixels, nearness = view.project(vertices)
    shown = pixels[nearness > 0] if (nearness > 0).any() else np.zeros((1, 2))
    low, high = shown.min(0), shown.max(0)
    ratio = 0.92 * side_px / max(float((high - low).max()), 1e-6)
    center = (view.center_px - 0.5 * (low + high)) * ratio + 0.5 * side_px
    return Pinhole(view.c2w, view.focal_px * ratio, center, (side_px, side_px))


def _halved(tile: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h2 w2 3"]:
    """A supersampled tile, averaged."""
    side = tile.shape[0] // _SUPERSAMPLING
    return tile.reshape(side, _SUPERSAMPLING, side, _SUPERSAMPLING, 3).mean((1, 3))
