"""What the images say by themselves: descriptor matches of pairs that do not rest on the given poses and lens.

Wrong poses choose wrong pairs and wrong intrinsics reject right matches, so that neither may decide here: small sets
are paired completely, larger ones also along the file order and at random, and matches are tested with fundamental
matrices, which know no intrinsics.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.matching.choose import Matcher
from craym_nerfstudio.matching.compute import all_features, all_pairs
from craym_nerfstudio.matching.detectors import Detector
from craym_nerfstudio.matching.find import chosen_detector
from craym_nerfstudio.matching.images import picture_keys
from craym_nerfstudio.matching.pairs import candidate_pairs
from craym_nerfstudio.matching.patches import Patch
from craym_nerfstudio.matching.verify import MIN_INLIERS, PutativePairs, threshold_px
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.matching.workers import one_torch_thread
from craym_nerfstudio.storage import content_key

EXHAUSTIVE_UP_TO = 40
_BY_POSES, _IN_FILE_ORDER, _AT_RANDOM = 8, 5, 4
"""Partners of an image in larger sets."""
_SAMPLED_PER_IMAGE = 3
_MOST_SAMPLED = 120
_SAMPLED_MATCHES = 150
_LEAST_OF_USUAL = 0.35
"""Of the usual number of matches that a pair needs: repeated textures give fewer, and perfect geometry."""
_LEAST_SHARE = 0.5
"""Of the strict matches of a pair that one fundamental matrix must explain."""


@dataclass(frozen=True)
class Observed:
    """Keypoints of all images, and putative matches, right and wrong, between them."""

    detector: str
    keypoints: list[Float32[np.ndarray, "n 2"]]
    """(x, y) px of each image as it lies in its file (at the size of the views)."""
    putative: PutativePairs
    tried: int
    """Pairs that were compared."""
    patch: Patch | None = None
    """Whose pixels say where a keypoint lies; None leaves keypoints where the detector put them."""


@dataclass(frozen=True)
class SamplePair:
    """Keypoints of one pair that one fundamental matrix explains."""

    images: tuple[int, int]
    keypoints_i: Float32[np.ndarray, "n 2"]
    keypoints_j: Float32[np.ndarray, "n 2"]


def pairs_to_try(views: Views, seed: int = 0) -> Int32[np.ndarray, "pairs 2"]:
    """All pairs of small sets; else those that the poses, the file order and chance propose, in ascending order."""
    count = len(views.names)
    if count <= EXHAUSTIVE_UP_TO:
        return np.stack(np.triu_indices(count, 1), axis=-1).astype(np.int32)
    chosen = np.zeros((count, count), dtype=bool)
    by_poses = candidate_pairs(views, _BY_POSES)
    chosen[by_poses[:, 0], by_poses[:, 1]] = True
    random = np.random.RandomState(seed)
    first = np.repeat(np.arange(count), _AT_RANDOM)
    second = random.randint(0, count, len(first))
    for step in range(1, _IN_FILE_ORDER + 1):
        first = np.concatenate([first, np.arange(count - step)])
        second = np.concatenate([second, np.arange(step, count)])
    chosen[first, second] = True
    return np.argwhere(np.triu(chosen | chosen.T, 1)).astype(np.int32)


def first_detector(views: Views, matcher: Matcher) -> Detector:
    """What `matcher` stands for at first with these views; says what `auto` takes.

    Raises:
        InputError: a detector asked for by name needs a package that is not installed.
    """
    return chosen_detector(matcher, len(views.names), len(pairs_to_try(views)))


def observe(views: Views, detector: Detector, cache_dir: Path) -> Observed:
    """Keypoints and putative matches; what was computed before comes from `cache_dir`.

    Raises:
        InputError: fewer than two images, an unreadable one, or a cache that cannot be written.
    """
    if len(views.names) < 2:
        place = views.paths[0] if views.paths else None
        raise InputError("Fewer than two images", place, "Poses can only be judged by images that overlap.")
    with one_torch_thread():
        pairs = pairs_to_try(views)
    pictures = picture_keys(views)
    features = all_features(views, detector, pictures, cache_dir)
    bearings = [np.asarray(views.bearings(k, f.keypoints), dtype=np.float64) for k, f in enumerate(features)]
    lens = [rows[:5].round(6) for rows in bearings]
    key = content_key("preflight-1", detector.settings, pictures, *lens, views.focal_px, pairs)
    putative = all_pairs(views, detector, features, bearings, pairs, cache_dir / f"pairs-{key}")
    return Observed(detector.name, [f.keypoints for f in features], putative, len(pairs), detector.patch)


def sample_pairs(observed: Observed, views: Views, seed: int = 0) -> list[SamplePair]:
    """Pairs with a fundamental matrix that explains most matches: a few of every image, drawn by their matches.

    Drawn, because the pairs with most matches are those that stand closest together and tell least; by their number,
    because among few matches of images that share nothing some matrix always explains a part.
    """
    putative = observed.putative
    strict = putative.strict.astype(bool)
    counts = np.bincount(putative.pair_of_match[strict], minlength=len(putative.pairs))
    candidates = np.flatnonzero(counts >= max(2 * MIN_INLIERS, _LEAST_OF_USUAL * _usual_count(observed, counts)))
    # A weighted draw without replacement (Efraimidis and Spirakis 2006).
    keys = np.random.RandomState(seed).uniform(size=len(candidates)) ** (1.0 / counts[candidates])
    order = candidates[np.argsort(-keys, kind="stable")]
    limit_px = threshold_px(views)
    per_image = max(2, min(_SAMPLED_PER_IMAGE, 2 * _MOST_SAMPLED // max(1, len(views.names))))
    taken = np.zeros(len(views.names), dtype=int)
    samples = []
    for pair in order:
        i, j = (int(v) for v in putative.pairs[pair])
        if min(taken[i], taken[j]) >= per_image:
            continue
        rows = np.flatnonzero((putative.pair_of_match == pair) & strict)
        keypoints_i = observed.keypoints[i][putative.keypoint_ids[rows, 0]]
        keypoints_j = observed.keypoints[j][putative.keypoint_ids[rows, 1]]
        inside = fundamental_inliers(keypoints_i, keypoints_j, limit_px)
        if inside.sum() < max(2 * MIN_INLIERS, _LEAST_SHARE * len(rows)):
            continue
        keep = np.flatnonzero(inside)[:_SAMPLED_MATCHES]
        samples.append(SamplePair((i, j), keypoints_i[keep], keypoints_j[keep]))
        taken[[i, j]] += 1
    return samples


def _usual_count(observed: Observed, counts: Int[np.ndarray, " pairs"]) -> float:
    """Matches of the pairs that hold an image to the others: median over images of their third best pair."""
    pairs = observed.putative.pairs
    best = [np.sort(counts[(pairs == image).any(1)])[::-1][:3] for image in range(len(observed.keypoints))]
    usual = [float(few[-1]) for few in best if len(few)]
    return float(np.median(usual)) if usual else 0.0


def fundamental_inliers(
    keypoints_i: Float32[np.ndarray, "n 2"], keypoints_j: Float32[np.ndarray, "n 2"], limit_px: float
) -> Bool[np.ndarray, " n"]:
    """Matches that agree with the pair's fundamental matrix (OpenCV's USAC); none when there is no such matrix."""
    import cv2

    none = np.zeros(len(keypoints_i), dtype=bool)
    if len(keypoints_i) < 8:
        return none
    try:
        matrix, mask = cv2.findFundamentalMat(
            keypoints_i.astype(np.float64), keypoints_j.astype(np.float64), cv2.USAC_ACCURATE, limit_px, 0.999, 2000
        )
    except cv2.error:  # raised for degenerate samples
        return none
    return none if matrix is None or mask is None else mask.ravel() > 0


def sampled_images(samples: Sequence[SamplePair]) -> Int[np.ndarray, "pairs 2"]:
    """Image numbers of each sampled pair."""
    return np.array([sample.images for sample in samples], dtype=np.int64).reshape(-1, 2)
