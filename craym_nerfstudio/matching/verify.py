"""From putative matches to verified pairs: two-view geometry, the test against rough poses, consistency of cycles.

The first is independent of the rough poses, so that these cannot approve of their own errors. Then the rough poses
decide between what the images alone cannot tell apart: look-alike sides of an object give perfect two-view geometry
with a wrong rotation. Last, rotations averaged over all pairs fix the pairs whose own geometry is ambiguous (flat or
narrow scenes), and remove pairs whose matches do not fit them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int32
from torch import Tensor

from craym_nerfstudio.geometry.epipolar import relative_pose
from craym_nerfstudio.geometry.lie import rotation_angle_deg
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.rotation_averaging import average_rotations, chained_rotations
from craym_nerfstudio.matching.two_view import (
    PairBearings,
    RotationPrior,
    refine_motions,
    search_translations,
    stacked_rows,
)
from craym_nerfstudio.matching.views import Views

MIN_INLIERS = 15
"""Matches that a pair's geometry needs; detectors whose wrong matches agree more often ask for more."""
_AVERAGED_SIGMA_DEG = 0.5
"""Error of rotations averaged over many pairs."""
_AGREEING_DEG = 5.0
_SEARCHED = 100
"""Best matches of a pair that its translation is searched with."""
LEAST_SHARE = 0.25
"""Share of the strict matches that must agree: below it the inliers of a wrong geometry may be chance."""


@dataclass
class PutativePairs:
    """Pairs with a two-view geometry of their own, and all their putative matches, right and wrong."""

    pairs: Int32[np.ndarray, "pairs 2"]
    motion: Float[np.ndarray, "pairs 3 4"]
    """Robust estimate, ``x_j = R x_i + t``."""
    pair_of_match: Int32[np.ndarray, " matches"]
    keypoint_ids: Int32[np.ndarray, "matches 2"]
    score: Float32[np.ndarray, " matches"]
    strict: Bool[np.ndarray, " matches"]


NO_PAIRS = PutativePairs(
    pairs=np.zeros((0, 2), np.int32),
    motion=np.zeros((0, 3, 4)),
    pair_of_match=np.zeros(0, np.int32),
    keypoint_ids=np.zeros((0, 2), np.int32),
    score=np.zeros(0, np.float32),
    strict=np.zeros(0, bool),
)


@dataclass
class VerifyReport:
    """Numbers of pairs after each stage, and what the tests were held to."""

    candidates: int
    verified: int = 0
    """Have a two-view geometry of their own."""
    after_prior: int = 0
    """Rotate nearly as the rough poses say."""
    after_cycles: int = 0
    """Agree with the rotations averaged over all pairs."""
    matches: int = 0
    prior_disagreement_deg: float = float("nan")
    """Median angle between estimated and rough relative rotations: the noise of the rough poses."""
    prior_limit_deg: float = float("nan")


def threshold_px(views: Views) -> float:
    """Largest distance of a match to its epipolar line: 1.5 px, more in images beyond 1000 px."""
    return 1.5 * max(1.0, float(np.median(np.max(views.size_px, axis=1))) / 1000.0)


def verify(
    putative: PutativePairs,
    views: Views,
    keypoints: list[Float32[np.ndarray, "n 2"]],
    bearings: list[Float[np.ndarray, "n 3"]],
    detector: str,
    prior_angle_deg: float | None = 60.0,
    candidates: int = 0,
    least_inliers: int = MIN_INLIERS,
    least_share: float = LEAST_SHARE,
) -> tuple[Matches, VerifyReport]:
    """Verified pairs with their inlying matches. `keypoints` and `bearings` are given per image.

    `prior_angle_deg` bounds the disagreement with the rough relative rotations; the bound tightens, down to 15
    degrees, when most pairs disagree less. None ignores the rough poses altogether. A pair needs `least_inliers` strict
    matches that agree, and `least_share` of all its strict ones.
    """
    report = VerifyReport(candidates or len(putative.pairs))
    data = PairBearings.of(putative.pairs, putative.pair_of_match, putative.keypoint_ids, bearings, views.focal_px)
    limit_px = threshold_px(views)
    strict = torch.from_numpy(putative.strict)
    motion = torch.from_numpy(np.asarray(putative.motion, dtype=np.float64))
    motion = refine_motions(data.subset(_inliers(data, motion, limit_px) & strict), motion)
    inliers = _inliers(data, motion, limit_px)
    support = data.count(inliers & strict)
    kept = support >= least_inliers
    report.verified = int(kept.sum())
    if report.verified:
        pairs = torch.from_numpy(putative.pairs).long()
        rough = torch.from_numpy(np.asarray(views.c2w, dtype=np.float64))
        kept &= _agrees_with_rough_poses(motion, rough, pairs, kept, prior_angle_deg, report)
        report.after_prior = int(kept.sum())
    if report.after_prior:
        world_to_camera = _averaged(motion, rough, pairs, kept, support, prior_angle_deg, report)
        averaged = world_to_camera[pairs[:, 1]] @ world_to_camera[pairs[:, 0]].transpose(-1, -2)
        motion = _reconsidered(data.subset(strict), motion, averaged, kept, limit_px)
        inliers = _inliers(data, motion, limit_px)
        support = data.count(inliers & strict)
        kept = (support >= least_inliers) & (support >= least_share * data.count(strict))
    report.after_cycles = int(kept.sum())
    matches = _collect(putative, views, keypoints, bearings, data, motion, inliers, detector)
    matches = matches.subset((kept[data.pair] & inliers).numpy())
    report.matches = len(matches)
    return matches, report


def _inliers(data: PairBearings, motion: Tensor, limit_px: float) -> Tensor:
    return (data.distance_px(motion) < limit_px) & data.is_in_front(motion)


def _agrees_with_rough_poses(
    motion: Tensor, rough: Tensor, pairs: Tensor, kept: Tensor, prior_angle_deg: float | None, report: VerifyReport
) -> Bool[Tensor, " pairs"]:
    expected = relative_pose(rough[pairs[:, 0]], rough[pairs[:, 1]])[..., :3]
    disagreement = rotation_angle_deg(motion[..., :3] @ expected.transpose(-1, -2))
    report.prior_disagreement_deg = float(disagreement[kept].median())
    if prior_angle_deg is None:
        return torch.ones_like(kept)
    report.prior_limit_deg = min(prior_angle_deg, max(15.0, 3 * report.prior_disagreement_deg + 5.0))
    return disagreement <= report.prior_limit_deg


def _averaged(
    motion: Tensor,
    rough: Tensor,
    pairs: Tensor,
    kept: Tensor,
    support: Tensor,
    prior_angle_deg: float | None,
    report: VerifyReport,
) -> Float[Tensor, "cams 3 3"]:
    """World-to-camera rotations that most kept pairs agree with."""
    start = rough[..., :3].transpose(-1, -2)
    relative = motion[kept, :, :3]
    if prior_angle_deg is None:
        start = chained_rotations(start, pairs[kept], relative, support[kept])
        return average_rotations(start, pairs[kept], relative, prior_sigma_deg=90.0)
    sigma_deg = min(report.prior_disagreement_deg, 0.5 * prior_angle_deg)
    return average_rotations(start, pairs[kept], relative, max(1.0, sigma_deg))


def _reconsidered(
    sure: PairBearings,
    motion: Float[Tensor, "pairs 3 4"],
    averaged: Float[Tensor, "pairs 3 3"],
    kept: Bool[Tensor, " pairs"],
    limit_px: float,
) -> Float[Tensor, "pairs 3 4"]:
    """Motions near the averaged rotations: for pairs with an ambiguous, a wrong or no geometry of their own, too.

    Where averaging went astray (few pairs) a kept pair that nearly agrees and fits better keeps its own.
    """
    searched = search_translations(sure.best_of_each(_SEARCHED), averaged)
    near = sure.subset(sure.distance_px(searched) < 3 * limit_px)
    guided = refine_motions(near, searched, RotationPrior(averaged, _AVERAGED_SIGMA_DEG))
    own_support = sure.count(_inliers(sure, motion, limit_px))
    guided_support = sure.count(_inliers(sure, guided, limit_px))
    disagreement = rotation_angle_deg(motion[..., :3] @ averaged.transpose(-1, -2))
    keeps_own = kept & (disagreement <= _AGREEING_DEG) & (guided_support < 0.7 * own_support)
    return torch.where(keeps_own[:, None, None], motion, guided)


def _collect(
    putative: PutativePairs,
    views: Views,
    keypoints: list[np.ndarray],
    bearings: list[np.ndarray],
    data: PairBearings,
    motion: Tensor,
    inliers: Tensor,
    detector: str,
) -> Matches:
    """All putative matches as `Matches`, right and wrong."""
    ids = putative.keypoint_ids
    rows = stacked_rows(keypoints, putative.pairs[putative.pair_of_match], ids)
    return Matches(
        names=list(views.names),
        size_px=views.size_px,
        pairs=putative.pairs,
        rotation=motion[..., :3].numpy(),
        translation=motion[..., 3].numpy(),
        pair_of_match=putative.pair_of_match,
        keypoints=np.concatenate(keypoints)[rows].astype(np.float32),
        keypoint_ids=ids,
        bearings=np.concatenate(bearings)[rows].astype(np.float32),
        confidence=_confidence(putative, data, motion, inliers),
        detector=detector,
    )


def _confidence(
    putative: PutativePairs, data: PairBearings, motion: Tensor, inliers: Tensor
) -> Float32[np.ndarray, " matches"]:
    """Product of the descriptors' score, a fall-off with the epipolar distance, and the pair's share of inliers."""
    strict = torch.from_numpy(putative.strict)
    agreeing = data.count(inliers & strict).double()
    share = agreeing / data.count(strict).clamp_min(1)
    # Few inliers can be chance, whatever their share.
    support = share.sqrt() * agreeing / (agreeing + MIN_INLIERS)
    near = 1 / (1 + data.distance_px(motion).square())
    confidence = torch.from_numpy(putative.score).double() * near * support[data.pair]
    return confidence.clamp(1e-3, 1.0).float().numpy()
