"""Test poses refined by what is rendered from them: several views together as each by itself, and without waiting."""

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from craym_nerfstudio.cameras.photometric import refine_cameras, with_poses
from craym_nerfstudio.geometry.lie import compose, rotation_angle_deg, se3_exp
from tests.dome import make_dome

SIDE_PX = 24
STEPS, RAYS = 60, 128


def smooth_world(rays: RayBundle) -> Tensor:
    """Colours of a world that is painted on a plane far below, smooth in origin and direction."""
    ground = rays.origins[:, :2] - rays.directions[:, :2] * rays.origins[:, 2:] / rays.directions[:, 2:]
    return torch.stack([ground[:, 0].sin(), ground[:, 1].cos(), (ground[:, 0] * ground[:, 1]).sin()], dim=-1)


def true_views(count: int) -> tuple[Cameras, list[Tensor]]:
    """Cameras and what they see."""
    c2w = make_dome(count, 16).c2w.float()
    cameras = Cameras(c2w, 30.0, 30.0, SIDE_PX / 2, SIDE_PX / 2, SIDE_PX, SIDE_PX)
    return cameras, [smooth_world(cameras.generate_rays(k).flatten()).view(SIDE_PX, SIDE_PX, 3) for k in range(count)]


def test_views_are_refined_together_as_each_by_itself() -> None:
    cameras, images = true_views(3)
    truth, mask = cameras.camera_to_worlds, torch.ones(SIDE_PX, SIDE_PX, 1, dtype=torch.bool)
    mask[:12] = False
    off = with_poses(cameras, compose(truth, se3_exp(0.01 * torch.tensor([1.0, -1, 1, -1, 1, 1]).expand(3, 6))))
    masks = [None, mask, None]
    together = refine_cameras(smooth_world, off, images, masks, STEPS, RAYS)
    for k in range(3):
        alone = refine_cameras(smooth_world, off[k : k + 1], [images[k]], [masks[k]], STEPS, RAYS)
        torch.testing.assert_close(alone[0], together[k], rtol=0, atol=1e-5)
    before, after = (
        rotation_angle_deg(poses[:, :, :3] @ truth[:, :, :3].transpose(-1, -2))
        for poses in (off.camera_to_worlds, together)
    )
    assert (after < 0.5 * before).all()
