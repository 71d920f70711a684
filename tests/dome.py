"""An analytic two-view world for tests: cameras on a dome around a sphere, and exact matches of its surface points."""

from dataclasses import dataclass

import torch
from torch import Tensor

FOCAL_PX = 500.0


@dataclass
class Dome:
    """Exact poses and matches: views i and j [matches], bearings [matches, 2, 3], depths [matches, 2], points."""

    c2w: Tensor
    views: Tensor
    bearings: Tensor
    depths: Tensor
    points: Tensor


def look_at(position: Tensor, target: Tensor) -> Tensor:
    """OpenGL c2w [n,3,4] of cameras at `position` [n,3] that look at `target` [3] with z up."""
    backward = torch.nn.functional.normalize(position - target, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=position.dtype).expand_as(position)
    right = torch.nn.functional.normalize(torch.linalg.cross(up, backward, dim=-1), dim=-1)
    return torch.stack([right, torch.linalg.cross(backward, right, dim=-1), backward, position], dim=-1)


def make_dome(
    cameras: int = 8, points: int = 60, seed: int = 0, dtype: torch.dtype = torch.float64, around: bool = False
) -> Dome:
    """Cameras 3 to 4 units from the origin, on a sector or all around, and the points of the unit sphere they share."""
    generator = torch.Generator().manual_seed(seed)
    azimuth = (torch.rand(cameras, generator=generator, dtype=dtype) * 2 - 1) * (torch.pi if around else 1.0)
    height = torch.rand(cameras, generator=generator, dtype=dtype) * 0.6 + 0.2
    ring = torch.stack([azimuth.cos(), azimuth.sin(), height], dim=-1)
    distance = 3 + torch.rand(cameras, 1, generator=generator, dtype=dtype)
    centers = distance * torch.nn.functional.normalize(ring, dim=-1)
    c2w = look_at(centers, torch.zeros(3, dtype=dtype))
    surface = torch.nn.functional.normalize(torch.randn(points, 3, generator=generator, dtype=dtype), dim=-1)
    # A point of a convex body is seen by a camera above its tangent plane.
    seen = (centers @ surface.T) > 1.05
    pair_i, pair_j = torch.triu_indices(cameras, cameras, 1)
    pair, point = (seen[pair_i] & seen[pair_j]).nonzero(as_tuple=True)
    views = torch.stack([pair_i[pair], pair_j[pair]], dim=-1)
    local = (surface[point][:, None] - c2w[views][..., 3])[..., None, :] @ c2w[views][..., :3]
    depths = local.squeeze(-2).norm(dim=-1)
    return Dome(c2w, views, local.squeeze(-2) / depths[..., None], depths, surface[point])
