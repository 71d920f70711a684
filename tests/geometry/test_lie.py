"""Lie groups: the axioms, the closed forms against the matrix exponential, and the singular points."""

import math

import pytest
import torch

from craym_nerfstudio.geometry.lie import (
    compose,
    inverse,
    rotation_angle_deg,
    rotation_from_6d,
    se3_exp,
    skew,
    so3_exp,
    so3_log,
    so3xr3_exp,
)

ANGLES = [0.0, 1e-9, 1e-5, 1e-2, 0.22, 0.2237, 1.0, 3.0, math.pi - 1e-6]


def vectors(angle: float, count: int = 8, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Random vectors of one length."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(count, 3, generator=generator, dtype=dtype)
    return raw / raw.norm(dim=-1, keepdim=True) * angle


def motions(*batch: int, seed: int = 0) -> torch.Tensor:
    """Random rigid motions."""
    return se3_exp(torch.randn(*batch, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


@pytest.mark.parametrize("angle", ANGLES)
def test_exponential_is_the_matrix_exponential(angle: float) -> None:
    rotation = vectors(angle)
    twist = torch.cat([vectors(2.0).flip(0), rotation], dim=-1)
    generator = torch.zeros(len(twist), 4, 4, dtype=torch.float64)
    generator[:, :3, :3], generator[:, :3, 3] = skew(rotation), twist[:, :3]
    expected = torch.linalg.matrix_exp(generator)[:, :3]
    torch.testing.assert_close(se3_exp(twist), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(so3_exp(rotation), expected[..., :3], rtol=0, atol=1e-14)
    assert torch.equal(so3xr3_exp(twist)[..., 3], twist[:, :3])


@pytest.mark.parametrize("angle", ANGLES)
def test_logarithm_inverts_the_exponential(angle: float) -> None:
    rotation = vectors(angle)
    torch.testing.assert_close(so3_log(so3_exp(rotation)), rotation, rtol=1e-9, atol=1e-12)
    expected = torch.full((8,), math.degrees(angle), dtype=torch.float64)
    torch.testing.assert_close(rotation_angle_deg(so3_exp(rotation)), expected, rtol=1e-9, atol=1e-9)


def test_half_turns_have_a_logarithm() -> None:
    rotation = vectors(math.pi)
    again = so3_exp(so3_log(so3_exp(rotation)))
    torch.testing.assert_close(again, so3_exp(rotation), rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 3)])
def test_group_axioms(batch: tuple[int, ...]) -> None:
    a, b, c = (motions(*batch, seed=seed) for seed in range(3))
    identity = torch.eye(4, dtype=torch.float64)[:3].expand(*batch, 3, 4)
    torch.testing.assert_close(compose(compose(a, b), c), compose(a, compose(b, c)))
    torch.testing.assert_close(compose(a, inverse(a)), identity, rtol=0, atol=1e-14)
    torch.testing.assert_close(inverse(compose(a, b)), compose(inverse(b), inverse(a)))
    torch.testing.assert_close(compose(a, identity), a)
    rotation = a[..., :3]
    torch.testing.assert_close(rotation @ rotation.mT, identity[..., :3], rtol=0, atol=1e-14)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(batch, dtype=torch.float64))


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    twist = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, math.pi / 2])
    expected = torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]])
    torch.testing.assert_close(se3_exp(twist), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.2, 1.0, 3.0])
def test_gradients_match_finite_differences(angle: float) -> None:
    twist = torch.cat([vectors(1.0, 3).flip(0), vectors(angle, 3)], dim=-1).requires_grad_()
    assert torch.autograd.gradcheck(se3_exp, twist)
    assert torch.autograd.gradcheck(so3xr3_exp, twist)
    assert torch.autograd.gradcheck(lambda xi: so3_log(so3_exp(xi[..., 3:])), twist)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [0.0, math.pi])
def test_gradients_are_finite_at_the_singular_points(angle: float, dtype: torch.dtype) -> None:
    twist = torch.cat([vectors(1.0, dtype=dtype), vectors(angle, dtype=dtype)], dim=-1).requires_grad_()
    motion = se3_exp(twist)
    (motion.sum() + so3_log(motion[..., :3]).sum() + rotation_angle_deg(motion[..., :3]).sum()).backward()
    assert twist.grad is not None and torch.isfinite(twist.grad).all()
    assert motion.dtype == dtype


def test_float32_keeps_small_rotations() -> None:
    rotation = vectors(1e-4, dtype=torch.float32)
    torch.testing.assert_close(so3_log(so3_exp(rotation)), rotation, rtol=1e-4, atol=0)


def test_rotation_from_6d_orthonormalises() -> None:
    rotation = motions(5)[..., :3]
    raw = torch.cat([2 * rotation[..., 0], rotation[..., 1] + 3 * rotation[..., 0]], dim=-1).requires_grad_()
    torch.testing.assert_close(rotation_from_6d(raw), rotation)
    assert torch.autograd.gradcheck(rotation_from_6d, raw)
    parallel = torch.ones(6, requires_grad=True)
    rotation_from_6d(parallel).sum().backward()
    assert parallel.grad is not None and torch.isfinite(parallel.grad).all()


def test_rotations_of_up_to_two_turns() -> None:
    """Against powers of a rotation by a sixteenth of the angle."""
    axis = torch.tensor([1.0, -2.0, 2.0], dtype=torch.float64) / 3
    for angle in (0.3, 3.1, 6.3, 9.0, 12.5):
        part = so3_exp(angle / 16 * axis)
        torch.testing.assert_close(so3_exp(angle * axis), part.matrix_power(16), rtol=0, atol=1e-11)
