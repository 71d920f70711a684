"""Shared intrinsics: corrected rays, and wrong calibrations found from matches alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from craym_nerfstudio.sfm.adjust import adjust_rays
from craym_nerfstudio.sfm.result import Intrinsics
from craym_nerfstudio.sfm.shared_intrinsics import correct_bearings
from tests.sfm.synthetic import FOCAL_PX, Scene, disturbed, make_scene, ring
from tests.sfm.test_adjust import errors_deg

TRUE = ring(12)
ROUGH = disturbed(TRUE, 4.0, 0.15)


def seen_with(scene: Scene, focal_factor: float, center: tuple[float, float] = (0.0, 0.0), k1: float = 0.0) -> Scene:
    """The scene as someone believes it who holds the focal length to be 1 / `focal_factor` of the true one."""
    true = scene.matches.bearings.astype(np.float64)
    plane = true[..., :2] / -true[..., 2:] * [1.0, -1.0]
    # The fixed point of q (1 + k1 q^2) / f = p.
    q = plane * focal_factor
    for _ in range(30):
        q = plane * focal_factor / (1 + k1 * (q**2).sum(-1, keepdims=True))
    believed = q + np.asarray(center)
    rays = np.concatenate([believed * [1.0, -1.0], -np.ones_like(believed[..., :1])], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    views = replace(scene.views, focal_px=np.full(len(TRUE), FOCAL_PX / focal_factor))
    return replace(scene, views=views, matches=replace(scene.matches, bearings=rays.astype(np.float32)))


def test_corrected_bearings_by_hand() -> None:
    """p = (0.1, -0.2) right and down; centre 0.1 right: q = (0, -0.2), 1 + 0.5 * 0.04 = 1.02, / 2."""
    bearing = torch.nn.functional.normalize(torch.tensor([[0.1, 0.2, -1.0]], dtype=torch.float64), dim=-1)
    moved = correct_bearings(bearing, Intrinsics(2.0, (0.1, 0.0), 0.5))
    torch.testing.assert_close(moved[0] / -moved[0, 2], torch.tensor([0.0, 0.102, -1.0], dtype=torch.float64))


@pytest.mark.parametrize("factor", [0.85, 1.2])
def test_a_wrong_focal_length_is_found(factor: float) -> None:
    scene = seen_with(make_scene(TRUE, ROUGH, noise_px=0.05), factor)
    result = adjust_rays(scene.views, scene.matches, refine_intrinsics=True)
    assert result.intrinsics is not None
    assert result.intrinsics.focal_factor == pytest.approx(factor, rel=0.015)
    without = adjust_rays(scene.views, scene.matches)
    assert errors_deg(scene, result).mean() < 0.5 * errors_deg(scene, without).mean()


def test_principal_point_and_distortion_are_found() -> None:
    scene = seen_with(make_scene(TRUE, ROUGH, noise_px=0.03), 1.05, (0.024, -0.014), -0.1)
    found = adjust_rays(scene.views, scene.matches, refine_intrinsics=True).intrinsics
    assert found is not None
    assert found.focal_factor == pytest.approx(1.05, rel=0.01)
    assert found.center == pytest.approx((0.024, -0.014), abs=4e-3)
    assert abs(found.k1 + 0.1) < 0.05


def test_right_intrinsics_are_left_alone() -> None:
    scene = make_scene(TRUE, ROUGH, noise_px=0.2)
    result = adjust_rays(scene.views, scene.matches, refine_intrinsics=True)
    assert result.intrinsics is None
    assert errors_deg(scene, result).mean() < 0.1
