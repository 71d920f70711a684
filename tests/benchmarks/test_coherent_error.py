"""The object in its guises, and what dealing residuals out anew leaves of a bundle's error."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.coherent_error import dealt_out, from_truth, neighbours_agree, tangents, towards
from benchmarks.property_scenes import GUISES, picture, write_guise
from craym_nerfstudio.data.config import SceneConfig
from craym_nerfstudio.data.scene import read_scene
from craym_nerfstudio.geometry.lie import compose, so3_exp, so3xr3_exp
from craym_nerfstudio.sfm.normal_equations import RayObservations
from samples.analytic_scene import dome_cameras

FOCAL_PX, _POINTS = 500.0, 400


def test_tangents_are_right_and_up_of_the_axis() -> None:
    ahead = torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64)
    assert torch.equal(tangents(ahead)[0], torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("within", [True, False])
def test_residuals_are_dealt_out(within: bool) -> None:
    """All are there again, in another order; each track keeps its own where that is asked for."""
    track = torch.tensor([2, 0, 1, 0, 2, 1, 0, 2, 1, 0])
    residual = torch.arange(10.0)[:, None].expand(-1, 2) + 10.0 * track[:, None]
    dealt = dealt_out(residual, track, within, seed=0)
    assert not torch.equal(dealt, residual) and torch.equal(dealt.sort(0).values, residual.sort(0).values)
    assert torch.equal((dealt[:, 0] / 10).floor().long(), track) is within


def test_neighbours_that_err_alike() -> None:
    """A turn that grows along one axis is shared by neighbours, one that is drawn for each camera is not."""
    true = torch.from_numpy(dome_cameras(40, seed=1))
    shift = torch.zeros(40, 3, dtype=torch.float64)
    smooth = 0.01 * torch.cat([shift, true[:, :, 3]], dim=1)
    drawn = torch.from_numpy(0.01 * np.random.default_rng(0).normal(size=(40, 6))) * torch.tensor([0.0] * 3 + [1.0] * 3)
    assert neighbours_agree(compose(true, so3xr3_exp(drawn)), true) < 0.4
    world = torch.cat([so3xr3_exp(smooth)[:, :, :3] @ true[:, :, :3], true[:, :, 3:]], dim=-1)
    assert neighbours_agree(world, true) > 0.8


class _Stage:
    """What is asked of stage 0: points on a sphere that all cameras see, as if each camera were rolled."""

    def __init__(self, true: torch.Tensor, roll_deg: float) -> None:
        random = np.random.default_rng(2)
        points = torch.from_numpy(random.normal(size=(_POINTS, 3)))
        points = 0.6 * points / points.norm(dim=1, keepdim=True)
        camera, point = torch.cartesian_prod(torch.arange(len(true)), torch.arange(_POINTS)).T
        seen = RayObservations(camera, point, torch.empty(0), torch.empty(0))
        bearing = towards(points, seen, true)
        random_sign = torch.from_numpy(random.choice([-1.0, 1.0], len(true)))
        roll = torch.tensor([0.0, 0.0, np.radians(roll_deg)], dtype=torch.float64) * random_sign[:, None]
        bearing = (so3_exp(roll)[camera] @ bearing[..., None])[..., 0]
        self.ray_bearing = bearing.numpy()
        self.ray_image, self.ray_point, self.keypoint_sigma_px = camera.numpy(), point.numpy(), 0.2


def test_what_keypoints_share_is_what_turns_cameras() -> None:
    true = torch.from_numpy(dome_cameras(12, seed=1))
    told = from_truth(_Stage(true, roll_deg=0.3), true, np.full(12, FOCAL_PX))  # type: ignore[arg-type]
    assert told["as_is"]["rotation_deg"] > 3 * told["dealt"]["rotation_deg"]
    exact = from_truth(_Stage(true, roll_deg=0.0), true, np.full(12, FOCAL_PX))  # type: ignore[arg-type]
    assert exact["as_is"]["rotation_deg"] < 1e-5


def test_guises_differ_in_what_they_are_for(tmp_path: Path) -> None:
    c2w = dome_cameras(8, 3.2, 7)[3]
    shown = {name: picture(guise, c2w, 40).astype(float) for name, guise in GUISES.items()}
    plain = shown["planes"]
    assert 0.15 < (plain[..., 3] > 0).mean() < 0.8
    for name, image in shown.items():
        assert name == "planes" or np.abs(image - plain).mean() > 1.0, name
    folder = write_guise(tmp_path, "ball", views=3, size_px=24)
    assert Image.open(folder / "train" / "r_2.png").size == (24, 24)
    assert len(read_scene(SceneConfig(folder, eval_interval=0)).views.names) == 3
