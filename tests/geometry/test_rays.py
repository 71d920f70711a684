"""Rays: directions in the world by hand, the point that cameras look at, cameras as bundles of rays and back."""

import torch

from craym_nerfstudio.geometry.lie import rotation_angle_deg, so3_exp
from craym_nerfstudio.geometry.rays import (
    camera_of_rays,
    focus_point,
    meeting_point,
    pinhole_of_rays,
    pluecker,
    rays_of_camera,
    transform_directions,
)
from tests.dome import make_dome


def random_cameras(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Poses [2, 3, 3, 4], pixels of an 800 x 600 image [2, 3, 12, 2] and their bearings, focal lengths 700 and 720."""
    generator = torch.Generator().manual_seed(seed)
    rotation = so3_exp(2 * torch.randn(2, 3, 3, generator=generator, dtype=torch.float64))
    center = 3 * torch.randn(2, 3, 3, 1, generator=generator, dtype=torch.float64)
    pixels = torch.rand(2, 3, 12, 2, generator=generator, dtype=torch.float64) * torch.tensor([800.0, 600.0])
    plane = (pixels - torch.tensor([410.0, 290.0])) / torch.tensor([700.0, 720.0])
    local = torch.stack([plane[..., 0], -plane[..., 1], -torch.ones_like(plane[..., 0])], dim=-1)
    return torch.cat([rotation, center], dim=-1), pixels, torch.nn.functional.normalize(local, dim=-1)


def test_directions_turn_with_their_camera() -> None:
    """A quarter turn about z takes the camera's x axis to the world's y axis, wherever the camera stands."""
    c2w = torch.tensor([[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7]])
    assert transform_directions(c2w, torch.tensor([2.0, 0, 0])).tolist() == [0, 2, 0]


def test_focus_point_ignores_a_stray_camera() -> None:
    dome = make_dome(cameras=10)
    target = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    origins, directions = dome.c2w[..., 3].clone(), torch.nn.functional.normalize(target - dome.c2w[..., 3], dim=-1)
    # The regularisation towards the mean origin moves the point by its weight, a millionth of the distance.
    torch.testing.assert_close(focus_point(origins, directions), target, rtol=0, atol=1e-4)
    directions[0] = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    projectors = torch.eye(3, dtype=torch.float64) - directions[:, :, None] * directions[:, None]
    plain = torch.linalg.solve(projectors.sum(0), (projectors @ origins[..., None]).sum(0))[:, 0]
    assert (plain - target).norm() > 0.05 and (focus_point(origins, directions) - target).norm() < 1e-3


def test_focus_point_of_parallel_rays_is_finite() -> None:
    origins = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    point = focus_point(origins, torch.tensor([0.0, 0.0, 1.0]).expand(5, 3))
    assert torch.isfinite(point).all()


def test_pluecker_coordinates_by_hand_and_from_any_point_of_the_ray() -> None:
    """Along x through (0, 0, 2): the moment is (0, 2, 0), wherever on the ray one starts."""
    expected = torch.tensor([1.0, 0, 0, 0, 2, 0])
    assert torch.equal(pluecker(torch.tensor([0.0, 0, 2]), torch.tensor([3.0, 0, 0])), expected)
    torch.testing.assert_close(pluecker(torch.tensor([-7.0, 0, 2]), torch.tensor([1.0, 0, 0])), expected)


def test_a_camera_is_its_bundle_of_rays() -> None:
    c2w, _, bearings = random_cameras()
    rays = rays_of_camera(c2w, bearings)
    torch.testing.assert_close(camera_of_rays(rays, bearings), c2w, rtol=0, atol=1e-10)
    torch.testing.assert_close(rays_of_camera(camera_of_rays(rays, bearings), bearings), rays, rtol=0, atol=1e-10)
    # Batched as one by one, and rays without weight do not count.
    torch.testing.assert_close(camera_of_rays(rays[1, 2], bearings[1, 2]), c2w[1, 2], rtol=0, atol=1e-10)
    wrong, weights = rays.clone(), torch.ones_like(rays[..., 0])
    wrong[..., 3, :], weights[..., 3] = torch.randn(6).double(), 0.0
    torch.testing.assert_close(camera_of_rays(wrong, bearings, weights), c2w, rtol=0, atol=1e-10)


def test_noisy_rays_give_the_camera_about_as_well_as_they_are_many() -> None:
    c2w, _, bearings = (part[0, :1] for part in random_cameras())
    many = bearings.repeat(1, 300, 1)
    rays = rays_of_camera(c2w, many)
    noisy = rays + 0.01 * torch.randn(rays.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = camera_of_rays(pluecker(torch.linalg.cross(noisy[..., :3], noisy[..., 3:]), noisy[..., :3]), many)
    assert float(rotation_angle_deg(found[..., :3].mT @ c2w[..., :3])) < 0.1
    assert float((found - c2w)[..., 3].norm()) < 0.02


def test_intrinsics_and_rotation_follow_from_rays_through_pixels() -> None:
    c2w, pixels, bearings = random_cameras()
    focal, center, rotation = pinhole_of_rays(rays_of_camera(c2w, bearings)[..., :3], pixels)
    torch.testing.assert_close(focal, torch.tensor([700.0, 720.0]).double().expand(2, 3, 2), rtol=1e-8, atol=0)
    torch.testing.assert_close(center, torch.tensor([410.0, 290.0]).double().expand(2, 3, 2), rtol=1e-8, atol=0)
    torch.testing.assert_close(rotation, c2w[..., :3], rtol=0, atol=1e-8)
    weights = torch.ones_like(pixels[..., 0])
    pixels[..., 5, :], weights[..., 5] = 0.0, 0.0
    focal, _, _ = pinhole_of_rays(rays_of_camera(c2w, bearings)[..., :3], pixels, weights)
    torch.testing.assert_close(focal, torch.tensor([700.0, 720.0]).double().expand(2, 3, 2), rtol=1e-8, atol=0)


def test_gradients_of_cameras_and_intrinsics_by_their_rays() -> None:
    """In units of the image's width, or the finite differences would be of pixels."""
    c2w, pixels, bearings = (part[0, 0] for part in random_cameras())
    noise = 0.01 * torch.randn(12, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rays = (rays_of_camera(c2w, bearings) + noise).requires_grad_()
    weights = torch.linspace(0.5, 1.5, 12, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda r, w: camera_of_rays(r, bearings, w), (rays, weights))
    directions = rays.detach()[:, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda d, w: pinhole_of_rays(d, pixels / 800, w), (directions, weights))
    assert torch.autograd.gradcheck(lambda p: rays_of_camera(p, bearings), (c2w.clone().requires_grad_(),))


def test_two_lines_meet_half_way_and_weights_shift_the_point() -> None:
    """Along x at height 0 and along y at height 1: the squared distances are least at the mean height."""
    origins, directions = torch.tensor([[5.0, 0, 0], [0, 7, 1]]), torch.eye(3)[:2]
    torch.testing.assert_close(meeting_point(origins, directions, torch.ones(2)), torch.tensor([0.0, 0, 0.5]))
    weighted = meeting_point(origins, directions, torch.tensor([3.0, 1.0]))
    torch.testing.assert_close(weighted, torch.tensor([0.0, 0, 0.25]))
