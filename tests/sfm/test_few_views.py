"""Few cameras: their rotations say how the whole is turned, two rays make a point, and training holds them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from craym_nerfstudio.geometry.alignment import Similarity, pose_errors
from craym_nerfstudio.geometry.lie import rotation_angle_deg, so3_exp
from craym_nerfstudio.sfm.adjust import adjust_rays
from craym_nerfstudio.sfm.gauge import align_to_rough, pose_spread
from craym_nerfstudio.sfm.result import Decision, StageZero
from tests.sfm.synthetic import disturbed, make_scene, ring


@pytest.fixture(scope="module")
def stage() -> StageZero:
    true = ring(3, stop_deg=60.0)
    made = make_scene(true, disturbed(true, 5.0, 0.4), noise_px=0.1)
    return adjust_rays(made.views, made.matches)


@pytest.mark.parametrize("seed", range(4))
def test_three_cameras_are_turned_as_their_rotations_say(seed: int) -> None:
    """The centres of an arc are shifted by more than it is wide: by themselves they would turn it over."""
    true = ring(3, stop_deg=30.0)
    rough = disturbed(true, 4.0, 1.0, seed)
    world = Similarity.of(2.0, so3_exp(torch.tensor([0.4, -2.0, 0.3], dtype=torch.float64)), np.array([1.0, 2.0, 3.0]))
    found = align_to_rough(world.poses(true), rough).poses(world.poses(true))
    assert float(rotation_angle_deg(found[..., :3].mT @ rough[..., :3]).max()) < 12


def test_the_spread_of_few_poses_counts_all_of_them() -> None:
    """Two of three cameras agree exactly: the median would call that certainty."""
    poses = ring(3)
    moved = poses.clone()
    moved[0, 0, 3] += 0.3
    assert pose_spread(poses, moved)[0] == pytest.approx(0.3 / 3)
    many = ring(6)
    other = many.clone()
    other[0, 0, 3] += 0.3
    assert pose_spread(many, other)[0] == 0.0


def test_stage_zero_of_three_views_fits_and_stays_in_their_frame(stage: StageZero) -> None:
    true = ring(3, stop_deg=60.0)
    assert pose_errors(torch.from_numpy(stage.c2w), true).rotation_deg_mean < 0.5
    assert float(rotation_angle_deg(torch.from_numpy(stage.c2w)[..., :3].mT @ true[..., :3]).max()) < 12


def test_two_rays_make_a_sure_point_of_few_cameras_alone(stage: StageZero) -> None:
    assert (stage.track_length == 2).any() and stage.is_sure.all()
    many = replace(stage, names=[f"{k}.png" for k in range(10)])
    assert many.is_sure.tolist() == (stage.track_length >= 3).tolist()


def test_training_holds_few_cameras_that_rays_have_fixed(stage: StageZero) -> None:
    known = replace(stage, state=["adjusted", "predicted", "kept"]).known_poses()
    assert known["held"].tolist() == known["settled"].tolist() == [True, False, True]
    many = replace(stage, names=[str(k) for k in range(10)], state=["adjusted"] * 9 + ["predicted"])
    assert not many.known_poses()["held"].any() and int(many.known_poses()["settled"].sum()) == 9


def test_training_holds_given_poses_that_matches_confirm(stage: StageZero) -> None:
    """Not those that stay for want of evidence, or that are only not worse than can be told."""
    states = ["kept"] * 8 + ["adjusted", "predicted"]
    for decision, kept in (
        (Decision("input", "", 900, input_px=0.11, solution_px=0.10), True),
        (Decision("input", "", 900, input_px=0.13, solution_px=0.10), False),
        (Decision("input", "", 0, input_px=float("nan"), solution_px=float("nan")), False),
    ):
        many = replace(stage, names=[str(k) for k in range(10)], state=states, decision=decision)
        assert many.known_poses()["held"].tolist() == [kept] * 8 + [False, False]
