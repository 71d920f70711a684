"""Epipolar geometry: zero at the truth, hand values, axes, invariance to similarities, and degenerate pairs."""

import pytest
import torch

from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.geometry.axes import flip_motion_axes, flip_pose_axes
from craym_nerfstudio.geometry.epipolar import (
    essential,
    essential_from_motion,
    relative_pose,
    sampson_distance,
    sampson_distance_of_rays,
)
from craym_nerfstudio.geometry.lie import compose, se3_exp, so3_exp
from craym_nerfstudio.geometry.rays import transform_directions
from tests.dome import make_dome


def pair_poses(dome, c2w=None):
    """Poses of both views of every match."""
    poses = (dome.c2w if c2w is None else c2w)[dome.views]
    return poses[:, 0], poses[:, 1]


def test_exact_matches_have_no_distance() -> None:
    dome = make_dome()
    assert len(dome.views) > 100
    residuals = sampson_distance(essential(*pair_poses(dome)), dome.bearings[:, 0], dome.bearings[:, 1])
    assert residuals.max() < 1e-14


def test_distances_ignore_a_global_similarity() -> None:
    dome = make_dome()
    generator = torch.Generator().manual_seed(3)
    turned = dome.c2w[..., :3] @ so3_exp(0.1 * torch.randn(8, 3, generator=generator).double())
    noisy = torch.cat([turned, dome.c2w[..., 3:]], -1)
    rotation, translation = so3_exp(torch.randn(3, generator=generator).double()), torch.randn(3, generator=generator)
    similarity = Similarity(torch.tensor(37.0).double(), rotation, translation.double())
    before = sampson_distance(essential(*pair_poses(dome, noisy)), dome.bearings[:, 0], dome.bearings[:, 1])
    moved = similarity.poses(noisy)
    after = sampson_distance(essential(*pair_poses(dome, moved)), dome.bearings[:, 0], dome.bearings[:, 1])
    assert before.median() > 0.01
    torch.testing.assert_close(before, after, rtol=1e-9, atol=1e-14)


def test_a_sideways_pair_measures_vertical_offset() -> None:
    """Baseline along x: the epipolar lines are horizontal, and only the elevation of a bearing counts."""
    motion = torch.eye(4, dtype=torch.float64)[:3].clone()
    motion[0, 3] = -1.0
    angle = torch.tensor(0.01, dtype=torch.float64)
    forward = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    raised = torch.stack([torch.zeros_like(angle), angle.sin(), -angle.cos()])
    matrix = essential_from_motion(motion)
    # Sampson shares the correction between both views: each moves by half of it.
    assert float(sampson_distance(matrix, forward, raised)) == pytest.approx(0.01 / 2**0.5, rel=1e-4)


def test_motion_takes_points_between_camera_frames() -> None:
    dome = make_dome()
    pose_i, pose_j = pair_poses(dome)
    local = dome.bearings * dome.depths[..., None]
    motion = relative_pose(pose_i, pose_j)
    moved = (motion[..., :3] @ local[:, 0, :, None]).squeeze(-1) + motion[..., 3]
    torch.testing.assert_close(moved, local[:, 1])


def test_opencv_and_opengl_axes_give_the_same_residuals() -> None:
    dome = make_dome(seed=1)
    pose_i, pose_j = pair_poses(dome, dome.c2w + 0.01)
    opengl = sampson_distance(essential(pose_i, pose_j), dome.bearings[:, 0], dome.bearings[:, 1])
    flipped = dome.bearings * torch.tensor([1.0, -1.0, -1.0])
    turned_i, turned_j = (torch.from_numpy(flip_pose_axes(pose.numpy())) for pose in (pose_i, pose_j))
    torch.testing.assert_close(sampson_distance(essential(turned_i, turned_j), flipped[:, 0], flipped[:, 1]), opengl)
    motion = flip_motion_axes(relative_pose(pose_i, pose_j).numpy())
    torch.testing.assert_close(torch.from_numpy(motion), relative_pose(turned_i, turned_j))


def test_gradients_match_finite_differences() -> None:
    dome = make_dome(cameras=4, points=10)
    pose_i, pose_j = (pose[:4] for pose in pair_poses(dome))
    xi = 0.1 * torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def residuals(twist):
        moved = torch.cat([pose_i[..., :3] @ se3_exp(twist)[..., :3], pose_i[..., 3:] + twist[..., :3, None]], -1)
        return sampson_distance(essential(moved, pose_j), dome.bearings[:4, 0], dome.bearings[:4, 1])

    assert torch.autograd.gradcheck(residuals, xi.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_pairs_are_finite(dtype: torch.dtype) -> None:
    """No baseline, and both bearings on the epipoles (straight forward motion)."""
    pose = torch.eye(4, dtype=dtype)[:3].repeat(2, 1, 1)
    ahead = torch.tensor([0.0, 0.0, -1.0], dtype=dtype).expand(2, 3)
    shift = torch.tensor([[0.0, 0, 0], [0.0, 0, -1]], dtype=dtype, requires_grad=True)
    moved = torch.cat([pose[..., :3], shift[..., None]], -1)
    residuals = sampson_distance(essential(pose, moved), ahead, ahead)
    residuals.square().sum().backward()
    assert torch.equal(residuals, torch.zeros_like(residuals))
    assert shift.grad is not None and torch.isfinite(shift.grad).all()


def test_float32_agrees_with_float64() -> None:
    dome = make_dome()
    noisy = dome.c2w + 0.01 * torch.randn(dome.c2w.shape, generator=torch.Generator().manual_seed(0)).double()
    exact = sampson_distance(essential(*pair_poses(dome, noisy)), dome.bearings[:, 0], dome.bearings[:, 1])
    bearings = dome.bearings.float()
    single = sampson_distance(essential(*pair_poses(dome, noisy.float())), bearings[:, 0], bearings[:, 1])
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-6)


def test_rays_of_the_world_have_the_distance_of_their_essential_matrix() -> None:
    """Also with wrong poses; gradients by the poses too, and finite where two cameras share their centre."""
    dome = make_dome()
    generator = torch.Generator().manual_seed(5)
    noise = 0.1 * torch.randn((len(dome.c2w), 6), generator=generator, dtype=dome.c2w.dtype)
    noise.requires_grad_()
    by_noise = []
    for kind in ("rays", "matrices"):
        first, second = pair_poses(dome, compose(dome.c2w, se3_exp(noise)))
        if kind == "rays":
            directions = [transform_directions(c2w, dome.bearings[:, k]) for k, c2w in enumerate((first, second))]
            centers = torch.stack([first[..., 3], second[..., 3]], dim=-2)
            distance = sampson_distance_of_rays(centers, torch.stack(directions, dim=-2))
        else:
            distance = sampson_distance(essential(first, second), dome.bearings[:, 0], dome.bearings[:, 1])
        by_noise.append((distance, torch.autograd.grad(distance.square().sum(), noise)[0]))
    for ours, theirs in zip(*by_noise, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    same = torch.zeros((1, 2, 3), dtype=torch.float64, requires_grad=True)
    sampson_distance_of_rays(same, dome.bearings[:1]).sum().backward()
    assert same.grad is not None and same.grad.isfinite().all()
