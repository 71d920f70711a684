"""Matched Rays Coherency: how well two matched rays agree, and their colours fused by it (paper Eq. 3 and 4)."""

import torch
from jaxtyping import Float
from torch import Tensor

_FEATURE_FLOOR = 1e-3
"""Length of a ray feature under which it says nothing: an empty ray matches no other, and its gradients stay finite."""


def accumulate_ray_feature(
    weights: Float[Tensor, "*rays samples"], features: Float[Tensor, "*rays samples feat"]
) -> Float[Tensor, "*rays feat"]:
    """Feature of a ray: those of its samples, composited with the weights that also make its colour (Eq. 3)."""
    return (weights[..., None, :] @ features).squeeze(-2)


def matchability(
    features_i: Float[Tensor, "*rays feat"], features_j: Float[Tensor, "*rays feat"], gamma: float = 2.0
) -> Float[Tensor, "*rays"]:
    """Agreement of matched rays in [0, 1]: cosine of their features, clamped at 0, to the power ``gamma >= 1``."""
    floor = _FEATURE_FLOOR**2
    squared_lengths = (features_i.square().sum(-1) + floor) * (features_j.square().sum(-1) + floor)
    cosine = (features_i * features_j).sum(-1) * squared_lengths.rsqrt()
    return cosine.clamp(0.0, 1.0).pow(gamma)


def fuse_matched(
    colors_i: Float[Tensor, "*rays 3"], colors_j: Float[Tensor, "*rays 3"], match: Float[Tensor, "*rays"]
) -> tuple[Float[Tensor, "*rays 3"], Float[Tensor, "*rays 3"]]:
    """Colours of both rays with the partner's share ``match``: ``w c_j + (1 - w) c_i`` and the reverse (Eq. 4)."""
    share = match[..., None]
    return torch.lerp(colors_i, colors_j, share), torch.lerp(colors_j, colors_i, share)
