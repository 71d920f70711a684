"""Exact poses with something else wrong: they stay as they are, and what is wrong is said."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.alignment import pose_errors
from craym_nerfstudio.geometry.lie import so3_exp
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.two_view import ransac_motion
from craym_nerfstudio.matching.verify import threshold_px, verify
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.sfm.adjust import adjust_rays
from craym_nerfstudio.sfm.ray_graph import match_angle
from craym_nerfstudio.sfm.result import StageZero
from tests.preflight.planted import observed, poses
from tests.sfm.synthetic import FOCAL_PX, SIZE_PX, disturbed, make_scene, ring

UNEVEN = poses() - torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)[:, None] * torch.tensor([0.0, 0, 0, 1])
CAPTURES = {"uneven": UNEVEN, "ring": ring(12), "arc": ring(10, stop_deg=40)}
MIDDLE = SIZE_PX / 2


def matched(
    c2w: torch.Tensor,
    given: torch.Tensor,
    focal: float | np.ndarray = 1.0,
    center: tuple[float, float] | np.ndarray = (MIDDLE, MIDDLE),
    cropped: np.ndarray | None = None,
    k1: float = 0.0,
    points: int = 400,
    hidden: float = 0.0,
) -> tuple[Views, Matches]:
    """Verified matches as a user gets them who holds `focal` times the focal length, `center` (one, or one for each
    image) and no distortion for true; a mask hides the left part `hidden` of every image. `cropped` images are of
    another size.
    """
    focal_px, center_px = np.broadcast_to(focal, len(c2w)) * FOCAL_PX, np.broadcast_to(center, (len(c2w), 2))
    made = make_scene(c2w, given, points=points, noise_px=0.3, wrong=0.1)
    found = observed(made.matches)
    putative, keypoints = found.putative, []
    for pixels in found.keypoints:
        plane = (pixels - MIDDLE) / FOCAL_PX
        bent = plane * (1 + k1 * (plane**2).sum(-1, keepdims=True)) * FOCAL_PX + MIDDLE
        keypoints.append(bent.astype(np.float32))

    def bearings(image: int, pixels: np.ndarray) -> np.ndarray:
        plane = (np.asarray(pixels, dtype=np.float64) - center_px[image]) / focal_px[image] * [1.0, -1.0]
        rays = np.concatenate([plane, -np.ones((len(plane), 1))], axis=1)
        return rays / np.linalg.norm(rays, axis=1, keepdims=True)

    views = replace(made.views, bearings=bearings, focal_px=focal_px)
    if cropped is not None:
        views = replace(views, size_px=np.where(cropped[:, None], [SIZE_PX, SIZE_PX - 100], SIZE_PX))
    rays = [bearings(k, pixels) for k, pixels in enumerate(keypoints)]
    images = putative.pairs[putative.pair_of_match]
    ends = np.stack([np.stack(keypoints)[images[:, k], putative.keypoint_ids[:, k]] for k in (0, 1)], axis=1)
    shown = (ends[..., 0] > hidden * SIZE_PX).all(1)
    putative = replace(
        putative,
        motion=putative.motion.copy(),
        pair_of_match=putative.pair_of_match[shown],
        keypoint_ids=putative.keypoint_ids[shown],
        score=putative.score[shown],
        strict=putative.strict[shown],
    )
    for pair, (i, j) in enumerate(putative.pairs):
        ids = putative.keypoint_ids[putative.pair_of_match == pair]
        motion = ransac_motion(rays[i][ids[:, 0]], rays[j][ids[:, 1]], threshold_px(views) / focal_px[[i, j]].mean())
        if motion is not None:
            putative.motion[pair] = motion
    return views, verify(putative, views, keypoints, rays, "synthetic")[0]


def turned_deg(result: StageZero, c2w: torch.Tensor) -> float:
    """Largest rotation error of a camera as it stands in the data's frame."""
    errors = pose_errors(torch.from_numpy(result.c2w), c2w)
    return float(errors.rotation_deg.max())


SCATTERED = np.exp(np.random.RandomState(1).normal(0, 0.015, len(UNEVEN)))
TWO_WRONG = np.where(np.isin(np.arange(len(UNEVEN)), [2, 7]), 1.06, 1.0)
EVERY_OTHER = np.arange(len(UNEVEN)) % 2 == 1
CENTER_OF_EVERY_OTHER = MIDDLE + np.outer(EVERY_OTHER, [0.0, 0.12 * SIZE_PX])

WRONG: dict[str, dict] = {
    "nothing": {},
    "focal length x 1.3": {"focal": 1.3},
    "focal length x 0.5": {"focal": 0.5},
    "focal length x 2": {"focal": 2.0},
    "principal point on the corner": {"center": (SIZE_PX, SIZE_PX)},
    "principal point a tenth off": {"center": (MIDDLE + 0.1 * SIZE_PX, MIDDLE)},
    "focal length and principal point of the double size": {"focal": 2.0, "center": (SIZE_PX, SIZE_PX)},
    "distortion ignored": {"k1": -0.2},
    "a focal length of its own for each image": {"focal": SCATTERED},
    "the same, and the principal point": {"focal": SCATTERED, "center": (MIDDLE + 0.05 * SIZE_PX, MIDDLE)},
    "focal length of two images": {"focal": TWO_WRONG},
    "the centre of the images of one size": {"center": CENTER_OF_EVERY_OTHER, "cropped": EVERY_OTHER},
    "masks hide two thirds": {"hidden": 0.66},
    "masks hide nearly all": {"hidden": 0.8},
    "a few matches": {"points": 60},
    "hardly more": {"points": 90},
}


OF_OTHER_CAPTURES = ("focal length x 0.5", "principal point on the corner", "a few matches")
"""A ring explains some wrong lenses by itself, and an arc bends easily."""


@pytest.mark.parametrize(
    ("capture", "wrong"),
    [*(("uneven", wrong) for wrong in WRONG), *((other, w) for other in ("ring", "arc") for w in OF_OTHER_CAPTURES)],
)
def test_exact_poses_stay_whatever_else_is_wrong(capture: str, wrong: str) -> None:
    c2w = CAPTURES[capture]
    result = adjust_rays(*matched(c2w, c2w, **WRONG[wrong]))
    assert turned_deg(result, c2w) < 0.01
    assert result.decision.chosen == "input"


@pytest.mark.parametrize("focal", [SCATTERED, TWO_WRONG])
def test_wrong_focal_lengths_of_single_images_are_named(focal: np.ndarray) -> None:
    result = adjust_rays(*matched(UNEVEN, UNEVEN, focal=focal))
    assert result.suspected is None and result.focal_factors is not None
    np.testing.assert_allclose(result.focal_factors * focal, 1.0, atol=0.006)
    assert (result.focal_factors[focal == 1] == 1).all()
    worst = int(np.abs(np.log(focal)).argmax())
    assert f"{worst:03d}.png needs {result.focal_factors[worst]:.3f} of its own" in result.notes[0]


def test_the_lens_of_the_images_of_one_size_is_named() -> None:
    result = adjust_rays(*matched(UNEVEN, UNEVEN, center=CENTER_OF_EVERY_OTHER, cropped=EVERY_OTHER))
    assert result.suspected is not None and result.suspected_of is not None
    assert np.array_equal(result.suspected_of, EVERY_OTHER)
    assert result.suspected.center == pytest.approx((0.0, -0.12 * SIZE_PX / FOCAL_PX), abs=3e-3)
    assert "of one size" in result.notes[0]


def test_a_wrong_lens_is_named_and_can_be_refined() -> None:
    """A centre on the corner: 200 px of 500 right and down, which a rotation would soak up."""
    views, matches = matched(UNEVEN, UNEVEN, center=(SIZE_PX, SIZE_PX))
    kept = adjust_rays(views, matches)
    assert kept.intrinsics is None and "intrinsics" in kept.notes[0]
    assert "moved by (-0.39" in kept.decision.reason
    refined = adjust_rays(views, matches, refine_intrinsics=True)
    assert refined.intrinsics is not None
    assert refined.intrinsics.center == pytest.approx((-0.4, -0.4), abs=2e-3)
    assert refined.intrinsics.focal_factor == pytest.approx(1.0, abs=2e-3)
    assert turned_deg(refined, UNEVEN) < 0.01


@pytest.mark.parametrize("noise_deg", [0.3, 8.0])
def test_rough_poses_are_not_laid_at_the_door_of_the_lens(noise_deg: float) -> None:
    rough = disturbed(UNEVEN, noise_deg, noise_deg / 30)
    result = adjust_rays(*matched(UNEVEN, rough))
    assert result.decision.chosen == "solution" and result.notes == []
    assert turned_deg(result, UNEVEN) < 0.3


def test_one_place_for_all_cameras_is_an_error() -> None:
    """Identity for every image, in map coordinates too: a residual of 0 px is no praise."""
    for place in ([0.0, 0.0, 0.0], [512345.678, 5412345.123, 210.5]):
        given = torch.eye(4, dtype=torch.float64)[:3].repeat(12, 1, 1)
        given[:, :, 3] = torch.tensor(place, dtype=torch.float64)
        made = make_scene(ring(12), given)
        with pytest.raises(InputError, match="12 cameras in one place"):
            adjust_rays(made.views, made.matches)


def test_stuck_poses_do_not_pass_as_explained() -> None:
    """The last five of twelve images repeat the pose of the seventh: between them there are no epipolar lines."""
    true = ring(12, stop_deg=200)
    given = true.clone()
    given[7:] = true[6]
    result = adjust_rays(*matched(true, given))
    assert result.decision.chosen == "solution" or "adjusted" in result.state[7:]
    assert turned_deg(result, true) < 0.7 * float(pose_errors(given, true).rotation_deg.max())


def test_a_pair_without_baseline_is_judged_by_its_rotation() -> None:
    """Two crops of one panorama, 1 degree apart: rays that the rotation does not bring together are 1 degree apart."""
    turn = so3_exp(torch.tensor([[0.0, np.radians(1.0), 0.0]], dtype=torch.float64))
    motion = torch.cat([turn, torch.zeros(1, 3, 1, dtype=torch.float64)], dim=-1).repeat(2, 1, 1)
    ahead = torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64)
    second = torch.cat([ahead, ahead @ turn[0].T])
    angle = match_angle(motion, ahead.repeat(2, 1), second)
    torch.testing.assert_close(angle, torch.tensor([np.radians(1.0) / 2**0.5, 0.0]), atol=1e-9, rtol=1e-9)
