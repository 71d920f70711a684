"""Relative pose of two views from matched bearings: a robust start, then refinement of all pairs at once.

Motions are ``[R | t]`` with ``x_j = R x_i + t`` in OpenGL camera frames, ``|t| = 1``; distances are Sampson distances
on bearings times the focal length, in px.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from craym_nerfstudio.geometry.axes import flip_motion_axes
from craym_nerfstudio.geometry.epipolar import essential_from_motion, sampson_distance
from craym_nerfstudio.geometry.lie import so3_exp, so3_log
from craym_nerfstudio.geometry.pinhole import plane_from_bearings
from craym_nerfstudio.geometry.rays import tangent_frames

_FORWARD = 0.05
"""Least cosine between a bearing and the viewing axis for use in the pinhole solver: wider rays leave its plane."""


@dataclass
class PairBearings:
    """Matched bearings of many pairs; those of one pair are neighbours, the best first."""

    pair: Int[Tensor, " matches"]
    bearings_i: Float[Tensor, "matches 3"]
    bearings_j: Float[Tensor, "matches 3"]
    focal_px: Float[Tensor, " pairs"]
    """Mean of the two cameras; turns angles into px."""

    @classmethod
    def of(
        cls,
        pairs: Int[np.ndarray, "pairs 2"],
        pair_of_match: Int[np.ndarray, " matches"],
        keypoint_ids: Int[np.ndarray, "matches 2"],
        bearings: Sequence[Float[np.ndarray, "n 3"]],
        focal_px: Float[np.ndarray, " images"],
    ) -> "PairBearings":
        """Those of matched keypoints, from the bearings of every image's keypoints and its focal length; float64."""
        rows = stacked_rows(bearings, pairs[pair_of_match], keypoint_ids)
        first, second = torch.from_numpy(np.concatenate(bearings).astype(np.float64)[rows]).unbind(1)
        focal = np.asarray(focal_px, dtype=np.float64)[pairs].mean(axis=1)
        return cls(torch.from_numpy(pair_of_match.astype(np.int64)), first, second, torch.from_numpy(focal))

    def distance_px(self, motion: Float[Tensor, "pairs 3 4"]) -> Float[Tensor, " matches"]:
        """Sampson distance of every match under its pair's motion, in px."""
        matrices = essential_from_motion(motion)[self.pair]
        return sampson_distance(matrices, self.bearings_i, self.bearings_j) * self.focal_px[self.pair]

    def is_in_front(self, motion: Float[Tensor, "pairs 3 4"]) -> Bool[Tensor, " matches"]:
        """Whether the two rays of a match meet in front of both cameras (or are parallel within rounding)."""
        turned = (motion[self.pair, :, :3] @ self.bearings_i[..., None]).squeeze(-1)
        baseline = motion[self.pair, :, 3]
        normal = torch.linalg.cross(turned, self.bearings_j, dim=-1)
        # Depths along both rays, up to the common positive factor |normal|^2.
        depth_i = -(torch.linalg.cross(baseline, self.bearings_j, dim=-1) * normal).sum(-1)
        depth_j = -(torch.linalg.cross(baseline, turned, dim=-1) * normal).sum(-1)
        return (depth_i > 0) & (depth_j > 0)

    def subset(self, keep: Bool[Tensor, " matches"]) -> "PairBearings":
        """Only the matches where `keep` holds; pairs keep their numbers."""
        return PairBearings(self.pair[keep], self.bearings_i[keep], self.bearings_j[keep], self.focal_px)

    def best_of_each(self, most: int) -> "PairBearings":
        """At most the first `most` matches of every pair."""
        count = torch.bincount(self.pair, minlength=len(self.focal_px))
        rank = torch.arange(len(self.pair)) - (count.cumsum(0) - count)[self.pair]
        return self.subset(rank < most)

    def count(self, chosen: Bool[Tensor, " matches"]) -> Int[Tensor, " pairs"]:
        """Number of chosen matches of every pair."""
        return torch.bincount(self.pair[chosen], minlength=len(self.focal_px))


def stacked_rows(
    parts: Sequence[np.ndarray], part: Int[np.ndarray, "*b"], row: Int[np.ndarray, "*b"]
) -> Int[np.ndarray, "*b"]:
    """Where rows of parts stand once all parts are concatenated."""
    return np.cumsum([0, *map(len, parts)])[part] + row


def ransac_motion(
    bearings_i: Float[np.ndarray, "n 3"], bearings_j: Float[np.ndarray, "n 3"], threshold_rad: float
) -> Float[np.ndarray, "3 4"] | None:
    """Relative pose by robust five-point estimation (OpenCV's USAC), knowing nothing of the rough poses.

    Deterministic. None when there are fewer than five usable matches or no model is found.
    """
    import cv2

    usable = (bearings_i[:, 2] < -_FORWARD) & (bearings_j[:, 2] < -_FORWARD)
    if usable.sum() < 5:
        return None
    points_i, points_j = (plane_from_bearings(bearings[usable]) for bearings in (bearings_i, bearings_j))
    try:
        matrix, mask = cv2.findEssentialMat(
            points_i, points_j, np.eye(3), method=cv2.USAC_ACCURATE, prob=0.9999, threshold=threshold_rad
        )
        if matrix is None or matrix.shape != (3, 3):
            return None
        _, rotation, translation, _ = cv2.recoverPose(matrix, points_i, points_j, np.eye(3), mask=mask)
    except cv2.error:  # raised for degenerate samples (all points on one line)
        return None
    motion = flip_motion_axes(np.concatenate([rotation, translation], axis=1))
    return motion if np.isfinite(motion).all() else None


@dataclass(frozen=True)
class RotationPrior:
    """Rotations that refinement stays near, and by how much."""

    rotation: Float[Tensor, "pairs 3 3"]
    sigma_deg: float


def refine_motions(
    data: PairBearings,
    start: Float[Tensor, "pairs 3 4"],
    prior: RotationPrior | None = None,
    scale_px: float = 0.5,
    rounds: int = 12,
) -> Float[Tensor, "pairs 3 4"]:
    """Minimise the Cauchy-robust Sampson distances of every pair from `start`; float64.

    Levenberg-Marquardt over rotation (3) and direction of translation (2), all pairs side by side; the Sampson
    denominator is held within a round. A pair never ends at a higher cost than it starts with.
    """
    motion, cost = start, _cost(data, start, prior, scale_px)
    damping = torch.full_like(cost, 1e-3)
    for _ in range(rounds):
        step, basis = _newton_step(data, motion, prior, scale_px, damping)
        moved = _moved(motion, step, basis)
        moved_cost = _cost(data, moved, prior, scale_px)
        better = moved_cost < cost
        motion = torch.where(better[:, None, None], moved, motion)
        cost = torch.where(better, moved_cost, cost)
        damping = torch.where(better, damping * 0.2, damping * 10).clamp(1e-8, 1e6)
    return motion


def _cost(data: PairBearings, motion: Tensor, prior: RotationPrior | None, scale_px: float) -> Tensor:
    terms = torch.log1p((data.distance_px(motion) / scale_px).square())
    cost = torch.zeros(len(motion), dtype=terms.dtype).index_add_(0, data.pair, terms)
    if prior is not None:
        cost = cost + (_turn(motion, prior).norm(dim=-1) / np.deg2rad(prior.sigma_deg)).square()
    return cost


def _turn(motion: Tensor, prior: RotationPrior) -> Tensor:
    """Rotation vector that leads from the prior's rotation to the motion's, from the left."""
    return so3_log(motion[..., :3] @ prior.rotation.transpose(-1, -2))


def _newton_step(
    data: PairBearings, motion: Tensor, prior: RotationPrior | None, scale_px: float, damping: Tensor
) -> tuple[Tensor, Tensor]:
    """Damped Gauss-Newton step [pairs, 5] and the tangent basis [pairs, 3, 2] of the translations."""
    basis = tangent_frames(motion[..., 3])[..., :2, :].transpose(-1, -2)
    residual, slopes = _residual_and_slopes(data, motion, basis)
    weight = 1 / (scale_px**2 + residual.square())
    normal = torch.zeros(len(motion), 5, 5, dtype=slopes.dtype)
    normal.index_add_(0, data.pair, (slopes * weight[:, None])[:, :, None] * slopes[:, None])
    target = torch.zeros(len(motion), 5, dtype=slopes.dtype)
    target.index_add_(0, data.pair, slopes * (weight * residual)[:, None])
    if prior is not None:
        information = np.deg2rad(prior.sigma_deg) ** -2
        normal[:, range(3), range(3)] += information
        target[:, :3] += information * _turn(motion, prior)
    diagonal = torch.diagonal(normal, dim1=-2, dim2=-1)
    # The floor keeps a pair without matches solvable.
    normal = normal + torch.diag_embed(damping[:, None] * diagonal + 1e-9)
    return -torch.linalg.solve(normal, target), basis


def _residual_and_slopes(data: PairBearings, motion: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Signed Sampson distances in px [matches] and their slopes by rotation and translation [matches, 5]."""
    turned = (motion[data.pair, :, :3] @ data.bearings_i[..., None]).squeeze(-1)
    baseline = motion[data.pair, :, 3]
    epipolar = torch.linalg.cross(turned, data.bearings_j, dim=-1)
    residual = (baseline * epipolar).sum(-1)
    # Slopes on the spheres of directions, as in geometry.epipolar.
    plane_j = torch.linalg.cross(baseline, turned, dim=-1)
    plane_i = torch.linalg.cross(data.bearings_j, baseline, dim=-1)
    squared = plane_j.square().sum(-1) + plane_i.square().sum(-1) - 2 * residual.square()
    factor = data.focal_px[data.pair] / squared.clamp_min(1e-20).sqrt()
    by_rotation = torch.linalg.cross(turned, plane_i, dim=-1)
    by_translation = (epipolar[:, None] @ basis[data.pair]).squeeze(1)
    return residual * factor, torch.cat([by_rotation, by_translation], dim=-1) * factor[:, None]


def search_translations(
    data: PairBearings, rotation: Float[Tensor, "pairs 3 3"], scale_px: float = 3.0, draws: int = 32, seed: int = 0
) -> Float[Tensor, "pairs 3 4"]:
    """Motions with given rotations and, for every pair, the best supported of `draws` translation directions.

    With the rotation known two matches fix the direction: it lies in both epipolar planes. Drawing such couples finds
    it among many wrong matches, where least squares would follow them into forward motion. Deterministic.
    """
    turned = (rotation[data.pair] @ data.bearings_i[..., None]).squeeze(-1)
    normals = torch.nn.functional.normalize(torch.linalg.cross(turned, data.bearings_j, dim=-1), dim=-1)
    count = torch.bincount(data.pair, minlength=len(rotation))
    first = count.cumsum(0) - count
    generator = torch.Generator().manual_seed(seed)
    best = torch.full((len(rotation),), -1.0, dtype=normals.dtype)
    motion = torch.cat([rotation, torch.zeros_like(rotation[..., :1])], dim=-1)
    for _ in range(draws):
        unit = torch.rand(2, len(rotation), generator=generator, dtype=normals.dtype)
        couple = (first + (unit * count).long()).clamp(max=len(normals) - 1)
        direction = torch.linalg.cross(normals[couple[0]], normals[couple[1]], dim=-1)
        direction = torch.nn.functional.normalize(direction, dim=-1)
        for signed in (direction, -direction):
            trial = torch.cat([rotation, signed[..., None]], dim=-1)
            near = data.is_in_front(trial) / (1 + (data.distance_px(trial) / scale_px).square()).square()
            score = torch.zeros_like(best).index_add_(0, data.pair, near)
            better = score > best
            best = torch.where(better, score, best)
            motion = torch.where(better[:, None, None], trial, motion)
    return motion


def _moved(motion: Tensor, step: Tensor, basis: Tensor) -> Tensor:
    # A step beyond half a radian leaves the range in which the linearisation means anything.
    step = step * (0.5 / step.norm(dim=-1, keepdim=True).clamp_min(0.5))
    rotation = so3_exp(step[:, :3]) @ motion[..., :3]
    translation = motion[..., 3] + (basis @ step[:, 3:, None]).squeeze(-1)
    return torch.cat([rotation, torch.nn.functional.normalize(translation, dim=-1)[..., None]], dim=-1)
