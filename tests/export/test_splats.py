"""Splats: placed, coloured, composited, and written as others read them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData
from scipy.spatial import cKDTree

from craym_nerfstudio.export.placing import place_points
from craym_nerfstudio.export.ply import write_points, write_splats
from craym_nerfstudio.export.splat_colors import Picture, harmonics_of, solve_colors
from craym_nerfstudio.export.splat_view import Gaussians, composite_weights
from craym_nerfstudio.export.splats import Splats, bytes_per_splat, quaternions
from craym_nerfstudio.geometry.pinhole import Pinhole
from tests.export.ball_scene import RADIUS, ball_surface, ball_views, camera
from tests.export.splat_compositor import composite

WHITE = np.ones(3)


def test_points_are_even_and_limited(tmp_path: Path) -> None:
    surface = ball_surface(ball_views(tmp_path, np.ones(6)), 3)
    placed = place_points(surface, np.full(len(surface.vertices), 0.05), most=10_000, seed=0)
    nearest = cKDTree(placed.points).query(placed.points, k=2)[0][:, 1]
    assert nearest.min() > 0.95 * 0.05 * 0.6 and np.quantile(nearest, 0.95) < 2 * nearest.min()
    # No hole: every vertex has a point nearby.
    assert cKDTree(placed.points).query(surface.vertices)[0].max() < 0.07
    few = place_points(surface, np.full(len(surface.vertices), 0.05), most=200, seed=0)
    assert 120 < len(few.points) <= 200


def test_only_what_is_seen_gets_points(tmp_path: Path) -> None:
    views = ball_views(tmp_path, np.ones(6))[:1]
    placed = place_points(ball_surface(views, 3), np.full(642, 0.1), most=10_000, seed=0)
    assert (placed.points @ views[0].center / np.linalg.norm(views[0].center)).min() > -0.2 * RADIUS


def plane(count: int = 900) -> Gaussians:
    """Flat splats on the plane z = 0, 0.04 apart."""
    side = round(count**0.5)
    x, y = np.meshgrid(*(2 * [0.04 * (np.arange(side) - 0.5 * (side - 1))]))
    means = np.stack([x.ravel(), y.ravel(), np.zeros(count)], axis=-1)
    return Gaussians(
        means, np.tile(np.eye(3), (count, 1, 1)), np.tile([0.02, 0.02, 0.002], (count, 1)), np.full(count, 0.95)
    )


def pinhole(back: tuple[float, float, float], size_px: int = 40) -> Pinhole:
    return Pinhole(camera(np.array(back)), np.array([50.0, 55.0]), np.array([21.0, 19.0]), (size_px, size_px))


def test_harmonics_are_those_of_gsplat() -> None:
    theirs = pytest.importorskip("gsplat.cuda._torch_impl")._spherical_harmonics
    directions = np.random.default_rng(0).normal(size=(50, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    coefficients = np.random.default_rng(1).normal(size=(50, 16, 3))
    expected = theirs(3, torch.from_numpy(directions), torch.from_numpy(coefficients))
    ours = (harmonics_of(directions, 16)[..., None] * coefficients).sum(1)
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-5)


def test_weights_composite_like_the_reference() -> None:
    splats, rng = plane(), np.random.default_rng(0)
    harmonics = 0.2 * rng.normal(size=(900, 4, 3))
    for back in ((0.3137, 0.4471, 1.4), (0.9123, -0.5371, 0.4), (0.0317, 0.1713, -1.0)):
        view = pinhole(back)
        matrix, left = composite_weights(splats, view)
        towards = splats.means - view.c2w[:, 3]
        towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
        colors = 0.5 + (harmonics_of(towards, 4)[..., None] * harmonics).sum(1)
        expected = composite(
            splats.means, splats.sigmas, quaternions(splats.axes), splats.opacities, harmonics, view.c2w,
            view.focal_px, view.center_px, view.size_px, WHITE,
        )  # fmt: skip
        shown = (matrix @ colors + left[:, None]).reshape(40, 40, 3)
        assert left.min() < 0.05 < left.max()
        np.testing.assert_allclose(shown, expected, atol=3e-3)


def test_colours_are_found_by_the_pictures() -> None:
    """A plane whose colours depend on place and direction, seen from nine sides, predicts a tenth."""
    splats, rng = plane(), np.random.default_rng(0)
    true = 0.15 * rng.normal(size=(900, 4, 3)) * np.array([1.0, 0.3, 0.3, 0.3])[:, None]
    rest = (splats.sigmas, quaternions(splats.axes), splats.opacities)

    def picture(back: tuple[float, float, float], coefficients: np.ndarray) -> Picture:
        view = pinhole(back)
        shown = composite(
            splats.means, *rest, coefficients, view.c2w, view.focal_px, view.center_px, view.size_px, WHITE
        )
        return Picture(view, shown, np.ones((40, 40), dtype=bool), WHITE)

    backs = [(0.6 * np.cos(angle), 0.6 * np.sin(angle), 1.2) for angle in np.linspace(0, 5.6, 9)]
    found = solve_colors(splats, np.zeros((900, 4, 3)), [picture(back, true) for back in backs])
    again, expected = (picture((0.2, 0.3, 1.2), each).rgb for each in (found, true))
    blank = picture((0.2, 0.3, 1.2), np.zeros((900, 4, 3))).rgb
    assert np.abs(again - expected).mean() < 0.15 * np.abs(blank - expected).mean()


def some_splats(degree: int, count: int = 30) -> Splats:
    rng = np.random.default_rng(degree)
    turns = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    turns *= np.sign(np.linalg.det(turns))[:, None, None]
    means, harmonics = rng.normal(size=(count, 3)), rng.normal(size=(count, (degree + 1) ** 2, 3))
    sigmas, opacities = rng.uniform(0.01, 0.1, (count, 3)), rng.uniform(0.1, 0.9, count)
    return Splats(means, turns[..., 2], sigmas, quaternions(turns), opacities, harmonics)


@pytest.mark.parametrize("degree", [0, 2, 3])
def test_splats_are_read_back(tmp_path: Path, degree: int) -> None:
    """By names as the paper's code asks for them: logits, logarithms, w first, harmonics channel by channel."""
    splats, path = some_splats(degree), tmp_path / "splats.ply"
    write_splats(splats, path)
    rows = PlyData.read(path)["vertex"].data
    assert len(rows.dtype) * 4 == rows.dtype.itemsize == bytes_per_splat(degree)

    def columns(*names: str) -> np.ndarray:
        return np.stack([rows[name] for name in names], axis=-1)

    count = (degree + 1) ** 2 - 1
    np.testing.assert_allclose(columns("x", "y", "z"), splats.means, rtol=1e-6)
    np.testing.assert_allclose(1 / (1 + np.exp(-rows["opacity"])), splats.opacities, rtol=1e-5)
    np.testing.assert_allclose(np.exp(columns("scale_0", "scale_1", "scale_2")), splats.sigmas, rtol=1e-5)
    np.testing.assert_allclose(columns(*(f"rot_{k}" for k in range(4))), splats.quaternions, rtol=1e-5)
    np.testing.assert_allclose(columns("f_dc_0", "f_dc_1", "f_dc_2"), splats.harmonics[:, 0], rtol=1e-5)
    if degree:
        rest = columns(*(f"f_rest_{k}" for k in range(3 * count))).reshape(-1, 3, count)
        np.testing.assert_allclose(rest.transpose(0, 2, 1), splats.harmonics[:, 1:], rtol=1e-5)


def test_columns_are_those_of_nerfstudios_own_export(tmp_path: Path) -> None:
    """Its writer, given its own names, and ours make the same header."""
    exporter = pytest.importorskip("nerfstudio.scripts.exporter", exc_type=ImportError)
    write_splats(some_splats(1), tmp_path / "ours.ply")
    ours = PlyData.read(tmp_path / "ours.ply")["vertex"].data
    tensors = {name: np.ascontiguousarray(ours[name])[:, None] for name in ours.dtype.names}
    exporter.ExportGaussianSplat.write_ply(str(tmp_path / "theirs.ply"), len(ours), tensors)
    theirs = PlyData.read(tmp_path / "theirs.ply")["vertex"].data
    assert theirs.dtype == ours.dtype
    for name in ours.dtype.names:
        np.testing.assert_array_equal(theirs[name], ours[name])


def test_points_have_normals_and_colours(tmp_path: Path) -> None:
    points, normals, rgb = (np.random.default_rng(k).uniform(0, 1, (20, 3)) for k in range(3))
    write_points(points, normals, rgb, tmp_path / "points.ply")
    rows = PlyData.read(tmp_path / "points.ply")["vertex"].data
    np.testing.assert_allclose(rows["nz"], normals[:, 2], rtol=1e-6)
    assert rows["green"].dtype == np.uint8 and np.abs(rows["green"] / 255.0 - rgb[:, 1]).max() < 0.003
