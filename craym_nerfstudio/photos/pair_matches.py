"""Matches of photo pairs that one fundamental matrix explains: it knows neither poses nor focal length."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Int32

from craym_nerfstudio.matching.compute import in_chunks
from craym_nerfstudio.matching.detectors import Detector, Features
from craym_nerfstudio.matching.verify import MIN_INLIERS

_LEAST_SHARE = 0.25
"""Of the strict matches that must agree: below it the inliers of a wrong geometry may be chance."""


@dataclass(frozen=True)
class PairMatches:
    """Pairs with a two-view geometry of their own, and the matches that it explains, pair by pair."""

    pairs: Int32[np.ndarray, "pairs 2"]
    fundamental: Float[np.ndarray, "pairs 3 3"]
    """``x_j^T F x_i = 0`` for pixels x (first pixel's centre at 0.5)."""
    pair_of_match: Int32[np.ndarray, " matches"]
    keypoint_ids: Int32[np.ndarray, "matches 2"]

    @property
    def counts(self) -> Int[np.ndarray, " pairs"]:
        """Matches of every pair."""
        return np.bincount(self.pair_of_match, minlength=len(self.pairs))


_NO_PAIRS = PairMatches(
    np.zeros((0, 2), np.int32), np.zeros((0, 3, 3)), np.zeros(0, np.int32), np.zeros((0, 2), np.int32)
)


def match_pairs(
    detector: Detector, features: Sequence[Features], pairs: Int32[np.ndarray, "pairs 2"], limit_px: float, folder: Path
) -> PairMatches:
    """Matches within `limit_px` of their epipolar lines, of all pairs that have enough; saved in `folder` by chunks.

    Raises:
        InputError: the cache cannot be written; finished chunks stay in it.
    """
    import cv2

    def match(pair: list[int]) -> PairMatches | None:
        i, j = pair
        found = detector.match(features[i], features[j])
        sure = found.keypoints[found.strict]
        if len(sure) < MIN_INLIERS:
            return None
        points_i, points_j = (features[k].keypoints[sure[:, side]].astype(np.float64) for side, k in enumerate(pair))
        try:
            matrix, mask = cv2.findFundamentalMat(points_i, points_j, cv2.USAC_ACCURATE, limit_px, 0.999, 5000)
        except cv2.error:  # raised for degenerate samples (all points on one line)
            return None
        if matrix is None or mask is None or matrix.shape != (3, 3):
            return None
        inside = mask.ravel() > 0
        if inside.sum() < max(MIN_INLIERS, _LEAST_SHARE * len(sure)):
            return None
        ids = sure[inside].astype(np.int32)
        return PairMatches(np.array([pair], np.int32), matrix[None], np.zeros(len(ids), np.int32), ids)

    return in_chunks(match, pairs, detector, folder, _NO_PAIRS)
