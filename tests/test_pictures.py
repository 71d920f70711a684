"""Rays of pictures are those of the host."""

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from scipy.spatial.transform import Rotation

from craym_nerfstudio.pictures import pinhole_rays


def camera(kind: CameraType = CameraType.PERSPECTIVE, distortion: float = 0.0) -> Cameras:
    """Wider than high, its principal point beside the middle."""
    size, bent = {"width": 7, "height": 5}, torch.tensor([[distortion, 0.0, 0.0, 0.0, 0.0, 0.0]])
    turn = torch.from_numpy(Rotation.from_euler("xyz", [20.0, -50.0, 110.0], degrees=True).as_matrix()).float()
    c2w = torch.cat([turn, torch.tensor([[1.0], [-2.0], [0.5]])], dim=-1)[None]
    return Cameras(c2w, fx=9.0, fy=8.0, cx=3.1, cy=2.9, **size, distortion_params=bent, camera_type=kind)


def test_rays_of_a_pinhole_are_those_of_the_host() -> None:
    seen, host = pinhole_rays(camera()), camera().generate_rays(camera_indices=0, keep_shape=True)
    assert seen is not None
    torch.testing.assert_close(seen.origins, host.origins)
    torch.testing.assert_close(seen.directions, host.directions)


def test_other_cameras_are_left_to_the_host() -> None:
    assert pinhole_rays(camera(CameraType.FISHEYE)) is None
    assert pinhole_rays(camera(distortion=0.1)) is None
