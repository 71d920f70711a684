"""Two-view geometry on bearings: relative pose, essential matrix, epipolar distances as angles.

Bearings are unit directions in the camera's frame, so that any lens model and focal length fits; an angle in radians
times the focal length is a distance in pixels. A pair's motion is ``x_j = R x_i + t`` and its constraint ``x_j . (E
x_i) = 0`` with ``E = [t]x R``; both hold in OpenGL and in OpenCV axes as long as motion and bearings use the same
ones.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.geometry.lie import skew


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
    baseline: Float[Tensor, "*b 3"], directions_i: Float[Tensor, "*b 3"], directions_j: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b"]:
    """`sampson_distance` of two rays of the world: unit directions, and the vector between their origins.

    The same number without essential matrices, a third of the operations where every match has poses of its own.
    """
    normals = torch.linalg.cross(baseline[None], torch.stack([directions_i, directions_j]), dim=-1)
    residual = (directions_j * normals[0]).sum(-1)
    # Of both normals only what is tangent to the other ray's sphere of directions counts (Pythagoras).
    tangent = torch.addcmul(normals.square().sum((0, -1)), residual, residual, value=-2.0)
    return residual.abs() / _guarded(tangent).sqrt()


def _guarded(squared_length: Tensor) -> Tensor:
    """Keeps a denominator off zero: both bearings on the epipoles, or no baseline."""
    return squared_length.clamp_min(torch.finfo(squared_length.dtype).eps ** 2)
