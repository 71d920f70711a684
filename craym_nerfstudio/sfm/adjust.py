"""Stage 0: matches and rough poses in, poses good to about a tenth of a degree out, before any field is trained.

Wrong pairs go first (`pair_consistency`), pycolmap solves what is left from scratch (`global_solve`), everything is
brought into the frame of the rough poses (`absolute_pose`, `gauge`), refined with the precision of each keypoint and
the input as prior (`refinement`), and kept only if held-out matches prefer it (`held_out`).
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.sfm.absolute_pose import predict, stitch
from craym_nerfstudio.sfm.assemble import assemble
from craym_nerfstudio.sfm.blame import Blame, blame_lens
from craym_nerfstudio.sfm.calibration import Calibrated, agreed, calibrated
from craym_nerfstudio.sfm.gauge import frame_of
from craym_nerfstudio.sfm.global_solve import solve_globally
from craym_nerfstudio.sfm.held_out import EXPLAINED_RATIO, PLACED_RATIO, Verdict, decide, hold_out
from craym_nerfstudio.sfm.pair_consistency import consistent_pairs
from craym_nerfstudio.sfm.ray_graph import CameraMask, MatchMask, Poses, RayGraph, ray_graph
from craym_nerfstudio.sfm.refinement import FINE, Refined, grow_from_pair, refine
from craym_nerfstudio.sfm.result import Decision, StageZero
from craym_nerfstudio.sfm.shared_intrinsics import with_intrinsics
from craym_nerfstudio.sfm.view_focals import corrected

_PAIR_PX = 4.0
"""Distance from the epipolar line of the pair's own motion beyond which a match is plainly wrong."""
_ONE_PLACE = 1e-9
"""Extent of the cameras in parts of their distance from the origin, which is large in map coordinates."""
_EXAMPLES = 3

_WRONG_LENS = (
    "it is the intrinsics that contradict the images, not the poses (or all cameras are turned alike in their mounts): "
    "correct them, or let --refine-intrinsics do it; the poses stay as they were given"
)
_WRONG_LENS_OF_SOME = (
    "it is the intrinsics of the images of one size that contradict the images, not the poses: correct them (craym "
    "preflight names them, and --fix writes a copy with them); the poses stay as they were given"
)
_WRONG_FOCALS = (
    "it is the focal lengths of {count} images that contradict the images, not their poses ({examples}): correct them "
    "(craym preflight --fix writes a copy with them); these poses stay as they were given"
)


def adjust_rays(
    views: Views, matches: Matches, *, fixed: CameraMask | None = None, refine_intrinsics: bool = False, seed: int = 0
) -> StageZero:
    """Refined poses in the frame and scale of ``views.c2w``, with points, tracks, uncertainties and the decision.

    What ``views.priors`` say of the given poses' errors goes in as it is; of other cameras it is estimated. `fixed`
    cameras are exact: they keep their poses and hold the frame. Cameras without enough rays are predicted
    from their neighbours and flagged. The input stays where held-out matches do not prefer the solution; so do the
    given intrinsics with `refine_intrinsics`, which are taken to be shared by all views. Where every view has a focal
    length of its own they are adjusted in any case (`calibration.agreed`). Raises InputError when views and matches are
    not of the same images, or when all cameras are in one place.
    """
    if list(matches.names) != list(views.names):
        raise InputError("Matches and views are of different images", None, "Match these images again.")
    given = np.array(views.c2w, dtype=np.float64)
    if are_in_one_place(given):
        remedy = (
            "Write the cameras' positions: an exporter may have failed. Without poses give the folder of images alone; "
            "to train from these, set --pipeline.start.pose-init input."
        )
        raise InputError(f"The poses put all {len(given)} cameras in one place", views.paths[0].parent, remedy)
    centred = _centred(given)
    exact = np.zeros(len(given), dtype=bool) if fixed is None else fixed
    rough, graph = torch.from_numpy(centred.poses(given)), ray_graph(matches, views.focal_px)
    graph = replace(graph, priors=views.moved(centred).priors)
    guess = _guess(matches, rough, exact)
    believed = consistent_pairs(graph, guess)[matches.pair_of_match] & (graph.pair_epipolar_px() < _PAIR_PX)
    used, held = hold_out(graph, believed, seed)
    blame, intrinsics = None, None
    try:
        solution = _solve(graph, guess, used, exact, seed)
        ratio = PLACED_RATIO if views.is_placed else EXPLAINED_RATIO
        verdict = _judge(graph, rough, solution, used, held, ratio)
        if solution is not None and not views.is_placed:
            blame = blame_lens(graph, rough, solution, verdict, used, held)
        if blame is None and solution is not None:
            plain, evidence = Calibrated(graph, solution), (guess, used, held, exact, seed)
            is_judged = verdict.decision.chosen == "solution" and views.is_perspective
            found = agreed(plain, *evidence) if is_judged else plain
            if refine_intrinsics or found is not plain:
                found = calibrated(found, *evidence)
            if found is not plain:
                graph, solution, intrinsics = found.graph, found.solution, found.intrinsics
                verdict = _judge(graph, rough, solution, used, held, ratio)
        elif blame is not None and blame.is_of_all and refine_intrinsics:
            assert blame.lens is not None
            graph, intrinsics, blame = with_intrinsics(graph, blame.lens), blame.lens, None
            solution = _solve(graph, guess, used, exact, seed)
            verdict = _judge(graph, rough, solution, used, held, ratio)
        elif blame is not None:
            verdict = blame.verdict
    except ImportError as error:
        solution, verdict = None, _kept(f"{error}, so the input poses stay: install pycolmap", len(rough))
    if verdict.decision.chosen == "input":
        guess = rough
    final, frozen = _finish(graph, guess, solution, verdict, believed, exact, seed)
    stage = assemble(graph, rough, guess, final, frozen, believed, verdict.decision).moved(centred.inverse())
    stage.intrinsics = intrinsics
    if blame is not None:
        stage.suspected, stage.suspected_of, stage.focal_factors = blame.lens, blame.lens_of, blame.focal_factors
        stage.notes[:0] = _notes_on(blame, matches.names)
    kept = np.array([state == "kept" for state in stage.state])
    stage.c2w[kept] = given[kept]
    return stage


def adjust_again(
    views: Views, matches: Matches, stage: StageZero, *, fixed: CameraMask | None = None, seed: int = 0
) -> StageZero:
    """Stage 0 refined once more, on closer matches that were made from it: what it decided stays."""
    given = np.array(views.c2w, dtype=np.float64)
    centred = _centred(given)
    exact = np.zeros(len(given), dtype=bool) if fixed is None else fixed
    rough, found = torch.from_numpy(centred.poses(given)), torch.from_numpy(centred.poses(stage.c2w))
    graph = corrected(ray_graph(matches, views.focal_px), stage.intrinsics)
    graph = replace(graph, priors=views.moved(centred).priors)
    believed = np.ones(len(matches), dtype=bool)
    final = refine(graph, found, stage.registered, rough, believed, exact, seed, FINE)
    again = assemble(graph, rough, found, final, exact, believed, stage.decision).moved(centred.inverse())
    again.intrinsics, again.notes, again.looked_again = stage.intrinsics, stage.notes, True
    again.epipolar_before_px = stage.epipolar_before_px
    again.c2w[exact] = given[exact]
    return again


def _notes_on(blame: Blame, names: list[str]) -> list[str]:
    """What a user is to correct."""
    notes = [] if blame.lens is None else [_WRONG_LENS if blame.lens_of is None else _WRONG_LENS_OF_SOME]
    if blame.focal_factors is not None:
        wrong = np.flatnonzero(blame.focal_factors != 1)
        worst = wrong[np.argsort(-np.abs(np.log(blame.focal_factors[wrong])))][:_EXAMPLES]
        examples = ", ".join(f"{names[k]} needs {blame.focal_factors[k]:.3f} of its own" for k in worst)
        more = ", ..." if len(wrong) > _EXAMPLES else ""
        notes.append(_WRONG_FOCALS.format(count=len(wrong), examples=examples + more))
    return notes


def _guess(matches: Matches, rough: Poses, exact: CameraMask) -> Poses:
    """What matching found to be nearer to the truth than the rough poses, in their frame; else these."""
    if len(matches.guess_c2w) == 0:
        return rough
    found = torch.from_numpy(np.asarray(matches.guess_c2w, dtype=np.float64))
    return torch.where(torch.from_numpy(exact)[:, None, None], rough, frame_of(found, rough, exact).poses(found))


def are_in_one_place(c2w: Float[np.ndarray, "cams 3 4"]) -> bool:
    """Whether several cameras have one centre, but for rounding, so that nothing can be located."""
    centers = c2w[:, :, 3]
    return len(c2w) > 1 and float(np.ptp(centers, axis=0).max()) <= _ONE_PLACE * float(np.abs(centers).max())


def _centred(c2w: Float[np.ndarray, "cams 3 4"]) -> Similarity:
    """The map to a frame in which the cameras surround the origin at about unit distance.

    Map coordinates of six digits would cost the normal equations as many.
    """
    middle = c2w[:, :, 3].mean(0)
    extent = float(np.linalg.norm(c2w[:, :, 3] - middle, axis=-1).mean())
    scale = 1.0 / extent if extent > 0 else 1.0
    return Similarity.of(scale, translation=-scale * middle)


def _solve(graph: RayGraph, rough: Poses, use: MatchMask, exact: CameraMask, seed: int) -> Refined | None:
    """Poses from the matches in `use`, in the rough frame; None when no pair is believed."""
    if not use.any():
        return None
    # The mapper joins matches blindly and discards whole tracks that meet an image twice: it gets clean ones.
    track = graph.tracks(use, graph.matches.confidence)
    joined = use & (track[graph.ends[:, 0]] == track[graph.ends[:, 1]])
    c2w, solved = stitch(solve_globally(graph, joined, seed), rough, exact)
    if not solved.any():
        # Two views, or too little for the mapper: start at the pair that has most matches.
        best = int(np.bincount(graph.matches.pair_of_match[use]).argmax())
        pair = graph.matches.pairs[best].tolist()
        c2w, solved = grow_from_pair(rough, pair, torch.from_numpy(graph.pair_motion[best]))
    c2w = torch.where(torch.from_numpy(exact)[:, None, None], rough, predict(c2w, rough, solved))
    return refine(graph, c2w, solved, rough, use, exact, seed)


def _judge(
    graph: RayGraph, rough: Poses, solution: Refined | None, used: MatchMask, held: MatchMask, ratio: float
) -> Verdict:
    if solution is None:
        return _kept("no two images have matches that agree with the input poses: they stay", graph.num_images)
    if solution.solved.sum() < 2:
        return _kept("the matches do not fix any camera: the input poses stay", graph.num_images)
    solved = solution.solved[graph.images_of_matches].all(-1)
    return decide(graph, rough, solution.c2w, solved & held, solved & used, ratio)


def _kept(reason: str, cameras: int) -> Verdict:
    return Verdict(Decision("input", reason, 0, float("nan"), float("nan")), np.zeros(cameras, dtype=bool))


def _finish(
    graph: RayGraph,
    rough: Poses,
    solution: Refined | None,
    verdict: Verdict,
    believed: MatchMask,
    exact: CameraMask,
    seed: int,
) -> tuple[Refined, CameraMask]:
    """Poses adjusted to all believed matches, the held-out ones included; and the cameras that were not to move."""
    if solution is None or verdict.decision.chosen == "input":
        frozen = ~verdict.suspicious | exact
        start = rough if solution is None else solution.c2w
        c2w = torch.where(torch.from_numpy(frozen)[:, None, None], rough, start)
        solved = np.ones_like(frozen)
    else:
        frozen, c2w, solved = exact, solution.c2w, solution.solved
    return refine(graph, c2w, solved, rough, believed, frozen, seed, FINE), frozen
