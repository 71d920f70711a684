"""What is special about key rays: Key Rays Enrichment (paper Eq. 2, 9) and Matched Rays Coherency (Eq. 3, 4).

KRE lets a key point attend over the auxiliary points around it; MRC tells by their features how well two matched rays
agree, and fuses their colours by it.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

_FEATURE_FLOOR = 1e-3
"""Length of a ray feature under which it says nothing: an empty ray matches no other, and its gradients stay finite."""


def matchability(features: Float[Tensor, "*rays 2 feat"]) -> Float[Tensor, "*rays"]:
    """Agreement w of matched rays in [0, 1]: cosine of their features, clamped at 0, squared."""
    return _Matchability.apply(features)


class _Matchability(torch.autograd.Function):
    """See `matchability`; its derivative by autograd takes three times as many operations."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        gram = features @ features.mT
        inverse = (gram.diagonal(dim1=-2, dim2=-1) + _FEATURE_FLOOR**2).rsqrt()
        both = inverse[..., 0] * inverse[..., 1]
        cosine = (gram[..., 0, 1] * both).clamp(0.0, 1.0)
        ctx.save_for_backward(features, inverse, both, cosine)
        return cosine.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        features, inverse, both, cosine = ctx.saved_tensors
        slope = 2.0 * gradient * cosine
        # The cosine grows towards the other's feature, and what a feature has along itself makes it longer only.
        towards, along = (slope * both)[..., None, None], (slope * cosine)[..., None] * inverse.square()
        return torch.addcmul(towards * features.flip(-2), along[..., None], features, value=-1.0)


def fuse_matched(colors: Float[Tensor, "*rays 2 3"], match: Float[Tensor, "*rays"]) -> Float[Tensor, "*rays 2 3"]:
    """Colours of both rays with the partner's share ``match``: ``w c_j + (1 - w) c_i`` and the reverse (Eq. 4)."""
    return torch.lerp(colors, colors.flip(-2), match[..., None, None])


@dataclass(frozen=True)
class Enrichment:
    """Enriched key features together with what their derivative needs."""

    features: Float[Tensor, "*b feat"]
    """f'(p_k): the attention-weighted mean of the tokens."""
    attention: Float[Tensor, "*b tokens"]
    """Weights of the tokens; the first is the key point itself, the others are its auxiliary points."""
    tokens: Float[Tensor, "*b tokens feat"]

    def pull_back(self, gradient: Float[Tensor, "*b feat"]) -> Float[Tensor, "*b feat"]:
        """Gradient with respect to the key's features from the gradient with respect to the enriched ones.

        This is ``(d f' / d f)^T g`` with the auxiliary features held fixed: the SDF's normal at a key point needs it to
        pass from the enriched features back to the position, without a second traversal by autograd. Differentiable.
        """
        # With t_0 = f, l_j = s f.t_j (so that dl_0 counts f twice) and a = softmax(l):
        #   J^T g = a_0 g + s sum_j a_j (t_j.g - f'.g) t_j + s a_0 (t_0.g - f'.g) t_0
        lift = (self.tokens @ gradient[..., None]).squeeze(-1) - (self.features * gradient).sum(-1, keepdim=True)
        through_softmax = _token_scale(self.tokens) * self.attention * lift
        pulled = (through_softmax[..., None, :] @ self.tokens).squeeze(-2)
        return torch.addcmul(pulled, self.attention[..., :1], gradient)


def _token_scale(tokens: Float[Tensor, "*b tokens feat"]) -> Float[Tensor, " tokens"]:
    """Scale of the scores, twice for the first token, which is also the query."""
    return _scales(tokens.shape[-2], tokens.shape[-1], tokens.dtype, tokens.device)


@lru_cache(maxsize=8)
def _scales(tokens: int, features: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, " tokens"]:
    scales = torch.full((tokens,), features**-0.5, dtype=dtype)
    scales[0] *= 2.0
    return scales.to(device)


def enrich(key: Float[Tensor, "*b feat"], auxiliary: Float[Tensor, "*b aux feat"]) -> Enrichment:
    """Attention of key features over themselves and the features of their auxiliary points at the same depth (Eq. 9).

    The key is the query and also the first token: with auxiliary tokens alone its own features would be thrown away,
    and training would differ from rendering, where no point has auxiliary ones. Scores are scaled by ``1/sqrt(feat)``.
    """
    tokens = torch.cat([key[..., None, :], auxiliary], dim=-2)
    scores = (tokens @ key[..., None]).squeeze(-1) * key.shape[-1] ** -0.5
    attention = scores.softmax(-1)
    return Enrichment((attention[..., None, :] @ tokens).squeeze(-2), attention, tokens)
