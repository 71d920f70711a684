"""Which matched pairs can be believed: agreement with the rough poses, then with one set of averaged rotations.

Look-alike sides of an object yield pairs with a perfect essential matrix and a wrong motion. Two tests find them: the
motion contradicts what the rough poses can be off by, or it contradicts the other pairs once rotations are averaged
over the whole graph (which subsumes the test of short cycles).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from craym_nerfstudio.geometry.lie import rotation_angle_deg
from craym_nerfstudio.matching.rotation_averaging import average_rotations

_LEAST_PRIOR_DEG = 12.0
"""However good the rough poses seem, pairs that differ by less from them pass: a pair of few matches is imprecise."""

_AGREEMENT_DEG = 8.0

_PRIOR_DEG = 20.0
"""How far the rough rotations are trusted against the pairs: enough to choose where pairs contradict each other."""


def disagreement_deg(
    c2w_rotation: Float[Tensor, "cams 3 3"], pairs: Int[Tensor, "pairs 2"], rotation: Float[Tensor, "pairs 3 3"]
) -> Float[Tensor, "pairs"]:
    """Angle between each pair's rotation (x_j = R x_i) and the one that the camera rotations imply."""
    i, j = pairs[:, 0], pairs[:, 1]
    return rotation_angle_deg(c2w_rotation[j] @ rotation @ c2w_rotation[i].transpose(1, 2))


def consistent_pairs(
    rough_rotation: Float[Tensor, "cams 3 3"],
    pairs: Int[Tensor, "pairs 2"],
    rotation: Float[Tensor, "pairs 3 3"],
    num_matches: Int[Tensor, "pairs"],
    prior_angle_deg: float = 60.0,
) -> Bool[Tensor, "pairs"]:
    """Pairs that pass the test against the rough c2w rotations and agree with the averaged ones.

    The first test tightens itself: where a camera's pairs mostly agree with its rough pose to a few degrees, one that
    differs by 45 is wrong. The second is wider for pairs of few matches, whose motion is imprecise.
    """
    if len(pairs) == 0:
        return torch.zeros(0, dtype=torch.bool)
    from_rough = disagreement_deg(rough_rotation, pairs, rotation)
    typical = _typical_per_camera(from_rough, pairs, num_matches.to(from_rough), len(rough_rotation))
    limit = (4.0 * typical[pairs].amax(-1)).clamp(_LEAST_PRIOR_DEG, prior_angle_deg)
    kept = (from_rough < limit).nonzero().squeeze(-1)
    if len(kept) == 0:
        return torch.zeros(len(pairs), dtype=torch.bool)
    w2c = average_rotations(rough_rotation.transpose(1, 2), pairs[kept], rotation[kept], prior_sigma_deg=_PRIOR_DEG)
    disagreement = disagreement_deg(w2c.transpose(1, 2), pairs[kept], rotation[kept])
    limit = _AGREEMENT_DEG * (1 + 15.0 / num_matches[kept].to(from_rough).clamp_min(1.0))
    keep = torch.zeros(len(pairs), dtype=torch.bool)
    keep[kept[disagreement < limit]] = True
    return keep


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
