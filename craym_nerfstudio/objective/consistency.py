"""Photos compared with each other on the surface that is rendered, patch by patch.

Rendered colours can be explained by many shapes and poses; a patch that looks alike in its neighbours through a plane
on the surface cannot (NeuralWarp, Darmon et al. 2022; Geo-NeuS, Fu et al. 2022). Colours are not asked for, only how
they vary within the patch, so that exposure and shine over the whole of it do not matter.

The gradients are found along with the loss, in closed form: by autograd the loss takes three times as many operations,
and on a GPU the number of these is what a step waits for.
"""

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.layout import Photos, SurfaceRays

COMPARED_RAYS = 256
"""Rays per step whose surface points are compared: the first, which are drawn at random."""
_RADIUS_PX = 2
"""Of a patch: of 5 x 5 pixels."""
_VIEWS, _KEPT = 4, 2
"""Neighbours that a patch is looked up in, and how many of these that agree best count: others see something else."""
_MOST_COST = 0.7
"""A neighbour that agrees less sees something else, or the surface is too far off for its pixels to tell the way."""
_LEAST_FACING = 0.15
"""Cosine between the surface's normal and a view below which a patch is too distorted to be compared."""
_CONTRAST = 0.02
"""Standard deviation of a patch at which it counts half: what varies less has nothing to compare."""
_UNIFORM = 1e-8
"""Product of variances at which a correlation is halved, about: where nothing varies it is 0."""
_GRAZED = 1e-6
"""Distance from a camera to the plane of a surface below which its photo does not see it, in the unit frame."""


def consistency_loss(
    photos: Photos, rays: SurfaceRays, c2w: Float[Tensor, "images 3 4"], unit_from_world: Similarity
) -> Float[Tensor, ""]:
    """Mean of 1 - NCC between patches round surface points and the neighbours that see them best.

    Args:
        c2w: poses of all images in the world. They get no gradient, the surface and its normals do: patches that are
            no planes pull cameras off (docs/results.md).
        unit_from_world: without a turn, as a region's.
    """
    return _Consistency.apply(rays.distance, rays.normals, rays, photos, c2w.detach(), unit_from_world)


class _Consistency(torch.autograd.Function):
    """See `consistency_loss`."""

    @staticmethod
    def forward(
        ctx: Any,
        distance: Tensor,
        normals: Tensor,
        rays: SurfaceRays,
        photos: Photos,
        c2w: Tensor,
        unit_from_world: Similarity,
    ) -> Tensor:
        # A patch's own photo comes first, then its neighbours.
        images = compared_images(rays.image, photos.neighbours)
        turn, center = c2w.index_select(0, images.flatten()).unflatten(0, images.shape).split([3, 1], dim=-1)
        away = unit_from_world.lengths(center[:, :1] - center)
        directions, normals = rays.directions, normals[..., None]
        pixels = patch_axes(directions, turn[:, 0], photos.pixel.index_select(0, rays.image))
        slant = normals.mT @ pixels
        reach = distance[:, None] * slant[:, 0, 2:]
        square = _square(distance.device, distance.dtype)
        bearings = turn.mT @ plane_motion(pixels, slant, reach, away) @ square.mT
        values, slopes, known = (
            each.unflatten(0, images.shape)
            for each in photos.at(images.flatten(), bearings.flatten(0, 1), (turn.mT @ away)[..., 0].flatten(0, 1))
        )
        towards = torch.addcmul(away, distance[:, None, None, None], directions[:, None, :, None])[..., 0]
        length = torch.linalg.vector_norm(towards, dim=-1, keepdim=True)
        facing = torch.baddbmm(length, towards, normals, beta=_LEAST_FACING)[..., 0] < 0
        agreement, contrast, rise = correlation(values)
        cost = torch.rsub(agreement * (known & facing)[:, 1:], 1.0)
        best, which = cost.topk(_KEPT, dim=-1, largest=False)
        weight = contrast / (contrast + len(square) * _CONTRAST**2) * (known[:, :1] / max(_KEPT * len(images), 1))
        share = weight * (best < _MOST_COST)
        chosen = torch.zeros_like(cost).scatter_(1, which, share)
        # Up to here the loss; from here how it falls as a plane, seen along each pixel of a patch, comes nearer.
        fall = chosen[:, None] @ (rise * slopes[:, 1:])
        by_slant = (fall @ square).mT
        # Whatever is seen hangs on the ratio of `slant` and `reach` alone.
        by_reach = (slant @ by_slant)[..., 0] / reach.clamp_max(-_GRAZED)
        by_normal = torch.baddbmm(
            ((by_reach * distance[:, None]) * directions)[..., None], pixels, by_slant, alpha=-1.0
        )
        ctx.save_for_backward(by_reach[:, 0] * slant[:, 0, 2], by_normal[..., 0])
        return torch.dot(best.flatten(), share.flatten())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        by_distance, by_normal = ctx.saved_tensors
        return gradient * by_distance, gradient * by_normal, None, None, None, None


def compared_images(image: Int[Tensor, " n"], neighbours: Int[Tensor, "images k"]) -> Int[Tensor, "n views"]:
    """Photos that each ray is looked up in: its own, and of the neighbours every other one, the first for even rays.

    That is as good as a draw, for rays are drawn anew at each step.
    """
    columns = _columns(len(image), image.device)
    others = neighbours.index_select(0, image).gather(1, columns)
    return torch.cat([image[:, None], others], dim=1)


def patch_axes(
    directions: Float[Tensor, "n 3"], turn: Float[Tensor, "n 3 3"], pixel: Float[Tensor, "n 2"]
) -> Float[Tensor, "n 3 3"]:
    """What takes a place of a square (px across, px up, -1) to the direction, turned round, through that pixel.

    Args:
        directions: of the world, through the middles.
        turn: of the cameras, to the world.
        pixel: see `layout.Photos`.
    """
    depth = (directions[:, None] @ turn)[..., 2]
    return torch.cat([turn[..., :2] * (depth * pixel)[:, None], directions[..., None]], dim=-1)


def plane_motion(
    axes: Float[Tensor, "n 3 3"],
    slant: Float[Tensor, "n 1 3"],
    reach: Float[Tensor, "n 1"],
    away: Float[Tensor, "n views 3 1"],
) -> Float[Tensor, "n views 3 3"]:
    """What takes places of a patch to directions, from other centres, of where they meet a plane (a homography).

    A direction r from o meets the plane through p with normal n at ``o + (n.(p - o) / n.r) r``; from c it is seen along
    ``(o - c) + ...``. Times ``-n.r``, which is positive where the plane faces o: ``(o - c) (-n.r) + n.(p - o) (-r)``.

    Args:
        axes: from places to ``-r``; see `patch_axes`.
        slant: from places to ``-n.r``.
        reach: ``n.(p - o)``.
        away: ``o - c``.
    """
    return torch.addcmul((reach[..., None] * axes)[:, None], away, slant[:, None])


def correlation(
    values: Float[Tensor, "n views points"],
) -> tuple[Float[Tensor, "n others"], Float[Tensor, "n 1"], Float[Tensor, "n others points"]]:
    """Normalised cross correlation in [-1, 1] of each first view with the others, 0 where one of them does not vary.

    Returns also the sum of the squares by which the first view varies, and how the correlations rise with the others'
    values.
    """
    points = values.shape[-1]
    squares, mean = torch.var_mean(values, -1, correction=points - 1, keepdim=True)  # divided by 1
    centered = values - mean
    first, others, contrast = centered[:, :1], centered[:, 1:], squares[:, 0]
    inverse = (contrast[:, None] * squares[:, 1:] + points**2 * _UNIFORM).rsqrt()
    agreement = (others @ first.mT) * inverse
    rise = inverse * torch.addcmul(first, others, agreement * inverse * contrast[:, None], value=-1.0)
    return agreement[..., 0], contrast, rise


@lru_cache(maxsize=2)
def _columns(rays: int, device: torch.device) -> Int[Tensor, "rays views"]:
    """Which of its neighbours each ray is looked up in."""
    return (torch.arange(rays)[:, None] % 2 + 2 * torch.arange(_VIEWS)).to(device)


@lru_cache(maxsize=2)
def _square(device: torch.device, dtype: torch.dtype) -> Float[Tensor, "points 3"]:
    """Pixels (across, up, -1) of a patch from its middle, row by row."""
    steps = torch.arange(-_RADIUS_PX, _RADIUS_PX + 1, dtype=dtype)
    down, across = torch.cartesian_prod(steps, steps).unbind(-1)
    return torch.stack([across, -down, -torch.ones_like(across)], dim=-1).to(device)
