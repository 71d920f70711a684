"""Whether a solution is better than what the user gave: decided on matches that no adjustment saw."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from craym_nerfstudio.sfm.ray_graph import CameraMask, MatchMask, Poses, RayGraph
from craym_nerfstudio.sfm.result import Decision

HELD_OUT_FRACTION = 0.1

EXPLAINED_RATIO = 1.35
"""Input poses whose held-out distances exceed the solution's by no more are kept. Exact poses of photographs exceed
them by up to 1.2, because a sparse adjustment also fits what calibration and keypoints have wrong."""

PLACED_RATIO = 1 / EXPLAINED_RATIO
"""Instead of poses that were themselves placed by matches: the adjusted ones win, which a second look makes better yet,
unless they are clearly worse."""

_SUSPICIOUS_RATIO = 2.0
"""A camera of a good input is worth moving when its own matches say so by this factor, and by this many pixels:"""
_SUSPICIOUS_PX = 0.5

_SUSPICION_ROUNDS = 4
_MOST_SUSPICIOUS = 0.3
"""Share of suspicious cameras beyond which it is the input as a whole that is judged."""

EXPLAINABLE_PX = 4.0
MIN_EVIDENCE, _MIN_TRACKS = 30, 10
"""Matches, and tracks that they belong to: the matches of one track err together."""

_USED_RATIO = 2.0
"""Instead of `EXPLAINED_RATIO` on matches that the solution was adjusted to, which favour it, and"""
_MIN_REDUNDANCY = 0.25
"""the share of their residuals that its freedoms must leave."""

_DRAWS, _DOUBT = 100, 0.1
"""Tracks are drawn anew so many times; in at most this share of the draws may the input hold its own."""


@dataclass(frozen=True)
class Verdict:
    """The decision, and the cameras of a kept input that contradict the rest of it."""

    decision: Decision
    suspicious: CameraMask


def hold_out(graph: RayGraph, believed: MatchMask, seed: int) -> tuple[MatchMask, MatchMask]:
    """Believed matches to adjust with, and those kept from every adjustment.

    Whole tracks are held out, and matches between a held and a used track belong to neither: nothing leaks.
    """
    track = graph.tracks(believed, graph.matches.confidence)
    drawn = np.random.RandomState(seed).permutation(int(track.max(initial=-1)) + 1)
    held_track = drawn % round(1 / HELD_OUT_FRACTION) == 0
    held_node = np.append(held_track, False)[track]
    first, second = held_node[graph.ends].T
    return believed & ~first & ~second, believed & first & second


def decide(
    graph: RayGraph,
    rough: Poses,
    solution: Poses,
    held: MatchMask,
    used: MatchMask,
    ratio: float = EXPLAINED_RATIO,
) -> Verdict:
    """Compare two sets of poses on the `held` matches; on the `used` ones, by a stricter rule, where those are few.

    The solution wins where the input's distances exceed `ratio` times its own.

    A few cameras that only the solution explains do not condemn the others: these are judged by themselves.
    """
    before, after = graph.epipolar_px(rough), graph.epipolar_px(solution)
    track = graph.tracks(held | used, graph.matches.confidence)[graph.ends[:, 0]]
    # Wrong matches tell nothing: only those count that one of the two explains.
    explainable = np.minimum(before, after) < EXPLAINABLE_PX
    chosen, limit, which = held & explainable, ratio, "held-out"
    if chosen.sum() < MIN_EVIDENCE or len(np.unique(track[chosen])) < _MIN_TRACKS:
        chosen, limit, which = used & explainable, _used_limit(graph, track, used & explainable), "used"
    suspicious = _suspicious(graph, before, after, (held | used) & explainable)
    among_good = chosen & ~suspicious[graph.images_of_matches].any(-1)
    if suspicious.mean() <= _MOST_SUSPICIOUS and among_good.sum() >= MIN_EVIDENCE:
        chosen = among_good
    else:
        suspicious = np.zeros_like(suspicious)
    count = int(chosen.sum())
    if count < MIN_EVIDENCE or not np.isfinite(limit):
        reason = f"only {count} matches to judge by: the input poses stay"
        return Verdict(Decision("input", reason, count, float("nan"), float("nan")), suspicious)
    input_px, solution_px = float(np.median(before[chosen])), float(np.median(after[chosen]))
    figures = f"{input_px:.2f} px under the input poses, {solution_px:.2f} px adjusted ({count} {which} matches)"
    if input_px > limit * solution_px and _is_sure(before[chosen], limit * after[chosen], track[chosen]):
        reason = f"matches are off their epipolar lines by {figures}"
        return Verdict(Decision("solution", reason, count, input_px, solution_px), np.zeros_like(suspicious))
    reason = f"the input poses explain the matches: {figures}"
    if suspicious.any():
        reason += f", but for {int(suspicious.sum())} cameras"
    return Verdict(Decision("input", reason, count, input_px, solution_px), suspicious)


def _used_limit(graph: RayGraph, track: Int[np.ndarray, " matches"], used: MatchMask) -> float:
    """Ratio that poses adjusted to these very matches must reach; infinite where they could fit any."""
    numbers, images = track[used], graph.images_of_matches[used]
    seen = np.unique(np.stack([numbers.repeat(2), images.ravel()], axis=-1), axis=0)
    # A track of n rays leaves 2 n - 3 residuals; a similarity of all cameras changes none.
    residuals = 2 * len(seen) - 3 * len(np.unique(numbers))
    freedoms = 6 * len(np.unique(images)) - 7
    redundancy = 1 - freedoms / max(residuals, 1)
    return _USED_RATIO / redundancy**0.5 if redundancy > _MIN_REDUNDANCY else float("inf")


def _is_sure(one: np.ndarray, other: np.ndarray, track: Int[np.ndarray, " chosen"], seed: int = 0) -> bool:
    """Whether the median of `one` exceeds that of `other` whichever of the tracks had been there (bootstrap)."""
    number, count = np.unique(track, return_inverse=True)[1], len(np.unique(track))
    random, contrary = np.random.RandomState(seed), 0
    for _ in range(_DRAWS):
        times = np.bincount(random.randint(0, count, count), minlength=count)[number]
        contrary += np.median(one.repeat(times)) <= np.median(other.repeat(times))
    return contrary <= _DOUBT * _DRAWS


def _suspicious(graph: RayGraph, before: np.ndarray, after: np.ndarray, chosen: MatchMask) -> CameraMask:
    """Cameras whose matches with unsuspicious ones the input leaves far off while the solution does not."""
    images = graph.images_of_matches
    flagged = np.zeros(graph.num_images, dtype=bool)
    for _ in range(_SUSPICION_ROUNDS):
        new = flagged.copy()
        for image in range(graph.num_images):
            partner = np.where(images[:, 0] == image, images[:, 1], images[:, 0])
            mine = chosen & (images == image).any(-1) & ~flagged[partner]
            if mine.sum() >= MIN_EVIDENCE:
                input_px, solution_px = np.median(before[mine]), np.median(after[mine])
                new[image] = input_px > max(_SUSPICIOUS_RATIO * solution_px, solution_px + _SUSPICIOUS_PX)
        if (new == flagged).all():
            break
        flagged = new
    return flagged
