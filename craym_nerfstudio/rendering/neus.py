"""NeuS volume rendering: from signed distances to weights, colours and depths (Wang et al. 2021, Eq. 10-13)."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from craym_nerfstudio.schedules import Scalar

_LEAST_FALL = 1e-12
"""Difference of signed distances before and behind a surface, at least."""


def neus_alpha(
    sdf: Float[Tensor, "*b"], slope: Float[Tensor, "*b"], step: Float[Tensor, "*b"], inv_s: Float[Tensor, ""]
) -> Float[Tensor, "*b"]:
    """Opacity of a ray section from the SDF at its middle (NeuS Eq. 13, linearised about the middle).

    Args:
        sdf: signed distance at the middle of the section.
        slope: derivative of the SDF along the ray, at most 0 where the ray enters (see `iter_cos`).
        step: length of the section.
        inv_s: sharpness of the logistic density.
    """
    half = slope * (0.5 * step)
    enter, leave = torch.sigmoid(torch.stack([sdf - half, sdf + half]) * inv_s).unbind(0)
    # The floor keeps the ratio finite far inside the solid, where both sigmoids vanish. A clamp, differentiated in one
    # operation instead of five.
    return F.hardtanh(1.0 - leave / (enter + 1e-5), 0.0, 1.0)


def iter_cos(cosine: Float[Tensor, "*b"], anneal: Scalar) -> Float[Tensor, "*b"]:
    """Slope of the SDF along the ray that only ever lets light in, never out.

    With ``anneal = 0`` even rays that leave the surface get a gradient, which lets an early, wrong shape move;
    with ``anneal = 1`` it is the exact -ReLU(-cosine) of NeuS.
    """
    exact = cosine.clamp(max=0.0)
    if isinstance(anneal, float) and anneal >= 1.0:
        return exact
    soft = -torch.relu(0.5 - 0.5 * cosine)
    return soft * (1.0 - anneal) + exact * anneal


def composite(
    carried: Float[Tensor, "*b samples feat"],
) -> tuple[Float[Tensor, "*b feat"], Float[Tensor, "*b"], Float[Tensor, "*b samples"]]:
    """Sums along each ray of what its samples carry, opacity first, weighted; the sums of the weights; and these.

    The weight of a sample is its contribution T_j alpha_j, front to back.
    """
    return _Composite.apply(carried)


class _Composite(torch.autograd.Function):
    """See `composite`; by autograd its derivative takes three times as many operations."""

    @staticmethod
    def forward(ctx: Any, carried: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        alpha = carried[..., 0]
        # By logarithms: the derivative of a cumulative product asks the device whether a factor is 0.
        passing = 1.0 - alpha + 1e-7
        transmittance = passing.log().cumsum(-1).exp()
        ahead = F.pad(transmittance[..., :-1], (1, 0), value=1.0)
        weights = ahead * alpha
        ctx.save_for_backward(carried, passing, ahead, weights)
        return accumulate(weights, carried), weights.sum(-1), weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_sums: Tensor, by_total: Tensor, by_weights: Tensor) -> Tensor:
        carried, passing, ahead, weights = ctx.saved_tensors
        by_weights = by_weights + by_total[..., None] + (carried @ by_sums[..., None])[..., 0]
        by_carried = weights[..., None] * by_sums[..., None, :]
        # What lies behind a sample loses light by it; summed from behind, where little is left.
        behind = (by_weights * weights)[..., 1:].flip(-1).cumsum(-1).flip(-1)
        by_alpha = by_weights * ahead
        by_alpha[..., :-1].addcdiv_(behind, passing[..., :-1], value=-1.0)
        by_carried[..., 0] += by_alpha
        return by_carried


def accumulate(
    weights: Float[Tensor, "*b samples"], values: Float[Tensor, "*b samples feat"]
) -> Float[Tensor, "*b feat"]:
    """Sum of the values along each ray, weighted."""
    return (weights[..., None, :] @ values)[..., 0, :]


def unit_vectors(vectors: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Vectors at length 1, as `torch.nn.functional.normalize`, differentiated in 3 operations instead of 14."""
    return _UnitVectors.apply(vectors)


class _UnitVectors(torch.autograd.Function):
    """See `unit_vectors`."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        unit, length = _unit(vectors)
        ctx.save_for_backward(unit, length)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _by_vectors(gradient, *ctx.saved_tensors)


def _unit(vectors: Float[Tensor, "*b 3"]) -> tuple[Float[Tensor, "*b 3"], Float[Tensor, "*b 1"]]:
    """Vectors at length 1, and their lengths."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_min(1e-12)
    return vectors / length, length


def _by_vectors(gradient: Tensor, unit: Tensor, length: Tensor) -> Float[Tensor, "*b 3"]:
    """The gradient by vectors from that by what `_unit` makes of them: what is not along them."""
    along = (gradient[..., None, :] @ unit[..., None])[..., 0]
    return torch.addcmul(gradient, along, unit, value=-1.0) / length


@dataclass(frozen=True)
class Crossing:
    """Where rays meet the surface."""

    distance: Float[Tensor, " rays"]
    """Along the ray; 0 where it meets none."""
    normal: Float[Tensor, "rays 3"]


def first_crossing(
    surface: Float[Tensor, "rays samples 4"],
    distances: Float[Tensor, "rays samples"],
    active: Bool[Tensor, "rays samples"],
) -> Crossing:
    """Where the signed distance of rays first turns negative, on the line through the samples before and behind.

    Unlike the mean depth it is on the surface, and differentiable in the distances of just two samples.

    Args:
        surface: normals, then signed distances.
    """
    return Crossing(*_FirstCrossing.apply(surface, distances, active))


class _FirstCrossing(torch.autograd.Function):
    """See `first_crossing`; the place between the samples moves, the normal there turns with theirs alone."""

    @staticmethod
    def forward(ctx: Any, surface: Tensor, distances: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        # Sections that were left out have a distance of 0: they are on neither side.
        signed = surface[..., 3] * active
        turns = (signed > 0)[:, :-1] & (signed < 0)[:, 1:]
        found, before = turns.view(torch.uint8).max(-1, keepdim=True)
        # Views of all pairs of neighbours, of which each ray takes one.
        pairs, places = (values.unfold(1, 2, 1) for values in (surface, distances))
        pair = pairs.gather(1, before[..., None, None].expand(-1, -1, 4, 2))[:, 0]
        near, far = places.gather(1, before[..., None].expand(-1, -1, 2)).unbind(-1)
        ahead, behind = pair[:, 3:].unbind(-1)
        # Where none is found, the difference may be anything.
        per_distance = found / (ahead - behind).clamp_min(_LEAST_FALL)
        share = ahead * per_distance
        distance = torch.lerp(near, far, share) * found
        outer, inner = pair[:, :3].unbind(-1)
        normal, length = _unit(torch.lerp(outer, inner, share))
        ctx.save_for_backward(surface, before, share, (far - near) * per_distance, normal, length)
        return distance[:, 0], normal

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_distance: Tensor, by_normal: Tensor) -> tuple[Tensor, None, None]:
        surface, before, share, per_share, normal, length = ctx.saved_tensors
        both = torch.cat([_by_vectors(by_normal, normal, length), by_distance[:, None] * per_share], dim=-1)
        of_inner = share * both
        by_surface = torch.zeros_like(surface)
        pair, index = torch.stack([both - of_inner, of_inner], dim=1), torch.cat([before, before + 1], dim=-1)
        return by_surface.scatter_(1, index[..., None].expand_as(pair), pair), None, None
