"""Which row of a trajectory is the pose of which image: by time, by number, or by the order of both."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from craym_nerfstudio.console import warn
from craym_nerfstudio.data.files import read_text
from craym_nerfstudio.data.pose_text import PoseTable
from craym_nerfstudio.errors import InputError

_NUMBER = re.compile(r"\d+(\.\d+)?$")
_CLOCK = 1e6
"""Numbers from here on are times of a clock, smaller ones count images or seconds from the start."""
_UNITS = (1.0, 1e-3, 1e-6, 1e-9, 1e3, 1e6, 1e9)
_LEAST_SHARE, _LEAST_SPAN = 0.8, 0.5
"""Of the images or of the rows that must have a partner, where numbers are small; and of the images' numbers that rows
must span: keyframes in seconds are no numbers of images."""


def rows_of(table: PoseTable, photos: Sequence[Path], folder: Path) -> dict[Path, int] | None:
    """The row of each image that has one, photos in their natural order; None where that cannot be told.

    Times of images are those of a TUM sequence's rgb.txt, or the numbers that their names end with.
    """
    if table.times is not None and len(table.times) > 1 and len(photos) > 1:
        counts = table.times.tolist()
        if table.are_counts and len(set(counts)) == len(counts) and set(counts) <= set(range(len(photos))):
            return {photos[int(count)]: row for count, row in sorted(zip(counts, range(len(counts)), strict=True))}
        paired = _in_time(table.times, photos, folder)
        if paired is not None:
            return paired
    return {photo: row for row, photo in enumerate(photos)} if len(photos) == len(table.c2w) else None


def _in_time(times: Float[np.ndarray, " rows"], photos: Sequence[Path], folder: Path) -> dict[Path, int] | None:
    listed = _listed_times(folder)
    named = {path: float(end[0]) for path in photos if (end := _NUMBER.search(path.stem))}
    taken = {path: listed[path] for path in photos if path in listed} or named
    if len(taken) < 2 or (not listed and len(taken) < len(photos)):
        return None
    at = np.array(list(taken.values()))
    is_clock = bool(np.median(at) > _CLOCK)
    if not is_clock and _are_steps(at) and _are_steps(times) and len(at) == len(times):
        # Both count, perhaps from 0 and from 1.
        return dict(zip(sorted(taken, key=lambda path: taken[path]), np.argsort(times).tolist(), strict=True))
    units = _UNITS if is_clock else _UNITS[:1]
    at, near, is_near = max((_nearest(at * unit, times) for unit in units), key=lambda found: float(found[2].mean()))
    if not is_clock:
        share = max(is_near.mean(), len(np.unique(near[is_near])) / len(times))
        if share < _LEAST_SHARE or np.ptp(times) < _LEAST_SPAN * np.ptp(at):
            return None
    if not is_near.any():
        return None
    _say_unused(times, at, is_clock)
    return {path: int(row) for path, row, close in zip(taken, near, is_near, strict=True) if close}


def _nearest(
    at: Float[np.ndarray, " images"], times: Float[np.ndarray, " rows"]
) -> tuple[Float[np.ndarray, " images"], Int[np.ndarray, " images"], np.ndarray]:
    """The images' times, the row nearest to each, and whether it is nearer than half the time between two images."""
    near = _closest(at, times)
    return at, near, np.abs(at - times[near]) <= _reach(at)


def _say_unused(times: Float[np.ndarray, " rows"], at: Float[np.ndarray, " images"], is_clock: bool) -> None:
    """How many rows are far from every image: where numbers count, those of images may begin elsewhere."""
    unused = times[np.abs(times - at[_closest(times, at)]) > _reach(at)]
    if len(unused):
        doubt = "" if is_clock else " If rows and images count from different numbers, their poses are exchanged."
        warn(f"{len(unused)} of {len(times)} poses belong to no image, such as that of {unused[0]:.15g}.{doubt}")


def _reach(at: Float[np.ndarray, " images"]) -> float:
    return 0.5 * float(np.median(np.diff(np.sort(at))))


def _closest(values: Float[np.ndarray, " n"], among: Float[np.ndarray, " some"]) -> Int[np.ndarray, " n"]:
    """The number of the one of at least two others that is nearest to each value."""
    order = np.argsort(among, kind="stable")
    after = np.searchsorted(among[order], values).clip(1, len(among) - 1)
    before = after - 1
    is_before = values - among[order[before]] <= among[order[after]] - values
    return order[np.where(is_before, before, after)]


def _are_steps(values: Float[np.ndarray, " n"]) -> bool:
    return bool((np.diff(np.sort(values)) == 1).all())


def _listed_times(folder: Path) -> dict[Path, float]:
    path = folder / "rgb.txt"
    try:
        rows = (
            [line.split() for line in read_text(path).splitlines() if not line.startswith("#")]
            if path.is_file()
            else []
        )
    except InputError:
        return {}
    return {folder / row[1]: float(row[0]) for row in rows if len(row) == 2 and _NUMBER.fullmatch(row[0])}
