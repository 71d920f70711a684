"""How planes look from elsewhere, against the walls of a corner; tilts from maps of patches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from craym_nerfstudio.geometry.pinhole import refocused
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.sfm.planes import Cameras, Planes, fit_tilts, seen_in
from craym_nerfstudio.sfm.result import Intrinsics
from tests.matching import corner_scene


def bent(image: int, px: np.ndarray) -> np.ndarray:
    """Bearings of a lens with barrel distortion."""
    bearing = corner_scene.bearings(image, px)
    plane = bearing[:, :2] / -bearing[:, 2:]
    plane = plane * (1 + 0.15 * (plane**2).sum(1, keepdims=True))
    rays = np.concatenate([plane, -np.ones((len(plane), 1))], axis=1)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def views_of(bearings: object) -> Views:
    c2w = corner_scene.poses(5)
    names = [f"{k}.png" for k in range(5)]
    sizes = np.tile(corner_scene.SIZE_PX, (5, 1))
    paths = [Path(name) for name in names]
    return Views(names, paths, None, c2w, np.full(5, corner_scene.FOCAL_PX), sizes, bearings)  # type: ignore[arg-type]


def on_floor(cameras: Cameras, image: int, px: np.ndarray) -> np.ndarray:
    """Where rays of pixels meet the wall z = 0."""
    direction = np.concatenate([cameras.plane(image, px), np.ones((len(px), 1))], axis=1) @ cameras.rotation[image]
    center = cameras.centers[image]
    return center - center[2] / direction[:, 2:] * direction


def floor_planes(cameras: Cameras, image: int, px: np.ndarray) -> Planes:
    """The wall round some pixels, with its tilt by differences."""
    numbers = np.full(len(px), image)

    def inverse_depth(at: np.ndarray) -> np.ndarray:
        return 1 / cameras.depth(numbers, on_floor(cameras, image, at))

    tilt = [(inverse_depth(px + step) - inverse_depth(px - step)) / 1e-2 for step in 5e-3 * np.eye(2)]
    plane, slope = cameras.plane(image, px), cameras.slope(image, px)
    return Planes(numbers, px, plane, slope, inverse_depth(px), np.stack(tilt, axis=-1))


def seen_at(cameras: Cameras, image: int, points: np.ndarray) -> np.ndarray:
    local = (points - cameras.centers[image]) @ cameras.rotation[image].T
    return cameras.pixel(image, local[:, :2] / local[:, 2:])


PX = np.array([[80.0, 100.0], [60.5, 90.0], [100.0, 85.5]])


@pytest.mark.parametrize("bearings", [corner_scene.bearings, bent])
def test_a_plane_looks_from_elsewhere_as_its_points_do(bearings: object) -> None:
    cameras = Cameras(views_of(bearings), corner_scene.poses(5))
    planes = floor_planes(cameras, 1, PX)
    seen = seen_in(planes, cameras, 3)
    assert np.abs(seen.px - seen_at(cameras, 3, on_floor(cameras, 1, PX))).max() < 1e-3
    columns = [
        (seen_at(cameras, 3, on_floor(cameras, 1, PX + step)) - seen_at(cameras, 3, on_floor(cameras, 1, PX - step)))
        / 1e-2
        for step in 5e-3 * np.eye(2)
    ]
    assert np.abs(seen.warp(planes.tilt) - np.stack(columns, axis=-1)).max() < 2e-3
    assert np.abs(planes.normals(cameras) - [0.0, 0.0, 1.0]).max() < 1e-3


def test_pixels_are_the_inverse_of_directions_under_any_lens() -> None:
    for bearings in (corner_scene.bearings, bent):
        cameras = Cameras(views_of(bearings), corner_scene.poses(5))
        assert np.abs(cameras.pixel(0, cameras.plane(0, PX)) - PX).max() < 1e-3


def test_corrected_focal_lengths_count() -> None:
    factor = 1.1

    def wrong(image: int, px: np.ndarray) -> np.ndarray:
        return refocused(corner_scene.bearings(image, px), np.full(len(px), 1 / factor))

    c2w, lens = corner_scene.poses(5), Intrinsics(own_focal=(factor,) * 5)
    right, mended = Cameras(views_of(corner_scene.bearings), c2w), Cameras(views_of(wrong), c2w, lens)
    assert np.abs(right.plane(2, PX) - mended.plane(2, PX)).max() < 1e-9
    assert np.abs(mended.pixel(2, right.plane(2, PX)) - PX).max() < 1e-6


def test_tilts_are_found_from_maps_of_which_a_quarter_is_wrong() -> None:
    cameras = Cameras(views_of(corner_scene.bearings), corner_scene.poses(5))
    planes = floor_planes(cameras, 2, PX)
    facing, by_tilt, warp, number = [], [], [], []
    for image in (0, 1, 3, 4):
        seen = seen_in(planes, cameras, image)
        facing.append(seen.facing), by_tilt.append(seen.by_tilt), number.append(np.arange(3))
        warp.append(seen.warp(planes.tilt) + (0.8 if image == 4 else 0.0))
    arrays = [np.concatenate(each) for each in (number, facing, by_tilt, warp)]
    found = fit_tilts(4, *arrays)
    assert np.abs(found[3]).max() == 0.0
    turned = replace(planes, tilt=found[:3]).normals(cameras)
    assert np.degrees(np.arccos(turned[:, 2])).max() < 3.0


def test_a_lens_that_bends_all_beyond_its_image_to_one_direction_does_no_harm() -> None:
    def clamped(image: int, px: np.ndarray) -> np.ndarray:
        return corner_scene.bearings(image, np.clip(px, 0.0, corner_scene.SIZE_PX))

    cameras = Cameras(views_of(clamped), corner_scene.poses(5))
    planes = floor_planes(cameras, 1, PX)
    turned = Cameras(views_of(clamped), corner_scene.poses(5))
    turned.rotation[3] = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]) @ turned.rotation[3]
    seen = seen_in(planes, turned, 3)
    assert not np.isfinite(seen.facing).any()
    assert not ((seen.px > 0) & (seen.px < corner_scene.SIZE_PX)).all(1).any()
