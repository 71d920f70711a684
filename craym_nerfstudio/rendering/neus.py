"""NeuS volume rendering: from signed distances to weights, colours and depths (Wang et al. 2021, Eq. 10-13)."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
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
    # The floor keeps the ratio finite far inside the solid, where both sigmoids vanish.
    return (1.0 - leave / (enter + 1e-5)).clamp(0.0, 1.0)


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


def render_weights(alpha: Float[Tensor, "*b samples"]) -> Float[Tensor, "*b samples"]:
    """Contribution T_j alpha_j of each sample, front to back."""
    # By logarithms: the derivative of a cumulative product asks the device whether a factor is 0.
    transmittance = (1.0 - alpha + 1e-7).log().cumsum(-1).exp()
    ahead = F.pad(transmittance[..., :-1], (1, 0), value=1.0)
    return ahead * alpha


def accumulate(
    weights: Float[Tensor, "*b samples"], values: Float[Tensor, "*b samples feat"]
) -> Float[Tensor, "*b feat"]:
    """Sum of the values along each ray, weighted."""
    return torch.einsum("...s,...sf->...f", weights, values)


def expected_depth(
    weights: Float[Tensor, "*b samples"], distances: Float[Tensor, "*b samples"], opacity: Float[Tensor, "*b"]
) -> Float[Tensor, "*b"]:
    """Mean distance along the ray where the ray is absorbed, normalised by its opacity, the sum of the weights."""
    return accumulate(weights, distances[..., None])[..., 0] / opacity.clamp_min(1e-6)


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
        outside = surface[..., 3] > 0
        turns = (outside & active)[:, :-1] & (active > outside)[:, 1:]
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
        normal = torch.lerp(outer, inner, share)
        length = torch.linalg.vector_norm(normal, dim=-1, keepdim=True).clamp_min(1e-12)
        normal = normal / length
        ctx.save_for_backward(surface, before, share, (far - near) * per_distance, normal, length)
        return distance[:, 0], normal

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_distance: Tensor, by_normal: Tensor) -> tuple[Tensor, None, None]:
        surface, before, share, per_share, normal, length = ctx.saved_tensors
        along = by_normal[:, None] @ normal[..., None]
        by_normal = torch.addcmul(by_normal, along[..., 0], normal, value=-1.0) / length
        both = torch.cat([by_normal, by_distance[:, None] * per_share], dim=-1)
        of_inner = share * both
        by_surface = torch.zeros_like(surface)
        pair, index = torch.stack([both - of_inner, of_inner], dim=1), _next(before)
        return by_surface.scatter_(1, index[..., None].expand_as(pair), pair), None, None


def _next(number: Int[Tensor, "rays 1"]) -> Int[Tensor, "rays 2"]:
    """Numbers and those after them."""
    return torch.cat([number, number + 1], dim=-1)
