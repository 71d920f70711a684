"""Two-view estimation and the tests of pairs, with planted faults."""

import numpy as np
import pytest
import torch

from craym_nerfstudio.geometry.epipolar import relative_pose
from craym_nerfstudio.geometry.lie import rotation_angle_deg, so3_exp
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.rotation_averaging import average_rotations, chained_rotations
from craym_nerfstudio.matching.two_view import (
    PairBearings,
    RotationPrior,
    ransac_motion,
    refine_motions,
    search_translations,
)
from craym_nerfstudio.matching.verify import VerifyReport, verify
from tests.matching.synthetic_pairs import FOCAL_PX, Case, make_case


def run(case: Case, prior_angle_deg: float | None = 60.0) -> tuple[Matches, VerifyReport]:
    return verify(case.putative, case.views, case.keypoints, case.bearings, "sift", prior_angle_deg)


def pair_data(case: Case, only_right: bool = False) -> tuple[PairBearings, torch.Tensor]:
    """Bearings of all putative matches (or the right ones) and the true motions, translations of unit length."""
    images = case.putative.pairs[case.putative.pair_of_match]
    ids = case.putative.keypoint_ids
    chosen = case.right if only_right else np.ones(len(ids), dtype=bool)
    first, second = (
        torch.from_numpy(
            np.stack([case.bearings[i][k] for i, k in zip(images[chosen, s], ids[chosen, s], strict=True)])
        )
        for s in (0, 1)
    )
    pairs = torch.from_numpy(case.putative.pairs).long()
    focal = torch.full((len(pairs),), FOCAL_PX, dtype=torch.float64)
    data = PairBearings(torch.from_numpy(case.putative.pair_of_match[chosen]).long(), first, second, focal)
    true = relative_pose(case.true[pairs[:, 0]], case.true[pairs[:, 1]])
    direction = torch.nn.functional.normalize(true[..., 3], dim=-1)
    return data, torch.cat([true[..., :3], direction[..., None]], dim=-1)


def errors_deg(motion: torch.Tensor, true: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Errors of rotation and of translation direction."""
    cosine = (motion[..., 3] * true[..., 3]).sum(-1).clamp(-1, 1)
    return rotation_angle_deg(motion[..., :3] @ true[..., :3].transpose(-1, -2)), torch.rad2deg(cosine.arccos())


def test_ransac_recovers_the_motion_among_wrong_matches() -> None:
    case = make_case(cameras=3, wrong=0.4)
    data, true = pair_data(case)
    for pair in range(3):
        mine = data.pair == pair
        found = ransac_motion(data.bearings_i[mine].numpy(), data.bearings_j[mine].numpy(), 1.5 / FOCAL_PX)
        again = ransac_motion(data.bearings_i[mine].numpy(), data.bearings_j[mine].numpy(), 1.5 / FOCAL_PX)
        assert found is not None
        np.testing.assert_array_equal(found, again)
        turn, drift = errors_deg(torch.from_numpy(found), true[pair])
        assert float(turn) < 2 and float(drift) < 5


def test_ransac_declines_without_enough_points() -> None:
    few = np.tile([0.0, 0.0, -1.0], (4, 1))
    assert ransac_motion(few, few, 1e-3) is None
    behind = np.tile([0.0, 0.0, 1.0], (50, 1))
    assert ransac_motion(behind, behind, 1e-3) is None


def test_refinement_is_exact_without_noise_and_never_raises_the_cost() -> None:
    case = make_case(cameras=4, wrong=0.0, noise_px=0.0)
    data, true = pair_data(case)
    turn = so3_exp(torch.full((len(true), 3), 0.02, dtype=torch.float64))
    start = torch.cat([turn @ true[..., :3], torch.nn.functional.normalize(true[..., 3:] + 0.03, dim=1)], dim=-1)
    refined = refine_motions(data, start, rounds=30)
    turned, drifted = errors_deg(refined, true)
    # Keypoints are rounded to float32.
    assert float(turned.max()) < 0.01 and float(drifted.max()) < 0.02
    assert bool((refine_motions(data, true, rounds=3)[..., :3] - true[..., :3]).abs().max() < 1e-3)


def test_rotation_prior_holds_pairs_without_matches() -> None:
    case = make_case(cameras=3, wrong=0.0)
    data, true = pair_data(case, only_right=True)
    prior = RotationPrior(true[..., :3], 0.5)
    empty = data.subset(data.pair > 0)
    refined = refine_motions(empty, true, prior)
    np.testing.assert_allclose(refined[0], true[0], atol=1e-7)
    assert torch.isfinite(refined).all()


def test_search_finds_the_translation_of_known_rotations() -> None:
    """Four of ten matches are wrong; least squares would be drawn into forward motion."""
    case = make_case(cameras=5, wrong=0.4)
    data, true = pair_data(case)
    found = search_translations(data, true[..., :3])
    assert float(errors_deg(found, true)[1].max()) < 3
    assert torch.equal(found, search_translations(data, true[..., :3]))
    assert (data.is_in_front(true) == data.is_in_front(found)).double().mean() > 0.9


def test_points_before_and_behind_both_cameras() -> None:
    """A point 2 ahead of two parallel cameras a unit apart; with the baseline turned round it lies behind."""
    ray_i, ray_j = (torch.nn.functional.normalize(torch.tensor([[x, 0.0, -2.0]]), dim=-1) for x in (0.5, -0.5))
    data = PairBearings(torch.tensor([0]), ray_i, ray_j, torch.tensor([100.0]))
    motion = torch.eye(3, 4)[None].clone()
    motion[..., 3] = torch.tensor([-1.0, 0.0, 0.0])
    assert data.is_in_front(motion).tolist() == [True]
    motion[..., 3] = -motion[..., 3]
    assert data.is_in_front(motion).tolist() == [False]


def test_planted_wrong_matches_are_rejected() -> None:
    case = make_case(wrong=0.4)
    matches, report = run(case)
    assert report.after_cycles == len(matches.pairs) == 45
    both = zip(matches.images.tolist(), matches.keypoint_ids.tolist(), strict=True)
    keys = {(*pair, *ids) for pair, ids in both}
    wrong = [key for key in keys if key[2] != key[3]]
    assert len(wrong) < 0.02 * len(keys)
    assert len(keys) - len(wrong) > 0.95 * case.right.sum()
    assert matches.confidence.min() > 0 and matches.confidence.max() <= 1
    _, true = pair_data(case)
    found = torch.cat([torch.from_numpy(matches.rotation), torch.from_numpy(matches.translation)[..., None]], dim=-1)
    turn, drift = errors_deg(found, true)
    assert float(turn.max()) < 1 and float(drift.max()) < 3


def test_near_matches_are_trusted_more() -> None:
    """A match 1.4 px off its line gets less confidence than one on it."""
    case = make_case(cameras=4, wrong=0.0, noise_px=0.5)
    matches, _ = run(case)
    data, true = pair_data(case)
    distance = data.distance_px(true)[: len(matches)]
    near, far = matches.confidence[distance.numpy() < 0.2], matches.confidence[distance.numpy() > 0.9]
    assert near.mean() > 1.2 * far.mean()


def test_folded_pairs_contradict_the_rough_poses() -> None:
    """Perfect two-view geometry of a look-alike side: only the rough poses tell."""
    folded = ((0, 1), (2, 5), (3, 9))
    case = make_case(wrong=0.1, folded=folded)
    matches, report = run(case)
    assert report.verified == 45
    assert report.after_prior <= 42
    kept = {tuple(pair) for pair in matches.pairs.tolist()}
    assert not kept & set(folded)
    assert len(kept) == 42
    assert 5 < report.prior_disagreement_deg < 20


def test_without_the_prior_the_majority_decides() -> None:
    folded = ((0, 1), (2, 5), (3, 9))
    case = make_case(wrong=0.1, folded=folded, rough_deg=170.0)
    matches, report = run(case, prior_angle_deg=None)
    assert report.after_prior == 45
    kept = {tuple(pair) for pair in matches.pairs.tolist()}
    assert not kept & set(folded) and len(kept) == 42


def test_prior_tightens_for_good_poses() -> None:
    assert run(make_case(rough_deg=0.0))[1].prior_limit_deg == 15.0
    noisy = run(make_case(rough_deg=10.0))[1]
    assert noisy.prior_limit_deg == pytest.approx(3 * noisy.prior_disagreement_deg + 5)
    assert run(make_case(rough_deg=10.0), prior_angle_deg=20.0)[1].prior_limit_deg == 20.0


def test_pairs_with_a_wrong_geometry_of_their_own_are_repaired() -> None:
    """Right matches, but the robust estimate went wrong, as it does on flat scenes."""
    case = make_case(wrong=0.2, flat=0.05)
    spoiled = torch.from_numpy(case.putative.motion[::9])
    twist = so3_exp(torch.tensor([0.2, -0.3, 0.1], dtype=torch.float64))
    case.putative.motion[::9] = torch.cat([twist @ spoiled[..., :3], spoiled[..., 3:]], dim=-1).numpy()
    matches, _ = run(case)
    assert len(matches.pairs) == 45
    _, true = pair_data(case)
    assert float(rotation_angle_deg(torch.from_numpy(matches.rotation) @ true[..., :3].transpose(-1, -2)).max()) < 2


def test_nothing_matches_gives_an_empty_result() -> None:
    case = make_case(cameras=3, wrong=1.0)
    matches, report = run(case)
    assert report.matches == len(matches) < 60
    case.putative.strict[:] = False
    matches, report = run(case)
    assert len(matches) == 0 and report.after_cycles == 0


def test_averaging_outvotes_wrong_pairs() -> None:
    case = make_case(cameras=8)
    pairs = torch.from_numpy(case.putative.pairs).long()
    true = case.true[..., :3].transpose(-1, -2)
    relative = true[pairs[:, 1]] @ true[pairs[:, 0]].transpose(-1, -2)
    wrong = so3_exp(torch.tensor([0.0, 1.2, 0.4], dtype=torch.float64))
    relative[::4] = wrong @ relative[::4]
    rough = torch.from_numpy(case.views.c2w)[..., :3].transpose(-1, -2)
    support = torch.where(torch.arange(len(pairs)) % 4 == 0, 20, 80)
    chained = chained_rotations(rough, pairs, relative, support)
    for start in (rough, chained):
        found = average_rotations(start, pairs, relative, prior_sigma_deg=30.0)
        residual = found[pairs[:, 1]] @ found[pairs[:, 0]].transpose(-1, -2) @ relative.transpose(-1, -2)
        angle = rotation_angle_deg(residual)
        assert float(angle[1::4].max()) < 1.0
        assert float(angle[::4].min()) > 45
