"""Every classic mistake, planted in a synthetic scene, is named; a right scene is left in peace."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from craym_nerfstudio.geometry.lie import so3_exp
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.preflight.diagnose import Diagnosis, diagnose
from craym_nerfstudio.preflight.hypotheses import OPENCV, inverted, pose_guesses, quarter_turn, turned_axes
from craym_nerfstudio.preflight.lens import Lens, assumed_views, upright
from craym_nerfstudio.preflight.observe import Observed, fundamental_inliers, pairs_to_try
from tests.preflight.planted import CAMERAS, over_ground, scene, with_turned_files


@pytest.fixture(scope="module")
def good() -> tuple[Views, Observed]:
    return scene()


def kinds(diagnosis: Diagnosis) -> list[str]:
    return [finding.kind for finding in diagnosis.findings]


def test_right_poses_have_no_findings(good: tuple[Views, Observed]) -> None:
    diagnosis = diagnose(*good)
    assert kinds(diagnosis) == []
    assert diagnosis.given.rotation_deg < 1.0 and diagnosis.given.translation_deg < 3.0


def test_rough_poses_are_no_mistake(good: tuple[Views, Observed]) -> None:
    views, observed = good
    turn = so3_exp(0.12 * torch.randn(CAMERAS, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    rough = np.concatenate([views.c2w[:, :, :3] @ turn.numpy(), views.c2w[:, :, 3:]], axis=-1)
    assert kinds(diagnose(replace(views, c2w=rough), observed)) == []
    opencv = diagnose(replace(views, c2w=turned_axes(rough, OPENCV)), observed)
    assert kinds(opencv) == ["opencv-axes"]


def test_conventions_are_named_and_repaired(good: tuple[Views, Observed]) -> None:
    views, observed = good
    planted = {
        "opencv-axes": turned_axes(views.c2w, OPENCV),
        "w2c": inverted(views.c2w),
        "w2c-opencv-axes": inverted(turned_axes(views.c2w, OPENCV)),
        "other-axes": turned_axes(views.c2w, np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])),
    }
    for kind, c2w in planted.items():
        diagnosis = diagnose(replace(views, c2w=c2w), observed)
        assert kinds(diagnosis) == [kind]
        np.testing.assert_allclose(diagnosis.repaired.c2w, views.c2w, atol=1e-9)


@pytest.mark.parametrize("factor", [0.125, 0.5, 0.7, 1.5, 2.0, 8.0])
def test_wrong_focal_length_and_its_factor(good: tuple[Views, Observed], factor: float) -> None:
    """The given focal length is `factor` times the true one; the estimate is the factor that repairs it."""
    views, observed = good
    diagnosis = diagnose(assumed_views(views, Lens(focal_factor=factor)), observed)
    assert kinds(diagnosis) == ["wrong-focal-length"]
    assert diagnosis.findings[0].details["factor"] == pytest.approx(1 / factor, rel=0.02)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotated_files(good: tuple[Views, Observed], turns: int) -> None:
    views, observed = good
    all_turned = diagnose(views, with_turned_files(views, observed, turns))
    assert kinds(all_turned) == ["rotated-images"]
    assert f"{90 * turns} degrees clockwise" in all_turned.findings[0].problem
    some = diagnose(views, with_turned_files(views, observed, turns, [2, 9]))
    assert kinds(some) == ["rotated-images"]
    assert some.findings[0].details["images"] == [views.names[2], views.names[9]]
    assert some.findings[0].details["clockwise_deg"] == 90 * turns


def test_order(good: tuple[Views, Observed]) -> None:
    views, observed = good
    shuffled = np.random.RandomState(1).permutation(CAMERAS)
    for source in (np.roll(np.arange(CAMERAS), 1), np.arange(CAMERAS)[::-1], shuffled):
        diagnosis = diagnose(replace(views, c2w=views.c2w[source]), observed)
        assert kinds(diagnosis) == ["out-of-order"]
        np.testing.assert_array_equal(diagnosis.repaired.c2w, views.c2w)


def test_two_exchanged_poses(good: tuple[Views, Observed]) -> None:
    views, observed = good
    c2w = views.c2w.copy()
    c2w[[1, 8]] = c2w[[8, 1]]
    diagnosis = diagnose(replace(views, c2w=c2w), observed)
    assert kinds(diagnosis) == ["out-of-order"]
    assert diagnosis.findings[0].details["pose_of"] == {views.names[1]: views.names[8], views.names[8]: views.names[1]}


def test_text_order_of_numbers() -> None:
    """Twelve images 0..11: as text they sort 0, 1, 10, 11, 2, ..."""
    from craym_nerfstudio.preflight.hypotheses import pose_guesses

    names = sorted(str(k) for k in range(12))
    labels = np.zeros((12, 3, 4))
    labels[:, 0, 3] = np.arange(12)
    wanted = np.array([int(name) for name in names])
    repaired = [g.repair(labels)[:, 0, 3] for g in pose_guesses(names) if "as numbers" in g.problem]
    assert any((order == wanted).all() for order in repaired)


def test_poses_of_something_else_stay_unexplained(good: tuple[Views, Observed]) -> None:
    views, observed = good
    random = np.random.RandomState(5)
    rotation = Rotation.random(CAMERAS, random_state=random).as_matrix()
    c2w = np.concatenate([rotation, random.standard_normal((CAMERAS, 3, 1))], axis=-1)
    diagnosis = diagnose(replace(views, c2w=c2w), observed)
    assert kinds(diagnosis) == []
    assert diagnosis.remaining.rotation_deg > 40


def test_guesses_on_axes_are_the_other_23_rotations() -> None:
    kinds_of_axes = ("opencv-axes", "rotated-images", "other-axes")
    guesses = [guess for guess in pose_guesses(["a", "b"]) if guess.kind in kinds_of_axes]
    matrices = np.stack([guess.repair(np.eye(3, 4)[None])[0, :, :3] for guess in guesses])
    assert len(np.unique(matrices.reshape(-1, 9) + 0.0, axis=0)) == len(matrices) == 23
    assert np.allclose(np.linalg.det(matrices), 1) and not (matrices == np.eye(3)).all((1, 2)).any()


def test_a_quarter_turn_of_the_file_by_hand() -> None:
    """The top left corner of an image 40 wide and 20 high lies top right in the file turned clockwise, 20 wide."""
    np.testing.assert_allclose(upright(np.array([[20.0, 0.0]]), np.array([20, 40]), 1), [[0.0, 0.0]])
    np.testing.assert_allclose(upright(np.array([[0.0, 0.0]]), np.array([40, 20]), 2), [[40.0, 20.0]])
    # Right in the file was up before: the file camera's x axis is the given camera's y axis.
    np.testing.assert_allclose(quarter_turn(1) @ [1, 0, 0], [0, 1, 0])


def test_pairs_do_not_starve_under_wrong_poses() -> None:
    names = [str(k) for k in range(60)]
    c2w = np.tile(np.eye(4)[:3], (60, 1, 1))
    views = Views(names, [], None, c2w, np.full(60, 100.0), np.full((60, 2), 100), lambda _, xy: xy)
    pairs = {tuple(pair) for pair in pairs_to_try(views).tolist()}
    assert all((k, k + step) in pairs for step in (1, 5) for k in range(60 - step))
    assert len(pairs) < 60 * 25
    few = replace(views, names=names[:10], c2w=c2w[:10])
    assert len(pairs_to_try(few)) == 45


def test_fundamental_inliers_of_too_few_matches() -> None:
    points = np.random.RandomState(0).uniform(0, 100, (7, 2)).astype(np.float32)
    assert not fundamental_inliers(points, points, 1.0).any()


@pytest.mark.parametrize("kind", ["opencv-axes", "w2c-opencv-axes"])
def test_a_convention_and_a_focal_length_over_flat_ground(kind: str) -> None:
    """Seen from above, wrong focal lengths make motions of flat ground mean anything: lines tell both mistakes."""
    random = np.random.RandomState(0)
    down = Rotation.from_euler("zxy", np.c_[180 * (np.arange(20) // 5 % 2), 2 * random.randn(20, 2)], degrees=True)
    centers = np.array([[x, y, 4.0] for y in (-3, -1, 1, 3) for x in (-4, -2, 0, 2, 4)]) + 0.1 * random.randn(20, 3)
    c2w = np.concatenate([down.as_matrix(), centers[:, :, None]], axis=-1)
    views, observed = over_ground(c2w)
    given = turned_axes(c2w, OPENCV)
    given = inverted(given) if kind == "w2c-opencv-axes" else given
    diagnosis = diagnose(assumed_views(replace(views, c2w=given), Lens(focal_factor=0.5)), observed)
    assert kinds(diagnosis) == [kind, "wrong-focal-length"]
    assert diagnosis.findings[1].details["factor"] == 2.0
    np.testing.assert_allclose(diagnosis.repaired.c2w, c2w, atol=1e-9)
