"""Silhouettes of a ball: whether their middles meet tells whether the cameras stand where they should."""

from pathlib import Path

import numpy as np
import pytest
import torch

from craym_nerfstudio.cameras.noise import perturb_poses
from craym_nerfstudio.data.image_store import ImageStore
from craym_nerfstudio.data.outlines import Outlines
from craym_nerfstudio.geometry.pinhole import bearings_from_plane
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.start.silhouettes import Silhouettes
from tests.dome import make_dome

SIDE, FOCAL_PX, CAMERAS = 128, 150.0, 12


def seen_ball(noise: str, opaque: bool = False, radius: float = 0.5) -> Silhouettes | None:
    """What outlines of a ball at the origin say of noisy poses of the cameras that took them."""
    true = make_dome(CAMERAS, around=True).c2w
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    images = []
    for c2w in true.numpy():
        x, y, z = -c2w[:, 3] @ c2w[:, :3]
        middle, radius_px = 0.5 * SIDE + FOCAL_PX * np.array([x, -y]) / -z, FOCAL_PX * radius / -z
        image = np.full((SIDE, SIDE, 4), 255, dtype=np.uint8)
        image[..., 3] = 255 * (opaque | (np.hypot(columns - middle[0], rows - middle[1]) < radius_px))
        images.append(torch.from_numpy(image))
    views = Views(
        names=[f"{k}.png" for k in range(CAMERAS)],
        paths=[Path(f"{k}.png") for k in range(CAMERAS)],
        mask_paths=None,
        c2w=perturb_poses(true, noise, seed=0).numpy(),
        focal_px=np.full(CAMERAS, FOCAL_PX),
        size_px=np.full((CAMERAS, 2), SIDE),
        bearings=lambda _, xy: bearings_from_plane((xy - 0.5 * SIDE) / FOCAL_PX),
    )
    return Silhouettes.of(Outlines(ImageStore(images, [(SIDE, SIDE)] * CAMERAS)), views)


@pytest.mark.parametrize(("noise", "agree"), [("none", True), ("real", True), ("barf", False), ("l2g", False)])
def test_outlines_agree_with_poses_that_are_about_right(noise: str, agree: bool) -> None:
    found = seen_ball(noise)
    assert found is not None and found.agree == agree
    assert noise != "none" or found.miss < 0.02


def test_cameras_that_stand_wrongly_are_far_off() -> None:
    near, far = seen_ball("real"), seen_ball("l2g")
    assert near is not None and not near.far_off
    assert far is not None and far.far_off


def test_images_without_outlines_tell_nothing() -> None:
    assert seen_ball("none", opaque=True) is None


def test_what_is_cut_by_the_border_of_its_images_tells_nothing() -> None:
    assert seen_ball("none", radius=1.8) is None
