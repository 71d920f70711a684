"""What is special about key rays: Key Rays Enrichment (paper Eq. 2, 9) and Matched Rays Coherency (Eq. 3, 4).

KRE lets a key point attend over the auxiliary points around it; MRC tells by their features how well two matched rays
agree, and fuses their colours by it.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

_FEATURE_FLOOR = 1e-3
"""Length of a ray feature under which it says nothing: an empty ray matches no other, and its gradients stay finite."""


def matchability(
    features_i: Float[Tensor, "*rays feat"], features_j: Float[Tensor, "*rays feat"]
) -> Float[Tensor, "*rays"]:
    """Agreement w of matched rays in [0, 1]: cosine of their features, clamped at 0, squared."""
    floor = _FEATURE_FLOOR**2
    both = torch.stack([features_i, features_j])
    unit = both * (both.square().sum(-1, keepdim=True) + floor).rsqrt()
    unit_i, unit_j = unit.unbind(0)
    return (unit_i * unit_j).sum(-1).clamp(0.0, 1.0).square()


def fuse_matched(
    colors_i: Float[Tensor, "*rays 3"], colors_j: Float[Tensor, "*rays 3"], match: Float[Tensor, "*rays"]
) -> tuple[Float[Tensor, "*rays 3"], Float[Tensor, "*rays 3"]]:
    """Colours of both rays with the partner's share ``match``: ``w c_j + (1 - w) c_i`` and the reverse (Eq. 4)."""
    moved = match[..., None] * (colors_j - colors_i)
    return colors_i + moved, colors_j - moved


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
