"""A second look: more and closer rays on flat walls, nothing where it does not help, and no look at what is masked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from craym_nerfstudio.geometry.alignment import pose_errors
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.sfm import second_look
from craym_nerfstudio.sfm.adjust import adjust_rays
from craym_nerfstudio.sfm.result import StageZero
from craym_nerfstudio.sfm.second_look import adjust_twice, look_again, misses_px
from craym_nerfstudio.start.find import adjusted
from tests.matching import corner_scene

_VIEWS, _POINTS, _REACH, _DETECTED = 32, 400, 3, 0.5


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Views:
    return corner_scene.write_views(tmp_path_factory.mktemp("corner"), _VIEWS)


def neighbours_match(views: Views, sigma_px: float, growing: float = 0.0) -> Matches:
    """Matches of points on the walls, each detected in half of the images; or of all, noise growing by angle."""
    random = np.random.RandomState(0)
    points = random.uniform(0.3, 2.0, (_POINTS, 3))
    points[np.arange(_POINTS), np.arange(_POINTS) % 3] = 0.0
    local = np.einsum("nck,npc->npk", views.c2w[:, :, :3], points[None] - views.c2w[:, None, :, 3])
    px = local[..., :2] / -local[..., 2:] * [1.0, -1.0] * corner_scene.FOCAL_PX + np.array(corner_scene.SIZE_PX) / 2
    noise = sigma_px * random.standard_normal(px.shape)
    reach = _VIEWS if growing else _REACH
    pairs = np.array([(i, j) for i in range(_VIEWS) for j in range(i + 1, min(i + reach + 1, _VIEWS))], dtype=np.int32)
    inside = ((px > 6) & (px < np.array(corner_scene.SIZE_PX) - 6)).all(-1)
    inside &= random.uniform(size=inside.shape) < _DETECTED
    ends, pair = [], []
    for number, (i, j) in enumerate(pairs):
        common = np.flatnonzero(inside[i] & inside[j])
        factor = 1 + growing * (j - i) / _VIEWS
        ends.append(np.stack([px[i, common] + noise[i, common], px[j, common] + factor * noise[j, common]], axis=1))
        pair.append(np.stack([np.full(len(common), number), common], axis=1))
    number, point = np.concatenate(pair).T
    keypoints = np.concatenate(ends)
    rotation = views.c2w[:, :, :3].transpose(0, 2, 1)
    relative = rotation[pairs[:, 1]] @ rotation[pairs[:, 0]].transpose(0, 2, 1)
    shift = views.c2w[pairs[:, 0], :, 3] - views.c2w[pairs[:, 1], :, 3]
    motion = np.einsum("nij,nj->ni", rotation[pairs[:, 1]], shift)
    bearings = corner_scene.bearings(0, keypoints.reshape(-1, 2)).reshape(-1, 2, 3)
    return Matches(
        names=views.names,
        size_px=views.size_px,
        pairs=pairs,
        rotation=relative,
        translation=motion / np.linalg.norm(motion, axis=1, keepdims=True),
        pair_of_match=number.astype(np.int32),
        keypoints=keypoints.astype(np.float32),
        keypoint_ids=np.stack([point, point], axis=1).astype(np.int32),
        bearings=bearings.astype(np.float32),
        confidence=np.full(len(point), 0.9, np.float32),
        detector="sift",
    )


@pytest.fixture(scope="module")
def first(views: Views) -> tuple[Views, Matches, StageZero]:
    rough, matches = corner_scene.turned(views, 3.0), neighbours_match(views, sigma_px=0.3)
    return rough, matches, adjust_rays(rough, matches)


def rotation_deg(stage: StageZero) -> float:
    return pose_errors(torch.from_numpy(stage.c2w), torch.from_numpy(corner_scene.poses(_VIEWS))).rotation_deg_mean


def test_flat_walls_are_seen_by_more_rays_and_poses_gain(first: tuple[Views, Matches, StageZero]) -> None:
    rough, matches, before = first
    closer, after = adjust_twice(rough, matches)
    assert after.looked_again and not before.looked_again
    assert len(after.ray_point) > 1.5 * len(before.ray_point)
    assert after.keypoint_sigma_px < 0.5 * before.keypoint_sigma_px
    assert rotation_deg(after) < 0.5 * rotation_deg(before)
    assert len(after.match_weight) == len(closer) and closer.detector == "sift"
    assert after.decision == before.decision
    assert max(misses_px(closer, rough, after)) < 0.03


def test_exact_poses_and_few_views_get_no_second_look(views: Views) -> None:
    matches = neighbours_match(views, sigma_px=0.3)
    same, stage = adjust_twice(views, matches)
    assert same is matches and stage.decision.chosen == "input" and not stage.looked_again
    assert np.array_equal(stage.c2w, views.c2w)


def test_errors_that_grow_with_the_angle_show(views: Views) -> None:
    even, growing = (neighbours_match(views, 0.2, each) for each in (1e-9, 30.0))
    stage = replace(adjust_rays(views, even), c2w=views.c2w)
    (near, far), (grown_near, grown_far) = (misses_px(each, views, stage) for each in (even, growing))
    assert far == pytest.approx(near, rel=0.2) and grown_far > 1.3 * grown_near > 1.3 * near


@pytest.mark.parametrize(
    ("misses", "words"),
    [((0.05, 0.08), "0.05 px from the front, 0.08 from the side"), ((0.05, np.nan), "too few points")],
)
def test_a_second_look_is_not_believed_where_patches_miss_from_the_side(
    first: tuple[Views, Matches, StageZero],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    misses: tuple[float, float],
    words: str,
) -> None:
    rough, matches, before = first
    monkeypatch.setattr(second_look, "misses_px", lambda *_: misses)
    same, stage = adjust_twice(rough, matches)
    assert same is matches and np.array_equal(stage.c2w, before.c2w)
    assert words in " ".join(capsys.readouterr().out.split())


def test_masked_pixels_are_not_looked_at(first: tuple[Views, Matches, StageZero], tmp_path: Path) -> None:
    rough, matches, stage = first
    width, height = corner_scene.SIZE_PX
    mask = np.full((height, width), 255, np.uint8)
    mask[:, : width // 2] = 0
    Image.fromarray(mask).save(tmp_path / "half.png")
    paths: list[Path | None] = [None] * _VIEWS
    paths[5] = tmp_path / "half.png"
    for views, least, most in ((rough, 0.2, 0.8), (replace(rough, mask_paths=paths), -1e-9, 0.0)):
        closer = look_again(views, matches, stage)
        here = (closer.images == 5) & (closer.confidence > 0.5)[:, None]
        is_reference = np.isin(closer.keypoints[..., 0], stage.ray_keypoint_px[:, 0].astype(np.float32))
        left = (closer.keypoints[here & ~is_reference][:, 0] < width / 2 - 3).mean()
        assert least < left <= most


def test_the_cache_keeps_the_matches_of_the_second_look(
    first: tuple[Views, Matches, StageZero], tmp_path: Path
) -> None:
    rough, matches, _ = first
    nothing_fixed = np.zeros(_VIEWS, dtype=bool)
    closer, stage = adjusted(rough, matches, tmp_path, nothing_fixed, False)
    again, cached = adjusted(rough, matches, tmp_path, nothing_fixed, False)
    assert stage.looked_again and cached.looked_again
    assert np.array_equal(closer.keypoints, again.keypoints) and np.array_equal(stage.c2w, cached.c2w)
    next(tmp_path.glob("closer-*.npz")).unlink()
    assert len(adjusted(rough, matches, tmp_path, nothing_fixed, False)[0]) == len(closer)


def test_references_lie_in_training_images_where_some_see_the_point(first: tuple[Views, Matches, StageZero]) -> None:
    rough, matches, before = first
    is_test = np.arange(_VIEWS) % 4 == 1
    closer = look_again(replace(rough, is_test=is_test), matches, before)
    among_tests = is_test[closer.images].all(1)
    with_training = closer.keypoint_ids[~among_tests, 0]
    # No point of which training images see something hangs on a test image's ray.
    assert not np.isin(closer.keypoint_ids[among_tests, 0], with_training).any()
    kept = closer.subset(~is_test[closer.images].any(1))
    tried = look_again(rough, matches, before)
    assert len(kept) > 1.05 * (~is_test[tried.images].any(1)).sum()
