"""Poses that training has made worse, by what the matches say, go back to where they started."""

import numpy as np
import pytest
import torch

from craym_nerfstudio.cameras.guard import PoseGuard
from craym_nerfstudio.cameras.optimizer import CraymCameraOptimizer, CraymCameraOptimizerConfig
from tests.sfm.synthetic import Scene, disturbed, make_scene, ring

CAMERAS = 6


@pytest.fixture(scope="module")
def noisy() -> Scene:
    return make_scene(ring(CAMERAS), ring(CAMERAS), noise_px=0.2)


@pytest.fixture(scope="module")
def exact() -> Scene:
    return make_scene(ring(CAMERAS), ring(CAMERAS), noise_px=0.0)


def test_poses_off_their_matches_are_worse_and_those_nearer_are_not(noisy: Scene) -> None:
    guard, moved = PoseGuard(noisy.matches, noisy.views.focal_px), disturbed(noisy.c2w, 0.3, 0.01)
    away, back = guard.judge(noisy.c2w, moved), guard.judge(moved, noisy.c2w)
    assert away is not None and away.is_worse and back is not None and not back.is_worse
    assert (away.start_px, away.trained_px) == (back.trained_px, back.start_px)
    # Of 0.2 px along each axis at both ends, Sampson's distance keeps one part across the line, over the root of 2.
    assert away.start_px == pytest.approx(0.6745 * 0.2, rel=0.1)


def test_a_similarity_of_all_cameras_changes_nothing(noisy: Scene) -> None:
    guard, larger = PoseGuard(noisy.matches, noisy.views.focal_px), noisy.c2w.clone()
    larger[:, :, 3] *= 2.0
    verdict = guard.judge(noisy.c2w, larger)
    assert verdict is not None and verdict.trained_px == pytest.approx(verdict.start_px) and not verdict.is_worse


def test_hundredths_of_a_pixel_are_not_worse_than_nothing(exact: Scene) -> None:
    verdict = PoseGuard(exact.matches, exact.views.focal_px).judge(exact.c2w, disturbed(exact.c2w, 0.0005, 0.0))
    assert verdict is not None and verdict.trained_px > 5 * verdict.start_px and not verdict.is_worse


def test_few_matches_do_not_judge(noisy: Scene) -> None:
    few = noisy.matches.subset(np.arange(len(noisy.matches)) < 29)
    assert PoseGuard(few, noisy.views.focal_px).judge(noisy.c2w, disturbed(noisy.c2w, 5.0, 0.1)) is None


def guarded(scene: Scene) -> CraymCameraOptimizer:
    optimizer = CraymCameraOptimizerConfig(settled_delay_steps=50).setup(num_cameras=CAMERAS, device="cpu")
    optimizer.set_poses(scene.c2w.float(), settled=torch.ones(CAMERAS, dtype=torch.bool))
    optimizer.let_guard(scene.matches, scene.views.focal_px)
    with torch.no_grad():
        optimizer.motion.residual.copy_(0.3 * torch.randn(CAMERAS, 6, generator=torch.Generator().manual_seed(0)))
    return optimizer


def test_worse_poses_go_back_late_in_training_and_stay(noisy: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    optimizer, start = guarded(noisy), noisy.c2w.float()
    optimizer.update_to_step(99)
    assert not torch.equal(optimizer.optimised_c2w(), start)
    assert optimizer.verdict is None and optimizer.in_words == "trained"
    optimizer.update_to_step(100)
    torch.testing.assert_close(optimizer.optimised_c2w(), start, rtol=0, atol=1e-6)
    told = capsys.readouterr().out.replace("\n", " ")
    assert "back to those that training began with (step 100)" in told
    assert told.startswith("Poses: ")
    assert optimizer.is_held and "px at the start" in optimizer.in_words
    optimizer.update_to_step(101)
    assert not optimizer.optimised_c2w().requires_grad
    resumed = guarded(noisy)
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.is_held and torch.equal(resumed.optimised_c2w(), optimizer.optimised_c2w())


def test_poses_that_fit_their_matches_stay_trained(noisy: Scene) -> None:
    optimizer = guarded(noisy)
    with torch.no_grad():
        optimizer.motion.residual.mul_(1e-3)
    optimizer.update_to_step(100)
    assert not optimizer.is_held and optimizer.in_words.startswith("trained; matches are")
    assert optimizer.optimised_c2w().requires_grad


def test_the_drift_of_few_cameras_is_undone_by_where_they_started() -> None:
    """Three cameras whose given centres are turned over: the frame stays that of the start."""
    start, optimizer = ring(3).float(), CraymCameraOptimizerConfig().setup(num_cameras=3, device="cpu")
    given = start.clone()
    given[:, :, 3] = given[[1, 0, 2], :, 3]
    optimizer.set_poses(given, start)
    undone = optimizer.drift_undone()
    torch.testing.assert_close(undone.poses(start), start, rtol=0, atol=1e-5)
    with torch.no_grad():
        optimizer.motion.residual[:, 2] = 0.1  # all of them 0.1 of their distance back
    back = optimizer.drift_undone().poses(optimizer.optimised_c2w().detach())
    torch.testing.assert_close(back.float(), start, rtol=0, atol=1e-3)


def test_held_cameras_stay_and_others_move(noisy: Scene) -> None:
    optimizer, held = guarded(noisy), torch.arange(CAMERAS) < 4
    optimizer.set_poses(noisy.c2w.float(), settled=held, held=held)
    moved = (optimizer.optimised_c2w() - noisy.c2w.float()).abs().amax((1, 2)) > 1e-3
    assert moved.tolist() == [False] * 4 + [True] * 2 and not optimizer.is_held
    optimizer.set_poses(noisy.c2w.float(), settled=held, held=torch.ones_like(held))
    assert optimizer.is_held and optimizer.in_words == "those that training began with"
