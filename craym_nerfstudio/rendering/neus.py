"""NeuS volume rendering: from signed distances to weights, colours and depths (Wang et al. 2021, Eq. 10-13)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from craym_nerfstudio.schedules import Scalar


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
    sdf: Float[Tensor, "rays samples"],
    distances: Float[Tensor, "rays samples"],
    active: Bool[Tensor, "rays samples"],
    normals: Float[Tensor, "rays samples 3"],
) -> Crossing:
    """Where the signed distance of rays first turns negative, on the line through the samples before and behind.

    Unlike the mean depth it is on the surface, and differentiable in the distances of just two samples.
    """
    turns = (sdf[:, :-1] > 0) & (sdf[:, 1:] <= 0) & active[:, :-1] & active[:, 1:]
    before = turns.byte().argmax(-1, keepdim=True)
    both = torch.cat([before, before + 1], dim=-1)
    found, (ahead, behind) = turns.gather(-1, before)[:, 0], sdf.gather(-1, both).unbind(-1)
    near, far = distances.gather(-1, both).unbind(-1)
    outer, inner = normals.gather(1, both[..., None].expand(-1, -1, 3)).unbind(1)
    share = torch.where(found, ahead / torch.where(found, ahead - behind, 1.0), 0.0)
    normal = torch.lerp(outer, inner, share.detach()[:, None])
    return Crossing(torch.where(found, torch.lerp(near, far, share), 0.0), F.normalize(normal, dim=-1))
