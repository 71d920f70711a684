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

    def observations(self, graph: RayGraph, sigma_px: float) -> RayObservations:
        """The rays of the structure, keypoints being precise to `sigma_px`."""
        return RayObservations(
            camera=torch.from_numpy(graph.image[self.node]),
            point=torch.from_numpy(self.point),
            bearing=torch.from_numpy(graph.bearing[self.node]),
            sigma_rad=torch.from_numpy(graph.sigma_rad(sigma_px)[self.node]),
        )

    def components(self, graph: RayGraph) -> tuple[Int[np.ndarray, " cams"], Int[np.ndarray, " points"]]:
        """Number of the connected part of every camera (-1 without points) and point, the largest part first."""
        image = graph.image[self.node]
        neighbours = np.stack([image[:-1], image[1:]], axis=1)[self.point[:-1] == self.point[1:]]
        label = connected(neighbours, graph.num_images)
        seen = np.bincount(image, minlength=graph.num_images) > 0
        size = np.bincount(label[seen], minlength=int(label.max(initial=0)) + 1)
        rank = np.empty(len(size), dtype=np.int64)
        rank[np.argsort(-size, kind="stable")] = np.arange(len(size))
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
        point, points, angle = triangulate(c2w, graph.image[node], graph.bearing[node], track[node])
        error = reprojection_px(graph, c2w, points, node, point)
        good = (error < widening * gate_px) & (angle[point] > np.radians(_MIN_ANGLE_DEG))
        node = node[good & (np.bincount(point[good], minlength=len(points))[point] >= 2)]
    point, points, _ = triangulate(c2w, graph.image[node], graph.bearing[node], track[node])
    return Structure(points, point, node)


def reprojection_px(
    graph: RayGraph,
    c2w: Poses,
    points: Float[Tensor, "points 3"],
    node: Int[np.ndarray, " obs"],
    point: Int[np.ndarray, " obs"],
) -> Float[np.ndarray, " obs"]:
    """Angle between each ray and its point, in pixels at the image centre; infinite behind the camera."""
    camera = torch.from_numpy(graph.image[node])
    local = ((points[torch.from_numpy(point)] - c2w[camera, :, 3])[:, None] @ c2w[camera, :, :3]).squeeze(1)
    bearing = torch.from_numpy(graph.bearing[node])
    along = (local * bearing).sum(-1)
    tangent = torch.linalg.cross(local, bearing, dim=-1).norm(dim=-1) / along.clamp_min(1e-12)
    return torch.where(along > 0, tangent, torch.inf).numpy() * graph.focal_px[graph.image[node]]
