"""Intrinsics that stage 0 adjusts along with poses, kept where held-out matches prefer them."""

from dataclasses import dataclass, replace

import numpy as np

from craym_nerfstudio.sfm.lens_fit import lens_distance_px
from craym_nerfstudio.sfm.own_focals import agreed_factors, own_factors
from craym_nerfstudio.sfm.ray_graph import CameraMask, MatchMask, Poses, RayGraph
from craym_nerfstudio.sfm.refinement import FINE, Refined, refine
from craym_nerfstudio.sfm.result import Intrinsics
from craym_nerfstudio.sfm.shared_intrinsics import estimate_intrinsics, with_intrinsics
from craym_nerfstudio.sfm.view_focals import with_focal_factors

_MIN_VIEWS = 4
_GAIN = 0.97
"""Held-out distances must fall at least to this: cameras round an object hardly fix the focal length, and it drifts."""

_LEAST_SPREAD = 0.005
"""Relative, of focal lengths that are given image by image: they are known no better than they agree."""


@dataclass(frozen=True)
class Calibrated:
    """A graph under some intrinsics and what was solved with it."""

    graph: RayGraph
    solution: Refined
    intrinsics: Intrinsics | None = None
    """Corrections that the graph's bearings carry."""

    def held_px(self, held: MatchMask) -> float:
        """Median distance of the `held` matches between solved views, in px of the images; infinite without any.

        In their pixels, so that a longer focal length does not count as a larger error.
        """
        chosen = held & self.solution.solved[self.graph.images_of_matches].all(-1)
        return float(np.median(lens_distance_px(self.graph, self.solution.c2w)[chosen])) if chosen.any() else np.inf


def calibrated(
    start: Calibrated, rough: Poses, used: MatchMask, held: MatchMask, exact: CameraMask, seed: int
) -> Calibrated:
    """With shared intrinsics adjusted, if they bring held-out matches nearer to their epipolar lines; else `start`."""
    before = start.held_px(held)
    if start.solution.solved.sum() < _MIN_VIEWS or not np.isfinite(before):
        return start
    lens, c2w = estimate_intrinsics(start.graph, start.solution, rough, used, exact)
    graph = with_intrinsics(start.graph, lens)
    own = () if start.intrinsics is None else start.intrinsics.own_focal
    refined = refine(graph, c2w, start.solution.solved, rough, used, exact, seed, FINE)
    found = Calibrated(graph, refined, replace(lens, own_focal=own))
    return found if found.held_px(held) < _GAIN * before else start


def agreed(
    start: Calibrated, rough: Poses, used: MatchMask, held: MatchMask, exact: CameraMask, seed: int
) -> Calibrated:
    """Where the given focal lengths disagree with each other: one for all images of a size, or each its own.

    One for all is believed if held-out matches lose nothing by it, and each its own if they clearly gain; else
    `start`, whose focal lengths are those that were given.
    """
    together = agreed_factors(start.graph)
    if together is None or start.solution.solved.sum() < _MIN_VIEWS:
        return start

    def under(factors: np.ndarray, c2w: Poses) -> Calibrated:
        graph = with_focal_factors(start.graph, factors)
        refined = refine(graph, c2w, start.solution.solved, rough, used, exact, seed)
        return Calibrated(graph, refined, Intrinsics(own_focal=tuple(factors.tolist())))

    one = under(together, start.solution.c2w)
    best = one if one.held_px(held) <= start.held_px(held) else start
    first = together if best is one else np.ones_like(together)
    spread = max(1.4826 * float(np.median(np.abs(np.log(together)))), _LEAST_SPREAD)
    each = under(*own_factors(start.graph, best.solution, first, spread, rough, used, exact))
    return each if each.held_px(held) < _GAIN * best.held_px(held) else best
