"""Points from the rays that see them."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from craym_nerfstudio.geometry.rays import transform_directions
from craym_nerfstudio.sfm.ray_graph import Poses

_ROUNDS = 6


def triangulate(
    c2w: Poses, image: Int[np.ndarray, " obs"], bearing: Float[np.ndarray, "obs 3"], track: Int[np.ndarray, " obs"]
) -> tuple[Int[np.ndarray, " obs"], Float[Tensor, "points 3"], Float[np.ndarray, " points"]]:
    """Point number of every observation, points, and widest angle (radians, approximate) between a point's rays.

    Points lie nearest to their rays, each ray weighted by distance and, robustly, by how far it passes.
    """
    numbers, point = np.unique(track, return_inverse=True)
    index, count = torch.from_numpy(point), len(numbers)
    camera = torch.from_numpy(image)
    origin = c2w[camera, :, 3]
    direction = transform_directions(c2w[camera], torch.from_numpy(bearing))
    projector = torch.eye(3, dtype=c2w.dtype) - direction[:, :, None] * direction[:, None, :]
    weight = torch.ones_like(origin[:, 0])
    points = c2w.new_zeros(count, 3)
    for _ in range(_ROUNDS):
        weighted = weight[:, None, None] * projector
        normal = c2w.new_zeros(count, 3, 3).index_add_(0, index, weighted)
        target = c2w.new_zeros(count, 3).index_add_(0, index, (weighted @ origin[..., None]).squeeze(-1))
        # A feather of regularisation keeps parallel rays solvable; they are dropped by their angle.
        normal = normal + torch.diag_embed(1e-9 * normal.diagonal(dim1=1, dim2=2).mean(-1, keepdim=True).expand(-1, 3))
        points = torch.linalg.solve(normal, target[..., None]).squeeze(-1)
        offset = points[index] - origin
        sine = (projector @ offset[..., None]).squeeze(-1).norm(dim=-1) / offset.norm(dim=-1).clamp_min(1e-12)
        scale = (2.0 * torch.from_numpy(median_per_group(sine.numpy(), point, count))[index]).clamp_min(1e-5)
        weight = 1 / (1 + (sine / scale).square()) / offset.square().sum(-1).clamp_min(1e-12)
    mean = c2w.new_zeros(count, 3).index_add_(0, index, direction)
    mean = torch.nn.functional.normalize(mean, dim=-1)
    apart = torch.linalg.cross(mean[index], direction, dim=-1).norm(dim=-1)
    widest = c2w.new_zeros(count).scatter_reduce_(0, index, apart, "amax")
    return point, points, 2 * widest.numpy()


def median_per_group(
    values: Float[np.ndarray, " n"], group: Int[np.ndarray, " n"], count: int
) -> Float[np.ndarray, " count"]:
    """Lower median of the values of each of `count` groups; NaN for groups without any."""
    order = np.lexsort((values, group))
    numbers, start, size = np.unique(group[order], return_index=True, return_counts=True)
    medians = np.full(count, np.nan)
    medians[numbers] = values[order][start + (size - 1) // 2]
    return medians
