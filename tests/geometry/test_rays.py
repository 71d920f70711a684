"""Rays: directions in the world by hand, and the point that cameras look at."""

import torch

from craym_nerfstudio.geometry.rays import focus_point, transform_directions
from tests.dome import make_dome


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
