"""Photos compared with each other on the surface that is rendered, patch by patch.

Rendered colours can be explained by many shapes and poses; a patch that looks alike in its neighbours through a plane
on the surface cannot (NeuralWarp, Darmon et al. 2022; Geo-NeuS, Fu et al. 2022). Colours are not asked for, only how
they vary within the patch, so that exposure and shine over the whole of it do not matter.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

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


def consistency_loss(photos: Photos, rays: SurfaceRays, c2w: Float[Tensor, "images 3 4"]) -> Float[Tensor, ""]:
    """Mean of 1 - NCC between patches round surface points and the neighbours that see them best.

    Args:
        c2w: poses of all images in the unit frame. They get no gradient, the surface and its normals do: patches that
            are no planes pull cameras off (docs/results.md).
    """
    c2w = c2w.detach()
    count, turn, center = len(rays.image), c2w[..., :3], c2w[..., 3]
    own_turn = turn.index_select(0, rays.image)
    bearing = (rays.directions[:, None] @ own_turn)[:, 0]
    patch = patch_bearings(bearing, photos.pixel.index_select(0, rays.image))
    views = _views(rays, photos)
    point = rays.origins + rays.distance[:, None] * rays.directions
    there = center.index_select(0, views.flatten()).unflatten(0, views.shape)
    # One motion per patch and neighbour: from bearings of its own photo to those under which others see its plane.
    motion = plane_motion(rays.origins, point, rays.normals, there)
    turns = turn.index_select(0, views.flatten()).unflatten(0, views.shape)
    motion = turns.mT @ motion @ own_turn[:, None]
    everywhere = torch.cat([patch[:, None], (motion @ patch.mT[:, None]).mT], dim=1)
    images = torch.cat([rays.image[:, None], views], dim=1)
    grey, known = (each.unflatten(0, images.shape) for each in photos.at(images.flatten(), everywhere.flatten(0, 1)))
    visible, reference = known.all(-1), grey[:, :1]
    facing = (F.normalize(there - point[:, None], dim=-1) * rays.normals[:, None]).sum(-1) > _LEAST_FACING
    cost = torch.where(visible[:, 1:] & facing, 1.0 - correlation(reference, grey[:, 1:]), 2.0)
    best = cost.topk(_KEPT, dim=-1, largest=False).values
    contrast = reference[:, 0].var(-1, correction=0).detach()
    weight = contrast / (contrast + _CONTRAST**2) * (visible[:, 0] & (rays.distance > 0))
    return (best * (best < _MOST_COST) * weight[:, None]).sum() / max(_KEPT * count, 1)


def _views(rays: SurfaceRays, photos: Photos) -> Int[Tensor, "n views"]:
    """Which photos each ray is looked up in: of the neighbours every other one, the first of them for even rays.

    That is as good as a draw, for rays are drawn anew at each step.
    """
    number = torch.arange(len(rays.image), device=rays.image.device)[:, None]
    columns = number % 2 + 2 * torch.arange(_VIEWS, device=rays.image.device)
    return photos.neighbours.index_select(0, rays.image).gather(1, columns)


def patch_bearings(bearing: Float[Tensor, "n 3"], pixel: Float[Tensor, "n 2"]) -> Float[Tensor, "n points 3"]:
    """Bearings through the pixels of a square round each bearing, row by row, at distance 1 before the camera."""
    middle = bearing / -bearing[:, 2:]
    return middle[:, None] + _square(bearing.device, bearing.dtype) * F.pad(pixel, (0, 1))[:, None]


def plane_motion(
    origin: Float[Tensor, "n 3"],
    point: Float[Tensor, "n 3"],
    normal: Float[Tensor, "n 3"],
    other: Float[Tensor, "n views 3"],
) -> Float[Tensor, "n views 3 3"]:
    """What takes directions from one centre to directions, from others, of where they meet a plane (a homography).

    A direction d meets the plane at ``origin + s d``; from c it is seen along ``(origin - c) + s d``. Times ``-n.d``,
    which is positive where the plane faces the first centre: ``(c - origin) (n.d) + (n.(origin - point)) d``.
    """
    height = ((origin - point) * normal).sum(-1)
    away = (other - origin[:, None])[..., None] * normal[:, None, None, :]
    return away + height[:, None, None, None] * torch.eye(3, dtype=normal.dtype, device=normal.device)


def correlation(first: Float[Tensor, "*b points"], second: Float[Tensor, "*b points"]) -> Float[Tensor, "*b"]:
    """Normalised cross correlation in [-1, 1], 0 where one of them does not vary."""
    first, second = first - first.mean(-1, keepdim=True), second - second.mean(-1, keepdim=True)
    variances = first.square().mean(-1) * second.square().mean(-1)
    return (first * second).mean(-1) / (variances + 1e-8).sqrt()


@lru_cache(maxsize=2)
def _square(device: torch.device, dtype: torch.dtype) -> Float[Tensor, "points 3"]:
    """Pixels (across, up, 0) of a patch from its middle, row by row."""
    steps = torch.arange(-_RADIUS_PX, _RADIUS_PX + 1, dtype=dtype)
    down, across = torch.cartesian_prod(steps, steps).unbind(-1)
    return torch.stack([across, -down, torch.zeros_like(across)], dim=-1).to(device)
