"""What of a start concerns the training images, where test images were placed with them; matches of a file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from craym_nerfstudio.data.config import AskedRegion
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.sfm.adjust import adjust_rays
from craym_nerfstudio.sfm.result import Intrinsics
from craym_nerfstudio.start.config import StartConfig
from craym_nerfstudio.start.find import Start, found_matches
from craym_nerfstudio.storage import file_key
from tests.sfm.synthetic import FOCAL_PX, SIZE_PX, disturbed, make_scene, ring

TRUE = ring(12)
IS_TEST = np.arange(12) % 5 == 2
OWN = np.linspace(0.9, 1.1, 12)
SHRUNK = np.where(np.arange(12) % 2, 2, 4)
"""By what the images are divided for training: not all alike."""


@pytest.fixture(scope="module")
def posed() -> tuple[Start, Views]:
    made = make_scene(TRUE, disturbed(TRUE, 3.0, 0.1), noise_px=0.2)
    stage = adjust_rays(made.views, made.matches)
    stage.intrinsics = Intrinsics(1.01, own_focal=tuple(OWN.tolist()))
    stage.focal_factors, stage.suspected_of = OWN[::-1], IS_TEST
    return Start(stage.c2w, np.arange(12) == 3, made.matches, stage_zero=stage, intrinsics=stage.intrinsics), made.views


def test_training_images_keep_theirs_and_test_images_their_poses(
    posed: tuple[Start, Views], capsys: pytest.CaptureFixture[str]
) -> None:
    whole, views = posed
    train, before = np.flatnonzero(~IS_TEST), whole.stage_zero
    names, size_px = [views.names[k] for k in train], views.size_px[train] // SHRUNK[train, None]
    tests = [views.names[k] for k in (7, 2)]
    start = whole.of_training(replace(views, names=names, c2w=views.c2w[train], size_px=size_px), views, tests)
    stage = start.stage_zero
    assert stage.names == start.matches.names == names and start.fixed.tolist() == [k == 3 for k in train]
    np.testing.assert_array_equal(start.c2w, whole.c2w[train])
    np.testing.assert_array_equal(start.test_c2w, whole.c2w[[7, 2]])
    assert start.test_focal == (OWN[7], OWN[2]) and "Test images: 2 adjusted" in capsys.readouterr().out
    np.testing.assert_array_equal(stage.epipolar_after_px, before.epipolar_after_px[train])
    np.testing.assert_array_equal(stage.focal_factors, OWN[::-1][train])
    np.testing.assert_array_equal(stage.suspected_of, IS_TEST[train])
    assert start.intrinsics == stage.intrinsics == Intrinsics(1.01, own_focal=tuple(OWN[train]))
    # Each point lies where the rays that are left say, and its keypoints at the size of their image.
    assert len(stage.points) > 100 and (np.bincount(stage.ray_point) >= 2).all()
    np.testing.assert_array_equal(stage.num_rays, np.bincount(stage.ray_image))
    offset = stage.points[stage.ray_point] - stage.c2w[stage.ray_image, :, 3]
    local = np.einsum("nji,nj->ni", stage.c2w[stage.ray_image, :, :3], offset)
    seen = local[:, :2] / -local[:, 2:] * [1.0, -1.0] * FOCAL_PX + SIZE_PX / 2
    assert np.median(np.abs(seen / SHRUNK[train][stage.ray_image, None] - stage.ray_keypoint_px)) < 0.2
    assert (start.matches.keypoints <= (SIZE_PX / SHRUNK[train])[start.matches.images][..., None]).all()


def test_images_that_are_for_training_too_are_judged_from_where_they_start(posed: tuple[Start, Views]) -> None:
    whole, views = posed
    start = whole.of_training(views, views, views.names)
    np.testing.assert_array_equal(start.test_c2w, whole.c2w)
    assert start.stage_zero.names == views.names and start.test_focal == tuple(OWN)
    np.testing.assert_array_equal(start.matches.keypoints, whole.matches.keypoints)


def test_test_images_that_were_not_placed_keep_the_poses_they_have(posed: tuple[Start, Views]) -> None:
    whole, views = posed
    assert whole.of_training(views, views, ["elsewhere.png"]).test_c2w is None
    alone = Start(views.c2w, whole.fixed).of_training(views, views, views.names)
    assert alone.matches is None and alone.stage_zero is None and alone.test_c2w is None


def test_matches_of_a_file_are_seen_through_the_lens_of_today(tmp_path: Path) -> None:
    """Matched before the focal length was corrected, to half of it."""
    made = make_scene(TRUE, disturbed(TRUE, 3.0, 0.1))
    made.matches.save(tmp_path / "matches.npz")
    views = replace(made.views, bearings=lambda image, at: made.views.bearings(image, at) * [2.0, 2.0, 1.0])
    config = StartConfig(matches=tmp_path / "matches.npz")
    assert found_matches(made.views, config).bearings == pytest.approx(made.matches.bearings, abs=1e-6)
    found = found_matches(views, config).bearings
    assert found[..., :2] == pytest.approx(2.0 * made.matches.bearings[..., :2], abs=1e-5)


def test_matches_of_other_files_of_the_same_names_are_remarked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_scene(TRUE, disturbed(TRUE, 3.0, 0.1))
    paths = [tmp_path / name for name in made.views.names]
    for path in paths:
        path.write_text(path.name)
    views, config = replace(made.views, paths=paths), StartConfig(matches=tmp_path / "matches.npz")
    replace(made.matches, file_keys=[file_key(path) for path in paths]).save(tmp_path / "matches.npz")
    found_matches(views, config)
    assert "other files" not in capsys.readouterr().out
    paths[3].write_text("another photo")
    found_matches(views, config)
    said = " ".join(capsys.readouterr().out.split())
    assert f"1 of 12 images are other files than were matched, such as {views.names[3]}" in said


def test_a_missing_file_of_matches_is_one_clear_line(tmp_path: Path) -> None:
    made = make_scene(TRUE, disturbed(TRUE, 3.0, 0.1))
    with pytest.raises(InputError, match=r"^Missing file: \S+nothing\.npz\. "):
        found_matches(made.views, StartConfig(matches=tmp_path / "nothing.npz"))


def test_a_region_that_no_camera_sees_is_refused(posed: tuple[Start, Views]) -> None:
    start, views = posed
    with pytest.raises(InputError, match="No camera sees the region"):
        start.within(AskedRegion((1e4, 1e4, 1e4), 1.0), Similarity.of(), views)
