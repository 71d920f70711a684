"""What losses see of matched key rays that were rendered."""

import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.layout import RayLayout
from craym_nerfstudio.rendering.key_rays import fuse_matched, matchability
from craym_nerfstudio.rendering.renderer import Rendered


def key_outputs(rendered: Rendered, points: Float[Tensor, "rays 3"], layout: RayLayout) -> dict[str, Tensor]:
    """Matchability, fused colours and surface points (of the unit frame) of the matched key rays."""
    assert rendered.ray_feature is not None
    # Unbinding, unlike indexing, is undone by one operation in the backward pass.
    w = matchability(*rendered.ray_feature.unflatten(0, (-1, 2)).unbind(1))
    first, second = rendered.rgb[layout.heads].unflatten(0, (-1, 2)).unbind(1)
    return {
        "matchability": w,
        "key_fused_rgb": torch.stack(fuse_matched(first, second, w), dim=1),
        "key_points": points[layout.heads].unflatten(0, (-1, 2)),
        "key_accumulation": rendered.accumulation[layout.heads].unflatten(0, (-1, 2)),
    }
