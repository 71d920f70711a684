"""Reference surfaces, read by what lies in a file or folder, and meshes to compare with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Bool, Float, Int

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.evaluation.depth_maps import read_depth_maps
from craym_nerfstudio.evaluation.surfaces import Cloud, Points, SampledMesh, SurfaceReference, sample_mesh
from craym_nerfstudio.stops import load_trimesh

_MESH_SUFFIXES = (".ply", ".obj", ".glb", ".stl", ".off")
_MESH_NAMES = ("mesh_gt.ply", "mesh.ply")
_VISIBLE_NAMES = ("mesh_visible_points.npz", "visible_points.npz")
_SPARSE_NAME = "gt_sparse_points.npz"
_ACCEPTED = (
    "Accepted: a mesh, an .npz with points (and normals), or a folder with mesh.ply or mesh_gt.ply (and "
    "visible_points.npz), with depth maps NAME_depth_*.png beside its images, or with gt_sparse_points.npz."
)
_SAMPLES = 400_000

DATA_NODE = "frame_of_the_data"
"""Node of a GLB file of ours below which coordinates are those of the data."""


def load_reference(path: Path) -> SurfaceReference:
    """The reference surface of a file or folder.

    * a mesh, with the points of it that cameras see (``visible_points.npz``) beside it or not;
    * such points alone (arrays ``points`` and, if known, ``normals``);
    * a data folder with depth maps: see `read_depth_maps`;
    * sparse points (array ``xyz_unit``, in the frame of the data), for one-way distances.

    Raises:
        InputError: nothing of that is there, or a file cannot be read.
    """
    if path.is_file() and path.suffix.lower() in _MESH_SUFFIXES:
        return _exact(path, _first(path.parent, _VISIBLE_NAMES))
    if path.is_file() and path.suffix.lower() == ".npz":
        return _from_points(path)
    if not path.is_dir():
        raise InputError("No reference surface", path, _ACCEPTED)
    mesh, visible = _first(path, _MESH_NAMES), _first(path, _VISIBLE_NAMES)
    if mesh is not None:
        return _exact(mesh, visible)
    if visible is not None or (path / _SPARSE_NAME).is_file():
        return _from_points(visible or path / _SPARSE_NAME)
    reference = read_depth_maps(path)
    if reference is None:
        raise InputError("No reference surface", path, _ACCEPTED)
    return reference


def load_mesh(path: Path) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"]]:
    """Vertices and triangles of a mesh file.

    Raises:
        InputError: the file is missing, unreadable or without triangles.
    """
    trimesh = load_trimesh()

    if not path.is_file():
        raise InputError("No such mesh", path, "Give a mesh file, such as craym export writes.")
    try:
        mesh = _in_data_frame(trimesh.load(path, process=False))
    except (OSError, ValueError, IndexError, KeyError, TypeError) as error:
        raise InputError("Unreadable mesh", path, "Give a .ply, .obj, .glb, .stl or .off file.") from error
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise InputError("The mesh has no triangles", path, "Give a triangle mesh.")
    return np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)


def _in_data_frame(loaded: Any) -> Any:
    """One mesh of what a file holds; of ours the surface alone, without the turn that sets a GLB upright."""
    trimesh = load_trimesh()

    if not isinstance(loaded, trimesh.Scene):
        return loaded
    if DATA_NODE in loaded.graph.nodes:
        return loaded.geometry[loaded.graph.get(DATA_NODE)[1]]
    return loaded.to_mesh()


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _exact(mesh_path: Path, visible_path: Path | None) -> SurfaceReference:
    surface = sample_mesh(*load_mesh(mesh_path), _SAMPLES)
    if visible_path is None:
        left_out = f"Nothing is left out: which parts of {mesh_path.name} cameras see is not known."
        return SurfaceReference("exact mesh", Cloud(surface.points, surface.normals), surface, left_out)
    visible = _read_cloud(visible_path)
    left_out = (
        f"Left out: the parts of {mesh_path.name} that no camera sees ({visible_path.name} lists what they see), and "
        "parts of the mesh that lie nearest to one of those."
    )
    return SurfaceReference("exact mesh", visible, surface, left_out, _nearest_is_visible(surface, visible))


def _nearest_is_visible(surface: SampledMesh, visible: Cloud) -> Callable[[Points], Bool[np.ndarray, " n"]]:
    """Tells which points have as nearest point of a surface one that cameras see."""
    spacing = np.median(visible.tree.query(visible.points[:20_000], k=2)[0][:, 1])
    # Among points spread at random no gap is wider than five median spacings (odds 3e-8).
    is_visible = visible.nearest(surface.points)[0] <= 5.0 * spacing
    return lambda points: is_visible[surface.tree.query(points)[1]]


def _from_points(path: Path) -> SurfaceReference:
    cloud = _read_cloud(path)
    with np.load(path) as content:
        sparse = "points" not in content.files
    if sparse:
        left_out = f"One-way, from {len(cloud.points)} points to the mesh: what lies between them is not known."
        return SurfaceReference("sparse points", cloud, cloud, left_out, one_way=True)
    left_out = "Left out: reference surfaces that no camera sees. All of the mesh counts: no whole reference is known."
    return SurfaceReference("visible points", cloud, cloud, left_out)


def _read_cloud(path: Path) -> Cloud:
    try:
        with np.load(path) as content:
            names = [name for name in ("points", "xyz_unit") if name in content.files]
            if not names:
                problem = f"No array points or xyz_unit, but {', '.join(content.files)}"
                raise InputError(problem, path, _ACCEPTED)
            points = np.asarray(content[names[0]], dtype=np.float64)
            normals = np.asarray(content["normals"], dtype=np.float64) if "normals" in content.files else None
    except (OSError, BadZipFile, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("Unreadable points", path, "Give an .npz file of numpy arrays.") from error
    if points.ndim != 2 or points.shape[1] != 3 or len(points) < 2 or not np.isfinite(points).all():
        raise InputError(f"Points of shape {points.shape}", path, "Give finite points as an array [n, 3].")
    if normals is not None:
        normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    return Cloud(points, normals)
