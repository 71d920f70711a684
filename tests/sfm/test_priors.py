"""What is said of the given poses' errors: it counts instead of an estimate, rotations and positions apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.alignment import Similarity, pose_errors
from craym_nerfstudio.geometry.lie import rotation_angle_deg
from craym_nerfstudio.matching.views import PosePriors
from craym_nerfstudio.sfm.adjust import adjust_rays
from craym_nerfstudio.sfm.refinement import trust_in_input
from craym_nerfstudio.start.find import adjusted, with_prior_sigma
from tests.sfm.synthetic import disturbed, make_scene, ring

TRUE = ring(12)
ALL = np.ones(12, dtype=bool)


def of_all(degrees: float, length: float) -> PosePriors:
    return PosePriors(np.full(12, degrees), np.full(12, length))


def test_what_is_said_counts_instead_of_the_spread() -> None:
    rough = disturbed(TRUE, 2.0, 0.2)
    said = PosePriors(np.array([0.5, *[np.nan] * 11]), np.array([np.nan, 0.03, *[np.nan] * 10]))
    plain, prior = trust_in_input(TRUE, rough, ALL), trust_in_input(TRUE, rough, ALL, said)
    assert plain is not None and prior is not None
    assert float(prior.sigma_rotation_rad[0]) == pytest.approx(np.radians(0.5))
    assert float(prior.sigma_translation[1]) == pytest.approx(0.03)
    assert torch.equal(prior.sigma_rotation_rad[1:], plain.sigma_rotation_rad[1:])
    assert torch.equal(prior.sigma_translation[2:], plain.sigma_translation[2:])
    two = ALL & (np.arange(12) < 2)
    assert trust_in_input(TRUE, rough, two) is None
    few = trust_in_input(TRUE, rough, two, said)
    assert few is not None and torch.isinf(few.sigma_translation[0]) and torch.isinf(few.sigma_rotation_rad[2:]).all()


def test_measured_centers_pull_in_place_of_the_given_ones() -> None:
    centers = np.full((12, 3), np.nan)
    centers[3] = [1.0, 2.0, 3.0]
    prior = trust_in_input(TRUE, TRUE, ALL, replace(of_all(1.0, 0.1), centers=centers))
    assert prior is not None
    expected = TRUE.clone()
    expected[3, :, 3] = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(prior.c2w, expected)


def test_priors_move_with_the_frame() -> None:
    move = Similarity.of(2.0, translation=np.array([1.0, 0.0, 0.0]))
    moved = replace(of_all(1.5, 0.1), centers=np.zeros((12, 3))).moved(move)
    assert moved.translation_sigma[0] == pytest.approx(0.2) and moved.rotation_sigma_deg[0] == 1.5
    assert moved.centers is not None and moved.centers[0] == pytest.approx([1.0, 0.0, 0.0])


def test_good_rotations_with_drifting_positions() -> None:
    """An inertial sensor knows rotations to 0.02 degrees; few and coarse keypoints alone do worse."""
    random = np.random.RandomState(0)
    rough = TRUE.clone()
    rough[:, :, 3] += torch.from_numpy(random.normal(0, 0.3, (12, 3)))
    made = make_scene(TRUE, rough, points=60, noise_px=2.0, max_angle_deg=40)
    off = {}
    for name, priors in (("none", None), ("said", of_all(0.02, 0.3))):
        result = adjust_rays(replace(made.views, priors=priors), made.matches)
        assert result.decision.chosen == "solution"
        turn = torch.from_numpy(result.c2w)[:, :, :3].mT @ TRUE[:, :, :3]
        off[name] = float((rotation_angle_deg(turn)).mean())
    assert off["said"] < 0.5 * off["none"]


def test_one_error_for_all_is_told_by_a_flag(tmp_path: Path) -> None:
    rough = disturbed(TRUE, 1.5, 0.08)
    made = make_scene(TRUE, rough, noise_px=0.3)
    views = with_prior_sigma(made.views, (1.5, 2.0))
    assert views.priors is not None
    # The cameras stand 4 units from what they look at.
    np.testing.assert_allclose(views.priors.translation_sigma, 0.08, rtol=0.05)
    some = replace(views.priors, rotation_sigma_deg=np.array([0.1, *[np.nan] * 11]))
    kept = with_prior_sigma(replace(views, priors=some), (1.5, 2.0)).priors
    assert kept is not None and kept.rotation_sigma_deg[:2] == pytest.approx([0.1, 1.5])
    assert with_prior_sigma(made.views, None) is made.views
    with pytest.raises(InputError, match="prior-sigma is 0 2"):
        with_prior_sigma(made.views, (0.0, 2.0))
    results = [adjusted(each, made.matches, tmp_path, ~ALL, False)[1] for each in (made.views, views)]
    assert len(list(tmp_path.glob("stage0-*.npz"))) == 2
    assert all(pose_errors(torch.from_numpy(result.c2w), TRUE).rotation_deg_mean < 0.1 for result in results)
