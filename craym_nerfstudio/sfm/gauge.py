"""The similarity that takes a solution to the rough poses, from positions and rotations together."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from craym_nerfstudio.geometry.alignment import Similarity, align_poses, mean_rotation
from craym_nerfstudio.geometry.lie import rotation_angle_deg, skew, so3_exp, so3_log
from craym_nerfstudio.sfm.ray_graph import CameraMask, Poses

_ROUNDS = 15
_ROBUST_FROM = 5
"""Cameras of which more than half are needed for a similarity: two fit any centres."""


def align_to_rough(c2w: Poses, rough_c2w: Poses) -> Similarity:
    """Robust similarity (float64) of all seven freedoms, `c2w` frame to `rough_c2w` frame.

    Camera centres of a short arc say little about rotation, and the rotations of rough poses are as good as their
    positions: both count, each by its own spread (reweighted least squares, Cauchy). Needs two cameras for the scale.
    """
    start = align_poses(c2w, rough_c2w, robust=True)
    if len(c2w) < 3:
        return start
    # Of a few cameras the centres may be turned as far as they like: then the rotations know better where to begin.
    rotation = mean_rotation(rough_c2w[..., :3] @ c2w[..., :3].transpose(-1, -2))
    middle, target = c2w[..., 3].mean(0), rough_c2w[..., 3].mean(0)
    by_rotations = Similarity(start.scale, rotation, target - start.scale * (rotation @ middle))
    found = [_refined(each, c2w, rough_c2w) for each in (start, by_rotations)]
    return min(found, key=lambda similarity: _misfit(similarity.poses(c2w), rough_c2w))


def _misfit(c2w: Poses, rough_c2w: Poses) -> float:
    """Product of the spreads of positions and rotations: the volume that the errors of one camera fill, by its root."""
    shift, turn = pose_spread(c2w, rough_c2w)
    return shift * turn


def _refined(start: Similarity, c2w: Poses, rough_c2w: Poses) -> Similarity:
    """The similarity near `start` that fits positions and rotations best."""
    scale, rotation, translation = start.scale.clone(), start.rotation, start.translation
    centers, targets = c2w[..., 3], rough_c2w[..., 3]
    for _ in range(_ROUNDS):
        turned = (scale * (rotation @ centers[..., None])).squeeze(-1)
        offset = targets - turned - translation
        twist = so3_log(rough_c2w[..., :3] @ (rotation @ c2w[..., :3]).transpose(-1, -2))
        angles, distances = twist.norm(dim=-1), offset.norm(dim=-1)
        sigma_angle = _sigma(angles).clamp_min(1e-9)
        sigma_distance = _sigma(distances).clamp_min(1e-9 * turned.norm(dim=-1).mean() + 1e-300)
        weight = 1 / (1 + (angles / sigma_angle).square() / 9 + (distances / sigma_distance).square() / 9)
        eye = torch.eye(3, dtype=c2w.dtype).expand(len(c2w), 3, 3)
        rows_turn = torch.cat([eye, eye.new_zeros(len(c2w), 3, 4)], dim=-1) / sigma_angle
        rows_move = torch.cat([-skew(turned), turned[..., None], eye], dim=-1) / sigma_distance
        rows = torch.cat([rows_turn, rows_move], dim=1) * weight.sqrt()[:, None, None]
        values = torch.cat([twist / sigma_angle, offset / sigma_distance], dim=1) * weight.sqrt()[:, None]
        step = torch.linalg.lstsq(rows.flatten(0, 1), values.reshape(-1, 1)).solution.squeeze(-1)
        rotation = so3_exp(step[:3]) @ rotation
        scale = scale * step[3].clamp(-0.5, 0.5).exp()
        translation = translation + step[4:]
        if float(step[:3].norm()) < 1e-12 and float(step[3].abs()) < 1e-12:
            break
    return Similarity(scale, rotation, translation)


def pose_spread(c2w: Poses, rough_c2w: Poses) -> tuple[float, float]:
    """Robust standard deviation per axis between two sets of poses in one frame: world units, radians."""
    angles = torch.deg2rad(rotation_angle_deg(c2w[..., :3].transpose(-1, -2) @ rough_c2w[..., :3]))
    distances = (c2w[..., 3] - rough_c2w[..., 3]).norm(dim=-1)
    return float(_sigma(distances)), float(_sigma(angles))


def _sigma(lengths: Float[Tensor, " cams"]) -> Float[Tensor, ""]:
    """Standard deviation per axis of 3-vectors by their lengths: robust, but for so few that half could be fitted."""
    if len(lengths) < _ROBUST_FROM:
        return (lengths.square().mean() / 3).sqrt()
    return lengths.quantile(0.5) / 1.54  # median length of a 3-vector with unit normal components


def frame_of(c2w: Poses, rough_c2w: Poses, fixed: CameraMask) -> Similarity:
    """Similarity to the rough frame: through the fixed cameras where there are any, robust through all otherwise.

    One fixed camera gives rotation and position; the scale is then that of the robust fit.
    """
    held = torch.from_numpy(fixed)
    if int(held.sum()) == 0:
        return align_to_rough(c2w, rough_c2w)
    if int(held.sum()) > 1:
        return align_poses(c2w[held], rough_c2w[held])
    scale = align_to_rough(c2w, rough_c2w).scale
    (own,), (target,) = c2w[held], rough_c2w[held]
    rotation = target[:, :3] @ own[:, :3].T
    return Similarity(scale, rotation, target[:, 3] - scale * rotation @ own[:, 3])


def settle(
    c2w: Poses,
    points: Float[Tensor, "points 3"],
    rough_c2w: Poses,
    camera_component: Int[np.ndarray, " cams"],
    point_component: Int[np.ndarray, " points"],
    fixed: CameraMask,
) -> tuple[Poses, Float[Tensor, "points 3"]]:
    """Poses and points with every component without a fixed camera put back into the rough frame."""
    c2w, points = c2w.clone(), points.clone()
    for label in range(int(camera_component.max(initial=-1)) + 1):
        members = camera_component == label
        if (members & fixed).any() or members.sum() < 2:
            continue
        chosen, own = torch.from_numpy(members), torch.from_numpy(point_component == label)
        similarity = align_to_rough(c2w[chosen], rough_c2w[chosen])
        c2w[chosen], points[own] = similarity.poses(c2w[chosen]), similarity.points(points[own])
    return c2w, points
