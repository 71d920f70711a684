"""Rays in space: their directions in the world, and where many of them meet."""

import torch
from jaxtyping import Float
from torch import Tensor


def transform_directions(c2w: Float[Tensor, "*b 3 4"], directions: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Camera-frame directions (bearings) in world axes; lengths are kept, batches broadcast."""
    return (c2w[..., :3] @ directions[..., None]).squeeze(-1)


def tangent_frames(directions: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotations whose rows are two tangents of the sphere at unit directions, and the directions."""
    # The axis least aligned with the direction keeps the cross product away from zero.
    helper = torch.nn.functional.one_hot(directions.abs().argmin(-1), 3).to(directions)
    first = torch.nn.functional.normalize(torch.linalg.cross(helper, directions), dim=-1)
    return torch.stack([first, torch.linalg.cross(directions, first), directions], dim=-2)


def focus_point(origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> Float[Tensor, "3"]:
    """World point nearest to all lines in the least squares sense, e.g. what a set of cameras looks at.

    The lines are reweighted (Geman-McClure, scale 1.5 x median distance), so that a few stray cameras do not drag the
    point. With parallel lines the point nearest to the mean origin is returned.
    """
    identity = torch.eye(3, dtype=origins.dtype, device=origins.device)
    projectors = identity - directions[:, :, None] * directions[:, None, :]
    center = origins.mean(0)
    weights = torch.ones_like(origins[:, 0])
    point = center
    for _ in range(10):
        # A feather of regularisation towards the mean origin decides what parallel lines leave open.
        normal = (weights[:, None, None] * projectors).mean(0) + 1e-6 * weights.mean() * identity
        target = (weights[:, None, None] * projectors @ (origins - center)[..., None]).mean(0)
        point = center + torch.linalg.solve(normal, target).squeeze(-1)
        squared_distance = (projectors @ (point - origins)[..., None]).squeeze(-1).square().sum(-1)
        squared_scale = (2.25 * squared_distance.median()).clamp_min(torch.finfo(origins.dtype).tiny)
        weights = (squared_scale / (squared_scale + squared_distance)).square()
    return point
