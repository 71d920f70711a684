"""Whether it is the focal lengths, image by image, that are wrong and not the poses: fitted while the poses stay.

A network, or a phone that focuses anew, gives every image a focal length of its own. Poses soak up wrong ones.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from craym_nerfstudio.geometry.epipolar import relative_pose
from craym_nerfstudio.sfm.lens_fit import pixel_distance
from craym_nerfstudio.sfm.ray_graph import MatchMask, Poses, RayGraph

FocalFactors = Float[np.ndarray, " cams"]

_MOST_MATCHES = 300
"""A camera, on average."""
_SIGMA = 0.3
"""What is known beforehand of a log factor; it weighs as much as one match that is a pixel off."""
_SCALES_PX = (8.0, 1.0)
"""Of the robust loss: wide at first, for what a wrong start leaves."""
_BOUND = 1.0
_STEP, _EVALUATIONS = 1e-5, 30


def with_focal_factors(graph: RayGraph, factors: FocalFactors) -> RayGraph:
    """The graph with every camera's focal length multiplied by its own factor."""
    bearing = _through(graph.bearing, factors[graph.image])
    return replace(graph, bearing=bearing, focal_px=graph.focal_px * factors)


def _through(bearing: Float[np.ndarray, "*n 3"], factor: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 3"]:
    rays = np.concatenate([bearing[..., :2] / factor[..., None], bearing[..., 2:]], axis=-1)
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def fit_focal_factors(graph: RayGraph, c2w: Poses, use: MatchMask, seed: int = 0) -> FocalFactors:
    """The factors that bring the matches in `use` nearest to their epipolar lines under `c2w`; 1 without matches."""
    from scipy.optimize import least_squares
    from scipy.sparse import coo_matrix

    count = graph.num_images
    drawn = np.random.RandomState(seed).permutation(np.flatnonzero(use))[: _MOST_MATCHES * count]
    images, bearings = graph.images_of_matches[drawn], graph.bearing[graph.ends[drawn]]
    i, j = torch.from_numpy(images).unbind(-1)
    motion, focal_px = relative_pose(c2w[i], c2w[j]), graph.focal_px[images]

    def distance_px(logs: Float[np.ndarray, "matches 2"]) -> Float[np.ndarray, " matches"]:
        factors = np.exp(logs)
        rays, focal = _through(bearings, factors), (focal_px * factors).mean(-1)
        return pixel_distance(motion, torch.from_numpy(rays), torch.from_numpy(focal)).numpy()

    def residuals(logs: Float[np.ndarray, " cams"]) -> Float[np.ndarray, " rows"]:
        return np.concatenate([distance_px(logs[images]), logs / _SIGMA])

    def derivative(logs: Float[np.ndarray, " cams"]) -> coo_matrix:
        steps = [np.array([_STEP, 0.0]), np.array([0.0, _STEP])]
        sides = [(distance_px(logs[images] + step) - distance_px(logs[images] - step)) / (2 * _STEP) for step in steps]
        values = np.concatenate([np.stack(sides, axis=1).ravel(), np.full(count, 1 / _SIGMA)])
        rows = np.concatenate([np.arange(len(images)).repeat(2), len(images) + np.arange(count)])
        columns = np.concatenate([images.ravel(), np.arange(count)])
        return coo_matrix((values, (rows, columns)), shape=(len(images) + count, count)).tocsr()

    logs = np.zeros(count)
    for scale_px in _SCALES_PX:
        logs = least_squares(
            residuals,
            logs,
            derivative,
            bounds=(-_BOUND, _BOUND),
            loss="cauchy",
            f_scale=scale_px,
            max_nfev=_EVALUATIONS,
        ).x
    return np.exp(logs)
