"""Rotations and rigid motions: exponential and logarithm maps, composition, the 6-D rotation of the paper.

A tangent vector is ``xi = [translation, rotation]``, its rotation of at most two turns. All maps are smooth through
zero: their coefficients come from Taylor series in the squared angle, because ``sin(x) / x`` evaluated with
``x = sqrt(0)`` would send infinite gradients into the poses at the first step.
"""

import math
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

_SPAN, _TERMS = 158.0, 34
"""Squared angle, of two full turns, up to which so many terms of the Taylor series are enough for float64."""


def skew(vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Matrix of the cross product: ``skew(a) @ b == cross(a, b)``."""
    rows = vector[..., None, :].expand(*vector.shape, 3)
    return torch.linalg.cross(rows, _identity(vector.dtype, vector.device).expand_as(rows), dim=-1).mT


@lru_cache(maxsize=8)
def _identity(dtype: torch.dtype, device: torch.device) -> Float[Tensor, "3 3"]:
    return torch.eye(3, dtype=dtype).to(device)


@lru_cache(maxsize=8)
def _series(dtype: torch.dtype, device: torch.device) -> Float[Tensor, "terms 7"]:
    """Powers, and Taylor coefficients by them of `_exp_coefficients` and of their slopes, in ``x^2 / _SPAN``."""
    rows = []
    for k in range(_TERMS):
        values = [(-1) ** k * _SPAN**k / math.factorial(2 * k + j) for j in (1, 2, 3)]
        slopes = [(-1) ** (k + 1) * (k + 1) * _SPAN**k / math.factorial(2 * k + 2 + j) for j in (1, 2, 3)]
        rows.append([k, *values, *slopes])
    return torch.tensor(rows, dtype=dtype).to(device)


class _Coefficients(torch.autograd.Function):
    """See `_exp_coefficients`; with their slopes by ``x^2``, which by autograd cost fifty operations.

    The series at all angles: closed forms beside it, for large ones alone, would cost thirty operations more.
    """

    @staticmethod
    def forward(ctx: Any, squared_angle: Tensor) -> Tensor:
        series = _series(squared_angle.dtype, squared_angle.device)
        values, slopes = ((squared_angle / _SPAN) ** series[:, 0] @ series[:, 1:]).split(3, dim=-1)
        ctx.save_for_backward(slopes)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (slopes,) = ctx.saved_tensors
        return (gradient * slopes).sum(-1, keepdim=True)


@lru_cache(maxsize=8)
def _generators(dtype: torch.dtype, device: torch.device) -> Float[Tensor, "7 3 4"]:
    """``[skew(rotation) | translation]`` of the six unit twists, then the motion of none."""
    unit = torch.eye(6, dtype=dtype)
    generators = torch.cat([skew(unit[:, 3:]), unit[:, :3, None]], dim=-1)
    return torch.cat([generators, torch.eye(3, 4, dtype=dtype)[None]]).to(device)


def _exp_coefficients(squared_angle: Float[Tensor, "*b 1 1"]) -> tuple[Tensor, Tensor, Tensor]:
    """``sin(x)/x``, ``(1-cos x)/x^2``, ``(x-sin x)/x^3`` as functions of ``x^2``."""
    sine, cosine, cubic = _Coefficients.apply(squared_angle).split(1, dim=-1)
    return sine, cosine, cubic


def so3_exp(rotation_vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrix of a rotation vector in radians (Rodrigues)."""
    sine, cosine, _ = _exp_coefficients((rotation_vector * rotation_vector).sum(-1)[..., None, None])
    generator = skew(rotation_vector)
    identity = _identity(rotation_vector.dtype, rotation_vector.device)
    return identity + sine * generator + cosine * (generator @ generator)


def quaternion_from_rotation(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Unit quaternion (w, x, y, z) with w >= 0 of a rotation matrix; accurate and differentiable at every angle."""
    r = rotation
    xx, yy, zz = r[..., 0, 0], r[..., 1, 1], r[..., 2, 2]
    wx, wy, wz = r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]
    xy, xz, yz = r[..., 1, 0] + r[..., 0, 1], r[..., 0, 2] + r[..., 2, 0], r[..., 2, 1] + r[..., 1, 2]
    # 4 q q^T; its row of greatest diagonal is a multiple of q whose length is at least 2.
    rows = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, wx, wy, wz], dim=-1),
            torch.stack([wx, 1 + xx - yy - zz, xy, xz], dim=-1),
            torch.stack([wy, xy, 1 - xx + yy - zz, yz], dim=-1),
            torch.stack([wz, xz, yz, 1 - xx - yy + zz], dim=-1),
        ],
        dim=-2,
    )
    best = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = torch.take_along_dim(rows, best[..., None, None].expand(*best.shape, 1, 4), dim=-2).squeeze(-2)
    quaternion = row / row.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def so3_log(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Rotation vector in radians, of length <= pi, of a rotation matrix."""
    quaternion = quaternion_from_rotation(rotation)
    real, imaginary = quaternion[..., :1], quaternion[..., 1:]
    squared_sine = (imaginary * imaginary).sum(-1, keepdim=True)
    small = squared_sine < 1e-3
    s = torch.where(small, squared_sine, torch.zeros_like(squared_sine))
    series = 1 + s * (1 / 6 + s * (3 / 40 + s * (5 / 112 + s * 35 / 1152)))
    sine = torch.where(small, torch.ones_like(squared_sine), squared_sine).sqrt()
    return 2 * torch.where(small, series, torch.atan2(sine, real) / sine) * imaginary


def rotation_angle_deg(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    """Angle of a rotation matrix in degrees, in [0, 180]; its gradient at the identity is 0."""
    quaternion = quaternion_from_rotation(rotation)
    squared_sine = (quaternion[..., 1:] ** 2).sum(-1)
    moved = squared_sine > 0
    sine = torch.where(moved, squared_sine, torch.ones_like(squared_sine)).sqrt()
    return torch.rad2deg(2 * torch.atan2(torch.where(moved, sine, torch.zeros_like(sine)), quaternion[..., 0]))


def se3_exp(xi: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3 4"]:
    """Rigid motion of a twist ``[translation, rotation]``: the exponential map of SE(3)."""
    rotation_vector = xi[..., 3:]
    _, cosine, cubic = _exp_coefficients((rotation_vector * rotation_vector).sum(-1)[..., None, None])
    generators = _generators(xi.dtype, xi.device)
    first = (xi @ generators[:6].flatten(1)).unflatten(-1, (3, 4))
    turn = first[..., :3]
    # The cube of a generator X of a motion, of which the last row is 0, says what all its further powers are.
    second = turn @ first
    return torch.addcmul(torch.addcmul(generators[6] + first, cosine, second), cubic, turn @ second)


def so3xr3_exp(xi: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3 4"]:
    """Rigid motion ``[exp(rotation) | translation]``: rotation and translation independent of each other."""
    return torch.cat([so3_exp(xi[..., 3:]), xi[..., :3, None]], dim=-1)


def compose(a: Float[Tensor, "*b 3 4"], b: Float[Tensor, "*b 3 4"]) -> Float[Tensor, "*b 3 4"]:
    """Rigid motion that applies ``b`` first, then ``a`` (the matrix product of the 4x4 forms); batches broadcast."""
    rotation = a[..., :3] @ b[..., :3]
    translation = a[..., :3] @ b[..., 3:] + a[..., 3:]
    return torch.cat([rotation, translation], dim=-1)


def inverse(motion: Float[Tensor, "*b 3 4"]) -> Float[Tensor, "*b 3 4"]:
    """Inverse of a rigid motion: c2w to w2c and back."""
    transposed = motion[..., :3].transpose(-1, -2)
    return torch.cat([transposed, -transposed @ motion[..., 3:]], dim=-1)


def rotation_from_6d(vectors: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation whose first two columns are two 3-vectors made orthonormal by Gram-Schmidt (paper Eq. 8)."""
    first = torch.nn.functional.normalize(vectors[..., :3], dim=-1)
    second = vectors[..., 3:] - (first * vectors[..., 3:]).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second, dim=-1)], dim=-1)
