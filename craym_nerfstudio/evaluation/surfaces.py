"""How far a mesh is from a reference surface: distances both ways, shares within thresholds, agreement of normals.

What is compared: samples of the mesh, uniform over its area, with the reference surface; and the points of the
reference that cameras see with the mesh. Distances are to the nearest point on a triangle where triangles are known,
so that the density of samples does not show in them. Parts that no camera sees are left out on both sides, as the
reference says; distances themselves are never clipped. Frames are aligned before, by cameras alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from craym_nerfstudio.errors import InputError

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

Points = Float[np.ndarray, "n 3"]
Nearest = tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 3"] | None]

THRESHOLDS = (0.01, 0.02)
"""Distances, in units of the reference, within which a point counts as right."""

_CANDIDATES = 8
"""Triangles near a point among which its nearest point is sought."""
_CHUNK = 1 << 15


@dataclass(frozen=True)
class Cloud:
    """Points of a surface, with unit normals where they are known."""

    points: Points
    normals: Float[np.ndarray, "n 3"] | None = None

    @cached_property
    def tree(self) -> "cKDTree":
        """Index of the points."""
        from scipy.spatial import cKDTree

        return cKDTree(self.points)

    def nearest(self, query: Points) -> Nearest:
        """Distance to the nearest point, and its normal."""
        distance, index = self.tree.query(query)
        return distance, None if self.normals is None else self.normals[index]


@dataclass(frozen=True)
class SampledMesh(Cloud):
    """A triangle mesh with points drawn on it; `face` tells the triangle of each point."""

    triangles: Float[np.ndarray, "m 3 3"] = field(default_factory=lambda: np.zeros((0, 3, 3)))
    face: Int[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @cached_property
    def _anchors(self) -> "tuple[cKDTree, Int[np.ndarray, ' anchors']]":
        """Points that lead to the triangles near them: the samples, and the centroids of triangles without any."""
        from scipy.spatial import cKDTree

        missed = np.setdiff1d(np.arange(len(self.triangles)), self.face)
        points = np.concatenate([self.points, self.triangles[missed].mean(1)])
        return cKDTree(points), np.concatenate([self.face, missed])

    def nearest(self, query: Points) -> Nearest:
        """Distance to the nearest point of the triangles around the nearest anchors, and the normal there.

        Among large triangles the nearest may escape; the distance is then too large by less than the anchors' spacing.
        """
        from trimesh.triangles import closest_point

        tree, faces = self._anchors
        distances, nearest_face = [], []
        for start in range(0, len(query), _CHUNK):
            part = query[start : start + _CHUNK]
            reach, index = (each.reshape(len(part), -1) for each in tree.query(part, k=min(_CANDIDATES, len(faces))))
            face = faces[index]
            repeated = np.repeat(part, face.shape[1], axis=0)
            foot = closest_point(self.triangles[face.ravel()], repeated)
            # A sliver may have no well-defined foot; its anchor is on it in any case.
            exact = np.fmin(np.linalg.norm(foot - repeated, axis=-1).reshape(face.shape), reach)
            best = (np.arange(len(part)), exact.argmin(axis=1))
            distances.append(exact[best])
            nearest_face.append(face[best])
        return np.concatenate(distances), _unit_normals(self.triangles[np.concatenate(nearest_face)])


def _unit_normals(triangles: Float[np.ndarray, "m 3 3"]) -> Float[np.ndarray, "m 3"]:
    crossed = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    return crossed / np.maximum(np.linalg.norm(crossed, axis=-1, keepdims=True), 1e-300)


def sample_mesh(vertices: Points, faces: Int[np.ndarray, "m 3"], count: int = 200_000, seed: int = 0) -> SampledMesh:
    """A mesh with `count` points, uniform over its area: every triangle gets its share, rounded at random.

    Raises:
        InputError: the mesh has no area.
    """
    triangles = np.asarray(vertices, dtype=np.float64)[faces]
    crossed = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    doubled_area = np.linalg.norm(crossed, axis=-1)
    if not doubled_area.sum() > 0:
        raise InputError("The mesh has no surface", remedy="Give a triangle mesh.")
    generator = np.random.default_rng(seed)
    reached = doubled_area.cumsum() / doubled_area.sum()
    # One random offset for all: the number of points per triangle then varies by less than one (systematic sampling).
    face = np.searchsorted(reached, (np.arange(count) + generator.random()) / count).clip(max=len(faces) - 1)
    u, v = generator.random((2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    corner = triangles[face]
    points = corner[:, 0] + u * (corner[:, 1] - corner[:, 0]) + v * (corner[:, 2] - corner[:, 0])
    return SampledMesh(points, _unit_normals(corner), triangles, face)


@dataclass(frozen=True)
class SurfaceReference:
    """What a mesh is compared with, in a frame of its own."""

    kind: Literal["exact mesh", "visible points", "ray depths", "sparse points"]
    visible: Cloud
    """Points that some camera sees: the mesh should have them."""
    surface: Cloud
    """What points of the mesh should lie on; the unseen parts may be part of it."""
    left_out: str
    """One sentence for reports: what does not count."""
    observed: Callable[[Points], Bool[np.ndarray, " n"]] | None = None
    """Which points of a mesh the cameras could judge; None for all."""
    one_way: bool = False
    """The points cover the surface in places only: nothing can be said of what lies between them."""


@dataclass(frozen=True)
class SurfaceComparison:
    """Distances between a mesh and a reference, in the reference's units, and cosines between normals."""

    to_reference: Float[np.ndarray, " samples"] | None
    """From each observed sample of the mesh; None where the reference is one-way."""
    to_mesh: Float[np.ndarray, " points"]
    """From each visible point of the reference."""
    cosines: Float[np.ndarray, " both"] | None
    """Absolute cosine of the normals at both ends of all these distances, where normals are known."""
    left_out_share: float
    """Share of the mesh's area that no camera could judge."""

    def metrics(self) -> dict[str, float]:
        """Every figure by its name.

        ``accuracy`` is the mean distance from the mesh to the reference, ``completeness`` from the reference to the
        mesh, ``chamfer`` the mean of the two; ``precision``, ``recall`` and their harmonic mean ``f_score`` are
        shares within a threshold; ``hausdorff`` is the larger of both greatest distances, ``hausdorff_95`` of both
        95 % quantiles; ``normal_consistency`` the mean absolute cosine (Mescheder et al. 2019).
        """
        ways = [self.to_mesh] if self.to_reference is None else [self.to_reference, self.to_mesh]
        result = {"completeness": float(self.to_mesh.mean()), "completeness_median": float(np.median(self.to_mesh))}
        if self.to_reference is not None:
            result["accuracy"] = float(self.to_reference.mean())
            result["accuracy_median"] = float(np.median(self.to_reference))
            result["chamfer"] = 0.5 * (result["accuracy"] + result["completeness"])
            result["left_out_share"] = self.left_out_share
        for threshold in THRESHOLDS:
            recall = float((self.to_mesh < threshold).mean())
            result[f"recall_{threshold}"] = recall
            if self.to_reference is not None:
                precision = float((self.to_reference < threshold).mean())
                result[f"precision_{threshold}"] = precision
                result[f"f_score_{threshold}"] = 2 * precision * recall / max(precision + recall, 1e-300)
        name = "distance" if self.to_reference is None else "hausdorff"
        result[f"{name}_95"] = max(float(np.quantile(way, 0.95)) for way in ways)
        result[f"{name}_max" if self.to_reference is None else name] = max(float(way.max()) for way in ways)
        if self.cosines is not None:
            result["normal_consistency"] = float(self.cosines.mean())
        return result


def compare_surfaces(mesh: SampledMesh, reference: SurfaceReference) -> SurfaceComparison:
    """Compare a mesh, already in the frame of the reference, with it.

    Raises:
        InputError: no part of the mesh lies where the cameras of the reference see anything.
    """
    to_mesh, normals = mesh.nearest(reference.visible.points)
    cosines = [] if reference.visible.normals is None else [_cosines(reference.visible.normals, normals)]
    if reference.one_way:
        return SurfaceComparison(None, to_mesh, np.concatenate(cosines) if cosines else None, 0.0)
    kept = np.ones(len(mesh.points), dtype=bool) if reference.observed is None else reference.observed(mesh.points)
    if not kept.any():
        remedy = "Is the mesh in the frame of the reference? --load-config brings a mesh of craym export there."
        raise InputError("No part of the mesh lies where cameras see the reference", remedy=remedy)
    to_reference, normals = reference.surface.nearest(mesh.points[kept])
    if normals is not None and mesh.normals is not None:
        cosines.append(_cosines(mesh.normals[kept], normals))
    both = np.concatenate(cosines) if len(cosines) == 2 else None
    return SurfaceComparison(to_reference, to_mesh, both, 1.0 - float(kept.mean()))


def _cosines(first: Points, second: Points | None) -> Float[np.ndarray, " n"]:
    assert second is not None
    return np.abs((first * second).sum(-1))
