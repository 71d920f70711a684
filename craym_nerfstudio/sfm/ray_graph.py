"""Matches as a graph: a node is a keypoint of an image with its ray, an edge is a match."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from craym_nerfstudio.geometry.epipolar import essential_from_motion, relative_pose, sampson_distance
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.tracks import build_tracks
from craym_nerfstudio.matching.views import PosePriors

Poses = Float[Tensor, "cams 3 4"]
CameraMask = Bool[np.ndarray, " cams"]
MatchMask = Bool[np.ndarray, " matches"]


@dataclass(frozen=True)
class RayGraph:
    """Keypoints that take part in matches, and the matches as pairs of them."""

    matches: Matches
    pair_motion: Float[np.ndarray, "pairs 3 4"]
    """Relative pose ``x_j = R x_i + t`` of each pair of `matches`, in OpenGL camera frames."""
    image: Int[np.ndarray, " nodes"]
    """Ascending; within an image keypoint ids ascend."""
    keypoint_id: Int[np.ndarray, " nodes"]
    keypoint_px: Float[np.ndarray, "nodes 2"]
    bearing: Float[np.ndarray, "nodes 3"]
    ends: Int[np.ndarray, "matches 2"]
    focal_px: Float[np.ndarray, " cams"]
    priors: PosePriors | None = None
    """What was said of the rough poses' errors, in their frame."""

    @property
    def num_images(self) -> int:
        """Number of cameras, those without any match included."""
        return len(self.focal_px)

    @property
    def images_of_matches(self) -> Int[np.ndarray, "matches 2"]:
        """The two images of every match."""
        return self.image[self.ends]

    def sigma_rad(self, sigma_px: float | Float[np.ndarray, " nodes"]) -> Float[np.ndarray, " nodes"]:
        """Standard deviation of each bearing when keypoints have `sigma_px`, all or each its own."""
        # Away from the axis of a pinhole a pixel covers less: cos^2 radially, cos across; their mean in between.
        cosine = np.abs(self.bearing[:, 2]).clip(0.2, 1.0)
        return sigma_px / self.focal_px[self.image] * cosine**1.5

    def epipolar_px(self, c2w: Poses) -> Float[np.ndarray, " matches"]:
        """Sampson distance of every match under given poses, in pixels of the mean focal length of its two views."""
        i, j = torch.from_numpy(self.images_of_matches).unbind(-1)
        return self._distance_px(relative_pose(c2w[i], c2w[j]))

    def pair_epipolar_px(self) -> Float[np.ndarray, " matches"]:
        """Sampson distance of every match under the motion estimated from its pair alone, in pixels."""
        return self._distance_px(torch.from_numpy(self.pair_motion[self.matches.pair_of_match]))

    def _distance_px(self, motion: Float[Tensor, "matches 3 4"]) -> Float[np.ndarray, " matches"]:
        first, second = torch.from_numpy(self.bearing[self.ends]).unbind(1)
        angle = match_angle(motion, first, second)
        return angle.numpy() * self.focal_px[self.images_of_matches].mean(-1)

    def tracks(self, keep: MatchMask, trust: Float[np.ndarray, " matches"]) -> Int[np.ndarray, " nodes"]:
        """Track of every node over the matches kept, joined most trusted first; -1 for nodes without."""
        # Sets of keypoints that see no image twice are tracks as they are; only the others need the careful way.
        label = connected(self.ends[keep], len(self.image))
        _, of_code, counts = np.unique(label * self.num_images + self.image, return_inverse=True, return_counts=True)
        clashing = np.zeros(len(self.image), dtype=bool)
        clashing[label[counts[of_code] > 1]] = True
        size = np.bincount(label, minlength=len(self.image))
        track = np.where((size[label] >= 2) & ~clashing[label], label, -1)
        doubtful = keep & clashing[label[self.ends[:, 0]]]
        built = build_tracks(replace(self.matches.subset(doubtful), confidence=trust[doubtful].astype(np.float32)))
        stride = int(self.keypoint_id.max(initial=0)) + 1
        own = self.image * stride + self.keypoint_id
        node = np.searchsorted(own, built.image.astype(np.int64) * stride + built.keypoint_id)
        track[node] = len(self.image) + built.track_of_entry
        return track


def match_angle(
    motion: Float[Tensor, "matches 3 4"], first: Float[Tensor, "matches 3"], second: Float[Tensor, "matches 3"]
) -> Float[Tensor, " matches"]:
    """Least joint rotation in radians of both rays of every match that makes them meet under its motion.

    Without a baseline they meet where they are one direction: such a pair is judged by its rotation alone.
    """
    angle = sampson_distance(essential_from_motion(motion), first, second)
    turned = (motion[:, :, :3] @ first[..., None]).squeeze(-1)
    # Either ray takes half of the angle between them: over the root of two as one length.
    apart = torch.atan2(torch.linalg.cross(turned, second, dim=-1).norm(dim=-1), (turned * second).sum(-1)) / 2**0.5
    return torch.where(motion[:, :, 3].norm(dim=-1) > 0, angle, apart)


def connected(edges: Int[np.ndarray, "edges 2"], count: int) -> Int[np.ndarray, " count"]:
    """Component label of each of `count` vertices."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def ray_graph(matches: Matches, focal_px: Float[np.ndarray, " cams"]) -> RayGraph:
    """Graph of all matches; keypoints are told apart by their id within their image."""
    # One integer per (image, keypoint): unique() then numbers the nodes by image and id.
    stride = int(matches.keypoint_ids.max(initial=0)) + 1
    codes = matches.images.astype(np.int64) * stride + matches.keypoint_ids
    unique, first, ends = np.unique(codes.ravel(), return_index=True, return_inverse=True)
    bearing = matches.bearings.reshape(-1, 3)[first].astype(np.float64)
    motion = np.concatenate([matches.rotation, matches.translation[..., None]], axis=-1)
    return RayGraph(
        matches=matches,
        pair_motion=motion.astype(np.float64),
        image=unique // stride,
        keypoint_id=unique % stride,
        keypoint_px=matches.keypoints.reshape(-1, 2)[first].astype(np.float64),
        bearing=bearing / np.linalg.norm(bearing, axis=-1, keepdims=True).clip(1e-12),
        ends=ends.reshape(-1, 2),
        focal_px=np.asarray(focal_px, dtype=np.float64),
    )
