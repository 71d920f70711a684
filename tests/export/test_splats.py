"""Splats: placed, coloured, composited, and written as others read them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData
from scipy.spatial import cKDTree

from craym_nerfstudio.export.placing import place_points
from craym_nerfstudio.export.ply import write_points, write_splats
from craym_nerfstudio.export.splat_fit import fit
from craym_nerfstudio.export.splat_pictures import splat_pictures
from craym_nerfstudio.export.splat_view import Gaussians, harmonics_of, picture_of
from craym_nerfstudio.export.splats import LINING, SURFACE, Layer, Splats, bytes_per_splat, flat_splats, quaternions
from craym_nerfstudio.geometry.pinhole import Pinhole
from tests.export.ball_scene import FOCAL_PX, RADIUS, SIZE_PX, BallTracer, ball_surface, ball_views, camera, color_of
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
    """Flat splats on the plane z = 0, 0.04 apart, whose colours depend on place and direction."""
    side = round(count**0.5)
    x, y = np.meshgrid(*(2 * [0.04 * (np.arange(side) - 0.5 * (side - 1))]))
    means = np.stack([x.ravel(), y.ravel(), np.zeros(count)], axis=-1)
    harmonics = 0.2 * np.random.default_rng(0).normal(size=(count, 4, 3))
    parts = means, np.tile(np.eye(3), (count, 1, 1)), np.log(np.tile([0.02, 0.02, 0.002], (count, 1)))
    return Gaussians(*(torch.from_numpy(part).float() for part in (*parts, np.full(count, 2.9), harmonics)))


def pinhole(back: tuple[float, float, float], size_px: int = 40) -> Pinhole:
    return Pinhole(camera(np.array(back)), np.array([50.0, 55.0]), np.array([21.0, 19.0]), (size_px, size_px))


def reference(splats: Gaussians, view: Pinhole) -> np.ndarray:
    """Their picture by the independent renderer, on white."""
    names = "means", "axes", "log_sigmas", "logits", "harmonics"
    means, axes, log_sigmas, logits, harmonics = (getattr(splats, name).double().numpy() for name in names)
    opacities = 1.0 / (1.0 + np.exp(-logits))
    place = view.c2w, view.focal_px, view.center_px, view.size_px
    return composite(means, np.exp(log_sigmas), quaternions(axes), opacities, harmonics, *place, WHITE)


def test_harmonics_are_those_of_gsplat() -> None:
    theirs = pytest.importorskip("gsplat.cuda._torch_impl")._spherical_harmonics
    directions = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.manual_seed(0)), dim=-1)
    coefficients = torch.randn(50, 16, 3, generator=torch.manual_seed(1))
    ours = (harmonics_of(directions, 16)[..., None] * coefficients).sum(1)
    torch.testing.assert_close(ours, theirs(3, directions, coefficients), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("back", [(0.3137, 0.4471, 1.4), (0.9123, -0.5371, 0.4), (0.3317, 0.1713, -1.0)])
def test_pictures_are_those_of_the_reference(back: tuple[float, float, float]) -> None:
    splats, view = plane(), pinhole(back)
    shown = picture_of(splats, view, WHITE).numpy()
    assert np.ptp(shown) > 0.5 and (shown == 1.0).any()
    np.testing.assert_allclose(shown, reference(splats, view), atol=3e-3)


@pytest.mark.parametrize("part", ["means", "log_sigmas", "logits", "harmonics"])
def test_derivatives_are_differences(part: str) -> None:
    """Of a sum of weighted pixels, as a part of all splats moves towards where it grows; faint rims are cut off."""
    splats, view = plane(36), pinhole((0.2137, 0.1471, 0.5), 30)
    weights = torch.rand(30, 30, 3, generator=torch.manual_seed(0))
    given: torch.Tensor = getattr(splats, part)

    def total(values: torch.Tensor) -> torch.Tensor:
        return (picture_of(replace(splats, **{part: values}), view, WHITE) * weights).double().sum()

    leaf = given.clone().requires_grad_()
    slope = torch.autograd.grad(total(leaf), leaf)[0]
    along = {"means": 2e-4}.get(part, 1e-2) * slope / slope.abs().max()
    difference = float(total(given + along) - total(given - along)) / 2
    assert float((slope * along).sum()) == pytest.approx(difference, rel=0.08)


def test_fitted_splats_show_a_ball_from_a_new_side(tmp_path: Path) -> None:
    """Its pattern and its outline: placed splats alone are 2.4 dB worse."""
    views = ball_views(tmp_path, np.ones(31))
    new, seen = views.pop(7), ball_surface(views, 4)
    model: Any = SimpleNamespace(background_rgb=torch.ones(3), has_alpha=True)
    sizes_px = np.full((len(views), 2), SIZE_PX)
    pictures = splat_pictures(model, views, sizes_px)
    truth = splat_pictures(model, [new], sizes_px)[0]
    placed = place_points(seen, 1.4 * seen.footprint, most=100_000, seed=0)
    normals = placed.points / np.linalg.norm(placed.points, axis=-1, keepdims=True)
    points = RADIUS * normals
    start = flat_splats(points, normals, color_of(points), placed.spacing, SURFACE, degree=0)
    fitted = fit(start, pictures)
    before, after = (
        -10.0 * np.log10(np.square(reference(splats, truth.view) - truth.rgb).mean()) for splats in (start, fitted)
    )
    assert after > 27.0 and after > before + 1.5


def test_the_lining_hides_what_lies_behind(tmp_path: Path) -> None:
    """From four times nearer than the photos, the middle of the ball lets a quarter as much through."""
    seen = ball_surface(ball_views(tmp_path, np.ones(12)), 4)
    near = Pinhole(camera(np.array([2.0, 0.3, 0.1])), np.full(2, 4 * FOCAL_PX), np.full(2, 24.0), (48, 48))

    def share_behind(*layers: Layer) -> float:
        made = []
        for layer in layers:
            placed = place_points(seen, layer.spacing_px * seen.footprint, most=100_000, seed=0)
            normals = placed.points / np.linalg.norm(placed.points, axis=-1, keepdims=True)
            front = normals @ near.c2w[:, 3] > 0
            black = np.full((front.sum(), 3), 0.0)
            made.append(flat_splats(placed.points[front], normals[front], black, placed.spacing[front], layer, 0))
        names = "means", "axes", "log_sigmas", "logits", "harmonics"
        both = Gaussians(*(torch.cat([getattr(each, name) for each in made]) for name in names))
        return float(picture_of(both, near, WHITE).mean())

    gaps = share_behind(SURFACE)
    assert gaps > 0.1 and share_behind(SURFACE, LINING) < 0.25 * gaps


def test_photos_are_shown_at_the_size_of_training(tmp_path: Path) -> None:
    views = ball_views(tmp_path, np.ones(2))
    model: Any = SimpleNamespace(background_rgb=torch.ones(3), has_alpha=True)
    full, half = (splat_pictures(model, views, np.full((2, 2), size)) for size in (SIZE_PX, SIZE_PX // 2))
    assert (full[0].shrink, half[0].shrink) == (1.0, 2.0)
    assert half[1].view.size_px == (SIZE_PX // 2, SIZE_PX // 2) and half[1].view.focal_px[0] == FOCAL_PX / 2
    mean = full[1].rgb.reshape(SIZE_PX // 2, 2, SIZE_PX // 2, 2, 3).mean((1, 3))
    assert np.abs(half[1].rgb - mean).mean() < 0.01


def test_without_alpha_the_surface_decides(tmp_path: Path) -> None:
    """Pixels that meet it are those of the photo, the others background."""
    view = replace(ball_views(tmp_path, np.ones(1))[0], mask_path=None)
    photo = Image.open(view.path).convert("RGBA")
    street = Image.new("RGBA", photo.size, (90, 20, 160, 255))
    Image.alpha_composite(street, photo).convert("RGB").save(view.path)
    model: Any = SimpleNamespace(
        background_rgb=torch.ones(3), has_alpha=False, tracer=BallTracer(), device=torch.device("cpu")
    )
    picture = splat_pictures(model, [view], np.full((1, 2), SIZE_PX))[0]
    x, y = np.meshgrid(*(2 * [np.arange(SIZE_PX) + 0.5 - SIZE_PX / 2]))
    distance = np.hypot(x, y)
    outline = FOCAL_PX * RADIUS / (4.0 - RADIUS**2) ** 0.5
    inner, outer = distance < outline - 0.1, distance > outline + 0.1
    assert picture.valid.all() and (picture.rgb[outer] == 1.0).all()
    np.testing.assert_allclose(picture.rgb[inner], np.asarray(Image.open(view.path))[inner] / 255.0, atol=1e-5)


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
