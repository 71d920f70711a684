"""Similarity alignment of camera sets, and pose errors after it.

Not meant for gradients. All solving happens in float64.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.geometry.lie import inverse, rotation_angle_deg

_COLLINEAR_BELOW = 1e-3
"""Ratio of the second to the first spread of camera centres under which they count as lying on a line."""

_ROBUST_DRAWS = 500


@dataclass(frozen=True)
class Similarity:
    """The map ``x -> scale * rotation @ x + translation`` between two world frames."""

    scale: Float[Tensor, ""]
    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, "3"]

    def points(self, points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
        """World points in the target frame, in the dtype and on the device of `points`."""
        return self.scale.to(points) * (points @ self.rotation.to(points).T) + self.translation.to(points)

    def poses(self, c2w: Float[Tensor, "*b 3 4"]) -> Float[Tensor, "*b 3 4"]:
        """Camera-to-world poses in the target frame; the rotation part stays orthonormal."""
        return torch.cat([self.rotation.to(c2w) @ c2w[..., :3], self.points(c2w[..., 3])[..., None]], dim=-1)

    def inverse(self) -> "Similarity":
        """The map from the target frame back."""
        rotation = self.rotation.T
        return Similarity(1 / self.scale, rotation, -(rotation @ self.translation) / self.scale)


@dataclass(frozen=True)
class PoseErrors:
    """Pose errors of aligned cameras: degrees, and distance of the w2c translation vectors x100 in reference units."""

    rotation_deg: Float[Tensor, "cams"]
    translation_x100: Float[Tensor, "cams"]
    similarity: Similarity
    """Takes the estimated frame to the reference frame."""

    @property
    def rotation_deg_mean(self) -> float:
        """Mean rotation error in degrees: the figure of the papers' tables."""
        return float(self.rotation_deg.mean())

    @property
    def rotation_deg_median(self) -> float:
        """Median rotation error in degrees."""
        return float(self.rotation_deg.quantile(0.5))

    @property
    def translation_x100_mean(self) -> float:
        """Mean translation error x100: the figure of the papers' tables."""
        return float(self.translation_x100.mean())


def mean_rotation(rotations: Float[Tensor, "*b n 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """Chordal mean: the rotation nearest to all in the Frobenius norm."""
    return _nearest_rotation(rotations.mean(-3))[0]


def _nearest_rotation(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation R that maximises ``trace(R^T matrix)``, and that trace."""
    u, spread, vh = torch.linalg.svd(matrix)
    sign = torch.ones_like(spread)
    sign[..., 2] = torch.det(u @ vh).sign()
    return u @ (sign[..., None] * vh), (spread * sign).sum(-1)


def _umeyama(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least squares scale [*b], rotation [*b,3,3], translation [*b,3] between points [*b,n,3] (Umeyama 1991)."""
    source_mean, target_mean = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    covariance = (target - target_mean).transpose(-1, -2) @ (source - source_mean)
    rotation, trace = _nearest_rotation(covariance)
    scale = trace / (source - source_mean).square().sum((-1, -2)).clamp_min(1e-300)
    translation = target_mean - scale[..., None, None] * source_mean @ rotation.transpose(-1, -2)
    return scale, rotation, translation.squeeze(-2)


def _inliers_by_least_median(source: Tensor, target: Tensor) -> Tensor:
    """Mask of the points that agree with the triple whose similarity has the least median residual (LMedS)."""
    count = len(source)
    generator = torch.Generator().manual_seed(0)
    triples = torch.rand(_ROBUST_DRAWS, count, generator=generator).argsort(-1)[:, :3].to(source.device)
    scale, rotation, translation = _umeyama(source[triples], target[triples])
    mapped = scale[:, None, None] * (source @ rotation.transpose(-1, -2)) + translation[:, None]
    squared = (mapped - target).square().sum(-1)
    medians = torch.where(scale > 0, squared.quantile(0.5, dim=-1), torch.inf)
    best = medians.argmin()
    # Floor at rounding level: exact data has a median of zero, and every point of it is an inlier.
    spread = (target - target.mean(0)).square().sum(-1).mean()
    sigma = 1.4826 * (1 + 5 / max(count - 3, 1)) * medians[best].sqrt() / 3**0.5
    return squared[best] <= (4 * sigma).square() + 1e-20 * spread


def _is_spread(points: Tensor, precision: float) -> tuple[bool, bool]:
    """Whether points differ at all, and whether they leave a line; both against rounding."""
    singular = torch.linalg.svdvals(points - points.mean(0))
    distinct = bool(singular[0] > 16 * precision * points.abs().max())
    planar = len(points) >= 3 and bool(singular[1] > _COLLINEAR_BELOW * singular[0])
    return distinct, distinct and planar


def align_similarity(
    source_centers: Float[Tensor, "cams 3"],
    target_centers: Float[Tensor, "cams 3"],
    rotations: Float[Tensor, "cams 3 3"] | None = None,
    robust: bool = False,
) -> Similarity:
    """Similarity (float64) that takes `source_centers` to `target_centers` in the least squares sense.

    `rotations` are per-camera estimates of the frame rotation (target <- source), used when the centres cannot fix
    it: two cameras or centres on a line take their chordal mean, with the ratio of the spreads as scale; one camera
    or coinciding centres also keep scale 1. `robust` first drops cameras that disagree with the least-median-of-
    squares fit (from 5 cameras on). Raises ValueError when the rotation is undetermined and `rotations` is None.
    """
    source, target = source_centers.detach().double(), target_centers.detach().double()
    if source.shape != target.shape or source.ndim != 2 or len(source) == 0:
        shapes = f"{tuple(source.shape)} and {tuple(target.shape)}"
        raise ValueError(f"alignment needs two sets of as many camera centres, got {shapes}")
    if not bool(torch.isfinite(source).all() & torch.isfinite(target).all()):
        raise ValueError("alignment needs finite camera centres")
    precision = max(torch.finfo(source_centers.dtype).eps, torch.finfo(target_centers.dtype).eps)
    source_distinct, source_planar = _is_spread(source, precision)
    target_distinct, target_planar = _is_spread(target, precision)
    if source_planar and target_planar:
        if robust and len(source) >= 5:
            keep = _inliers_by_least_median(source, target)
            if int(keep.sum()) >= 3 and _is_spread(source[keep], precision)[1]:
                source, target = source[keep], target[keep]
        scale, rotation, translation = _umeyama(source, target)
        if float(scale) > 0:
            return Similarity(scale, rotation, translation)
    if rotations is None:
        raise ValueError("camera centres on a line or in one place do not fix the rotation of the alignment")
    rotation = mean_rotation(rotations.detach().double())
    source_mean, target_mean = source.mean(0), target.mean(0)
    scale = torch.ones((), dtype=source.dtype, device=source.device)
    if source_distinct and target_distinct:
        scale = (target - target_mean).norm() / (source - source_mean).norm()
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


def align_poses(
    source_c2w: Float[Tensor, "cams 3 4"], target_c2w: Float[Tensor, "cams 3 4"], robust: bool = False
) -> Similarity:
    """Similarity (float64) from the frame of `source_c2w` to that of `target_c2w`, as `align_similarity` finds it."""
    rotations = target_c2w[..., :3].double() @ source_c2w[..., :3].double().transpose(-1, -2)
    return align_similarity(source_c2w[..., 3], target_c2w[..., 3], rotations, robust)


def pose_errors(
    estimated_c2w: Float[Tensor, "cams 3 4"], reference_c2w: Float[Tensor, "cams 3 4"]
) -> PoseErrors:
    """Errors of estimated poses after a similarity alignment of their centres to the reference (as BARF, CRAYM)."""
    estimated, reference = estimated_c2w.detach().double(), reference_c2w.detach().double()
    similarity = align_poses(estimated, reference)
    aligned = similarity.poses(estimated)
    rotation_deg = rotation_angle_deg(aligned[..., :3].transpose(-1, -2) @ reference[..., :3])
    offset = inverse(aligned)[..., 3] - inverse(reference)[..., 3]
    return PoseErrors(rotation_deg, 100 * offset.norm(dim=-1), similarity)
