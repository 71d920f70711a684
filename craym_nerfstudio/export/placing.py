"""Points spread evenly over a surface, closer together where it bends or is seen in more detail."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from craym_nerfstudio.export.seen_surface import SeenSurface

_CANDIDATES = 5
"""Random points per point that is kept."""
_BEND = 0.35
"""Angle (radians) over which the surface may turn from a point to its neighbour before they move together."""
_CLOSEST = 0.6
"""How much closer points may be where the surface bends."""
_DENSITY = 0.75
"""Points of a random set of which no two are closer than 1, per unit of area."""


@dataclass(frozen=True)
class PlacedPoints:
    """Points on faces of a surface."""

    points: Float[np.ndarray, "n 3"]
    vertex: Int[np.ndarray, " n"]
    """A vertex nearby."""
    spacing: Float[np.ndarray, " n"]
    """Mean distance to the neighbours around each."""


def place_points(surface: SeenSurface, spacing: Float[np.ndarray, " v"], most: int, seed: int) -> PlacedPoints:
    """Points on the faces that cameras see, about `spacing` (of the vertices) apart; wider if they were too many."""
    rng = np.random.default_rng(seed)
    faces = surface.faces[surface.seen.any(0)[surface.faces].all(-1)]
    corners = surface.vertices[faces]
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    bend = _curvature(surface)
    wanted = spacing * np.clip(_BEND / np.maximum(bend * spacing, 1e-9), _CLOSEST, 1.0)
    gap = wanted[faces].mean(-1)
    count = _DENSITY * (area / gap**2).sum()
    if count > most:
        gap, count = gap * (count / most) ** 0.5, float(most)
    share = area / gap**2
    face = rng.choice(len(faces), size=max(int(_CANDIDATES * count), 16), p=share / share.sum())
    weights = rng.dirichlet(np.ones(3), len(face))
    points = (weights[..., None] * corners[face]).sum(1)
    kept = _thinned(points, gap[face])[:most]
    points, face, weights = points[kept], face[kept], weights[kept]
    vertex = faces[face, weights.argmax(-1)]
    return PlacedPoints(points, vertex, _neighbour_distance(points))


def _curvature(surface: SeenSurface) -> Float[np.ndarray, " v"]:
    """How fast the normal turns around each vertex, in radians per length."""
    edges = np.concatenate([surface.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    first, second = edges.T
    length = np.linalg.norm(surface.vertices[first] - surface.vertices[second], axis=-1)
    turned = np.linalg.norm(surface.normals[first] - surface.normals[second], axis=-1)
    total, weight = np.zeros(len(surface.vertices)), np.zeros(len(surface.vertices))
    for end in (first, second):
        np.add.at(total, end, turned)
        np.add.at(weight, end, length)
    return total / np.maximum(weight, 1e-12)


def _thinned(points: Float[np.ndarray, "n 3"], gap: Float[np.ndarray, " n"]) -> Int[np.ndarray, " kept"]:
    """Numbers of points of which none is closer to another than its gap; earlier points go first."""
    from scipy.spatial import cKDTree

    pairs = cKDTree(points).query_pairs(float(gap.max()), output_type="ndarray")
    distance = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=-1)
    pairs = pairs[distance < np.minimum(gap[pairs[:, 0]], gap[pairs[:, 1]])]
    pairs.sort(axis=-1)
    kept, dropped = np.zeros(len(points), dtype=bool), np.zeros(len(points), dtype=bool)
    while True:
        # A point is kept once no earlier neighbour is left that might be.
        waiting = np.zeros(len(points), dtype=bool)
        waiting[pairs[:, 1]] = True
        new = ~waiting & ~dropped & ~kept
        if not new.any():
            return np.flatnonzero(kept)
        kept |= new
        dropped[pairs[kept[pairs[:, 0]], 1]] = True
        pairs = pairs[~dropped[pairs[:, 0]] & ~dropped[pairs[:, 1]] & ~kept[pairs[:, 0]]]


def _neighbour_distance(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    from scipy.spatial import cKDTree

    count = min(7, len(points))
    distance = cKDTree(points).query(points, k=count)[0]
    return distance[:, 1:].mean(-1) if count > 1 else np.full(len(points), 1e-3)
