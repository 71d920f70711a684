"""The result of stage 0, put together: frame, predicted cameras, uncertainties, what every match is worth."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int

from craym_nerfstudio.geometry.lie import rotation_angle_deg
from craym_nerfstudio.sfm.absolute_pose import predict
from craym_nerfstudio.sfm.gauge import settle
from craym_nerfstudio.sfm.ray_graph import CameraMask, MatchMask, Poses, RayGraph
from craym_nerfstudio.sfm.refinement import Refined
from craym_nerfstudio.sfm.result import CameraState, Decision, StageZero, unfit
from craym_nerfstudio.sfm.triangulate import median_per_group
from craym_nerfstudio.sfm.uncertainty import uncertainty

_BELIEVABLE_PX = 4.0
_BELIEF_SCALE = 3.0
"""Standard deviations at which a match is worth one half."""
_FAR_DEG, _FAR_MEDIANS = 5.0, 3.0
_OUTSIDE_TRACKS = 0.3
"""Worth of a match that meets its epipolar line but no point: one of its ends agrees better with other views."""


def assemble(
    graph: RayGraph,
    rough: Poses,
    guess: Poses,
    final: Refined,
    frozen: CameraMask,
    believed: MatchMask,
    decision: Decision,
) -> StageZero:
    """StageZero of final poses; components without frozen cameras return to the rough frame first.

    Cameras without enough rays keep their place beside the others in `guess`.
    """
    structure, names = final.structure, list(graph.matches.names)
    camera_part, point_part = structure.components(graph)
    solved = final.solved | frozen
    camera_part = np.where(solved, camera_part, -1)
    c2w, points = settle(final.c2w, structure.points, rough, camera_part, point_part, frozen)
    c2w = torch.where(torch.from_numpy(frozen)[:, None, None], rough, predict(c2w, guess, solved))
    scale = (points - points.mean(0)).norm() / (structure.points - structure.points.mean(0)).norm().clamp_min(1e-300)
    sigmas = uncertainty(final.bundle, torch.from_numpy(frozen), camera_part)
    error = np.minimum(replace(structure, points=points).error_px(graph, c2w), 1e6)
    ray_image, length = graph.image[structure.node], np.bincount(structure.point, minlength=len(points))
    before, after = graph.epipolar_px(rough), graph.epipolar_px(c2w)
    believable = believed & (np.minimum(before, after) < _BELIEVABLE_PX)
    images = graph.images_of_matches[believable].ravel()
    after_px = median_per_group(after[believable].repeat(2), images, graph.num_images)
    state: list[CameraState] = [
        "kept" if keep else "adjusted" if ok else "predicted" for keep, ok in zip(frozen, solved, strict=True)
    ]
    return StageZero(
        names=names,
        c2w=c2w.numpy(),
        state=state,
        component=camera_part,
        rotation_sigma_deg=sigmas.rotation_deg,
        translation_sigma=sigmas.translation * float(scale),
        num_rays=np.bincount(ray_image, minlength=graph.num_images),
        epipolar_before_px=median_per_group(before[believable].repeat(2), images, graph.num_images),
        epipolar_after_px=after_px,
        points=points.numpy(),
        point_sigma=sigmas.point * float(scale),
        track_length=length,
        ray_point=structure.point,
        ray_image=ray_image,
        ray_keypoint_px=graph.keypoint_px[structure.node],
        ray_bearing=graph.bearing[structure.node],
        match_weight=_match_weight(graph, after, final, error),
        keypoint_sigma_px=final.sigma_px,
        decision=decision,
        notes=_notes(names, state, camera_part, far_off(c2w, rough), unfit(after_px)),
    )


def far_off(c2w: Poses, rough: Poses) -> CameraMask:
    """Cameras that turned much further from their rough pose than most, as a wrong pair or a mirrored solution does.

    Noise of one size turns one camera in ten thousand by three times the median.
    """
    turned_deg = rotation_angle_deg(c2w[:, :, :3].transpose(1, 2) @ rough[:, :, :3])
    return (turned_deg > max(_FAR_DEG, _FAR_MEDIANS * float(turned_deg.median()))).numpy()


def _notes(
    names: list[str],
    state: list[CameraState],
    camera_part: Int[np.ndarray, " cams"],
    far: CameraMask,
    unfitting: CameraMask,
) -> list[str]:
    notes = []
    for doubtful, what in ((far, "turned much further than"), (unfitting, "fit their matches much worse than")):
        those = [name for name, s, it_is in zip(names, state, doubtful, strict=True) if it_is and s == "adjusted"]
        if those:
            notes.append(f"look at what {what} the others: {', '.join(those)}")
    if camera_part.max(initial=-1) > 0:
        notes.append(f"the matches fall into {camera_part.max() + 1} separate parts, joined through the input poses")
    return notes


def _match_weight(
    graph: RayGraph, epipolar_px: Float[np.ndarray, " matches"], final: Refined, error_px: Float[np.ndarray, " obs"]
) -> Float[np.ndarray, " matches"]:
    """Belief in each match: how well both its rays meet their common point, or else its epipolar line alone."""
    scale = _BELIEF_SCALE * final.sigma_px
    point = np.full(len(graph.image), -1)
    worth = np.zeros(len(graph.image))
    point[final.structure.node] = final.structure.point
    worth[final.structure.node] = 1 / (1 + (error_px / scale) ** 2)
    first, second = graph.ends.T
    joined = (point[first] >= 0) & (point[first] == point[second])
    alone = _OUTSIDE_TRACKS / (1 + (epipolar_px / scale) ** 2)
    return np.where(joined, np.minimum(worth[first], worth[second]), alone)
