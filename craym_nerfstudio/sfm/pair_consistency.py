"""Which matched pairs can be believed: agreement with the rough poses, then with one set of averaged rotations.

Look-alike sides of an object yield pairs with a perfect essential matrix and a wrong motion. Two tests find them: the
motion contradicts what the rough poses can be off by, or it contradicts the other pairs once rotations are averaged
over the whole graph (which subsumes the test of short cycles).
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from craym_nerfstudio.geometry.lie import rotation_angle_deg
from craym_nerfstudio.matching.rotation_averaging import average_rotations
from craym_nerfstudio.sfm.ray_graph import Poses, RayGraph

_LEAST_PRIOR_DEG, _MOST_PRIOR_DEG = 12.0, 60.0
"""However good the rough poses seem, pairs that differ by less from them pass: a pair of few matches is imprecise."""

_AGREEMENT_DEG = 8.0

_PRIOR_DEG = 20.0
"""How far the rough rotations are trusted against the pairs: enough to choose where pairs contradict each other."""


def consistent_pairs(graph: RayGraph, rough: Poses) -> Bool[np.ndarray, " pairs"]:
    """Pairs that pass the test against the rough rotations and agree with the averaged ones.

    The first test tightens itself: where a camera's pairs mostly agree with its rough pose to a few degrees, one that
    differs by 45 is wrong. The second is wider for pairs of few matches, whose motion is imprecise.
    """
    pairs = torch.from_numpy(graph.matches.pairs.astype(np.int64))
    rotation, rough_w2c = torch.from_numpy(graph.pair_motion[:, :, :3]), rough[:, :, :3].transpose(1, 2)
    num_matches = torch.from_numpy(np.bincount(graph.matches.pair_of_match, minlength=len(pairs))).to(rough)
    keep = np.zeros(len(pairs), dtype=bool)
    if len(pairs) == 0:
        return keep
    from_rough = _disagreement_deg(rough_w2c, pairs, rotation)
    typical = _typical_per_camera(from_rough, pairs, num_matches, len(rough))
    limit = (4.0 * typical[pairs].amax(-1)).clamp(_LEAST_PRIOR_DEG, _MOST_PRIOR_DEG)
    kept = (from_rough < limit).nonzero().squeeze(-1)
    if len(kept) > 0:
        w2c = average_rotations(rough_w2c, pairs[kept], rotation[kept], prior_sigma_deg=_PRIOR_DEG)
        limit = _AGREEMENT_DEG * (1 + 15.0 / num_matches[kept].clamp_min(1.0))
        keep[kept[_disagreement_deg(w2c, pairs[kept], rotation[kept]) < limit]] = True
    return keep


def _disagreement_deg(w2c: Tensor, pairs: Tensor, rotation: Tensor) -> Float[Tensor, "pairs"]:
    """Angle between each pair's rotation (x_j = R x_i) and the one that the camera rotations imply."""
    i, j = pairs[:, 0], pairs[:, 1]
    return rotation_angle_deg(w2c[j].transpose(1, 2) @ rotation @ w2c[i])


def _typical_per_camera(values: Tensor, pairs: Tensor, weights: Tensor, cams: int) -> Tensor:
    """Weighted median over each camera's pairs; at least that over all, since a camera has few pairs."""
    overall = _weighted_median(values, weights)
    typical = torch.full((cams,), overall, dtype=values.dtype)
    for camera in range(cams):
        mine = (pairs == camera).any(-1)
        if mine.any():
            typical[camera] = max(overall, _weighted_median(values[mine], weights[mine]))
    return typical


def _weighted_median(values: Tensor, weights: Tensor) -> float:
    """Smallest value below which half of the weight lies."""
    order = values.argsort()
    half = torch.cumsum(weights[order], 0) >= 0.5 * weights.sum()
    return float(values[order][half.nonzero()[0, 0]])
