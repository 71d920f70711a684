"""A closed rough surface from stage 0's points: tetrahedra between them, carved by the rays that see them.

Rays are votes for empty space before a point and for solid space close behind it; the cheapest cut between empty and
solid tetrahedra is the surface (Labatut, Pons and Keriven 2009).
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.spatial import Delaunay, cKDTree

_CELL = 0.01
"""Points closer than this become one, in units of the field."""
_FRAME_RADIUS = 1.3
_FRAME_POINTS = 400
"""Points on a sphere around everything, so that the tetrahedra fill all of the region."""
_NEIGHBOURS = 6
"""The distance to the nearest neighbour of this number is the spacing of the points there."""
_SOFT = 0.5
"""A ray's vote for empty space fades within this many spacings of its point, which is not known any better."""
_BEHIND = 0.1
"""Where the vote for solid space falls, in spacings behind a point."""
_STATIONS = 64
"""Votes of a ray, dense near its point."""
_SMOOTHNESS = 0.3
"""Cost of a face of the surface as long as the points' median spacing; it grows with the length, up to a limit."""
_LONGEST = 20.0
_MOST_VOTES = 200.0
_OUTSIDE = 0.05
"""Vote of the frame for empty space, which decides where no ray comes."""
_UNITS = 1000.0
"""Of the cut's whole numbers."""


class CarvedSurface:
    """Solid and empty space of the unit frame, told apart by points and the rays that see them."""

    def __init__(
        self,
        points: Float[np.ndarray, "points 3"],
        ray_point: Int[np.ndarray, " rays"],
        ray_origin: Float[np.ndarray, "rays 3"],
    ) -> None:
        _, cell = np.unique(np.floor(points / _CELL).astype(np.int64), axis=0, return_inverse=True)
        cell = cell.reshape(-1)
        count = np.bincount(cell)
        merged = np.stack([np.bincount(cell, axis) / count for axis in points.T], axis=-1)
        self.vertices = np.concatenate([merged, _FRAME_RADIUS * sphere_points(_FRAME_POINTS)])
        self.mesh = Delaunay(self.vertices)
        spacing = cKDTree(merged).query(merged, k=_NEIGHBOURS + 1)[0][:, -1]
        empty, solid = self._votes(merged, spacing, cell[ray_point], ray_origin)
        self.is_solid, self.faces = self._cut(empty, solid, float(np.median(spacing)), len(merged))

    def _votes(
        self, points: np.ndarray, spacing: np.ndarray, ray_point: np.ndarray, ray_origin: np.ndarray
    ) -> tuple[Float[np.ndarray, " tetrahedra"], Float[np.ndarray, " tetrahedra"]]:
        """Votes of all rays for each tetrahedron: empty, solid."""
        away, near = points[ray_point] - ray_origin, spacing[ray_point]
        distance = np.linalg.norm(away, axis=-1)
        away = away / distance[:, None]
        middle = -(ray_origin * away).sum(-1)
        half = np.sqrt(np.maximum(middle**2 - (ray_origin**2).sum(-1) + (0.98 * _FRAME_RADIUS) ** 2, 0.0))
        reach = distance - np.minimum(np.maximum(middle - half, 0.0), distance)
        empty, solid = np.zeros((2, len(self.mesh.simplices)))
        for station in (np.arange(_STATIONS) + 0.5) / _STATIONS:
            before = reach * station**2
            where = self.mesh.find_simplex(points[ray_point] - away * before[:, None])
            vote = 1.0 - np.exp(-((before / (_SOFT * near)) ** 2))
            empty += np.bincount(where[where >= 0], vote[where >= 0], len(empty))
        where = self.mesh.find_simplex(points[ray_point] + away * (_BEHIND * near)[:, None])
        return np.minimum(empty, _MOST_VOTES), solid + np.bincount(where[where >= 0], minlength=len(solid))

    def _cut(
        self, empty: np.ndarray, solid: np.ndarray, spacing: float, points: int
    ) -> tuple[Bool[np.ndarray, " tetrahedra"], Int[np.ndarray, "faces 3"]]:
        """Which tetrahedra are solid, and the faces between solid and empty ones."""
        from scipy.sparse.csgraph import breadth_first_order, maximum_flow

        simplices, count = self.mesh.simplices, len(self.mesh.simplices)
        first, corner = np.nonzero(self.mesh.neighbors > np.arange(count)[:, None])
        second = self.mesh.neighbors[first, corner]
        faces = simplices[first][np.arange(4) != corner[:, None]].reshape(-1, 3)
        edges = self.vertices[faces] - self.vertices[np.roll(faces, 1, axis=1)]
        longest = np.linalg.norm(edges, axis=-1).max(-1)
        cost = _SMOOTHNESS * np.minimum(longest / spacing, _LONGEST)
        empty = empty + _OUTSIDE * (simplices >= points).any(-1)
        source, sink, every = count, count + 1, np.arange(count)
        rows = np.concatenate([np.full(count, source), every, first, second])
        columns = np.concatenate([every, np.full(count, sink), second, first])
        capacity = np.round(_UNITS * np.concatenate([empty, solid, cost, cost])).astype(np.int32)
        graph = coo_matrix((capacity, (rows, columns)), shape=(count + 2, count + 2)).tocsr()
        left = graph - maximum_flow(graph, source, sink).flow
        left.data[left.data < 0] = 0
        left.eliminate_zeros()
        is_solid = np.ones(count + 2, dtype=bool)
        is_solid[breadth_first_order(left, source, return_predecessors=False)] = False
        return is_solid[:count], faces[is_solid[first] != is_solid[second]]

    def signed_distance(self, points: Float[np.ndarray, "n 3"], samples: int = 200_000) -> Float[np.ndarray, " n"]:
        """Distance to the surface, negative in solid space; nothing is known outside of the frame, which is empty."""
        generator = np.random.default_rng(0)
        corner = self.vertices[self.faces]
        area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=-1)
        chosen = corner[generator.choice(len(area), samples, p=area / area.sum())]
        share = generator.dirichlet(np.ones(3), samples)
        distance = cKDTree((share[..., None] * chosen).sum(1)).query(points)[0]
        where = self.mesh.find_simplex(points)
        return np.where((where >= 0) & self.is_solid[where], -distance, distance)


def sphere_points(count: int) -> Float[np.ndarray, "count 3"]:
    """Points spread evenly over the unit sphere (a Fibonacci lattice)."""
    number = np.arange(count) + 0.5
    height, turn = 1.0 - 2.0 * number / count, np.pi * (1.0 + np.sqrt(5.0)) * number
    radius = np.sqrt(1.0 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=-1)
