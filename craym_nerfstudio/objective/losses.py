"""The losses of the paper (Eq. 5 to 7) and of a NeuS field, as pure functions of tensors.

Every loss is a scalar, 0 for an empty batch, with finite gradients at its minimum.
"""

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from craym_nerfstudio.geometry.epipolar import sampson_distance_of_rays
from craym_nerfstudio.schedules import Scalar, exponential_decay

_INITIAL_SCALE_PX = 20.0
"""Of the robust kernel: poses that are far off are still pulled by most of their matches."""
_SSIM_SIGMA_PX = 1.5
_LEAST_OPACITY = 0.5
"""A ray of less ends on nothing whose place could be compared."""


def epipolar_residuals_px(
    c2w: Float[Tensor, "*matches 2 3 4"],
    bearings: Float[Tensor, "*matches 2 3"],
    focal_px: Float[Tensor, "*matches"] | float,
) -> Float[Tensor, "*matches"]:
    """Sampson distance of matched key rays in pixels, >= 0; 0 when their bearings agree with the poses (Eq. 5).

    Depth drops out, and so do the world's frame and scale: only relative poses are constrained.
    """
    turn, center = c2w.split([3, 1], dim=-1)
    return sampson_distance_of_rays(center[..., 0], (turn @ bearings[..., None])[..., 0]) * focal_px


def match_residuals_px(
    c2w: Float[Tensor, "cams 3 4"],
    cameras: Int[Tensor, "matches 2"],
    bearings: Float[Tensor, "matches 2 3"],
    focal_px: Float[Tensor, " matches"],
) -> Float[Tensor, " matches"]:
    """`epipolar_residuals_px` of matches that name their two cameras, under the poses of all of these."""
    return epipolar_residuals_px(c2w.index_select(0, cameras.flatten()).unflatten(0, cameras.shape), bearings, focal_px)


def annealed_kernel_scale_px(
    step: Scalar, steps: int, final_px: float, residuals_px: Float[Tensor, "*matches"] | None = None
) -> Scalar:
    """Scale of the robust kernel: falls geometrically from 20 px to `final_px` over `steps` (0: has fallen).

    With `residuals_px` it is at least 1.5 x their median, without gradient: poses that are 80 px off are then still
    pulled by most of their matches. The schedule stays a floor, or cameras that lag behind would count as outliers.
    """
    scheduled = exponential_decay(step, _INITIAL_SCALE_PX, final_px, steps)
    if residuals_px is None or residuals_px.numel() == 0:
        return scheduled
    return (1.5 * residuals_px.detach().median()).clamp_min(scheduled)


def robust_cost(residuals: Float[Tensor, "*b"], scale: Scalar) -> Float[Tensor, "*b"]:
    """Geman-McClure, ``s r^2 / (r^2 + s^2)``: in the unit of the residuals, its slope of order 1 at any scale.

    It lets go of outliers: its slope returns to 0.
    """
    return _GemanMcClure.apply(residuals, scale)


class _GemanMcClure(torch.autograd.Function):
    """See `robust_cost`."""

    @staticmethod
    def forward(ctx: Any, residuals: Tensor, scale: Scalar) -> Tensor:
        share = scale / (residuals.square() + scale**2)
        slope = residuals * share
        ctx.save_for_backward(slope * share)
        ctx.scale = scale
        return residuals * slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope * (2.0 * ctx.scale), None


def epipolar_loss(
    residuals_px: Float[Tensor, "*matches"],
    scale_px: Scalar,
    weights: Float[Tensor, "*matches"] | None = None,
) -> Float[Tensor, ""]:
    """Mean robust epipolar distance in pixels (Eq. 5, 6), each match times its trust in [0, 1].

    `weights` (matchability x confidence) are used without gradient, or the network would lower them to lower the loss;
    the mean is over all matches, so a batch of distrusted matches counts for little.
    """
    return _trusted_mean(robust_cost(residuals_px, scale_px), weights)


def point_alignment_loss(
    points_i: Float[Tensor, "*matches 3"],
    points_j: Float[Tensor, "*matches 3"],
    weights: Float[Tensor, "*matches"] | None = None,
    opacity_i: Float[Tensor, "*matches"] | None = None,
    opacity_j: Float[Tensor, "*matches"] | None = None,
) -> Float[Tensor, ""]:
    """Mean distance between the surface points that matched key rays see (Eq. 7).

    `weights` as in `epipolar_loss`. A match counts only when both rays end on something: opacity above one half.
    """
    distances = _safe_norm(points_i - points_j)
    if opacity_i is not None and opacity_j is not None:
        distances = distances * (torch.minimum(opacity_i, opacity_j) > _LEAST_OPACITY)
    return _trusted_mean(distances, weights)


def eikonal_loss(gradients: Float[Tensor, "*b 3"], weights: Float[Tensor, "*b"] | None = None) -> Float[Tensor, ""]:
    """Mean squared deviation of the SDF gradient's length from 1, weighted by `weights` of any sum."""
    return _weighted_mean((_safe_norm(gradients) - 1).square(), weights)


def bounds_loss(
    values: Float[Tensor, " n"], least: Float[Tensor, " n"], most: Float[Tensor, " n"], weights: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Mean distance of values from the interval in which each is known to lie, times its trust in [0, 1]."""
    return _trusted_mean(torch.relu(least - values) + torch.relu(values - most), weights)


def silhouette_loss(
    opacity: Float[Tensor, " rays"], outline: Float[Tensor, " rays"], weights: Float[Tensor, " rays"] | None = None
) -> Float[Tensor, ""]:
    """Mean opacity outside and transparency inside of an outline, times the distance from it; weighted as above.

    `outline` is the signed distance of each ray's pixel, positive outside, of any unit. What is rendered is pulled from
    as far as it is off, and the harder the farther: colours of a few pixels' reach know nothing of that.
    """
    return _weighted_mean(torch.relu(outline) * opacity + torch.relu(-outline) * (1.0 - opacity), weights)


def photometric_loss(
    predicted: Float[Tensor, "*rays channels"],
    target: Float[Tensor, "*rays channels"],
    weights: Float[Tensor, "*rays"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared colour error, weighted by `weights` of any sum (e.g. a mask)."""
    return _weighted_mean((predicted - target).square().mean(-1), weights)


def ssim_loss(
    predicted: Float[Tensor, "patches height width channels"],
    target: Float[Tensor, "patches height width channels"],
    window_px: int = 11,
) -> Float[Tensor, ""]:
    """``1 - SSIM`` of image patches with values in [0, 1], a Gaussian window of sigma 1.5 px (Wang et al. 2004).

    The window shrinks to the largest odd size that fits the patches; statistics are taken where it fits inside.
    """
    if len(predicted) == 0:
        return predicted.sum()
    sides = (window_px, *(side - 1 + side % 2 for side in predicted.shape[1:3]))
    rows, columns = (_windows(side, min(sides), predicted.dtype, predicted.device) for side in predicted.shape[1:3])
    return _DifferentStructure.apply(predicted, target, rows, columns)


class _DifferentStructure(torch.autograd.Function):
    """See `ssim_loss`, with its derivative, which by autograd takes twice as many operations."""

    @staticmethod
    def forward(ctx: Any, predicted: Tensor, target: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        # With p = x + y and q = x - y: 4 x y = p^2 - q^2 and 2 (x^2 + y^2) = p^2 + q^2, for means as for variances.
        both = torch.stack([predicted + target, predicted - target]).movedim(-1, 2)
        means, squares = (rows @ torch.cat([both, both.square()]) @ columns.mT).chunk(2)
        of_means = means.square()
        plus, minus = torch.stack([of_means, squares - of_means], dim=1).unbind(0)
        total = plus + minus + _stability(predicted.dtype, predicted.device)
        share = minus / total
        alike = 1.0 - 2.0 * share
        loss = 1.0 - alike.prod(0).mean()
        if ctx.needs_input_grad[0]:
            by_minus = alike.flip(0) / total * (2.0 / alike[0].numel())
            by_plus = by_minus * share
            by_moments = torch.stack([-by_plus, by_minus - by_plus])
            of_means, of_squares = by_moments.unbind(1)
            moments = torch.cat([2.0 * means * (of_means - of_squares), of_squares])
            by_means, by_squares = (rows.mT @ moments @ columns).chunk(2)
            by_both = torch.addcmul(by_means, both, by_squares, value=2.0)
            ctx.save_for_backward((by_both[0] + by_both[1]).movedim(1, -1))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient * ctx.saved_tensors[0], None, None, None


@lru_cache(maxsize=8)
def _windows(side: int, window_px: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "places side"]:
    """Weights of the Gaussian window at every place where it fits inside a side."""
    offset = torch.arange(window_px, dtype=torch.float64) - window_px // 2
    weights = torch.exp(-offset.square() / (2 * _SSIM_SIGMA_PX**2))
    places = side - window_px + 1
    table = torch.zeros(places, side, dtype=torch.float64)
    for place in range(places):
        table[place, place : place + window_px] = weights / weights.sum()
    return table.to(device, dtype)


@lru_cache(maxsize=8)
def _stability(dtype: torch.dtype, device: torch.device) -> Float[Tensor, "2 1 1 1 1"]:
    """Twice the constants that keep the quotients of SSIM finite, of means and of variances in [0, 1]."""
    return torch.tensor([2 * 0.01**2, 2 * 0.03**2], dtype=dtype).view(2, 1, 1, 1, 1).to(device)


def _safe_norm(vectors: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
    """Length with gradient 0, not NaN, at the zero vector: torch's choice of its subgradients."""
    return torch.linalg.vector_norm(vectors, dim=-1)


def _trusted_mean(costs: Tensor, weights: Tensor | None) -> Tensor:
    """Mean over all entries of cost x weight; the weights get no gradient."""
    trusted = costs if weights is None else costs * weights.detach()
    return trusted.mean() if trusted.numel() else trusted.sum()


def _weighted_mean(costs: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of the costs under weights that need not add up to anything."""
    if weights is None:
        return costs.mean() if costs.numel() else costs.sum()
    return torch.dot(costs.flatten(), weights.flatten()) / weights.sum().clamp_min(torch.finfo(costs.dtype).eps)
