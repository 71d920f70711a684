"""Every image with its own focal length, as networks say: one for all where one camera took them, or each its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from craym_nerfstudio.cameras.noise import focal_noise, perturb_poses
from craym_nerfstudio.geometry.alignment import pose_errors
from craym_nerfstudio.sfm.adjust import adjust_rays
from craym_nerfstudio.sfm.own_focals import _Problem, agreed_factors
from craym_nerfstudio.sfm.ray_graph import RayGraph, ray_graph
from craym_nerfstudio.sfm.result import Intrinsics
from craym_nerfstudio.sfm.structure import build_structure
from craym_nerfstudio.sfm.view_focals import with_focal_factors
from tests.sfm.synthetic import FOCAL_PX, make_scene, ring
from tests.sfm.test_do_no_harm import matched

TRUE = ring(18)
ROUGH = perturb_poses(TRUE, "network", 0)
NOISE = focal_noise(18, "network", 0)


def of_focals(focal_px: np.ndarray) -> RayGraph:
    made = make_scene(ring(len(focal_px)), ring(len(focal_px)), points=60)
    return ray_graph(made.matches, focal_px)


def test_given_focal_lengths_agree_on_their_mean_without_strays() -> None:
    given = FOCAL_PX * np.exp([0.01, -0.01, 0.02, -0.02, 0.0, 0.6])
    factors = agreed_factors(of_focals(given))
    assert factors is not None
    np.testing.assert_allclose(factors * given, FOCAL_PX)


@pytest.mark.parametrize("zooms", [[500.0] * 8, [500.0, 700.0] * 4, [500.0] * 5 + [501.0, 502.0, 503.0]])
def test_a_few_cameras_are_no_disagreement(zooms: list[float]) -> None:
    assert agreed_factors(of_focals(np.array(zooms))) is None


def test_one_focal_length_for_all_where_one_camera_took_them() -> None:
    assert NOISE is not None
    result = adjust_rays(*matched(TRUE, ROUGH, focal=NOISE))
    assert result.decision.chosen == "solution" and result.intrinsics is not None
    focal = NOISE * np.array(result.intrinsics.own_focal) * result.intrinsics.focal_factor
    assert np.ptp(focal) < 1e-9 and focal[0] == pytest.approx(1.0, abs=0.01)
    before, after = (pose_errors(torch.from_numpy(c2w), TRUE) for c2w in (ROUGH.numpy(), result.c2w))
    assert before.rotation_deg_mean > 1.0 and after.rotation_deg_mean < 0.1


def test_each_its_own_where_the_lens_zoomed() -> None:
    """True focal lengths between 0.78 and 1.28 of the mean, given with the noise: bearings are the same as without."""
    zoom = np.exp(0.25 * np.sin(1.7 * np.arange(18)))
    assert NOISE is not None
    views, matches = matched(TRUE, ROUGH, focal=NOISE)
    result = adjust_rays(replace(views, focal_px=views.focal_px * zoom), matches)
    assert result.intrinsics is not None
    np.testing.assert_allclose(result.intrinsics.own_focal * NOISE * result.intrinsics.focal_factor, 1.0, atol=0.02)
    assert pose_errors(torch.from_numpy(result.c2w), TRUE).rotation_deg_mean < 0.12


def test_gradient_of_a_focal_length_is_that_of_the_cost() -> None:
    made = make_scene(TRUE, TRUE, points=120, noise_px=0.5)
    graph = ray_graph(made.matches, made.views.focal_px)
    structure = build_structure(graph, TRUE, np.ones(len(graph.ends), dtype=bool), 40.0)
    problem = _Problem(structure.observations(graph, 0.5), None, torch.ones(18, 7, dtype=torch.bool), 0.1)
    logs = torch.linspace(-0.02, 0.02, 18, dtype=torch.float64)
    residuals = problem.residuals(logs, len(structure.points))
    blocks = problem._equations(residuals, TRUE, structure.points, logs)
    for camera in (0, 11):
        step = 1e-5 * torch.eye(18, dtype=torch.float64)[camera]
        up, down = (problem.cost((TRUE, structure.points, logs + sign * step)) for sign in (1, -1))
        assert float(blocks.camera_gradient[camera, 6]) == pytest.approx((up - down) / 2e-5, rel=1e-3)


def test_bearings_and_precision_follow_the_factors() -> None:
    """A ray 45 degrees off the axis under twice the focal length is atan(1/2) off it."""
    graph = of_focals(np.full(6, FOCAL_PX))
    graph = replace(graph, bearing=np.tile(np.array([1.0, 0.0, -1.0]) / 2**0.5, (len(graph.bearing), 1)))
    seen = with_focal_factors(graph, np.full(6, 2.0))
    np.testing.assert_allclose(seen.bearing[0], np.array([1.0, 0.0, -2.0]) / 5**0.5)
    assert seen.focal_px[0] == 2 * FOCAL_PX


def test_what_was_corrected_is_said_and_nothing_else() -> None:
    own = Intrinsics(own_focal=(0.95, 1.0, 1.06))
    assert own.in_words == "focal length of each image x 0.9500 to 1.0600"
    assert replace(own, focal_factor=1.01, k1=0.1).in_words == (
        f"{own.in_words}, focal length of all x 1.0100, radial distortion +0.1000, +0.0000"
    )
    shared = Intrinsics(1.02, (0.01, -0.003))
    assert shared.in_words == "focal length x 1.0200, principal point moved by (+0.0100, -0.0030) focal lengths"
