"""Camera models with corrected intrinsics send the corrected rays to the same pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

from craym_nerfstudio.data.calibration import calibrated_cameras, calibrated_lens
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.sfm.result import Intrinsics
from craym_nerfstudio.sfm.shared_intrinsics import correct_bearings

FOUND = Intrinsics(1.1, (0.02, -0.01), -0.05, 0.02)


def cameras(kind: CameraType = CameraType.PERSPECTIVE) -> Cameras:
    lens = torch.tensor([0.05, -0.02, 0.0, 0.0, 0.001, -0.002])
    poses = torch.eye(4)[:3].repeat(2, 1, 1)
    return Cameras(poses, 300.0, 310.0, 158.0, 121.0, 320, 240, lens.repeat(2, 1), kind)


def bearings(of: Cameras) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(5, 235, 9), torch.linspace(5, 315, 11), indexing="ij")
    coords = torch.stack([y.flatten(), x.flatten()], dim=-1)
    return of.generate_rays(torch.zeros(len(coords), 1, dtype=torch.long), coords=coords).directions.double()


def test_focal_length_alone_by_hand() -> None:
    pinhole, distortion = calibrated_lens(
        np.array([300.0, 310.0, 160.0, 120.0]), np.zeros(6), np.array([320.0, 240.0]), Intrinsics(1.2, (0.05, 0.0))
    )
    np.testing.assert_allclose(pinhole, [360.0, 372.0, 175.0, 120.0], atol=1e-4)
    np.testing.assert_allclose(distortion, 0, atol=1e-6)


def test_every_pixel_gets_its_corrected_ray() -> None:
    given, corrected = cameras(), calibrated_cameras(cameras(), FOUND)
    expected = correct_bearings(torch.nn.functional.normalize(bearings(given), dim=-1), FOUND)
    apart_px = 310 * (bearings(corrected) - expected).norm(dim=-1)
    assert apart_px.max() < 0.5 and apart_px.median() < 0.1
    torch.testing.assert_close(corrected.camera_to_worlds, given.camera_to_worlds)


def test_focal_lengths_of_single_cameras_follow_their_factors() -> None:
    found = calibrated_cameras(cameras(), Intrinsics(1.1, own_focal=(1.0, 0.9)))
    np.testing.assert_allclose(found.fx[:, 0], [330.0, 297.0], rtol=2e-3)
    lens = Intrinsics(1.02, (0.01, 0.0), 0.03, own_focal=(0.95, 1.05))
    rays = torch.nn.functional.normalize(bearings(cameras()), dim=-1)
    expected = correct_bearings(rays, lens, np.zeros(len(rays), dtype=np.int64))
    apart_px = 300 * (bearings(calibrated_cameras(cameras(), lens)) - expected).norm(dim=-1)
    assert apart_px.max() < 0.5
    assert Intrinsics.from_values(lens.values()) == lens
    assert lens.of_cameras(np.array([False, True])) == replace(lens, own_focal=(1.05,))
    assert FOUND.of_cameras(np.array([True])) is FOUND


def test_fisheye_cameras_are_refused() -> None:
    with pytest.raises(InputError, match="refine-intrinsics"):
        calibrated_cameras(cameras(CameraType.FISHEYE), FOUND)
