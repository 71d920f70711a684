"""Where photos were taken, from their matches alone; the better one of two ways to find out."""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from craym_nerfstudio.geometry.epipolar import essential, sampson_distance
from craym_nerfstudio.photos.mappers import (
    PhotoCamera,
    Problem,
    adjust_bundle,
    loss_scale,
    map_globally,
    map_incrementally,
    posed_pair,
)
from craym_nerfstudio.photos.motions import Motions, find_motions
from craym_nerfstudio.sfm.global_solve import poses_of

_FEW_PHOTOS = 12
"""So few photos are also mapped one by one: rotations averaged over few pairs may be wrong."""
_SETTLED_BELOW, _MOST_RESTARTS = 0.2, 3
"""Relative change of the focal length that does no harm to the motions of pairs, and when to stop anyway."""
_LENS_GAIN = 0.002
"""Fall of the mean loss from which distortion or a shifted principal point is believed."""
_EXPLAINED_ABOVE = 0.85
"""Share of the matches, of all pairs, that a solution explains beyond doubt."""


@dataclass(frozen=True)
class Solution:
    """What a mapper placed."""

    reconstruction: Any
    """Of pycolmap, in pixels of the matched images; image ids are photo numbers plus one."""
    placed: Int[np.ndarray, " placed"]
    explained: float
    """Share of the matches of all pairs, those of photos that were not placed included, that it explains."""
    consistent: float
    """The same among the matches between placed photos."""
    others: list[Int[np.ndarray, " some"]]
    """Photos of parts that hang together among themselves alone, placed but not used."""


def solve(problem: Problem, limit_px: float, seed: int = 0) -> Solution | None:
    """The largest part of the photos that hangs together, with adjusted cameras; None when there is none.

    The global mapper comes first. Where the focal lengths are guesses it runs once before, for these alone: wrong ones
    spoil the motions of the pairs that it starts from. Two photos keep theirs, which they cannot tell. The incremental
    mapper is tried where the photos are few or matches stay unexplained: among look-alike sides the two go wrong in
    different ways.
    """
    if len(problem.matches.pairs) == 0:
        return None
    if len(problem.names) == 2:
        models = [posed_pair(problem, motion) for motion in [_motions(problem, limit_px)] if motion.agrees.any()]
        return _solution(problem, models, limit_px)
    if not all(camera.is_known for camera in problem.cameras):
        problem = _with_found_cameras(problem, seed, limit_px)
    best = _solution(problem, map_globally(problem, _motions(problem, limit_px), seed), limit_px)
    if best is None or best.explained < _EXPLAINED_ABOVE or len(problem.names) <= _FEW_PHOTOS:
        models = map_incrementally(problem, _motions(problem, limit_px), seed)
        found = [solution for solution in (best, _solution(problem, models, limit_px)) if solution is not None]
        best = max(found, key=lambda solution: solution.explained, default=None)
    if best is None:
        return None
    reconstruction = _adjusted(best.reconstruction)
    explained, consistent = explained_shares(problem, reconstruction, limit_px)
    return replace(best, reconstruction=reconstruction, explained=explained, consistent=consistent)


def _motions(problem: Problem, limit_px: float) -> Motions:
    return find_motions(problem.matches, problem.bearings(), problem.focal_px, limit_px)


def _with_found_cameras(problem: Problem, seed: int, limit_px: float) -> Problem:
    """With the focal lengths that mapping finds, again and again until they stay."""
    for _ in range(_MOST_RESTARTS):
        models = map_globally(problem, _motions(problem, limit_px), seed, quick=True)
        if not models:
            return problem
        found = _found_cameras(problem, models[0])
        pairs = zip(found, problem.cameras, strict=True)
        change = max(abs(new.focal_px / old.focal_px - 1) for new, old in pairs)
        problem = replace(problem, cameras=found)
        if change < _SETTLED_BELOW:
            break
    return problem


def _solution(problem: Problem, models: list[Any], limit_px: float) -> Solution | None:
    if not models:
        return None
    placed = poses_of(models[0])[0]
    # Parts of the incremental mapper may share photos with the largest one.
    others = [np.setdiff1d(poses_of(model)[0], placed) for model in models[1:]]
    explained, consistent = explained_shares(problem, models[0], limit_px)
    return Solution(models[0], placed, explained, consistent, [part for part in others if len(part) > 1])


def _adjusted(reconstruction: Any) -> Any:
    """After bundle adjustment; with distortion and a principal point off the middle where matches ask for them."""
    scale_px = loss_scale(reconstruction)
    best, freed = reconstruction, [False, False]
    loss = adjust_bundle(best, scale_px)
    for which in (0, 1):
        tried = [freed[0] or which == 0, which == 1]
        candidate = deepcopy(best)
        candidate_loss = adjust_bundle(candidate, scale_px, *tried)
        if candidate_loss < loss - _LENS_GAIN:
            best, freed, loss = candidate, tried, candidate_loss
    return best


def _found_cameras(problem: Problem, reconstruction: Any) -> list[PhotoCamera]:
    """The problem's cameras as a solution has them; those without placed photos stay."""
    found = list(problem.cameras)
    for number in {reconstruction.images[image].camera_id for image in reconstruction.reg_image_ids()}:
        f, x, y, k1 = (float(value) for value in reconstruction.cameras[number].params)
        found[number - 1] = replace(found[number - 1], parameters=(f, x, y, k1))
    return found


def explained_shares(problem: Problem, reconstruction: Any, limit_px: float) -> tuple[float, float]:
    """Matches within `limit_px` of their epipolar lines: as a share of all, and of those between placed photos."""
    placed, c2w = poses_of(reconstruction)
    poses = np.tile(np.eye(3, 4), (len(problem.names), 1, 1))
    poses[placed] = c2w
    is_placed = np.isin(np.arange(len(problem.names)), placed)
    seen = replace(problem, cameras=_found_cameras(problem, reconstruction))
    images = problem.matches.pairs[problem.matches.pair_of_match].astype(np.int64)
    bearings, ids = seen.bearings(), problem.matches.keypoint_ids
    first = np.concatenate([[0], np.cumsum([len(rows) for rows in bearings])])[:-1]
    rays = torch.from_numpy(np.concatenate(bearings)[first[images] + ids])
    between = is_placed[images].all(1)
    explained = between & (_distance_px(poses, images, rays, seen.focal_px) < limit_px)
    return float(explained.mean()), float(explained.sum() / max(1, between.sum()))


def _distance_px(
    c2w: Float[np.ndarray, "photos 3 4"],
    images: Int[np.ndarray, "matches 2"],
    rays: Float[torch.Tensor, "matches 2 3"],
    focal_px: Float[np.ndarray, " photos"],
) -> Float[np.ndarray, " matches"]:
    poses = torch.from_numpy(c2w)
    matrices = essential(poses[images[:, 0]], poses[images[:, 1]])
    return sampson_distance(matrices, rays[:, 0], rays[:, 1]).numpy() * focal_px[images].mean(1)
