"""Rotations and rigid motions between sets of points, similarity alignment of camera sets, pose errors after it.

`procrustes` and `nearest_rotation` are differentiable, the rest is not meant for gradients. All solving happens in
float64.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from craym_nerfstudio.geometry.lie import inverse, rotation_angle_deg, skew

Values = TypeVar("Values", Tensor, np.ndarray)

_COLLINEAR_BELOW = 1e-3
"""Ratio of the second to the first spread of camera centres under which they count as lying on a line."""

_ROBUST_DRAWS = 500

_SQUARINGS = 18
"""Of the matrix whose foremost eigenvector is a rotation's quaternion: it wins by factors to the power of 2^18."""
_AMBIGUOUS = 1e-9
"""Share of the spread within which a rotation is taken to be undetermined, and its gradient is damped."""


@dataclass(frozen=True)
class Similarity:
    """The map ``x -> scale * rotation @ x + translation`` between two frames; its own numbers are float64.

    What it maps, tensors or numpy arrays, keeps its kind, dtype and device.
    """

    scale: Float[Tensor, ""]
    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, "3"]

    @classmethod
    def of(
        cls,
        scale: float = 1.0,
        rotation: Float[np.ndarray, "3 3"] | None = None,
        translation: Float[np.ndarray, "3"] | None = None,
    ) -> "Similarity":
        """From plain numbers; what is not given leaves the frame as it is."""
        turn = np.eye(3) if rotation is None else rotation
        shift = np.zeros(3) if translation is None else translation
        numbers = (torch.as_tensor(np.asarray(part), dtype=torch.float64) for part in (scale, turn, shift))
        return cls(*numbers)

    def points(self, points: Values) -> Values:
        """Points [*b, 3] in the target frame."""
        if isinstance(points, np.ndarray):
            return self.points(torch.from_numpy(points)).numpy()
        return self.lengths(self.directions(points)) + self.translation.to(points)

    def directions(self, directions: Values) -> Values:
        """Directions [*b, 3] in the target frame; lengths are kept."""
        if isinstance(directions, np.ndarray):
            return self.directions(torch.from_numpy(directions)).numpy()
        # Not a matrix product: on CUDA that may round to ten bits.
        return (directions[..., None, :] * self.rotation.to(directions)).sum(-1)

    def lengths(self, lengths: Values) -> Values:
        """Distances, of any shape, in units of the target frame."""
        if isinstance(lengths, np.ndarray):
            return self.lengths(torch.from_numpy(lengths)).numpy()
        return self.scale.to(lengths) * lengths

    def poses(self, c2w: Values) -> Values:
        """Camera-to-world poses [*b, 3, 4] in the target frame; the rotation part stays orthonormal."""
        if isinstance(c2w, np.ndarray):
            return self.poses(torch.from_numpy(c2w)).numpy()
        turned = self.rotation.to(c2w) @ c2w[..., :3]
        return torch.cat([turned, self.points(c2w[..., 3])[..., None]], dim=-1)

    def inverse(self) -> "Similarity":
        """The map from the target frame back."""
        rotation = self.rotation.T
        return Similarity(1 / self.scale, rotation, -(rotation @ self.translation) / self.scale)

    def single(self) -> "Similarity":
        """The same map for values in single precision, which need not convert its numbers each time."""
        return Similarity(self.scale.float(), self.rotation.float(), self.translation.float())

    def cpu(self) -> "Similarity":
        """The same map, its numbers on the CPU."""
        return Similarity(self.scale.cpu(), self.rotation.cpu(), self.translation.cpu())

    def __matmul__(self, first: "Similarity") -> "Similarity":
        """The map that applies `first`, then this one."""
        return Similarity(self.scale * first.scale, self.rotation @ first.rotation, self.points(first.translation))


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
    def translation_x100_mean(self) -> float:
        """Mean translation error x100: the figure of the papers' tables."""
        return float(self.translation_x100.mean())


def mean_rotation(rotations: Float[Tensor, "*b n 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """Chordal mean: the rotation nearest to all in the Frobenius norm."""
    return nearest_rotation(rotations.mean(-3))


def nearest_rotation(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation R that maximises ``trace(R^T matrix)``; its gradient is finite everywhere, and exact where R is unique.

    No singular value decomposition: a device would wait for its convergence, and its gradient is infinite where
    singular values meet, though that of the rotation is not.
    """
    return _NearestRotation.apply(matrix)


class _NearestRotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        rotation = _rotation_of_quaternion(_foremost_quaternion(matrix.double()))
        ctx.save_for_backward(matrix, rotation)
        return rotation.to(matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """``dR = R skew(w)``, and ``R^T M`` stays symmetric: ``(trace(P) - P) w`` is the axis of ``R^T dM``."""
        matrix, rotation = ctx.saved_tensors
        stretch = rotation.mT @ matrix.double()
        trace = stretch.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        identity = torch.eye(3, dtype=stretch.dtype, device=stretch.device)
        damping = _AMBIGUOUS * stretch.square().sum((-2, -1), keepdim=True).sqrt() + 1e-30
        resistance = (trace + damping) * identity - 0.5 * (stretch + stretch.mT)
        axis, _ = torch.linalg.solve_ex(resistance, _axis(rotation.mT @ gradient.double())[..., None])
        return (rotation @ skew(axis[..., 0])).to(matrix)


def _axis(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Vector v of the part of a matrix without symmetry: ``matrix - matrix^T == skew(v)``."""
    twice = matrix - matrix.mT
    return torch.stack([twice[..., 2, 1], twice[..., 0, 2], twice[..., 1, 0]], dim=-1)


def _foremost_quaternion(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Unit quaternion q of the nearest rotation: the foremost eigenvector of Horn's 4x4 matrix (1987)."""
    trace, axis = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None], _axis(matrix)[..., None]
    identity = torch.eye(4, dtype=matrix.dtype, device=matrix.device)
    lower = matrix + matrix.mT - trace * identity[:3, :3]
    horn = torch.cat([torch.cat([trace, axis.mT], dim=-1), torch.cat([axis, lower], dim=-1)], dim=-2)
    # Powers of it, shifted to have no negative eigenvalue, tend to the foremost eigenvector's projector.
    size = horn.square().sum((-2, -1), keepdim=True).sqrt()
    power = horn + (size + torch.finfo(horn.dtype).tiny) * identity
    for _ in range(_SQUARINGS):
        power = power / power.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        power = power @ power
    best = power.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
    row = torch.take_along_dim(power, best.expand(*best.shape[:-1], 4), dim=-2).squeeze(-2)
    return row / row.norm(dim=-1, keepdim=True)


def _rotation_of_quaternion(quaternion: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrix of a unit quaternion (w, x, y, z)."""
    turn = skew(quaternion[..., 1:])
    identity = torch.eye(3, dtype=quaternion.dtype, device=quaternion.device)
    return identity + 2 * (quaternion[..., :1, None] * turn + turn @ turn)


def procrustes(
    source: Float[Tensor, "*b n 3"], target: Float[Tensor, "*b n 3"], weights: Float[Tensor, "*b n"] | None = None
) -> Float[Tensor, "*b 3 4"]:
    """Rigid motion that takes source to target points in the (weighted) least squares sense; differentiable, batched.

    Closed form (Kabsch 1976, Umeyama 1991); see `nearest_rotation` for its gradient.
    """
    share = torch.ones_like(source[..., 0]) if weights is None else weights
    share = (share / share.sum(-1, keepdim=True))[..., None]
    source_mean, target_mean = (share * source).sum(-2, keepdim=True), (share * target).sum(-2, keepdim=True)
    rotation = nearest_rotation((share * (target - target_mean)).mT @ (source - source_mean))
    return torch.cat([rotation, target_mean.mT - rotation @ source_mean.mT], dim=-1)


def _umeyama(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least squares scale [*b], rotation [*b,3,3], translation [*b,3] between points [*b,n,3] (Umeyama 1991)."""
    source_mean, target_mean = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    covariance = (target - target_mean).transpose(-1, -2) @ (source - source_mean)
    rotation = nearest_rotation(covariance)
    scale = (rotation * covariance).sum((-2, -1)) / (source - source_mean).square().sum((-1, -2)).clamp_min(1e-300)
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


def align_poses(
    source_c2w: Float[Tensor, "cams 3 4"], target_c2w: Float[Tensor, "cams 3 4"], robust: bool = False
) -> Similarity:
    """Similarity (float64) that takes the centres of `source_c2w` to those of `target_c2w` in the least squares sense.

    Where the centres cannot fix the rotation, the cameras' rotations do: two cameras or centres on a line take the
    chordal mean of what each of them says, with the ratio of the spreads as scale; one camera or coinciding centres
    also keep scale 1. `robust` first drops cameras that disagree with the least-median-of-squares fit (from 5 cameras
    on). Raises ValueError for sets of different sizes, empty ones, and centres that are not finite.
    """
    source, target = source_c2w[..., 3].detach().double(), target_c2w[..., 3].detach().double()
    if source.shape != target.shape or source.ndim != 2 or len(source) == 0:
        shapes = f"{tuple(source.shape)} and {tuple(target.shape)}"
        raise ValueError(f"alignment needs two sets of as many camera centres, got {shapes}")
    if not bool(torch.isfinite(source).all() & torch.isfinite(target).all()):
        raise ValueError("alignment needs finite camera centres")
    precision = max(torch.finfo(source_c2w.dtype).eps, torch.finfo(target_c2w.dtype).eps)
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
    rotations = target_c2w[..., :3].detach().double() @ source_c2w[..., :3].detach().double().transpose(-1, -2)
    rotation = mean_rotation(rotations)
    source_mean, target_mean = source.mean(0), target.mean(0)
    scale = torch.ones((), dtype=source.dtype, device=source.device)
    if source_distinct and target_distinct:
        scale = (target - target_mean).norm() / (source - source_mean).norm()
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


def undrift(
    refined_c2w: Float[Tensor, "cams 3 4"], given_c2w: Float[Tensor, "cams 3 4"], fixed: Bool[Tensor, "cams"]
) -> Similarity:
    """Undoes the drift of a run: the similarity that takes its refined cameras back to the given ones.

    Nothing ties the frame of refined cameras to their input but the cameras themselves. Fixed cameras do: two leave no
    freedom, one leaves the scale, and without any the similarity is fitted robustly to all cameras.
    """
    refined, given = refined_c2w.double(), given_c2w.double()
    count = int(fixed.sum())
    if count == 0:
        return align_poses(refined, given, robust=True)
    anchor, scale = given[fixed][0, :, 3], torch.ones((), dtype=torch.float64)
    if count == 1:
        reach = [(poses[~fixed][..., 3] - anchor).norm(dim=-1).median() for poses in (given, refined)]
        scale = reach[0] / reach[1]
    return Similarity(scale, torch.eye(3, dtype=torch.float64), (1.0 - scale) * anchor)


def pose_errors(
    estimated_c2w: Float[Tensor, "cams 3 4"], reference_c2w: Float[Tensor, "cams 3 4"], robust: bool = False
) -> PoseErrors:
    """Errors of estimated poses after a similarity alignment of their centres to the reference (as BARF, CRAYM).

    `robust`: see `align_poses`.
    """
    estimated, reference = estimated_c2w.detach().double(), reference_c2w.detach().double()
    similarity = align_poses(estimated, reference, robust)
    aligned = similarity.poses(estimated)
    rotation_deg = rotation_angle_deg(aligned[..., :3].transpose(-1, -2) @ reference[..., :3])
    offset = inverse(aligned)[..., 3] - inverse(reference)[..., 3]
    return PoseErrors(rotation_deg, 100 * offset.norm(dim=-1), similarity)
