"""What splats look like from a camera, as 3D Gaussian Splatting composites them, with derivatives; on a CPU."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from craym_nerfstudio.fields.color_field import spherical_harmonics
from craym_nerfstudio.geometry.axes import flip_pose_axes
from craym_nerfstudio.geometry.pinhole import Pinhole
from craym_nerfstudio.kernels.loader import load_kernels
from craym_nerfstudio.kernels.threads import equal_ranges, run_parallel, thread_count

_LOW_PASS_PX2 = 0.3
"""What the paper's renderer adds to the variance of every splat in the picture."""
_REACH = 3.0
_LEAST_DEPTH = 1e-2
_SIGNS = torch.tensor([1.0, -1.0] * 8)
"""Of the harmonics of Gaussian splatting against those of the colour field."""


@dataclass
class Gaussians:
    """Splats by numbers that may take any value; single precision, on the CPU."""

    means: Float[Tensor, "n 3"]
    axes: Float[Tensor, "n 3 3"]
    """Columns."""
    log_sigmas: Float[Tensor, "n 3"]
    logits: Float[Tensor, " n"]
    """Of the opacities."""
    harmonics: Float[Tensor, "n basis 3"]
    """Colours are 0.5 + their sum, at least 0."""


def harmonics_of(directions: Float[Tensor, "n 3"], basis: int) -> Float[Tensor, "n basis"]:
    """The first harmonics of unit directions from a camera, with the signs of Gaussian splatting."""
    return spherical_harmonics(directions)[:, :basis] * _SIGNS[:basis].to(directions)


def picture_of(splats: Gaussians, view: Pinhole, background: Float[np.ndarray, "3"]) -> Float[Tensor, "h w 3"]:
    """The picture that a camera takes of splats; differentiable by all of them but their axes and order."""
    turn = torch.from_numpy(flip_pose_axes(view.c2w)[:, :3].T.copy()).float()
    towards = splats.means - torch.from_numpy(view.c2w[:, 3].copy()).float()
    local = towards @ turn.T
    nearest = local[:, 2].detach().argsort(stable=True)
    order = nearest[local[nearest, 2] > _LEAST_DEPTH].numpy()
    depth = local[:, 2:].clamp_min(_LEAST_DEPTH)
    focal, center = (torch.from_numpy(np.asarray(each)).float() for each in (view.focal_px, view.center_px))
    plane = local[:, :2] / depth
    spread = (turn @ splats.axes) * splats.log_sigmas.exp()[:, None]
    rows = (focal / depth)[..., None] * (spread[:, :2] - plane[..., None] * spread[:, 2:])
    xx, yy = (rows.square().sum(-1) + _LOW_PASS_PX2).unbind(-1)
    xy = (rows[:, 0] * rows[:, 1]).sum(-1)
    precision = torch.stack([yy, -xy, xx], dim=-1) / (xx * yy - xy.square())[:, None]
    reach = _REACH * torch.stack([xx, yy], dim=-1).detach().sqrt()
    basis = harmonics_of(torch.nn.functional.normalize(towards.detach(), dim=-1), splats.harmonics.shape[1])
    colors = (0.5 + (basis[..., None] * splats.harmonics).sum(1)).clamp_min(0.0)
    given = plane * focal + center, precision, splats.logits.sigmoid(), colors
    return _Composite.apply(*given, reach, order, view.size_px, background)  # type: ignore[no-untyped-call]


class _Composite(torch.autograd.Function):
    """Splats in a picture, front to back; bands of rows on all cores."""

    @staticmethod
    def forward(
        ctx: Any,
        pixels: Float[Tensor, "n 2"],
        precision: Float[Tensor, "n 3"],
        opacities: Float[Tensor, " n"],
        colors: Float[Tensor, "n 3"],
        reach: Float[Tensor, "n 2"],
        order: Int[np.ndarray, " k"],
        size_px: tuple[int, int],
        background: Float[np.ndarray, "3"],
    ) -> Float[Tensor, "h w 3"]:
        given = [each.detach().numpy() for each in (pixels, precision, reach, opacities, colors)]
        width, height = size_px
        image, left = np.zeros((height, width, 3), np.float32), np.ones((height, width), np.float32)
        native, bands = _kernels(), equal_ranges(height, thread_count())
        run_parallel([partial(native.composite, *band, order, *given, image, left) for band in bands])
        image += left[..., None] * background.astype(np.float32)
        ctx.given, ctx.order, ctx.image, ctx.bands = given, order, image, bands
        return torch.from_numpy(image)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Float[Tensor, "h w 3"]) -> tuple[Tensor | None, ...]:
        image, native, by_image = ctx.image, _kernels(), slope.contiguous().numpy()
        left, so_far = np.ones(image.shape[:2], np.float32), np.zeros_like(image)
        slopes = np.zeros((len(ctx.bands), len(ctx.given[0]), 9), np.float32)
        rest = ctx.order, *ctx.given, image, by_image, left, so_far
        pieces = zip(ctx.bands, slopes, strict=True)
        run_parallel([partial(native.pull_back, *band, *rest, mine) for band, mine in pieces])
        total = torch.from_numpy(slopes.sum(0))
        return total[:, :2], total[:, 2:5], total[:, 5], total[:, 6:], None, None, None, None


def _kernels() -> Any:
    return load_kernels("craym_nerfstudio.export.splat_kernel", "composite", "Splats")
