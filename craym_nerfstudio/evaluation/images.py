"""Image metrics of rendered views, and pictures of them."""

import functools
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from nerfstudio.utils import colormaps
from torch import Tensor

from craym_nerfstudio.console import warn

_DIFFERENCE_GAIN = 4.0
"""A quarter of the range has the brightest colour of pictures of differences."""
_LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"


@functools.cache
def lpips_metric() -> Any | None:
    """LPIPS (AlexNet), or None, with the reason printed once, where its weights are not on the machine: no download."""
    weights = Path(torch.hub.get_dir()) / "checkpoints" / _LPIPS_WEIGHTS
    if not weights.exists():
        warn(f"LPIPS is left out: its AlexNet weights are not on this machine ({weights}).")
        return None
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).eval()


@torch.no_grad()
def image_metrics(
    rendered: Float[Tensor, "h w 3"], image: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w 1"] | None = None
) -> dict[str, float]:
    """PSNR (dB), SSIM and, when available, LPIPS; pixels outside the mask count neither for nor against."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    rendered = rendered.clamp(0.0, 1.0)
    squared = (rendered - image).square()
    if mask is not None:
        mask = mask.to(image.device).bool()
        squared = squared[mask.expand_as(squared)]
        rendered = torch.where(mask, rendered, image)
    predicted, target = (value.permute(2, 0, 1)[None] for value in (rendered, image))
    similarity = structural_similarity_index_measure(predicted, target, data_range=1.0)
    assert isinstance(similarity, Tensor)
    metrics = {"psnr": float(-10.0 * torch.log10(squared.mean().clamp_min(1e-10))), "ssim": float(similarity)}
    lpips = lpips_metric()
    if lpips is not None:
        metrics["lpips"] = float(lpips.to(image.device)(predicted, target))
    return metrics


@torch.no_grad()
def image_panels(outputs: dict[str, Tensor], image: Float[Tensor, "h w 3"]) -> dict[str, Float[Tensor, "h w2 3"]]:
    """Photo beside rendering, how they differ, and the opacity, depth and normals of the rendering."""
    rgb, opacity, depth = outputs["rgb"].clamp(0.0, 1.0), outputs["accumulation"], outputs["depth"]
    # Rays that hit nothing have a far depth: they would leave a single colour for all surfaces.
    surface = depth[opacity > 0.5]
    near, far = (float(surface.min()), float(surface.max())) if len(surface) else (0.0, 1.0)
    return {
        "img": torch.cat([image, rgb], dim=1),
        "difference": colormaps.apply_colormap(
            (_DIFFERENCE_GAIN * (image - rgb).abs().mean(-1, keepdim=True)).clamp(max=1.0)
        ),
        "accumulation": colormaps.apply_colormap(opacity),
        "depth": colormaps.apply_depth_colormap(depth, opacity, near, far),
        "normals": outputs["normals"] * opacity + (1.0 - opacity),
    }
