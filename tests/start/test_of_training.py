"""What of a start concerns the training images, where test images were placed with them."""

from dataclasses import replace

import numpy as np
import pytest

from craym_nerfstudio.sfm.adjust import adjust_rays
from craym_nerfstudio.sfm.result import Intrinsics
from craym_nerfstudio.start.find import Start
from tests.sfm.synthetic import FOCAL_PX, SIZE_PX, disturbed, make_scene, ring

TRUE = ring(12)
IS_TEST = np.arange(12) % 5 == 2


@pytest.fixture(scope="module")
def posed() -> tuple[Start, object]:
    made = make_scene(TRUE, disturbed(TRUE, 3.0, 0.1), noise_px=0.2)
    stage = adjust_rays(made.views, made.matches)
    stage.intrinsics = Intrinsics(1.01, own_focal=tuple(np.linspace(0.9, 1.1, 12).tolist()))
    return Start(stage.c2w, np.arange(12) == 3, made.matches, stage_zero=stage, intrinsics=stage.intrinsics), made.views


def test_training_images_keep_theirs_and_test_images_their_poses(posed: tuple) -> None:
    whole, views = posed
    train = np.flatnonzero(~IS_TEST)
    half = replace(
        views, names=[views.names[k] for k in train], c2w=views.c2w[train], size_px=views.size_px[train] // 2
    )
    start = whole.of_training(half, views)
    stage, before = start.stage_zero, whole.stage_zero
    assert stage.names == start.matches.names == half.names and start.fixed.tolist() == [k == 3 for k in train]
    np.testing.assert_array_equal(start.c2w, whole.c2w[train])
    np.testing.assert_array_equal(start.test_c2w, whole.c2w[IS_TEST])
    np.testing.assert_array_equal(stage.num_rays, before.num_rays[train])
    np.testing.assert_array_equal(stage.epipolar_after_px, before.epipolar_after_px[train] / 2)
    assert start.intrinsics.own_focal == stage.intrinsics.own_focal
    assert start.intrinsics.own_focal == tuple(np.array(before.intrinsics.own_focal)[train])
    # Each point lies where the rays that are left say, and its keypoints at half the size.
    assert len(stage.points) > 100 and (np.bincount(stage.ray_point) >= 2).all()
    offset = stage.points[stage.ray_point] - stage.c2w[stage.ray_image, :, 3]
    local = np.einsum("nji,nj->ni", stage.c2w[stage.ray_image, :, :3], offset)
    seen = local[:, :2] / -local[:, 2:] * [1.0, -1.0] * FOCAL_PX + SIZE_PX / 2
    assert np.median(np.abs(seen / 2 - stage.ray_keypoint_px)) < 0.2
    assert set(start.matches.images.ravel().tolist()) == set(range(len(train)))
    assert start.matches.keypoints.max() <= SIZE_PX / 2


def test_without_test_images_nothing_changes(posed: tuple) -> None:
    whole, views = posed
    start = whole.of_training(views, views)
    assert start.test_c2w is None and start.stage_zero is whole.stage_zero
    np.testing.assert_array_equal(start.matches.keypoints, whole.matches.keypoints)
    alone = Start(views.c2w, whole.fixed).of_training(views, views)
    assert alone.matches is None and alone.stage_zero is None and alone.test_c2w is None
