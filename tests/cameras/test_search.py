"""A photo's camera is found in a scene that is known in closed form; what cannot be told is said to be uncertain."""

import math
from collections.abc import Callable

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.cameras.rays import RayBundle

from craym_nerfstudio.cameras.search import Photo, Sought, errors, motion, seek, spread_of_predictions
from craym_nerfstudio.geometry.lie import compose, rotation_angle_deg
from tests.dome import make_dome

SIDE, REACH = 80, 4.0
TRUE = torch.tensor([[1.0, 0, 0, 0.3], [0, 1, 0, -0.2], [0, 0, 1, REACH]])
CAMERA = Cameras(TRUE[None], 100.0, 100.0, SIDE / 2, SIDE / 2, SIDE, SIDE, camera_type=CameraType.PERSPECTIVE)
WAVES = torch.tensor([[3.0, 1.0, -2.0], [-1.0, 4.0, 1.5], [2.0, -2.5, 3.5]])
Colors = Callable[[torch.Tensor], torch.Tensor]


def painted(points: torch.Tensor) -> torch.Tensor:
    """Smooth colours that no turn repeats."""
    return 0.5 + 0.45 * torch.sin(points @ WAVES.T + torch.tensor([0.3, 1.1, 2.0]))


def plain(points: torch.Tensor) -> torch.Tensor:
    """One colour."""
    return torch.full_like(points, 0.8)


def ball(colors: Colors) -> Callable[[RayBundle], torch.Tensor]:
    """Colours of rays that meet the unit sphere, before black; differentiable."""

    def render(rays: RayBundle) -> torch.Tensor:
        middle = -(rays.origins * rays.directions).sum(-1, keepdim=True)
        nearest = rays.origins + middle * rays.directions
        inside = 1.0 - nearest.square().sum(-1, keepdim=True)
        hit = nearest - inside.clamp_min(1e-6).sqrt() * rays.directions
        return colors(hit) * torch.sigmoid(40.0 * inside)

    return render


def photo_of(render: Callable[[RayBundle], torch.Tensor], visible: torch.Tensor | None = None) -> Photo:
    """What a camera at the true pose sees."""
    rgb = render(CAMERA.generate_rays(0).flatten()).view(SIDE, SIDE, 3)
    return Photo(CAMERA, rgb, torch.ones(SIDE, SIDE) if visible is None else visible)


def sought(colors: Colors) -> Sought:
    """From a guess that is 17 degrees and a tenth of the distance off."""
    render, spread = ball(colors), torch.diag(torch.tensor([0.15] * 3 + [0.05] * 3))
    off = motion(torch.tensor([[0.2, -0.15, 0.15, 0.06, -0.06, 0.05]]), REACH)[0]
    return seek(
        render, render, photo_of(render), compose(TRUE, off)[None], REACH, spread, torch.Generator().manual_seed(0)
    )


def test_a_lost_camera_is_found() -> None:
    result = sought(painted)
    assert float(rotation_angle_deg(result.c2w[:, :3])) < 0.2
    assert float((result.c2w[:, 3] - TRUE[:, 3]).norm()) < 0.02
    assert result.error < 0.1 * result.error_before
    assert result.uncertain_deg < 1.0


def test_what_the_photo_does_not_tell_is_uncertain() -> None:
    assert sought(plain).uncertain_deg > 4.0


def test_what_is_masked_does_not_count() -> None:
    render, visible = ball(painted), torch.ones(SIDE, SIDE)
    whole = photo_of(render)
    visible[:, : SIDE // 2] = 0.0
    spoilt = whole.at_side(SIDE)[0].clone()
    spoilt[:, : SIDE // 2] = 1.0
    masked = Photo(CAMERA, spoilt, visible)
    assert float(errors(render, masked, TRUE[None], SIDE, 1)) < 1e-5
    assert float(errors(render, Photo(CAMERA, spoilt, torch.ones(SIDE, SIDE)), TRUE[None], SIDE, 1)) > 0.05


def test_motion_turns_about_the_point_straight_ahead() -> None:
    moved = motion(torch.tensor([[0.0, math.pi / 2, 0.0, 0.0, 0.0, 0.0]]), 2.0)[0]
    torch.testing.assert_close(moved[:, 3], torch.tensor([2.0, 0.0, -2.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        moved @ torch.tensor([0.0, 0.0, -2.0, 1.0]), torch.tensor([0.0, 0.0, -2.0]), atol=1e-6, rtol=0
    )


def test_the_spread_is_that_of_the_given_poses() -> None:
    known, lost = make_dome(30).c2w.float(), np.arange(30) == 3
    reach = torch.full((30,), 4.0)
    noise = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1] * 3 + [0.02] * 3)
    rough = compose(known, motion(noise, 4.0))
    exact, spread = (spread_of_predictions(each, known, lost, reach) for each in (known, rough))
    assert float(exact[:3].norm()) < 0.02
    # The noise of the camera itself, and less of its neighbours'.
    own = float(noise[:, :3].square().mean(0).sum().sqrt())
    assert 0.9 * own < float(spread[:3].norm()) < 1.5 * own
    torch.testing.assert_close(spread, spread.tril())
