"""Rays in space: directions of the world, points on a ray, where two rays come closest, where many rays meet."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class ClosestPoints(NamedTuple):
    """Where two lines come closest: a point on each and its (possibly negative) distance along the ray."""

    points_1: Float[Tensor, "*b 3"]
    points_2: Float[Tensor, "*b 3"]
    depths_1: Float[Tensor, "*b"]
    depths_2: Float[Tensor, "*b"]


def transform_directions(c2w: Float[Tensor, "*b 3 4"], directions: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Camera-frame directions (bearings) in world axes; lengths are kept, batches broadcast."""
    return (c2w[..., :3] @ directions[..., None]).squeeze(-1)


def transform_points(c2w: Float[Tensor, "*b 3 4"], points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Points under a rigid motion; batches broadcast."""
    return (c2w[..., :3] @ points[..., None] + c2w[..., 3:]).squeeze(-1)


def points_on_rays(
    origins: Float[Tensor, "*b 3"], directions: Float[Tensor, "*b 3"], depths: Float[Tensor, "*b"]
) -> Float[Tensor, "*b 3"]:
    """Points ``o + t d``: at Euclidean distance ``depths`` for unit directions."""
    return origins + depths[..., None] * directions


def closest_points_on_rays(
    origins_1: Float[Tensor, "*b 3"],
    directions_1: Float[Tensor, "*b 3"],
    origins_2: Float[Tensor, "*b 3"],
    directions_2: Float[Tensor, "*b 3"],
) -> ClosestPoints:
    """Closest points of two lines given by rays with unit directions.

    Parallel lines have no unique answer: the point nearest to the other origin is taken, with finite gradients.
    Depths are negative behind an origin.
    """
    offset = origins_2 - origins_1
    cosine = (directions_1 * directions_2).sum(-1)
    along_1 = (offset * directions_1).sum(-1)
    along_2 = (offset * directions_2).sum(-1)
    # |d1 x d2|^2 instead of 1 - cos^2, which cancels for nearly parallel rays in float32.
    squared_sine = torch.linalg.cross(directions_1, directions_2, dim=-1).square().sum(-1)
    parallel = squared_sine < torch.finfo(squared_sine.dtype).eps
    safe = torch.where(parallel, torch.ones_like(squared_sine), squared_sine)
    depths_1 = torch.where(parallel, along_1, (along_1 - cosine * along_2) / safe)
    depths_2 = cosine * depths_1 - along_2
    points_1 = points_on_rays(origins_1, directions_1, depths_1)
    points_2 = points_on_rays(origins_2, directions_2, depths_2)
    return ClosestPoints(points_1, points_2, depths_1, depths_2)


def focus_point(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], robust: bool = True, rounds: int = 10
) -> Float[Tensor, "3"]:
    """World point nearest to all lines in the least squares sense, e.g. what a set of cameras looks at.

    `robust` reweights the lines (Geman-McClure, scale 1.5 x median distance), so that a few stray cameras do not drag
    the point. With parallel lines the point nearest to the mean origin is returned.
    """
    identity = torch.eye(3, dtype=origins.dtype, device=origins.device)
    projectors = identity - directions[:, :, None] * directions[:, None, :]
    center = origins.mean(0)
    weights = torch.ones_like(origins[:, 0])
    point = center
    for _ in range(rounds if robust else 1):
        # A feather of regularisation towards the mean origin decides what parallel lines leave open.
        normal = (weights[:, None, None] * projectors).mean(0) + 1e-6 * weights.mean() * identity
        target = (weights[:, None, None] * projectors @ (origins - center)[..., None]).mean(0)
        point = center + torch.linalg.solve(normal, target).squeeze(-1)
        squared_distance = (projectors @ (point - origins)[..., None]).squeeze(-1).square().sum(-1)
        squared_scale = (2.25 * squared_distance.median()).clamp_min(torch.finfo(origins.dtype).tiny)
        weights = (squared_scale / (squared_scale + squared_distance)).square()
    return point
