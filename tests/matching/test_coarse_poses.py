"""Poses from outlines and colours alone: pictures of solids without texture, and the parts of the fit by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from craym_nerfstudio.geometry.alignment import pose_errors
from craym_nerfstudio.geometry.lie import so3_exp
from craym_nerfstudio.matching import coarse_poses as module
from craym_nerfstudio.matching import find
from craym_nerfstudio.matching.coarse_poses import CoarsePoses, aim, coarse_poses
from craym_nerfstudio.matching.coarse_volume import Ball, CoarseVolume, Level, fitted
from craym_nerfstudio.matching.detectors import Detector, Features
from craym_nerfstudio.matching.find import find_matches
from craym_nerfstudio.matching.glances import GlanceRays, centroid_bearings, glances
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.views import Views
from samples.analytic_scene import Scene, dome_cameras, focal_length_px, render
from samples.make_solids import solids
from tests.matching.test_matches_tracks import made

SIZE_PX, COUNT = 40, 14


def swung(c2w: np.ndarray, sigma_deg: float, seed: int = 0) -> np.ndarray:
    """Cameras turned about the origin, each by its own rotation."""
    twist = np.random.RandomState(seed).standard_normal((len(c2w), 3)) * np.radians(sigma_deg)
    return so3_exp(torch.from_numpy(twist)).numpy() @ c2w


def as_views(paths: list[Path], c2w: np.ndarray, size_px: int) -> Views:
    focal = focal_length_px(size_px)

    def bearings(_: int, pixels: np.ndarray) -> np.ndarray:
        rays = np.concatenate([(pixels - size_px / 2) / focal * [1, -1], -np.ones((len(pixels), 1))], axis=1)
        return rays / np.linalg.norm(rays, axis=1, keepdims=True)

    sizes = np.full((len(paths), 2), size_px)
    return Views([path.name for path in paths], paths, None, c2w, np.full(len(paths), focal), sizes, bearings)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Views:
    """Four solids of one colour each under exact poses."""
    folder = tmp_path_factory.mktemp("toy")
    parts = solids().solids
    scene = Scene((parts[0], parts[1], parts[2], parts[6]), bound_radius=1.15)
    c2w, paths = dome_cameras(COUNT, 4.03, 3, (0.0, 60.0)), []
    for index, pose in enumerate(c2w):
        paths.append(folder / f"{index:02d}.png")
        rgba, _, _ = render(scene, pose, focal_length_px(SIZE_PX), SIZE_PX, SIZE_PX, 1)
        Image.fromarray(rgba).save(paths[-1])
    return as_views(paths, c2w, SIZE_PX)


def error_deg(c2w: np.ndarray, true: np.ndarray) -> float:
    return float(pose_errors(torch.from_numpy(c2w), torch.from_numpy(true)).rotation_deg.median())


def test_outlines_and_colours_bridge_ten_degrees(toy: Views) -> None:
    given = swung(toy.c2w, 8.0)
    images = glances(toy, 13.5)
    assert images is not None
    levels = [(images, Level(16, 1.5, 16, 40, 160, 1.0)), (images, Level(24, 0.7, 20, 40, 100, 0.5))]
    found, difference = fitted(toy, given, Ball(np.zeros(3), 1.3), levels)
    assert error_deg(given, toy.c2w) > 9
    assert error_deg(found, toy.c2w) < 5
    assert 0 < difference < 0.02


def test_origin_and_units_of_the_world_do_not_count(toy: Views) -> None:
    given = swung(toy.c2w, 8.0)
    images = glances(toy, 13.5)
    assert images is not None
    levels = [(images, Level(8, 1.5, 8, 40, 60, 1.0))]
    found, _ = fitted(toy, given, Ball(np.zeros(3), 1.3), levels)
    moved = replace(toy, c2w=np.concatenate([given[:, :, :3], 10 * given[:, :, 3:] + 7], axis=-1))
    again, _ = fitted(moved, moved.c2w, Ball(np.full(3, 7.0), 13.0), levels)
    assert np.abs(found - given).max() > 0.02
    np.testing.assert_allclose(again[:, :, 3], 10 * found[:, :, 3] + 7, atol=0.02)


def test_a_volume_without_steps_leaves_the_poses(toy: Views) -> None:
    volume = CoarseVolume(toy.c2w, Ball(np.array([0.1, 0.2, 0.3]), 2.0))
    np.testing.assert_allclose(volume.c2w(), toy.c2w, atol=1e-6)
    ray = GlanceRays(torch.zeros(1, dtype=torch.long), torch.tensor([[0.0, 0, -1]]), torch.zeros(1, 4))
    # One ray that sees nothing empties what lies along it.
    level = Level(4, 0.0, 8, 40, 60, 1.0)
    assert volume.fit(ray, level) > volume.fit(ray, level) < 5e-3


def test_cameras_are_aimed_at_one_point() -> None:
    c2w = dome_cameras(20, 4.0, 0, (0.0, 60.0))
    turned = c2w.copy()
    turned[:, :, :3] = (
        so3_exp(torch.from_numpy(0.05 * np.random.RandomState(1).standard_normal((20, 3)))).numpy() @ (c2w[:, :, :3])
    )
    ahead = np.tile([0.0, 0, -1], (20, 1))
    aimed, center = aim(turned, ahead)
    np.testing.assert_allclose(center, 0, atol=0.3)
    wanted = center - aimed[:, :, 3]
    np.testing.assert_allclose(-aimed[:, :, 2], wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-9)
    np.testing.assert_array_equal(aimed[:, :, 3], c2w[:, :, 3])


def disc(folder: Path, name: str, x_px: float, radius_px: float = 12.0, size_px: int = 100) -> Path:
    """A red disc in the middle row, half transparent pixels nowhere."""
    rows, columns = np.mgrid[0:size_px, 0:size_px] + 0.5
    inside = np.hypot(columns - x_px, rows - size_px / 2) < radius_px
    pixels = np.zeros((size_px, size_px, 4), np.uint8)
    pixels[inside] = [255, 0, 0, 255]
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def test_glances_show_the_object_in_few_pixels(tmp_path: Path) -> None:
    paths = [disc(tmp_path, f"{k}.png", 50 + 10 * k) for k in range(3)]
    views = as_views(paths, np.tile(np.eye(4)[:3], (3, 1, 1)), 100)
    images = glances(views, 6.0)
    assert images is not None and images[0].rgba.shape == (50, 50, 4)
    inside = images[0].rgba[..., 3].sum()
    assert inside == pytest.approx(np.pi * 6**2, rel=0.03)
    np.testing.assert_allclose(images[0].rgba[..., 0], images[0].rgba[..., 3], atol=1e-6)
    expected = views.bearings(0, np.array([[50.0, 50], [60, 50], [70, 50]]))
    np.testing.assert_allclose(centroid_bearings(views, images), expected, atol=2e-4)


def test_an_object_that_the_border_grazes_counts_as_whole(tmp_path: Path) -> None:
    """A disc of radius 12 whose middle is 11.5 px from the border covers 6 of its 100 px, and 8 % of its own edge."""
    paths = [disc(tmp_path, f"{k}.png", 11.5) for k in range(3)]
    assert glances(as_views(paths, np.tile(np.eye(4)[:3], (3, 1, 1)), 100), 6.0) is not None


@pytest.mark.parametrize("case", ["cut", "opaque", "speck"])
def test_without_one_whole_object_there_is_no_glance(case: str, tmp_path: Path) -> None:
    paths = [disc(tmp_path, f"{k}.png", 50) for k in range(8)]
    if case == "cut":
        disc(tmp_path, "0.png", 5)
    elif case == "opaque":
        Image.new("RGB", (100, 100), "red").save(paths[0])
    else:
        disc(tmp_path, "0.png", 50, radius_px=2)
    assert coarse_poses(as_views(paths, dome_cameras(8, 4.0, 0), 100), ["key"], tmp_path / "cache") is None


@pytest.mark.parametrize(("difference", "detector"), [(1e-4, "sift"), (1e-2, "xfeat-lighterglue")])
def test_auto_takes_the_volume_where_sift_starves(
    difference: float, detector: str, toy: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its poses verify SIFT's pairs where it explains the pictures, else XFeat's, and go on with the matches."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    better = toy.c2w.copy()
    better[:, :, 3] *= 1.01
    rough, coarse = replace(toy, c2w=swung(toy.c2w, 8.0)), CoarsePoses(better, np.float64(difference))
    asked = []

    def matched(views: Views, with_detector: Detector, *rest: object) -> tuple[Matches, None]:
        asked.append((with_detector.name, views.c2w, rest[-1]))
        return made([(0, 1, 1, 2, 0.5)], images=COUNT), None

    few = [Features(np.zeros((5, 2), np.float32), np.arange(5), np.zeros((5, 128)), np.array([40, 40]))]
    monkeypatch.setattr(find, "_matched", matched)
    monkeypatch.setattr(find, "all_features", lambda *_: few)
    monkeypatch.setattr(find, "coarse_poses", lambda *_: coarse)
    matches = find_matches(rough, "auto", tmp_path)
    np.testing.assert_array_equal(matches.guess_c2w, better)
    assert [name for name, _, _ in asked] == ["sift", detector]
    np.testing.assert_array_equal(asked[0][1], rough.c2w)
    np.testing.assert_array_equal(asked[1][1], better)
    assert asked[0][2] == 60.0 > asked[1][2]


@pytest.mark.parametrize(("views", "asked"), [(COUNT, False), (find.MANY_VIEWS, True)])
def test_a_volume_of_textured_objects_takes_many_views(
    views: int, asked: bool, toy: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    several = [k % COUNT for k in range(views)]
    many = replace(
        toy,
        names=[f"{k}.png" for k in range(views)],
        paths=[toy.paths[k] for k in several],
        c2w=toy.c2w[several],
        size_px=toy.size_px[several],
        focal_px=toy.focal_px[several],
    )
    points = np.random.RandomState(0).rand(find.TEXTURED, 2).astype(np.float32)
    textured = [Features(points, np.arange(find.TEXTURED), np.zeros((find.TEXTURED, 128)), np.array([40, 40]))]
    tried = []
    monkeypatch.setattr(find, "_matched", lambda *_: (made([(0, 1, 1, 2, 0.5)], images=views), None))
    monkeypatch.setattr(find, "all_features", lambda *_: textured)
    monkeypatch.setattr(find, "coarse_poses", lambda views, *_: tried.append(len(views.names)))
    find_matches(many, "auto", tmp_path)
    assert bool(tried) == asked


def test_poses_of_the_volume_are_kept(toy: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rough = replace(toy, c2w=swung(toy.c2w, 8.0))
    monkeypatch.setattr(module, "_COARSE", (Level(16, 1.0, 16, 40, 90, 1.0),))
    monkeypatch.setattr(module, "_FINE", Level(16, 1.0, 16, 40, 5, 0.5))
    first = coarse_poses(rough, ["key"], tmp_path)
    monkeypatch.setattr(module, "_fit", None)
    again = coarse_poses(rough, ["key"], tmp_path)
    assert first is not None and again is not None
    np.testing.assert_array_equal(again.c2w, first.c2w)
    assert error_deg(first.c2w, toy.c2w) < error_deg(rough.c2w, toy.c2w)
    centers = rough.c2w[:, :, 3].mean(0), first.c2w[:, :, 3].mean(0)
    assert np.linalg.norm(centers[0] - centers[1]) < 0.3
