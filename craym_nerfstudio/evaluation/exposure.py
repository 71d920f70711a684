"""Rendered views and their photos at one exposure: the photo's to judge a view, the model's to refine its pose."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor
from torch.nn.functional import interpolate

_LIMIT = 4.0
_SMALL_PX = 64
"""Longer side of the rendering that tells a photo's exposure."""


@torch.no_grad()
def fitted_gain(
    rendered: Float[Tensor, "h w 3"], image: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w 1"] | None = None
) -> Float[Tensor, "3"]:
    """Gain per channel that brings a rendering closest to its photo, in closed form over the pixels of the mask."""
    rendered = rendered.clamp(0.0, 1.0)
    weights = torch.ones_like(rendered) if mask is None else mask.to(image.device).expand_as(rendered).float()
    over, under = (torch.stack([rendered * image, rendered.square()]) * weights).sum((1, 2)) + 1e-6
    return (over / under).clamp(1.0 / _LIMIT, _LIMIT)


def as_rendered(
    render: Callable[[Cameras], Float[Tensor, "h w 3"]],
    camera: Cameras,
    image: Float[Tensor, "h w 3"],
    mask: Bool[Tensor, "h w 1"] | None = None,
) -> Float[Tensor, "h w 3"]:
    """A photo at the exposure of what is rendered from its camera, by a small rendering of it."""
    small = camera[...]
    small.rescale_output_resolution(_SMALL_PX / max(image.shape[:2]))
    rendered = render(small)
    if mask is not None:
        mask = _shrunk(mask.to(image.device).float(), rendered) > 0.99
    return image / fitted_gain(rendered, _shrunk(image, rendered), mask)


def _shrunk(image: Float[Tensor, "h w c"], like: Float[Tensor, "h2 w2 3"]) -> Float[Tensor, "h2 w2 c"]:
    size = (like.shape[0], like.shape[1])
    return interpolate(image.permute(2, 0, 1)[None], size, mode="area")[0].permute(1, 2, 0)
