"""Two-view geometry on bearings: relative pose, essential matrix, epipolar distances as angles.

Bearings are unit directions in the camera's frame, so that any lens model and focal length fits; an angle in radians
times the focal length is a distance in pixels. A pair's motion is ``x_j = R x_i + t`` and its constraint ``x_j . (E
x_i) = 0`` with ``E = [t]x R``; both hold in OpenGL and in OpenCV axes as long as motion and bearings use the same
ones.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from craym_nerfstudio.geometry.lie import skew

_MOST_INVERSE = 0.999
"""Of a guarded length, as a share of what the guard makes of none."""


def relative_pose(c2w_i: Float[Tensor, "*b 3 4"], c2w_j: Float[Tensor, "*b 3 4"]) -> Float[Tensor, "*b 3 4"]:
    """Motion ``[R | t]`` that takes points from camera i's frame to camera j's: ``x_j = R x_i + t``.

    The difference of the centres comes first: of equal ones nothing is left, in map coordinates too.
    """
    turn = c2w_j[..., :3].transpose(-1, -2)
    return turn @ torch.cat([c2w_i[..., :3], (c2w_i[..., 3] - c2w_j[..., 3])[..., None]], dim=-1)


def essential_from_motion(motion: Float[Tensor, "*b 3 4"]) -> Float[Tensor, "*b 3 3"]:
    """Essential matrix ``[t]x R`` of a relative pose, at the scale of its translation."""
    return skew(motion[..., 3]) @ motion[..., :3]


def essential(c2w_i: Float[Tensor, "*b 3 4"], c2w_j: Float[Tensor, "*b 3 4"]) -> Float[Tensor, "*b 3 3"]:
    """Essential matrix of two posed cameras: ``x_j . (E x_i) = 0`` for bearings of one world point."""
    return essential_from_motion(relative_pose(c2w_i, c2w_j))


def sampson_distance(
    essential_ij: Float[Tensor, "*b 3 3"], bearings_i: Float[Tensor, "*b 3"], bearings_j: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b"]:
    """Least joint rotation, in radians, of both unit bearings that fulfils the epipolar constraint, to first order;
    >= 0.

    Well behaved near the epipoles, where a point-to-line distance is not. Does not depend on the scale of
    `essential_ij`; 0 when it vanishes (a pair without baseline constrains nothing).
    """
    plane_in_j = (essential_ij @ bearings_i[..., None]).squeeze(-1)
    plane_in_i = (essential_ij.transpose(-1, -2) @ bearings_j[..., None]).squeeze(-1)
    residual = (bearings_j * plane_in_j).sum(-1)
    # Gradient of the residual on the two spheres of directions.
    tangent_i = plane_in_i - residual[..., None] * bearings_i
    tangent_j = plane_in_j - residual[..., None] * bearings_j
    return residual.abs() / _guarded(tangent_i.square().sum(-1) + tangent_j.square().sum(-1)).sqrt()


def sampson_distance_of_rays(
    origins: Float[Tensor, "*b 2 3"], directions: Float[Tensor, "*b 2 3"]
) -> Float[Tensor, "*b"]:
    """`sampson_distance` of two rays of the world, their directions of length 1.

    The same number without essential matrices, a third of the operations where every match has poses of its own.
    """
    return _DistanceOfRays.apply(origins, directions)


class _DistanceOfRays(torch.autograd.Function):
    """See `sampson_distance_of_rays`; its derivative by autograd takes twice as many operations."""

    @staticmethod
    def forward(ctx: Any, origins: Tensor, directions: Tensor) -> Tensor:
        baseline = (origins[..., 0, :] - origins[..., 1, :])[..., None, :].expand_as(directions)
        normals = torch.linalg.cross(baseline, directions, dim=-1)
        residual = (directions[..., 1, :] * normals[..., 0, :]).sum(-1)
        # Of both normals only what is tangent to the other ray's sphere of directions counts (Pythagoras).
        tangent = torch.addcmul(normals.square().sum((-2, -1)), residual, residual, value=-2.0)
        inverse = _guarded(tangent).rsqrt()
        distance = residual.abs() * inverse
        ctx.save_for_backward(baseline, directions, normals, residual, inverse, distance)
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """With e the residual ``t.(d_i x d_j)`` and T the sum of squares under the root, d = abs(e) / sqrt(T)."""
        baseline, directions, normals, residual, inverse, distance = ctx.saved_tensors
        pull = gradient * inverse
        # Where the root is guarded, T is no longer what it hangs on.
        distance = distance * (inverse < _MOST_INVERSE * torch.finfo(inverse.dtype).eps ** -1)
        signed = pull * residual.sign()
        by_residual = torch.addcmul(signed, signed * distance, distance, value=2.0)[..., None]
        by_squares = (pull * distance * inverse)[..., None, None] * normals
        first, second = directions.unbind(-2)
        by_directions = torch.linalg.cross(baseline, by_squares, dim=-1)
        by_directions[..., 0, :].addcmul_(by_residual, normals[..., 1, :], value=-1.0)
        by_directions[..., 1, :].addcmul_(by_residual, normals[..., 0, :])
        by_baseline = torch.linalg.cross(by_squares, directions, dim=-1).sum(-2)
        by_baseline.addcmul_(by_residual, torch.linalg.cross(first, second, dim=-1))
        return torch.stack([by_baseline, -by_baseline], dim=-2), by_directions


def _guarded(squared_length: Tensor) -> Tensor:
    """Keeps a denominator off zero: both bearings on the epipoles, or no baseline."""
    return squared_length.clamp_min(torch.finfo(squared_length.dtype).eps ** 2)
