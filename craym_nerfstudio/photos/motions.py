"""Relative poses of photo pairs under assumed focal lengths, and which pairs agree with each other."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from craym_nerfstudio.geometry.lie import rotation_angle_deg
from craym_nerfstudio.matching.rotation_averaging import average_rotations, chained_rotations
from craym_nerfstudio.matching.two_view import PairBearings, ransac_motion, refine_motions
from craym_nerfstudio.matching.verify import MIN_INLIERS
from craym_nerfstudio.photos.pair_matches import PairMatches

_AGREEMENT_DEG = 8.0
"""How far a pair may turn against the rotations averaged over all; wider for pairs of few matches."""
_FREE_DEG = 90.0
"""Hold of the start in the averaging, which only keeps the whole from turning: nothing is known of the poses."""


@dataclass(frozen=True)
class Motions:
    """``x_j = R x_i + t`` in OpenGL camera frames for every pair, and the matches that it explains."""

    motion: Float[np.ndarray, "pairs 3 4"]
    explained: Bool[np.ndarray, " matches"]
    agrees: Bool[np.ndarray, " pairs"]
    """Has enough such matches, and turns as the other pairs say."""


def find_motions(
    matches: PairMatches,
    bearings: list[Float[np.ndarray, "n 3"]],
    focal_px: Float[np.ndarray, " photos"],
    limit_px: float,
) -> Motions:
    """Calibrated motions of all pairs, robust and refined. `bearings` are of each photo's keypoints."""
    data = PairBearings.of(matches.pairs, matches.pair_of_match, matches.keypoint_ids, bearings, focal_px)
    motion = _robust(data, matches, limit_px)
    near = data.subset(data.distance_px(motion) < 3 * limit_px)
    motion = refine_motions(near, motion)
    explained = (data.distance_px(motion) < limit_px) & data.is_in_front(motion)
    support = data.count(explained)
    agrees = _consistent(motion, matches, support, len(bearings))
    return Motions(motion.numpy(), explained.numpy(), agrees.numpy())


def _robust(data: PairBearings, matches: PairMatches, limit_px: float) -> Float[Tensor, "pairs 3 4"]:
    starts = np.searchsorted(matches.pair_of_match, np.arange(len(matches.pairs) + 1))
    found = []
    for number, (start, stop) in enumerate(pairwise(starts)):
        limit_rad = limit_px / float(data.focal_px[number])
        motion = ransac_motion(data.bearings_i[start:stop].numpy(), data.bearings_j[start:stop].numpy(), limit_rad)
        # A pair without any motion explains nothing, whatever stands here.
        found.append(np.eye(3, 4) + np.eye(3, 4, 3) if motion is None else motion)
    return torch.from_numpy(np.stack(found))


def _consistent(
    motion: Float[Tensor, "pairs 3 4"], matches: PairMatches, support: Tensor, photos: int
) -> Bool[Tensor, " pairs"]:
    """Look-alike sides of an object give pairs with perfect geometry and a wrong motion; other pairs outvote them."""
    agrees = support >= MIN_INLIERS
    if not agrees.any():
        return agrees
    pairs, rotation = torch.from_numpy(matches.pairs[agrees.numpy()]).long(), motion[agrees, :, :3]
    start = torch.eye(3, dtype=torch.float64).expand(photos, 3, 3)
    chained = chained_rotations(start, pairs, rotation, support[agrees])
    w2c = average_rotations(chained, pairs, rotation, _FREE_DEG)
    expected = w2c[pairs[:, 1]] @ w2c[pairs[:, 0]].transpose(-1, -2)
    limit = _AGREEMENT_DEG * (1 + MIN_INLIERS / support[agrees].double())
    kept = agrees.clone()
    kept[agrees] = rotation_angle_deg(rotation @ expected.transpose(-1, -2)) < limit
    return kept
