"""The surface of a run as a triangle mesh: marching cubes on the SDF, coloured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.export.far_origin import exact_mesh, far_origin
from craym_nerfstudio.export.marching import extract_surface
from craym_nerfstudio.export.options import Unseen
from craym_nerfstudio.export.photo_views import PhotoView, Visibility
from craym_nerfstudio.fields.color_field import ColorField, spherical_harmonics
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.model import CraymModel
from craym_nerfstudio.stops import load_trimesh
from craym_nerfstudio.storage import write_atomically

_CHUNK = 1 << 16
_SMALL_SHARE = 0.01
"""Pieces with no more than this share of the faces are floaters."""
_COLORED_BY = 16
"""Views whose colours are averaged, about."""
_LEAST_FACING = 0.15
"""Cosine between a normal and a view below which the surface is too slanted for its colour."""
_ASKED = 300
"""Vertices of a piece by which it is judged whether cameras see it."""


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


def pieces(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"]) -> Int[np.ndarray, " n"]:
    """Number of the connected piece of each vertex."""
    from trimesh.graph import connected_component_labels

    return connected_component_labels(np.concatenate([faces[:, :2], faces[:, 1:]]), node_count=len(vertices))


def keep_large_components(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], keep: int = 0
) -> tuple[Float[np.ndarray, "kept 3"], Int[np.ndarray, "k 3"]]:
    """The `keep` connected pieces with most faces and their vertices; 0 keeps all with more than 1 % of the faces."""
    piece = pieces(vertices, faces)[faces[:, 0]]
    size = np.bincount(piece)
    order = np.argsort(-size, kind="stable")
    kept = order[:keep] if keep else order[: max(int((size > _SMALL_SHARE * len(faces)).sum()), 1)]
    return _only(vertices, faces[np.isin(piece, kept)])


def _only(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"]
) -> tuple[Float[np.ndarray, "kept 3"], Int[np.ndarray, "m 3"]]:
    """Faces with the vertices that they use."""
    used, renumbered = np.unique(faces, return_inverse=True)
    return vertices[used], renumbered.reshape(-1, 3)


def drop_hidden_pieces(
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "m 3"],
    normals: Float[np.ndarray, "n 3"],
    views: list[PhotoView],
    visibility: Visibility,
) -> tuple[Float[np.ndarray, "kept 3"], Int[np.ndarray, "k 3"]]:
    """Only the connected pieces of which some camera sees something: what floats inside a solid goes."""
    piece, rng = pieces(vertices, faces), np.random.default_rng(0)
    asked = np.concatenate(
        [rng.permutation(np.flatnonzero(piece == number))[:_ASKED] for number in range(piece.max() + 1)]
    )
    seen = visibility.by_any(views, vertices[asked], normals[asked])
    shown = np.unique(piece[asked[seen]])
    return _only(vertices, faces[np.isin(piece[faces[:, 0]], shown)]) if len(shown) else (vertices, faces)


@torch.no_grad()
def appearance(
    model: CraymModel, points: Float[np.ndarray, "n 3"], views: Sequence[PhotoView] = ()
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Outward normals of surface points of the unit frame, and their colours: the mean of how views show them.

    Where no view faces the surface, it is seen along the inward normal.
    """
    chosen = views[:: max(len(views) // _COLORED_BY, 1)]
    centers = [torch.from_numpy(view.center).float().to(model.device) for view in chosen]
    normals, colors = [torch.zeros(0, 3)], [torch.zeros(0, 3)]
    everything = torch.from_numpy(points).float().to(model.device)
    for part in everything.split(_CHUNK) if len(points) else ():
        surface = model.scene.field.surface(part, *model.scene.field.encode(part, model.level_weights))
        normal = F.normalize(surface.gradient, dim=-1)
        colors.append(_seen_from(model.scene.color, part, surface.feature, normal, centers).cpu())
        normals.append(normal.cpu())
    return torch.cat(normals).double().numpy(), torch.cat(colors).double().numpy()


def _seen_from(
    color: ColorField, points: Tensor, feature: Tensor, normal: Tensor, centers: list[Tensor]
) -> Float[Tensor, "n 3"]:
    """Mean colour from the places that surface points face, each by the share of a view that it fills there."""
    total, weight = torch.zeros_like(points), torch.zeros_like(points[:, :1])
    for center in centers:
        towards = F.normalize(points - center, dim=-1)
        facing = -(towards * normal).sum(-1, keepdim=True)
        index = (facing[:, 0] > _LEAST_FACING).nonzero()[:, 0]
        share = facing[index]
        total[index] += share * color(feature[index], spherical_harmonics(towards[index]), normal[index])
        weight[index] += share
    rest = (weight[:, 0] == 0.0).nonzero()[:, 0]
    total[rest], weight[rest] = color(feature[rest], spherical_harmonics(-normal[rest]), normal[rest]), 1.0
    return total / weight


def extract_mesh(
    model: CraymModel,
    resolution: int,
    views: list[PhotoView],
    visibility: Visibility,
    unseen: Unseen = "close",
    keep_components: int = 0,
) -> SurfaceMesh:
    """The mesh of a model in the unit frame, without floaters.

    Args:
        unseen: what becomes of what no camera sees.
        keep_components: number of connected pieces to keep; 0 keeps all with more than 1 % of the faces.

    Raises:
        InputError: there is no surface, or no camera sees it.
    """
    field, weights = model.scene.field, model.level_weights
    with torch.no_grad():
        vertices, faces = extract_surface(
            lambda points: field.sdf(points, weights), resolution, model.device, closed=unseen == "close"
        )
    vertices, faces = keep_large_components(vertices, faces, keep_components)
    if unseen != "keep":
        normals = appearance(model, vertices)[0]
        vertices, faces = drop_hidden_pieces(vertices, faces, normals, views, visibility)
    if unseen == "cut":
        seen = visibility.by_any(views, vertices, appearance(model, vertices)[0])
        faces = faces[seen[faces].any(-1)]
        if len(faces) == 0:
            raise InputError("No camera sees the surface", remedy="Export with --unseen keep and look at it.")
        vertices, faces = keep_large_components(vertices, faces, keep_components)
    return SurfaceMesh(vertices, faces, *appearance(model, vertices, views))


def write_mesh(mesh: SurfaceMesh, path: Path) -> None:
    """Write a mesh with vertex normals and colours as PLY or OBJ, or its shape as STL, by the suffix of `path`.

    Raises:
        InputError: the file cannot be written.
    """
    trimesh = load_trimesh()

    colors = np.round(mesh.colors.clip(0.0, 1.0) * 255).astype(np.uint8)
    suffix, origin = path.suffix.lower()[1:], far_origin(mesh.vertices)
    content: Any = trimesh.Trimesh(
        mesh.vertices - origin, mesh.faces, vertex_normals=mesh.normals, vertex_colors=colors, process=False
    )
    if origin.any():
        content = exact_mesh(content, origin, suffix)
    exported: Any = content if isinstance(content, bytes) else content.export(file_type=suffix)
    write_atomically(path, lambda file: file.write(exported.encode() if isinstance(exported, str) else exported))
