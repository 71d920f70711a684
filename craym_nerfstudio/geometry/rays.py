"""Rays in space: their directions in the world, where many of them meet, and the camera that a bundle of them is.

A camera *is* a bundle of rays (Cameras as Rays, Zhang et al. 2024). Here a ray is its Pluecker coordinates: the unit
direction d and the moment ``m = o x d`` of any of its points o, [..., 6]. Both ways are differentiable and batched.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.geometry.alignment import nearest_rotation

_PULL = 1e-6
"""Regularisation of `focus_point` towards the mean origin, which decides what parallel lines leave open."""


def transform_directions(c2w: Float[Tensor, "*b 3 4"], directions: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Camera-frame directions (bearings) in world axes; lengths are kept, batches broadcast."""
    return (c2w[..., :3] @ directions[..., None]).squeeze(-1)


def tangent_frames(directions: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotations whose rows are two tangents of the sphere at unit directions, and the directions."""
    # The axis least aligned with the direction keeps the cross product away from zero.
    helper = torch.nn.functional.one_hot(directions.abs().argmin(-1), 3).to(directions)
    first = torch.nn.functional.normalize(torch.linalg.cross(helper, directions), dim=-1)
    return torch.stack([first, torch.linalg.cross(directions, first), directions], dim=-2)


def pluecker(origins: Float[Tensor, "*b 3"], directions: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 6"]:
    """Rays through points along directions of any length."""
    unit = torch.nn.functional.normalize(directions, dim=-1)
    return torch.cat([unit, torch.linalg.cross(origins, unit, dim=-1)], dim=-1)


def rays_of_camera(c2w: Float[Tensor, "*b 3 4"], bearings: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 6"]:
    """Rays in the world of a camera's bearings."""
    directions = bearings @ c2w[..., :3].mT
    return pluecker(c2w[..., None, :, 3].expand_as(directions), directions)


def camera_of_rays(
    rays: Float[Tensor, "*b n 6"], bearings: Float[Tensor, "*b n 3"], weights: Float[Tensor, "*b n"] | None = None
) -> Float[Tensor, "*b 3 4"]:
    """Camera-to-world pose whose bearings these rays are, by (weighted) least squares; undoes `rays_of_camera`.

    The centre is the point nearest to all rays, of which two must cross; the rotation the Procrustes solution of the
    directions.
    """
    directions, moments = rays.split(3, dim=-1)
    share = torch.ones_like(rays[..., 0]) if weights is None else weights
    # The point of a ray that is nearest to the origin.
    center = meeting_point(torch.linalg.cross(directions, moments, dim=-1), directions, share)
    rotation = nearest_rotation((share[..., None] * directions).mT @ bearings)
    return torch.cat([rotation, center[..., None]], dim=-1)


def pinhole_of_rays(
    directions: Float[Tensor, "*b n 3"], pixels: Float[Tensor, "*b n 2"], weights: Float[Tensor, "*b n"] | None = None
) -> tuple[Float[Tensor, "*b 2"], Float[Tensor, "*b 2"], Float[Tensor, "*b 3 3"]]:
    """Focal lengths [px], principal point (x, y) [px] and camera-to-world rotation of rays through known pixels.

    Closed form, for at least four directions of which no three lie in a plane: the linear map from directions to pixels
    (direct linear transform, in least squares), taken apart into intrinsics without skew and a rotation.
    """
    share = torch.ones_like(directions[..., 0]) if weights is None else weights
    middle, spread = pixels.mean(-2, keepdim=True), pixels.std((-2, -1), keepdim=True)
    plane = (pixels - middle) / spread
    # Right, down and ahead of pixel p are H d: the cross product of (p, 1) and H d is zero.
    none = torch.zeros_like(directions)
    first = torch.cat([directions, none, -plane[..., :1] * directions], dim=-1)
    second = torch.cat([none, directions, -plane[..., 1:] * directions], dim=-1)
    rows = torch.cat([first, second], dim=-2)
    _, vectors = torch.linalg.eigh(rows.mT @ (torch.cat([share, share], dim=-1)[..., None] * rows))
    linear = vectors[..., 0].unflatten(-1, (3, 3))
    ahead = (directions @ linear[..., 2:, :].mT).sum((-2, -1)).sign()
    linear = ahead[..., None, None] * linear / linear[..., 2:, :].norm(dim=-1, keepdim=True)
    # Rows are f (right) + c (ahead) and ahead, of unit length: what they have in common is the principal point.
    center = linear[..., :2, :] @ linear[..., 2, :, None]
    axes = linear[..., :2, :] - center * linear[..., 2:, :]
    focal = axes.norm(dim=-1, keepdim=True)
    right, down = (axes / focal).unbind(-2)
    w2c = torch.stack([right, -down, -linear[..., 2, :]], dim=-2)
    return (spread * focal)[..., 0], (spread * center + middle.mT)[..., 0], nearest_rotation(w2c.mT)


def meeting_point(
    origins: Float[Tensor, "*b n 3"],
    directions: Float[Tensor, "*b n 3"],
    weights: Float[Tensor, "*b n"],
    pull: float = 0.0,
) -> Float[Tensor, "*b 3"]:
    """Point with the least (weighted) squared distances from lines, and, `pull` times as much, from the mean origin."""
    identity = torch.eye(3, dtype=origins.dtype, device=origins.device)
    projectors = identity - directions[..., None] * directions[..., None, :]
    share = (weights / weights.sum(-1, keepdim=True))[..., None, None]
    center = origins.mean(-2)
    normal = (share * projectors).sum(-3) + pull * identity
    target = (share * projectors @ (origins - center[..., None, :])[..., None]).sum(-3)
    offset, _ = torch.linalg.solve_ex(normal, target)
    return center + offset[..., 0]


def focus_point(origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> Float[Tensor, "3"]:
    """World point nearest to all lines in the least squares sense, e.g. what a set of cameras looks at.

    The lines are reweighted (Geman-McClure, scale 1.5 x median distance), so that a few stray cameras do not drag the
    point. With parallel lines the point nearest to the mean origin is returned.
    """
    weights, point = torch.ones_like(origins[:, 0]), origins.mean(0)
    for _ in range(10):
        point = meeting_point(origins, directions, weights, _PULL)
        offset = point - origins
        squared_distance = torch.linalg.cross(offset, directions, dim=-1).square().sum(-1)
        squared_scale = (2.25 * squared_distance.median()).clamp_min(torch.finfo(origins.dtype).tiny)
        weights = (squared_scale / (squared_scale + squared_distance)).square()
    return point
