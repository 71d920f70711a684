"""The two long stages, features of all images and matches of all pairs: parallel, resumable, with a progress bar."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, Int32

from craym_nerfstudio.console import console, progress
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.matching.detectors import Detector, Features
from craym_nerfstudio.matching.images import load_picture
from craym_nerfstudio.matching.two_view import ransac_motion
from craym_nerfstudio.matching.verify import MIN_INLIERS, NO_PAIRS, PutativePairs, threshold_px
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.storage import content_key, read_npz, write_npz

_CHUNK = 128
"""Pairs between two saves."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Chunk = TypeVar("Chunk")
Loaded = TypeVar("Loaded")


def from_cache(path: Path, load: Callable[[Path], Loaded]) -> Loaded | None:
    """What a cache file holds; None, with a warning if it is damaged, when it has to be computed."""
    if not path.exists():
        return None
    try:
        return load(path)
    except (InputError, TypeError) as error:
        console.print(f"[yellow]Not usable, computed again: {error}[/yellow]")
        return None


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

    with _workers(detector.parallel) as run, progress() as bars:
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
    with _workers(detector.parallel) as run, progress() as bars:
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


@contextmanager
def _workers(parallel: bool) -> Iterator[Callable[[Callable[[Item], Result], Sequence[Item]], Iterator[Result]]]:
    """An ordered map, over threads of one core each if `parallel`."""
    if not parallel:
        yield map
        return
    workers = max(1, os.cpu_count() or 1)
    with one_torch_thread():
        pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield pool.map
        finally:
            # Without this an error or Ctrl-C would wait for everything that is still queued.
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """For many small tensor operations: spread over all cores they would mostly wait, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
