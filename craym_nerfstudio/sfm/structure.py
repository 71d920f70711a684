"""Tracks and 3D points that agree with given poses: which matches belong together, and where their rays meet."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from craym_nerfstudio.sfm.normal_equations import RayObservations
from craym_nerfstudio.sfm.ray_graph import MatchMask, Poses, RayGraph, connected
from craym_nerfstudio.sfm.triangulate import triangulate

_MIN_ANGLE_DEG = 0.3
"""Rays of a point that differ by less meet anywhere."""


@dataclass(frozen=True)
class Structure:
    """Points and the keypoints (nodes of the graph) that see them; observations sorted by point."""

    points: Float[Tensor, "points 3"]
    point: Int[np.ndarray, " obs"]
    node: Int[np.ndarray, " obs"]

    def observations(self, graph: RayGraph, sigma_px: float | Float[np.ndarray, " nodes"]) -> RayObservations:
        """The rays of the structure, keypoints being precise to `sigma_px`, all or each its own."""
        return RayObservations(
            camera=torch.from_numpy(graph.image[self.node]),
            point=torch.from_numpy(self.point),
            bearing=torch.from_numpy(graph.bearing[self.node]),
            sigma_rad=torch.from_numpy(graph.sigma_rad(sigma_px)[self.node]),
        )

    def error_px(self, graph: RayGraph, c2w: Poses) -> Float[np.ndarray, " obs"]:
        """Angle between each ray and its point, in pixels at the image centre; infinite behind the camera."""
        seen = self.observations(graph, 1.0)
        local = ((self.points[seen.point] - c2w[seen.camera, :, 3])[:, None] @ c2w[seen.camera, :, :3]).squeeze(1)
        along = (local * seen.bearing).sum(-1)
        tangent = torch.linalg.cross(local, seen.bearing, dim=-1).norm(dim=-1) / along.clamp_min(1e-12)
        return torch.where(along > 0, tangent, torch.inf).numpy() * graph.focal_px[graph.image[self.node]]

    def components(self, graph: RayGraph) -> tuple[Int[np.ndarray, " cams"], Int[np.ndarray, " points"]]:
        """Number of the connected part of every camera (-1 without points) and point, the largest part first."""
        image = graph.image[self.node]
        neighbours = np.stack([image[:-1], image[1:]], axis=1)[self.point[:-1] == self.point[1:]]
        label = connected(neighbours, graph.num_images)
        seen = np.bincount(image, minlength=graph.num_images) > 0
        size = np.bincount(label[seen], minlength=int(label.max(initial=0)) + 1)
        rank = np.argsort(np.argsort(-size, kind="stable"))
        camera = np.where(seen, rank[label], -1)
        point = np.full(len(self.points), -1)
        point[self.point] = camera[image]
        return camera, point


def build_structure(graph: RayGraph, c2w: Poses, keep: MatchMask, gate_px: float) -> Structure:
    """Triangulate the tracks of matches within `gate_px` of their epipolar lines; rays off by more than the gate go.

    A track sees no image twice.
    """
    distance = graph.epipolar_px(c2w)
    track = graph.tracks(keep & (distance < gate_px), 1 / (1 + distance))
    node = np.nonzero(track >= 0)[0]
    node = node[np.argsort(track[node], kind="stable")]
    # Rays are dropped one gate after the other: a point dragged by a wrong ray is off for the right ones too.
    for widening in (2.0, 1.0):
        structure, angle = _triangulated(graph, c2w, node, track)
        point = structure.point
        good = (structure.error_px(graph, c2w) < widening * gate_px) & (angle[point] > np.radians(_MIN_ANGLE_DEG))
        node = node[good & (np.bincount(point[good], minlength=len(angle))[point] >= 2)]
    return _triangulated(graph, c2w, node, track)[0]


def _triangulated(
    graph: RayGraph, c2w: Poses, node: Int[np.ndarray, " obs"], track: Int[np.ndarray, " nodes"]
) -> tuple[Structure, Float[np.ndarray, " points"]]:
    """One point per track, seen by its nodes; and the widest angle between the rays of each."""
    point, points, angle = triangulate(c2w, graph.image[node], graph.bearing[node], track[node])
    return Structure(points, point, node), angle
