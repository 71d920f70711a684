"""The two long stages, features of all images and matches of all pairs: parallel, resumable, with a progress bar."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int, Int32

from craym_nerfstudio.console import console, progress
from craym_nerfstudio.matching.detectors import Detector, Features
from craym_nerfstudio.matching.images import load_picture
from craym_nerfstudio.matching.two_view import ransac_motion
from craym_nerfstudio.matching.verify import MIN_INLIERS, NO_PAIRS, PutativePairs, threshold_px
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.matching.workers import workers
from craym_nerfstudio.storage import content_key, from_cache, read_npz, write_npz

_CHUNK = 128
"""Pairs between two saves."""

Chunk = TypeVar("Chunk")


def all_features(views: Views, detector: Detector, pictures: list[str], cache_dir: Path) -> list[Features]:
    """Features of every image; each is saved as soon as it is found. `pictures` are the images' content keys.

    Raises:
        InputError: an image cannot be read, or the cache cannot be written; finished images stay in the cache.
    """

    def features(index: int) -> tuple[Features, bool]:
        path = cache_dir / f"features-{content_key(detector.settings, pictures[index])}.npz"
        cached = from_cache(path, lambda path: Features(**read_npz(path)))
        if cached is not None:
            return cached, True
        found = detector.detect(load_picture(views, index))
        write_npz(path, vars(found))
        return found, False

    with workers(detector.parallel) as run, progress() as bars:
        bar = bars.add_task(f"Keypoints ({detector.name})", total=len(pictures))
        results = []
        for result in run(features, range(len(pictures))):
            results.append(result)
            bars.advance(bar)
    mean = np.mean([len(found.keypoints) for found, _ in results])
    cached = sum(was_cached for _, was_cached in results)
    console.print(f"Matching: {mean:.0f} keypoints per image ({cached} of {len(results)} images cached)")
    return [found for found, _ in results]


def all_pairs(
    views: Views,
    detector: Detector,
    features: list[Features],
    bearings: list[Float[np.ndarray, "n 3"]],
    pairs: Int32[np.ndarray, "pairs 2"],
    folder: Path,
) -> PutativePairs:
    """Putative matches and two-view geometry of all pairs that have one, saved in `folder` chunk by chunk.

    Raises:
        InputError: the cache cannot be written; finished chunks stay in it.
    """
    limit_px = threshold_px(views)
    focal_px = np.asarray(views.focal_px, dtype=np.float64)

    def match(pair: list[int]) -> PutativePairs | None:
        i, j = pair
        found = detector.match(features[i], features[j])
        if found.strict.sum() < MIN_INLIERS:
            return None
        sure = found.keypoints[found.strict]
        motion = ransac_motion(bearings[i][sure[:, 0]], bearings[j][sure[:, 1]], limit_px / focal_px[pair].mean())
        if motion is None:
            return None
        return PutativePairs(
            pairs=np.array([pair], dtype=np.int32),
            motion=motion[None],
            pair_of_match=np.zeros(len(found.score), dtype=np.int32),
            keypoint_ids=found.keypoints,
            score=found.score,
            strict=found.strict,
        )

    return in_chunks(match, pairs, detector, folder, NO_PAIRS)


def in_chunks(
    match: Callable[[list[int]], Chunk | None],
    pairs: Int[np.ndarray, "pairs 2"],
    detector: Detector,
    folder: Path,
    empty: Chunk,
) -> Chunk:
    """What `match` finds for all pairs, `joined` to `empty`; saved in `folder` chunk by chunk.

    Raises:
        InputError: the cache cannot be written; finished chunks stay in it.
    """
    chunks = []
    with workers(detector.parallel) as run, progress() as bars:
        bar = bars.add_task(f"Pairs ({detector.name})", total=len(pairs))
        for start in range(0, len(pairs), _CHUNK):
            part = pairs[start : start + _CHUNK].tolist()
            path = folder / f"{start:06d}.npz"
            chunk = from_cache(path, lambda path: type(empty)(**read_npz(path)))
            if chunk is None:
                found = []
                for result in run(match, part):
                    found += [] if result is None else [result]
                    bars.advance(bar)
                chunk = joined(empty, found)
                write_npz(path, vars(chunk))
            else:
                bars.advance(bar, len(part))
            chunks.append(chunk)
    return joined(empty, chunks)


def joined(empty: Chunk, parts: Sequence[Any]) -> Chunk:
    """Several disjoint lists of pairs as one; `empty` is such a list, a dataclass, without any."""
    parts = [empty, *parts]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(empty)}
    first = np.cumsum([0] + [len(part.pairs) for part in parts[:-1]], dtype=np.int32)
    columns["pair_of_match"] += np.repeat(first, [len(part.pair_of_match) for part in parts])
    return type(empty)(**columns)
