"""Whether it is the lens that contradicts the matches, or focal lengths of single images, and not the input poses."""

from dataclasses import dataclass, replace

import numpy as np

from craym_nerfstudio.sfm.held_out import EXPLAINABLE_PX, MIN_EVIDENCE, Verdict
from craym_nerfstudio.sfm.lens_fit import fit_lens, lens_distance_px
from craym_nerfstudio.sfm.ray_graph import MatchMask, Poses, RayGraph
from craym_nerfstudio.sfm.refinement import Refined
from craym_nerfstudio.sfm.result import Decision, Intrinsics
from craym_nerfstudio.sfm.shared_intrinsics import with_intrinsics
from craym_nerfstudio.sfm.view_focals import FocalFactors, fit_focal_factors, with_focal_factors

_LENS_RATIO = 1.15
"""Input poses seen through a fitted lens are right when they leave this much more than the solution at most. Exact
poses under a wrong lens leave 1.0, rarely up to 1.1; poses with noise of a tenth of a degree 2.7 and more."""

_WRONG_FACTOR = 0.004
"""Relative error of one focal length that is worth a word."""


@dataclass(frozen=True)
class Blame:
    """A verdict that keeps poses, and what is wrong instead of them: one of the two, or both together."""

    verdict: Verdict
    lens: Intrinsics | None = None
    """Shared by all views."""
    focal_factors: FocalFactors | None = None
    """On each camera's own focal length; exactly 1 where nothing is wrong with it."""


def blame_lens(
    graph: RayGraph, rough: Poses, solution: Refined, verdict: Verdict, used: MatchMask, held: MatchMask
) -> Blame | None:
    """What is wrong with the lens instead of poses that a verdict would change; None where it is not the lens."""
    solved = solution.solved[graph.images_of_matches].all(-1)
    if verdict.decision.chosen == "input":
        return _of_single_cameras(graph, rough, solution.c2w, verdict, solved & (used | held))
    lens, compared = fit_lens(graph, rough, solved & used), (rough, solution.c2w, solved & held, solved & used)
    shared = graph if lens is None else with_intrinsics(graph, lens)
    if lens is not None and (blamed := _blamed(graph, shared, *compared, lens.in_words)):
        return Blame(blamed, lens)
    words = "a focal length of its own for each image"
    for start, corrections in ((graph, None), (shared, lens))[: 1 if lens is None else 2]:
        factors = _wrong_ones(fit_focal_factors(start, rough, solved & used))
        said = words if corrections is None else f"{corrections.in_words}, and {words}"
        if blamed := _blamed(graph, with_focal_factors(start, factors), *compared, said):
            return Blame(blamed, corrections, factors)
    return None


def _wrong_ones(factors: FocalFactors) -> FocalFactors:
    return np.where(np.abs(np.log(factors)) > _WRONG_FACTOR, factors, 1.0)


def _of_single_cameras(
    graph: RayGraph, rough: Poses, solution: Poses, verdict: Verdict, use: MatchMask
) -> Blame | None:
    """Suspicious cameras of a good input that another focal length excuses."""
    if not verdict.suspicious.any():
        return None
    factors = _wrong_ones(fit_focal_factors(graph, rough, use))
    seen = lens_distance_px(with_focal_factors(graph, np.where(verdict.suspicious, factors, 1.0)), rough)
    after, excused = lens_distance_px(graph, solution), np.zeros_like(verdict.suspicious)
    use = use & (np.minimum(seen, after) < EXPLAINABLE_PX)
    for camera in np.flatnonzero(verdict.suspicious & (factors != 1)):
        mine = use & (graph.images_of_matches == camera).any(-1)
        excused[camera] = np.median(seen[mine]) <= _LENS_RATIO * np.median(after[mine]) if mine.any() else False
    if not excused.any():
        return None
    kept = replace(verdict, suspicious=verdict.suspicious & ~excused)
    return Blame(kept, focal_factors=np.where(excused, factors, 1.0))


def _blamed(
    graph: RayGraph, through: RayGraph, rough: Poses, solution: Poses, held: MatchMask, used: MatchMask, lens: str
) -> Verdict | None:
    """The verdict for input poses that explain the matches `through` another lens as well as a `solution` does through
    the given one; None where they do not. `lens` are the words for it.
    """
    before, after, seen = (lens_distance_px(*side) for side in ((graph, rough), (graph, solution), (through, rough)))
    explainable = np.minimum(after, seen) < EXPLAINABLE_PX
    chosen = held & explainable
    if chosen.sum() < MIN_EVIDENCE:
        chosen = used & explainable
    if chosen.sum() < MIN_EVIDENCE or np.median(seen[chosen]) > _LENS_RATIO * np.median(after[chosen]):
        return None
    input_px, solution_px, lens_px = (float(np.median(values[chosen])) for values in (before, after, seen))
    reason = (
        f"the input poses explain the matches through another lens ({lens}): {lens_px:.2f} px, not "
        f"{input_px:.2f}; adjusted poses would have to bend for {solution_px:.2f} px ({int(chosen.sum())} matches)"
    )
    return Verdict(
        Decision("input", reason, int(chosen.sum()), input_px, solution_px), np.zeros(graph.num_images, dtype=bool)
    )
