"""Matches of photo pairs that one fundamental matrix explains: it knows neither poses nor focal length."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32

from craym_nerfstudio.console import progress
from craym_nerfstudio.matching.compute import from_cache, one_torch_thread
from craym_nerfstudio.matching.detectors import Detector, Features
from craym_nerfstudio.matching.verify import MIN_INLIERS
from craym_nerfstudio.storage import read_npz, write_npz

_CHUNK = 256
"""Pairs between two saves."""
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

    def of_pairs(self, keep: Bool[np.ndarray, " pairs"]) -> "PairMatches":
        """Only the pairs where `keep` holds."""
        number = np.cumsum(keep) - 1
        mine = keep[self.pair_of_match]
        of_match = number[self.pair_of_match[mine]].astype(np.int32)
        return PairMatches(self.pairs[keep], self.fundamental[keep], of_match, self.keypoint_ids[mine])


def match_pairs(
    detector: Detector, features: Sequence[Features], pairs: Int32[np.ndarray, "pairs 2"], limit_px: float, folder: Path
) -> PairMatches:
    """Matches within `limit_px` of their epipolar lines, of all pairs that have enough; saved in `folder` by chunks.

    Raises:
        InputError: the cache cannot be written; finished chunks stay in it.
    """
    chunks = []
    with progress() as bars:
        bar = bars.add_task(f"Pairs ({detector.name})", total=len(pairs))
        for start in range(0, len(pairs), _CHUNK):
            part = pairs[start : start + _CHUNK]
            path = folder / f"{start:06d}.npz"
            chunk = from_cache(path, lambda path: PairMatches(**read_npz(path)))
            if chunk is None:
                found = []
                for each in _matched(detector, features, part.tolist(), limit_px):
                    found += [] if each is None else [each]
                    bars.advance(bar)
                chunk = _joined(found)
                write_npz(path, asdict(chunk))
            else:
                bars.advance(bar, len(part))
            chunks.append(chunk)
    return _joined(chunks)


def _matched(
    detector: Detector, features: Sequence[Features], pairs: list[list[int]], limit_px: float
) -> Iterator[PairMatches | None]:
    def match(pair: list[int]) -> PairMatches | None:
        return _match(detector, features, (pair[0], pair[1]), limit_px)

    if not detector.parallel:
        yield from map(match, pairs)
        return
    with one_torch_thread():
        pool = ThreadPoolExecutor(os.cpu_count() or 1, initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield from pool.map(match, pairs)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _match(
    detector: Detector, features: Sequence[Features], pair: tuple[int, int], limit_px: float
) -> PairMatches | None:
    import cv2

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


def _joined(parts: list[PairMatches]) -> PairMatches:
    empty = PairMatches(
        np.zeros((0, 2), np.int32), np.zeros((0, 3, 3)), np.zeros(0, np.int32), np.zeros((0, 2), np.int32)
    )
    parts = [empty, *parts]
    first = np.cumsum([0] + [len(part.pairs) for part in parts[:-1]])
    of_match = [part.pair_of_match + start for part, start in zip(parts, first, strict=True)]
    return PairMatches(
        np.concatenate([part.pairs for part in parts]),
        np.concatenate([part.fundamental for part in parts]),
        np.concatenate(of_match).astype(np.int32),
        np.concatenate([part.keypoint_ids for part in parts]),
    )
