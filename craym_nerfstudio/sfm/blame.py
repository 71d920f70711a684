"""Whether it is the lens that contradicts the matches, or focal lengths of single images, and not the input poses."""

from dataclasses import dataclass, replace

import numpy as np

from craym_nerfstudio.sfm.held_out import EXPLAINABLE_PX, MIN_EVIDENCE, Verdict
from craym_nerfstudio.sfm.lens_fit import fit_lens, lens_distance_px
from craym_nerfstudio.sfm.ray_graph import CameraMask, MatchMask, Poses, RayGraph
from craym_nerfstudio.sfm.refinement import Refined
from craym_nerfstudio.sfm.result import Decision, Intrinsics
from craym_nerfstudio.sfm.shared_intrinsics import with_intrinsics
from craym_nerfstudio.sfm.view_focals import FocalFactors, fit_focal_factors, with_focal_factors

_LENS_RATIO = 1.15
"""Input poses seen through a fitted lens are right when they leave this much more than the solution at most. Exact
poses under a wrong lens leave 1.0, rarely up to 1.1; poses with noise of a tenth of a degree 2.7 and more."""

_WRONG_FACTOR = 0.004
"""Relative error of one focal length that is worth a word."""

_MOST_SIZES = 4


@dataclass(frozen=True)
class Blame:
    """A verdict that keeps poses, and what is wrong instead of them: one of the two, or both together."""

    verdict: Verdict
    lens: Intrinsics | None = None
    """Shared by all views,"""
    lens_of: CameraMask | None = None
    """or by these alone: those of one image size, where there are several."""
    focal_factors: FocalFactors | None = None
    """On each camera's own focal length; exactly 1 where nothing is wrong with it."""

    @property
    def is_of_all(self) -> bool:
        """Whether one correction for all views mends everything."""
        return self.lens_of is None and self.focal_factors is None


def blame_lens(
    graph: RayGraph, rough: Poses, solution: Refined, verdict: Verdict, used: MatchMask, held: MatchMask
) -> Blame | None:
    """What is wrong with the lens instead of poses that a verdict would change; None where it is not the lens."""
    solved = solution.solved[graph.images_of_matches].all(-1)
    used, held, adjusted = solved & used, solved & held, solution.c2w
    if verdict.decision.chosen == "input":
        if not verdict.suspicious.any():
            return None
        of_group = _of_one_size(graph, rough, adjusted, verdict, used, held)
        return of_group or _of_single_cameras(graph, rough, adjusted, verdict, used | held)
    lens, compared = fit_lens(graph, rough, used), (rough, adjusted, held, used)
    shared = graph if lens is None else with_intrinsics(graph, lens)
    if lens is not None and (blamed := _blamed(graph, shared, *compared, lens.in_words)):
        return Blame(blamed, lens)
    if of_group := _of_one_size(graph, rough, adjusted, verdict, used, held):
        return of_group
    words, good_px = "a focal length of its own for each image", _median_px(graph, adjusted, used)
    for start, corrections in ((graph, None), (shared, lens))[: 1 if lens is None else 2]:
        factors = _wrong_ones(fit_focal_factors(start, rough, used, good_px))
        said = words if corrections is None else f"{corrections.in_words}, and {words}"
        if blamed := _blamed(graph, with_focal_factors(start, factors), *compared, said):
            return Blame(blamed, corrections, focal_factors=factors)
    return None


def _of_one_size(
    graph: RayGraph, rough: Poses, solution: Poses, verdict: Verdict, used: MatchMask, held: MatchMask
) -> Blame | None:
    """Another camera took the images of one size, and it is its lens that is wrong."""
    sizes, of_size = np.unique(graph.matches.size_px, axis=0, return_inverse=True)
    if not 1 < len(sizes) <= _MOST_SIZES:
        return None
    for number, (width, height) in enumerate(sizes.tolist()):
        mine = of_size.ravel() == number
        lens = fit_lens(graph, rough, used & mine[graph.images_of_matches].all(-1))
        if lens is None or not (verdict.decision.chosen == "solution" or (verdict.suspicious & mine).any()):
            continue
        touched = mine[graph.images_of_matches].any(-1)
        words = f"{lens.in_words}, for the {mine.sum()} images of {width} x {height} px"
        through = with_intrinsics(graph, lens, mine)
        blamed = _blamed(graph, through, rough, solution, held & touched, used & touched, words)
        if blamed is not None and verdict.decision.chosen == "input":
            blamed = replace(verdict, suspicious=verdict.suspicious & ~mine)
        if blamed is not None:
            return Blame(blamed, lens, mine)
    return None


def _median_px(graph: RayGraph, poses: Poses, use: MatchMask) -> float:
    return float(np.median(lens_distance_px(graph, poses)[use])) if use.any() else 0.0


def _wrong_ones(factors: FocalFactors) -> FocalFactors:
    return np.where(np.abs(np.log(factors)) > _WRONG_FACTOR, factors, 1.0)


def _of_single_cameras(
    graph: RayGraph, rough: Poses, solution: Poses, verdict: Verdict, use: MatchMask
) -> Blame | None:
    """Suspicious cameras of a good input that another focal length excuses."""
    factors = _wrong_ones(fit_focal_factors(graph, rough, use, _median_px(graph, solution, use)))
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
