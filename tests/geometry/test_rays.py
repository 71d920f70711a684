"""Rays: closest points with hand values, parallel rays, and the point that cameras look at."""

import torch

from craym_nerfstudio.geometry.lie import se3_exp
from craym_nerfstudio.geometry.rays import (
    closest_points_on_rays,
    focus_point,
    points_on_rays,
    transform_directions,
    transform_points,
)
from tests.dome import make_dome


def test_closest_points_of_two_axes() -> None:
    x, y = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0])
    closest = closest_points_on_rays(torch.tensor([-2.0, 0, 0]), x, torch.tensor([0.0, -3, 1]), y)
    assert closest.points_1.tolist() == [0, 0, 0] and closest.points_2.tolist() == [0, 0, 1]
    assert float(closest.depths_1) == 2 and float(closest.depths_2) == 3


def test_matched_rays_meet_on_the_surface() -> None:
    dome = make_dome()
    c2w = dome.c2w[dome.views]
    directions = transform_directions(c2w, dome.bearings)
    closest = closest_points_on_rays(c2w[:, 0, :, 3], directions[:, 0], c2w[:, 1, :, 3], directions[:, 1])
    torch.testing.assert_close(closest.points_1, dome.points)
    torch.testing.assert_close(closest.points_2, dome.points)
    torch.testing.assert_close(torch.stack([closest.depths_1, closest.depths_2], -1), dome.depths)


def test_parallel_rays_give_finite_points_and_gradients() -> None:
    origins = torch.tensor([[0.0, 0, 0], [1.0, 2, 3]], requires_grad=True)
    direction = torch.tensor([0.0, 0, 1], requires_grad=True)
    closest = closest_points_on_rays(origins[0], direction, origins[1], direction)
    assert closest.points_1.tolist() == [0, 0, 3] and closest.points_2.tolist() == [1, 2, 3]
    (closest.points_1 - closest.points_2).square().sum().backward()
    assert origins.grad is not None and torch.isfinite(origins.grad).all()
    assert direction.grad is not None and torch.isfinite(direction.grad).all()


def test_closest_points_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    rays = [torch.randn(3, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    unit = torch.nn.functional.normalize
    assert torch.autograd.gradcheck(
        lambda o1, d1, o2, d2: closest_points_on_rays(o1, unit(d1, dim=-1), o2, unit(d2, dim=-1))[:2], rays
    )


def test_transforms_agree_with_each_other() -> None:
    motion = se3_exp(torch.randn(4, 1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    points = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = transform_points(motion, points) - motion[..., 3]
    torch.testing.assert_close(moved, transform_directions(motion, points))
    depths = torch.full((4, 5), 2.0, dtype=torch.float64)
    torch.testing.assert_close(points_on_rays(moved, points, depths), moved + 2 * points)


def test_focus_point_ignores_a_stray_camera() -> None:
    dome = make_dome(cameras=10)
    target = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    origins, directions = dome.c2w[..., 3].clone(), torch.nn.functional.normalize(target - dome.c2w[..., 3], dim=-1)
    # The regularisation towards the mean origin moves the point by its weight, a millionth of the distance.
    torch.testing.assert_close(focus_point(origins, directions, robust=False), target, rtol=0, atol=1e-4)
    directions[0] = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    plain = (focus_point(origins, directions, robust=False) - target).norm()
    robust = (focus_point(origins, directions) - target).norm()
    assert plain > 0.05 and robust < 1e-3


def test_focus_point_of_parallel_rays_is_finite() -> None:
    origins = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    point = focus_point(origins, torch.tensor([0.0, 0.0, 1.0]).expand(5, 3))
    assert torch.isfinite(point).all()
