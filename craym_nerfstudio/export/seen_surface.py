"""A surface of few faces with what the photos see of it: what textures and splats are made from."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from craym_nerfstudio.export.mesh import SurfaceMesh, appearance
from craym_nerfstudio.export.photo_views import PhotoView, Visibility
from craym_nerfstudio.model import CraymModel


@dataclass(frozen=True)
class SeenSurface:
    """A mesh of the unit frame, and which camera sees which of its vertices."""

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    normals: Float[np.ndarray, "n 3"]
    seen: Bool[np.ndarray, "views n"]
    footprint: Float[np.ndarray, " n"]
    """What one pixel of the best view covers of a surface that it sees head on, as a length; the median where none."""


def seen_surface(
    model: CraymModel, mesh: SurfaceMesh, views: list[PhotoView], visibility: Visibility, faces: int
) -> SeenSurface:
    """The surface of a mesh of the unit frame with about `faces` faces; 0 keeps all of them."""
    vertices, triangles = simplified(mesh.vertices, mesh.faces, faces)
    normals = appearance(model, vertices)[0]
    seen = visibility.of_views(views, vertices, normals) & _on_surface(model, vertices, visibility.tolerance)
    finest = np.full(len(vertices), np.inf)
    for view, mine in zip(views, seen, strict=True):
        finest[mine] = np.minimum(finest[mine], view.footprint(vertices[mine]))
    known = np.isfinite(finest)
    finest[~known] = np.median(finest[known]) if known.any() else 0.01
    return SeenSurface(vertices, triangles, normals, seen, finest)


@torch.no_grad()
def _on_surface(model: CraymModel, points: Float[np.ndarray, "n 3"], tolerance: float) -> Bool[np.ndarray, " n"]:
    """Which points lie on the zero level: those that close the region lie anywhere in it."""
    given = torch.from_numpy(points).float().to(model.device)
    parts = [model.scene.field.sdf(part, model.level_weights) for part in given.split(1 << 16)]
    return (torch.cat(parts).abs() < 2.0 * tolerance).cpu().numpy()


def simplified(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], count: int
) -> tuple[Float[np.ndarray, "k 3"], Int[np.ndarray, "j 3"]]:
    """A mesh with about `count` faces, by quadrics; one with fewer, or a count of 0, stays as it is."""
    import fast_simplification

    if not count or len(faces) <= count:
        return vertices, faces
    # A more careful setting stops early where the surface is smooth.
    points, triangles = fast_simplification.simplify(
        vertices.astype(np.float32), faces.astype(np.int32), target_count=count, agg=5
    )
    return points.astype(np.float64), triangles.astype(np.int64)
