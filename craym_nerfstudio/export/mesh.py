"""The surface of a run as a triangle mesh: marching cubes on the SDF, coloured."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from craym_nerfstudio.console import track
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.export.far_origin import exact_mesh, far_origin
from craym_nerfstudio.export.rasterise import rasterise
from craym_nerfstudio.fields.color_field import spherical_harmonics
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.geometry.pinhole import Pinhole
from craym_nerfstudio.model import CraymModel
from craym_nerfstudio.storage import write_atomically

_CHUNK = 1 << 16
_SMALL_SHARE = 0.01
"""Pieces with no more than this share of the faces are floaters."""


@dataclass(frozen=True)
class SurfaceMesh:
    """A triangle mesh with outward unit normals and colours in [0, 1] at its vertices."""

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    normals: Float[np.ndarray, "n 3"]
    colors: Float[np.ndarray, "n 3"]

    def moved(self, similarity: Similarity) -> "SurfaceMesh":
        """The mesh in another frame."""
        vertices, normals = similarity.points(self.vertices), similarity.directions(self.normals)
        return SurfaceMesh(vertices, self.faces, normals, self.colors)


def extract_surface(
    sdf: Callable[[Float[Tensor, "n 3"]], Float[Tensor, " n"]], resolution: int, device: torch.device
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"]]:
    """Vertices and faces of the zero level of `sdf` inside the unit sphere; open where the sphere cuts it.

    Raises:
        InputError: there is no surface inside the sphere.
    """
    from skimage.measure import marching_cubes

    axis = torch.linspace(-1.0, 1.0, resolution, device=device)
    cell = 2.0 / (resolution - 1)
    volume = np.ones((resolution,) * 3, dtype=np.float32)
    inside = np.zeros(volume.shape, dtype=bool)
    y, z = torch.meshgrid(axis, axis, indexing="ij")
    for number in track(range(resolution), description="Evaluating the SDF"):
        points = torch.stack([axis[number].expand_as(y), y, z], dim=-1).reshape(-1, 3)
        reach = points.norm(dim=-1)
        # Cubes at the rim have corners outside: the field is asked a little beyond the sphere.
        near = (reach < 1.0 + 2.0 * cell).nonzero()[:, 0]
        if len(near):
            values = torch.cat([sdf(points[part]) for part in near.split(_CHUNK)])
            volume[number].reshape(-1)[near.cpu().numpy()] = values.float().cpu().numpy()
        inside[number] = (reach < 1.0).view(resolution, resolution).cpu().numpy()
    if not (volume[inside].min(initial=1.0) < 0.0 < volume[inside].max(initial=-1.0)):
        raise InputError("The SDF has no surface inside the region", remedy="Train longer, or on more images.")
    vertices, faces, _, _ = marching_cubes(volume, 0.0, mask=inside)
    return vertices.astype(np.float64) * cell - 1.0, faces.astype(np.int64)


def keep_large_components(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], keep: int = 0
) -> tuple[Float[np.ndarray, "kept 3"], Int[np.ndarray, "k 3"]]:
    """The `keep` connected pieces with most faces and their vertices; 0 keeps all with more than 1 % of the faces."""
    from trimesh.graph import connected_component_labels

    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    piece = connected_component_labels(edges, node_count=len(vertices))[faces[:, 0]]
    size = np.bincount(piece)
    order = np.argsort(-size, kind="stable")
    kept = order[:keep] if keep else order[: max(int((size > _SMALL_SHARE * len(faces)).sum()), 1)]
    used, renumbered = np.unique(faces[np.isin(piece, kept)], return_inverse=True)
    return vertices[used], renumbered.reshape(-1, 3)


def seen_faces(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], views: list[Pinhole], tolerance: float
) -> Bool[np.ndarray, " m"]:
    """Which faces have a corner that some view sees, at most `tolerance` behind the first surface."""
    seen = np.zeros(len(vertices), dtype=bool)
    for view in track(views, description="Looking from every camera"):
        pixels, nearness = view.project(vertices)
        buffer = rasterise(vertices, faces, view).nearness
        column, row = np.floor(pixels).astype(np.int64).T
        framed = (nearness > 0) & view.shows(pixels)
        depth = 1.0 / nearness[framed]
        front = 1.0 / np.maximum(buffer[row[framed], column[framed]], 1e-9)
        # One pixel of a slanted face spans more depth than the tolerance of the surface itself.
        seen[framed] |= depth < front + tolerance + 2.0 * depth / float(view.focal_px.min())
    return seen[faces].any(-1)


@torch.no_grad()
def appearance(
    model: CraymModel, points: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Outward normals and colours, seen along the inward normal, at surface points of the unit frame."""
    normals, colors = [], []
    everything = torch.from_numpy(points).float().to(model.device)
    for part in everything.split(_CHUNK):
        surface = model.scene.field.surface(part, *model.scene.field.encode(part, model.level_weights))
        normal = torch.nn.functional.normalize(surface.gradient, dim=-1)
        colors.append(model.scene.color(surface.feature, spherical_harmonics(-normal), normal).cpu())
        normals.append(normal.cpu())
    return torch.cat(normals).double().numpy(), torch.cat(colors).double().numpy()


def extract_mesh(
    model: CraymModel, resolution: int, keep_components: int = 0, views: list[Pinhole] | None = None
) -> SurfaceMesh:
    """The mesh of a model in the unit frame, cropped to the region, without floaters.

    Args:
        keep_components: number of connected pieces to keep; 0 keeps all with more than 1 % of the faces.
        views: when given, faces that none of them sees are dropped.
    """
    field, weights = model.scene.field, model.level_weights
    with torch.no_grad():
        vertices, faces = extract_surface(lambda points: field.sdf(points, weights), resolution, model.device)
    if views is not None:
        faces = faces[seen_faces(vertices, faces, views, tolerance=4.0 / resolution)]
        if len(faces) == 0:
            raise InputError("No camera sees the surface", remedy="Export without --visible-only and look at it.")
    vertices, faces = keep_large_components(vertices, faces, keep_components)
    return SurfaceMesh(vertices, faces, *appearance(model, vertices))


def write_mesh(mesh: SurfaceMesh, path: Path) -> None:
    """Write a mesh with vertex normals and colours as PLY, OBJ or GLB, by the suffix of `path`.

    Raises:
        InputError: another suffix, or the file cannot be written.
    """
    import trimesh

    if path.suffix.lower() not in (".ply", ".obj", ".glb"):
        raise InputError("Unknown mesh format", path, "Name the file .ply, .obj or .glb.")
    colors = np.round(mesh.colors.clip(0.0, 1.0) * 255).astype(np.uint8)
    suffix, origin = path.suffix.lower()[1:], far_origin(mesh.vertices)
    content: Any = trimesh.Trimesh(
        mesh.vertices - origin, mesh.faces, vertex_normals=mesh.normals, vertex_colors=colors, process=False
    )
    if origin.any():
        content = exact_mesh(content, origin, suffix)
    exported: Any = content if isinstance(content, bytes) else content.export(file_type=suffix)
    write_atomically(path, lambda file: file.write(exported.encode() if isinstance(exported, str) else exported))
