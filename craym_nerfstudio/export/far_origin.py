"""Meshes and points in map coordinates: formats store single precision, which rounds UTM metres to half a metre."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from craym_nerfstudio.stops import load_trimesh

if TYPE_CHECKING:
    import trimesh

_FINE = 1e-5
"""Part of its own size to which a mesh has to keep its shape."""


def far_origin(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "3"]:
    """Whole units to take off points that single precision would spoil; zero where it does not."""
    if not len(points):
        return np.zeros(3)
    rounding = float(np.abs(points).max()) * float(np.finfo(np.float32).eps)
    size = float(np.ptp(points, axis=0).max())
    return np.round(points.mean(0)) if rounding > _FINE * size > 0 else np.zeros(3)


def exact_mesh(local: "trimesh.Trimesh", origin: Float[np.ndarray, "3"], suffix: str) -> Any:
    """What to export for a mesh whose vertices are given relative to `origin`, so that a reader finds it in its place.

    PLY has double precision, OBJ as many decimals as it needs, and GLB a node that moves single-precision vertices.
    """
    trimesh = load_trimesh()

    if suffix == "glb":
        scene = trimesh.Scene()
        scene.add_geometry(local, transform=trimesh.transformations.translation_matrix(origin))
        return scene
    if suffix == "ply":
        return _double_ply(local, origin)
    moved = local.copy()
    moved.vertices = local.vertices + origin
    return moved


def _double_ply(local: "trimesh.Trimesh", origin: Float[np.ndarray, "3"]) -> bytes:
    visual: Any = local.visual
    faces = np.empty(len(local.faces), dtype=[("count", "u1"), ("corner", "<i4", 3)])
    faces["count"], faces["corner"] = 3, local.faces
    columns = {
        "double x y z": local.vertices + origin,
        "float nx ny nz": local.vertex_normals,
        "uchar red green blue alpha": visual.vertex_colors,
    }
    listed = f"element face {len(faces)}\nproperty list uchar int vertex_indices\n"
    return _ply(columns, listed) + faces.tobytes()


def exact_points(points: Float[np.ndarray, "n 3"], colors: UInt8[np.ndarray, "n 3"]) -> bytes:
    """Points in double precision with colours, as PLY."""
    return _ply({"double x y z": points, "uchar red green blue": colors})


def _ply(columns: dict[str, np.ndarray], more: str = "") -> bytes:
    """Header and vertices of a PLY file; names tell type and properties, `more` declares what follows the vertices."""
    kinds = {"double": "<f8", "float": "<f4", "uchar": "u1"}
    count = len(next(iter(columns.values())))
    rows = np.empty(count, dtype=[(name, kinds[name.split()[0]], len(name.split()) - 1) for name in columns])
    for name, values in columns.items():
        rows[name] = values
    properties = "".join(f"property {name.split()[0]} {each}\n" for name in columns for each in name.split()[1:])
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {count}\n{properties}{more}end_header\n"
    return header.encode() + rows.tobytes()
