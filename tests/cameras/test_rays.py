"""Rays of pinhole cameras: those of the host's generator, bit for bit."""

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

from craym_nerfstudio.cameras.rays import PinholeRays
from tests.dome import make_dome


def cameras(distortion: float = 0.0, kind: CameraType = CameraType.PERSPECTIVE) -> Cameras:
    """Eight cameras with a focal length of their own each."""
    c2w = make_dome().c2w.float()
    focal = 50.0 + torch.arange(8.0)[:, None]
    lens = torch.full((8, 6), distortion)
    return Cameras(c2w, focal, focal + 1, 20.25, 15.5, 40, 30, lens, camera_type=kind, metadata={})


def test_rays_are_the_hosts() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(8, (500,), generator=generator)
    xy = torch.rand((500, 2), generator=generator) * torch.tensor([40.0, 30.0])
    ours = PinholeRays(cameras())(image, xy)
    theirs = cameras().generate_rays(image[:, None], xy.flip(-1))
    assert torch.equal(ours.origins, theirs.origins)
    assert torch.equal(ours.directions, theirs.directions)
    assert torch.equal(ours.camera_indices, theirs.camera_indices)
    assert torch.equal(ours.metadata["directions_norm"], theirs.metadata["directions_norm"])


def test_other_lenses_are_left_to_the_host() -> None:
    assert PinholeRays.fit(cameras())
    assert not PinholeRays.fit(cameras(distortion=0.01))
    assert not PinholeRays.fit(cameras(kind=CameraType.FISHEYE))
