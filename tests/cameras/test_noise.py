"""Noise protocols: their published mean angle and shift, what they leave fixed, determinism."""

import math

import numpy as np
import pytest
import torch

from craym_nerfstudio.cameras.noise import focal_noise, perturb_poses
from craym_nerfstudio.geometry.alignment import Similarity, pose_errors
from craym_nerfstudio.geometry.lie import inverse, rotation_angle_deg, so3_exp
from tests.dome import look_at, make_dome

CAMERAS = 4000


def measure(protocol, **options) -> tuple[float, float, float]:
    """Mean rotation in degrees, mean shift of the w2c translation, mean shift of the centre."""
    poses = make_dome(CAMERAS, points=0).c2w
    noisy = perturb_poses(poses, protocol, 0, **options)
    angle = rotation_angle_deg(noisy[..., :3].mT @ poses[..., :3]).mean()
    extrinsic = (inverse(noisy)[..., 3] - inverse(poses)[..., 3]).norm(dim=-1).mean()
    return float(angle), float(extrinsic), float((noisy[..., 3] - poses[..., 3]).norm(dim=-1).mean())


@pytest.mark.parametrize(("protocol", "angle_deg", "shift"), [("barf", 13.7, 0.239), ("real", 0.914, 0.01596)])
def test_world_side_noise_has_the_published_size(protocol, angle_deg: float, shift: float) -> None:
    angle, extrinsic, center = measure(protocol)
    assert angle == pytest.approx(angle_deg, rel=0.02) and extrinsic == pytest.approx(shift, rel=0.02)
    assert center > 2 * extrinsic


@pytest.mark.parametrize(("protocol", "angle_deg", "shift"), [("l2g", 6.4, 0.798), ("l2g-low", 3.2, 0.399)])
def test_camera_side_noise_has_the_published_size(protocol, angle_deg: float, shift: float) -> None:
    angle, extrinsic, center = measure(protocol)
    assert angle == pytest.approx(angle_deg, rel=0.02) and center == pytest.approx(shift, rel=0.02)
    assert extrinsic > center


@pytest.mark.parametrize("protocol", ["none", "barf", "l2g", "l2g-low", "real"])
def test_noise_is_the_same_for_a_seed_and_valid(protocol) -> None:
    poses = make_dome(cameras=6).c2w.float()
    noisy = perturb_poses(poses, protocol, 3)
    assert torch.equal(noisy, perturb_poses(poses, protocol, 3)) and noisy.dtype == torch.float32
    assert torch.equal(noisy[:4], perturb_poses(poses[:4], protocol, 3))
    assert torch.equal(noisy, perturb_poses(poses, protocol, 4)) == (protocol == "none")
    assert noisy is not poses and torch.equal(poses, make_dome(cameras=6).c2w.float())
    identity = torch.eye(3).expand(6, 3, 3)
    torch.testing.assert_close(noisy[..., :3] @ noisy[..., :3].mT, identity, rtol=0, atol=1e-6)


def test_first_draw_is_frozen() -> None:
    """Changes of library or platform must not change which experiment a seed means."""
    pose = torch.eye(4, dtype=torch.float64)[None, :3]
    noisy = perturb_poses(pose, "l2g", 0)[0]
    # x' = exp(r) x + t with t = 0.5 * the first three draws of seed 0, r = 0.07 * the next three.
    t = 0.5 * torch.tensor([1.76405235, 0.40015721, 0.97873798], dtype=torch.float64)
    r = 0.07 * torch.tensor([2.2408932, 1.86755799, -0.97727788], dtype=torch.float64)
    torch.testing.assert_close(noisy[:, :3], so3_exp(-r), rtol=0, atol=1e-8)
    torch.testing.assert_close(noisy[:, 3], -(so3_exp(-r) @ t), rtol=0, atol=1e-8)


@pytest.mark.parametrize("protocol", ["barf", "l2g", "network"])
def test_noise_moves_with_the_frame_of_the_scene(protocol) -> None:
    """The same scene in other units and around another point gets the same errors, in those units."""
    poses = make_dome(cameras=20).c2w
    shift = Similarity(torch.tensor(7.0).double(), torch.eye(3).double(), torch.tensor([5.0, -9.0, 2.0]).double())
    noisy = perturb_poses(poses, protocol, 0)
    moved = perturb_poses(shift.poses(poses), protocol, 0, pivot=(5.0, -9.0, 2.0), unit=7.0)
    torch.testing.assert_close(moved, shift.poses(noisy))


def test_barf_noise_keeps_the_pivot_in_view() -> None:
    """A world-side twist swings a camera around the object, which it goes on seeing nearly where it was."""
    poses = make_dome(cameras=50).c2w
    noisy = perturb_poses(poses, "barf", 0)
    assert (inverse(noisy)[..., 3] - inverse(poses)[..., 3]).norm(dim=-1).max() < 0.15 * 5
    assert pose_errors(noisy, poses).rotation_deg_mean == pytest.approx(math.degrees(0.15 * 1.596), rel=0.15)


def test_network_noise_is_alike_in_neighbours_and_large_in_a_tenth() -> None:
    """Cameras a degree apart err alike; over many seeds the means are 1.5 degrees and 2 % of 4 units, times 1.3."""
    angle = torch.linspace(0, 2 * math.pi, 361, dtype=torch.float64)[:-1]
    poses = look_at(torch.stack([4 * angle.cos(), 4 * angle.sin(), 1 + 0 * angle], -1), torch.zeros(3).double())
    seen = []
    for seed in range(30):
        noisy = perturb_poses(poses, "network", seed)
        turned = rotation_angle_deg(noisy[..., :3] @ poses[..., :3].mT)
        shift = noisy[..., 3] - poses[..., 3]
        seen.append((float(turned.mean()), float(shift.norm(dim=-1).mean())))
        steps = (shift - shift.roll(1, 0)).norm(dim=-1)
        jumps = (steps > 0.5 * shift.norm(dim=-1).median()).sum()
        assert 36 <= int(jumps) <= 72 and steps.median() < 0.1 * shift.norm(dim=-1).median()
    assert np.mean(seen, axis=0) == pytest.approx([1.3 * 1.5, 1.3 * 0.02 * 4.0311], rel=0.1)
    assert torch.equal(noisy, perturb_poses(poses, "network", seed))


def test_network_noise_of_focal_lengths() -> None:
    factors = focal_noise(4000, "network", 0)
    assert factors is not None and focal_noise(4000, "l2g", 0) is None
    assert np.log(factors).std() == pytest.approx(0.03, rel=0.05) and abs(np.log(factors).mean()) < 2e-3
    assert np.array_equal(factors[:7], focal_noise(7, "network", 0))
