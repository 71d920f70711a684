"""Whether it is the focal lengths, image by image, that are wrong and not the poses: fitted while the poses stay.

A network, or a phone that focuses anew, gives every image a focal length of its own. Poses soak up wrong ones.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from craym_nerfstudio.geometry.epipolar import relative_pose
from craym_nerfstudio.geometry.pinhole import refocused
from craym_nerfstudio.sfm.lens_fit import pixel_distance
from craym_nerfstudio.sfm.ray_graph import MatchMask, Poses, RayGraph
from craym_nerfstudio.sfm.result import Intrinsics
from craym_nerfstudio.sfm.shared_intrinsics import with_intrinsics

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FocalFactors = Float[np.ndarray, " cams"]

_MATCHES = (40, 300)
"""A camera, on average, in the first round and in the second."""
_SIGMA = 0.3
"""What is known beforehand of a log factor; it weighs as much as one match that is a pixel off."""
_SCALES_PX = (8.0, 1.0)
"""Of the robust loss: wide at first, for what a wrong start leaves."""
_EVALUATIONS = (12, 30)
_HOPELESS = 2.0
"""Times what would be good enough: after a first round that leaves more there is no second."""
_BOUND, _STEP = 1.0, 1e-5


def with_focal_factors(graph: RayGraph, factors: FocalFactors) -> RayGraph:
    """The graph with every camera's focal length multiplied by its own factor."""
    bearing = refocused(graph.bearing, factors[graph.image])
    return replace(graph, bearing=bearing, focal_px=graph.focal_px * factors)


def corrected(graph: RayGraph, intrinsics: Intrinsics | None) -> RayGraph:
    """The graph under corrected intrinsics, those of single views included."""
    if intrinsics is None:
        return graph
    if intrinsics.own_focal:
        graph = with_focal_factors(graph, np.array(intrinsics.own_focal))
    return with_intrinsics(graph, intrinsics)


def fit_focal_factors(graph: RayGraph, c2w: Poses, use: MatchMask, good_px: float, seed: int = 0) -> FocalFactors:
    """The factors that bring the matches in `use` nearest to their epipolar lines under `c2w`; 1 without matches.

    They are searched with care only where the median distance comes near to `good_px`.
    """
    drawn = np.random.RandomState(seed).permutation(np.flatnonzero(use))
    logs = np.zeros(graph.num_images)
    for most, scale_px, evaluations in zip(_MATCHES, _SCALES_PX, _EVALUATIONS, strict=True):
        problem = _Problem.of(graph, c2w, drawn[: most * graph.num_images])
        logs = problem.solved(logs, scale_px, evaluations)
        if np.median(problem.distance_px(logs[problem.images])) > _HOPELESS * good_px:
            break
    return np.exp(logs)


@dataclass(frozen=True)
class _Problem:
    """Matches under fixed poses, to be seen through focal lengths; the unknowns are logs of factors."""

    images: Int[np.ndarray, "matches 2"]
    bearings: Float[np.ndarray, "matches 2 3"]
    motion: Float[Tensor, "matches 3 4"]
    focal_px: Float[np.ndarray, "matches 2"]

    @classmethod
    def of(cls, graph: RayGraph, c2w: Poses, chosen: Int[np.ndarray, " matches"]) -> "_Problem":
        """Of some of the matches."""
        images = graph.images_of_matches[chosen]
        i, j = torch.from_numpy(images).unbind(-1)
        return cls(images, graph.bearing[graph.ends[chosen]], relative_pose(c2w[i], c2w[j]), graph.focal_px[images])

    def distance_px(self, logs: Float[np.ndarray, "matches 2"]) -> Float[np.ndarray, " matches"]:
        """Sampson distance of every match for the logs of its two views."""
        factors = np.exp(logs)
        rays, focal_px = refocused(self.bearings, factors), (self.focal_px * factors).mean(-1)
        return pixel_distance(self.motion, torch.from_numpy(rays), torch.from_numpy(focal_px)).numpy()

    def residuals(self, logs: Float[np.ndarray, " cams"]) -> Float[np.ndarray, " rows"]:
        """Of the matches, then of what is known beforehand."""
        return np.concatenate([self.distance_px(logs[self.images]), logs / _SIGMA])

    def derivative(self, logs: Float[np.ndarray, " cams"]) -> "csr_matrix":
        """Two columns of every match's row differ from zero."""
        from scipy.sparse import coo_matrix

        matches, count, at = len(self.images), len(logs), logs[self.images]
        steps = _STEP * np.eye(2)
        sides = [(self.distance_px(at + step) - self.distance_px(at - step)) / (2 * _STEP) for step in steps]
        values = np.concatenate([np.stack(sides, axis=1).ravel(), np.full(count, 1 / _SIGMA)])
        rows = np.concatenate([np.arange(matches).repeat(2), matches + np.arange(count)])
        columns = np.concatenate([self.images.ravel(), np.arange(count)])
        return coo_matrix((values, (rows, columns)), shape=(matches + count, count)).tocsr()

    def solved(self, logs: Float[np.ndarray, " cams"], scale_px: float, evaluations: int) -> np.ndarray:
        """The logs of least robust distance, from some start."""
        from scipy.optimize import least_squares

        return least_squares(
            self.residuals,
            logs,
            self.derivative,
            bounds=(-_BOUND, _BOUND),
            loss="cauchy",
            f_scale=scale_px,
            max_nfev=evaluations,
        ).x
