"""Stage 0 on synthetic matches: accuracy, planted faults, fixed cameras, few views, do no harm."""

import builtins
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.alignment import Similarity, pose_errors
from craym_nerfstudio.geometry.lie import compose, rotation_angle_deg, se3_exp, so3_exp
from craym_nerfstudio.sfm.adjust import adjust_rays
from craym_nerfstudio.sfm.assemble import far_off
from craym_nerfstudio.sfm.ray_graph import ray_graph
from craym_nerfstudio.sfm.refinement import trust_in_input, unconfirmed
from craym_nerfstudio.sfm.result import StageZero, unfit
from craym_nerfstudio.sfm.structure import build_structure
from tests.sfm.synthetic import Scene, disturbed, make_scene, ring

TRUE = ring(10)
ROUGH = disturbed(TRUE, 8.0, 0.3)


def errors_deg(scene: Scene, result: StageZero) -> torch.Tensor:
    """Rotation error of each camera after alignment."""
    return pose_errors(torch.from_numpy(result.c2w), scene.c2w).rotation_deg


def test_exact_matches_give_exact_poses_in_the_users_frame() -> None:
    scene = make_scene(TRUE, ROUGH)
    result = adjust_rays(scene.views, scene.matches)
    assert errors_deg(scene, result).max() < 0.01
    assert result.decision.chosen == "solution" and set(result.state) == {"adjusted"}
    assert np.nanmax(result.epipolar_after_px) < 0.01 < 5 < np.nanmin(result.epipolar_before_px)
    # As far from the rough poses as noise of 8 degrees and 0.3 units on ten cameras leaves a common frame.
    turned = rotation_angle_deg(torch.from_numpy(result.c2w[:, :, :3]) @ TRUE[:, :, :3].transpose(1, 2))
    assert turned.max() < 8
    size = np.linalg.norm(result.c2w[:, :, 3] - result.c2w[:, :, 3].mean(0), axis=1).mean()
    true_size = float((TRUE[:, :, 3] - TRUE[:, :, 3].mean(0)).norm(dim=1).mean())
    assert size == pytest.approx(true_size, rel=0.15)


def test_poses_that_matching_found_hold_where_matches_are_missing() -> None:
    """A camera without matches keeps its place beside the others, in whatever frame those poses came."""
    scene = make_scene(TRUE, ROUGH, noise_px=0.3)
    seen = scene.matches.subset((scene.matches.images != 9).all(1))
    guess = disturbed(TRUE, 0.5, 0.02)
    alone = errors_deg(scene, adjust_rays(scene.views, seen))
    for frame in (Similarity.of(1.0), Similarity.of(3.0, translation=np.array([1.0, 2.0, 3.0]))):
        given = frame.poses(guess.numpy())
        result = adjust_rays(scene.views, replace(seen, guess_c2w=given))
        errors = errors_deg(scene, result)
        assert result.state[9] == "predicted" and errors[:9].max() < 0.3
        assert errors[9] < 1.5 < 3 < alone[9]


def test_cameras_that_turn_much_further_than_others_are_named() -> None:
    rough = TRUE.repeat(2, 1, 1)
    axes = torch.zeros(20, 3, dtype=torch.float64)
    axes[:, 0] = torch.deg2rad(torch.tensor([3.0] * 17 + [4.0, 8.0, 50.0]))
    moved = torch.cat([rough[:, :, :3] @ so3_exp(axes), rough[:, :, 3:]], dim=-1)
    assert np.flatnonzero(far_off(moved, rough)).tolist() == [19]
    axes[:, 0] = torch.deg2rad(torch.tensor([0.01] * 18 + [0.5, 6.0]))
    moved = torch.cat([rough[:, :, :3] @ so3_exp(axes), rough[:, :, 3:]], dim=-1)
    assert np.flatnonzero(far_off(moved, rough)).tolist() == [19]


def test_a_camera_that_took_bricks_for_others_does_not_fit() -> None:
    """0.7 px among 0.09; not one of 0.4 px, nor where keypoints scatter as far, nor one without matches."""
    usual = np.full(20, 0.09)
    doubtful = np.r_[usual, 0.7, 0.4, np.nan]
    assert np.flatnonzero(unfit(doubtful)).tolist() == [20]
    assert not unfit(np.r_[usual + 0.1, 0.7]).any()
    assert not unfit(np.full(3, np.nan)).any()


def test_points_and_tracks_are_consistent() -> None:
    scene = make_scene(TRUE, TRUE, noise_px=0.2)
    result = adjust_rays(scene.views, scene.matches)
    offset = result.points[result.ray_point] - result.c2w[result.ray_image, :, 3]
    world = np.einsum("nij,nj->ni", result.c2w[result.ray_image, :, :3], result.ray_bearing)
    cosine = (offset / np.linalg.norm(offset, axis=1, keepdims=True) * world).sum(-1)
    assert np.degrees(np.arccos(cosine.min().clip(-1, 1))) < 0.5
    assert (np.bincount(result.ray_point) == result.track_length).all() and result.track_length.min() >= 2
    radius = np.linalg.norm(result.points, axis=1)
    assert ((radius > 0.65) & (radius < 1.15)).mean() > 0.98
    assert 0.15 < result.keypoint_sigma_px < 0.25


def test_uncertainty_foretells_the_error() -> None:
    scene = make_scene(TRUE, ROUGH, noise_px=0.3)
    result = adjust_rays(scene.views, scene.matches)
    error, foretold = errors_deg(scene, result).mean(), result.rotation_sigma_deg.mean()
    assert 0.4 * error < foretold < 2.5 * error


def test_planted_wrong_matches_are_told_from_right_ones() -> None:
    clean = make_scene(TRUE, ROUGH, noise_px=0.3)
    planted = make_scene(TRUE, ROUGH, noise_px=0.3, wrong=0.4)
    baseline = errors_deg(clean, adjust_rays(clean.views, clean.matches)).mean()
    result = adjust_rays(planted.views, planted.matches)
    assert errors_deg(planted, result).mean() < 2 * baseline
    assert result.match_weight[planted.right].mean() > 0.6
    assert result.match_weight[~planted.right].mean() < 0.1


def test_look_alike_pairs_are_refused() -> None:
    # Every pair of opposite cameras claims to see the same side: motions off by a quarter turn, matches to fit them.
    scene = make_scene(TRUE, ROUGH, noise_px=0.3)
    wrong = np.random.RandomState(0).uniform(size=len(scene.matches.pairs)) < 0.3
    quarter = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    scene.matches.rotation[wrong] = scene.matches.rotation[wrong] @ quarter
    spoiled = wrong[scene.matches.pair_of_match]
    ids = scene.matches.keypoint_ids
    ids[spoiled, 1] = (ids[spoiled, 1] + 1000).astype(np.int32)
    result = adjust_rays(scene.views, scene.matches)
    assert errors_deg(scene, result).max() < 0.5
    assert set(result.state) == {"adjusted"}


def test_camera_without_matches_is_predicted_and_flagged() -> None:
    others = tuple(k for k in range(10) if k != 4)
    scene = make_scene(TRUE, disturbed(TRUE, 2.0, 0.05), noise_px=0.3, cut=((4,), others))
    result = adjust_rays(scene.views, scene.matches)
    assert [k for k, s in enumerate(result.state) if s == "predicted"] == [4]
    assert not result.registered[4] and result.component[4] == -1
    error = rotation_angle_deg(torch.from_numpy(result.c2w[:, :, :3]).transpose(1, 2) @ TRUE[:, :, :3])
    assert error[4] < 8


@pytest.mark.parametrize("private", [True, False], ids=["one other camera", "several"])
def test_far_camera_needs_a_third_view(private: bool) -> None:
    """Camera 4, 6 degrees from where it roughly was while others are off by 1: one pair alone is not believed."""
    found = TRUE.clone()
    found[4] = compose(TRUE[4], se3_exp(torch.tensor([0.3, 0.0, 0.0, 0.0, 0.1, 0.0], dtype=torch.float64)))
    rough = disturbed(TRUE, 0.5, 0.02)
    scene = make_scene(found, rough, cut=((4,), tuple(k for k in range(10) if k not in (4, 5))))
    ids, images = scene.matches.keypoint_ids, scene.matches.images
    if private:
        ids[(images == 4).any(1)[:, None] & (images == 5)] += 10_000
    graph = ray_graph(scene.matches, scene.views.focal_px)
    everything = np.ones(len(ids), dtype=bool)
    structure = build_structure(graph, found, everything, 2.0)
    prior = trust_in_input(found, rough, np.ones(10, dtype=bool))
    flagged = unconfirmed(graph, structure, found, rough, prior)
    assert np.nonzero(flagged)[0].tolist() == ([4] if private else [])


def test_far_cameras_do_not_confirm_one_another() -> None:
    """Cameras 4 to 6 turned together about the object's middle, in perfect agreement with one another alone."""
    group = [4, 5, 6]
    found = TRUE.clone()
    swing = se3_exp(torch.tensor([0.0, 0.0, 0.0, 0.3, 0.0, 0.0], dtype=torch.float64))
    found[group] = compose(swing.expand(3, 3, 4), TRUE[group])
    rough = disturbed(TRUE, 0.5, 0.02)
    others = tuple(k for k in range(10) if k not in group)
    scene = make_scene(found, rough, cut=(tuple(group), others), max_angle_deg=80)
    graph = ray_graph(scene.matches, scene.views.focal_px)
    structure = build_structure(graph, found, np.ones(len(scene.matches), dtype=bool), 2.0)
    prior = trust_in_input(found, rough, np.ones(10, dtype=bool))
    assert np.nonzero(unconfirmed(graph, structure, found, rough, prior))[0].tolist() == group


def test_separate_components_are_solved_and_stitched() -> None:
    true = ring(14)
    rough = disturbed(true, 2.0, 0.05)
    first, second = tuple(range(7)), tuple(range(7, 14))
    scene = make_scene(true, rough, noise_px=0.3, cut=(first, second), max_angle_deg=80)
    result = adjust_rays(scene.views, scene.matches)
    assert set(result.component[:7]) == {result.component[0]} and set(result.component[7:]) == {result.component[7]}
    assert result.component[0] != result.component[7]
    poses = torch.from_numpy(result.c2w)
    for part in (first, second):
        assert pose_errors(poses[list(part)], true[list(part)]).rotation_deg.max() < 1.0
    assert errors_deg(scene, result).mean() < pose_errors(rough, true).rotation_deg.mean()


def test_true_poses_stay() -> None:
    scene = make_scene(TRUE, TRUE, noise_px=0.3)
    result = adjust_rays(scene.views, scene.matches)
    assert result.decision.chosen == "input" and set(result.state) == {"kept"}
    np.testing.assert_array_equal(result.c2w, scene.views.c2w)
    assert len(result.points) > 100


def test_poses_that_matches_placed_are_adjusted_further() -> None:
    """Nobody gave them, so that nobody's exact poses are at stake."""
    scene = make_scene(TRUE, disturbed(TRUE, 0.02, 0.001), noise_px=0.3)
    kept = adjust_rays(scene.views, scene.matches)
    placed = adjust_rays(replace(scene.views, is_placed=True), scene.matches)
    assert (kept.decision.chosen, placed.decision.chosen) == ("input", "solution")
    assert set(placed.state) == {"adjusted"} and placed.suspected is None


def test_one_bad_camera_among_good_ones_moves_alone() -> None:
    rough = TRUE.clone()
    rough[3] = ROUGH[3]
    scene = make_scene(TRUE, rough, noise_px=0.3)
    result = adjust_rays(scene.views, scene.matches)
    assert [k for k, s in enumerate(result.state) if s == "adjusted"] == [3]
    error = rotation_angle_deg(torch.from_numpy(result.c2w[:, :, :3]).transpose(1, 2) @ TRUE[:, :, :3])
    assert error[3] < 0.3 and (np.delete(result.c2w, 3, 0) == np.delete(scene.views.c2w, 3, 0)).all()


@pytest.mark.parametrize("fixed", [(0, 1, 5), (2,)])
def test_fixed_cameras_are_exact_and_hold_the_frame(fixed: tuple[int, ...]) -> None:
    rough = ROUGH.clone()
    rough[list(fixed)] = TRUE[list(fixed)]
    scene = make_scene(TRUE, rough, noise_px=0.2)
    result = adjust_rays(scene.views, scene.matches, fixed=np.isin(np.arange(len(TRUE)), fixed))
    np.testing.assert_array_equal(result.c2w[list(fixed)], TRUE[list(fixed)].numpy())
    turned = rotation_angle_deg(torch.from_numpy(result.c2w[:, :, :3]).transpose(1, 2) @ TRUE[:, :, :3])
    assert turned.max() < 0.5


def test_three_views() -> None:
    true = ring(3, stop_deg=75)
    scene = make_scene(true, disturbed(true, 8.0, 0.2), noise_px=0.1)
    result = adjust_rays(scene.views, scene.matches)
    assert set(result.state) == {"adjusted"}
    assert errors_deg(scene, result).max() < 1.0


def test_two_views_get_their_relative_pose() -> None:
    true = ring(2, stop_deg=60)
    scene = make_scene(true, disturbed(true, 8.0, 0.2), noise_px=0.1)
    result = adjust_rays(scene.views, scene.matches)
    relative = torch.from_numpy(result.c2w[0, :, :3].T @ result.c2w[1, :, :3])
    assert rotation_angle_deg(relative.T @ (true[0, :, :3].T @ true[1, :, :3])) < 0.5


def test_no_matches_keep_the_input() -> None:
    scene = make_scene(TRUE, ROUGH)
    result = adjust_rays(scene.views, scene.matches.subset(np.zeros(len(scene.matches), dtype=bool)))
    np.testing.assert_array_equal(result.c2w, scene.views.c2w)
    assert result.decision.chosen == "input" and "no two images" in result.decision.reason


def test_without_pycolmap_the_input_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name == "pycolmap":
            raise ImportError("No module named 'pycolmap'")
        return plain(name, *args, **kwargs)  # type: ignore[arg-type]

    scene = make_scene(TRUE, ROUGH)
    monkeypatch.setattr(builtins, "__import__", refuse)
    result = adjust_rays(scene.views, scene.matches)
    np.testing.assert_array_equal(result.c2w, scene.views.c2w)
    assert "install pycolmap" in result.decision.reason


def test_same_seed_same_result(tmp_path: Path) -> None:
    scene = make_scene(TRUE, ROUGH, noise_px=0.3)
    first, second = adjust_rays(scene.views, scene.matches), adjust_rays(scene.views, scene.matches)
    np.testing.assert_array_equal(first.c2w, second.c2w)
    first.save(tmp_path / "stage0.npz")
    loaded = StageZero.load(tmp_path / "stage0.npz")
    np.testing.assert_array_equal(loaded.c2w, first.c2w)
    assert loaded.state == first.state and loaded.decision == first.decision and loaded.notes == first.notes
    assert loaded.intrinsics is None and loaded.keypoint_sigma_px == first.keypoint_sigma_px


def test_matches_of_other_images_are_refused() -> None:
    scene = make_scene(TRUE, ROUGH)
    scene.matches.names[0] = "other.png"
    with pytest.raises(InputError, match="different images"):
        adjust_rays(scene.views, scene.matches)


def test_cameras_are_lost_where_enough_others_are_known() -> None:
    result = adjust_rays(
        make_scene(ring(14), disturbed(ring(14), 8.0, 0.3)).views, make_scene(ring(14), ring(14)).matches
    )
    state = ["adjusted"] * 14
    state[3] = "predicted"
    after = np.full(14, 0.09)
    after[5] = 0.9
    known = replace(result, state=state, epipolar_after_px=after)
    assert np.flatnonzero(known.lost).tolist() == [3, 5]
    few = replace(known, state=["predicted"] * 6 + ["adjusted"] * 8)
    assert not few.lost.any()


def test_what_is_left_without_the_rays_of_a_camera() -> None:
    result = adjust_rays((scene := make_scene(TRUE, TRUE, noise_px=0.2)).views, scene.matches)
    gone = np.arange(len(TRUE)) == 2
    left = result.without_rays(gone)
    assert 2 in result.ray_image and 2 not in left.ray_image
    assert (np.bincount(left.ray_point) == left.track_length).all() and left.track_length.min() >= 2
    offset = left.points[left.ray_point] - left.c2w[left.ray_image, :, 3]
    world = np.einsum("nij,nj->ni", left.c2w[left.ray_image, :, :3], left.ray_bearing)
    assert (
        np.degrees(
            np.arccos(((offset / np.linalg.norm(offset, axis=1, keepdims=True)) * world).sum(-1).clip(-1, 1))
        ).max()
        < 0.5
    )
    found = result.with_found(gone)
    assert found.state[2] == "found" and found.num_rays[2] == 0
    assert np.isnan(found.rotation_sigma_deg[2]) and len(found.points) == len(left.points)
