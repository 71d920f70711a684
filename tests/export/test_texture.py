"""Textures of a ball whose colours are known: unwrapped, baked from photos, written and read back."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
import trimesh
from PIL import Image, ImageFilter

from craym_nerfstudio.export import bake as baking
from craym_nerfstudio.export.bake import SurfacePoints, bake, exposure_gains, sharpness
from craym_nerfstudio.export.gltf import glb_bytes, glb_with_cameras
from craym_nerfstudio.export.photo_views import PhotoView, Visibility
from craym_nerfstudio.export.textured import TexturedMesh
from craym_nerfstudio.export.unwrap import Texels, UnwrappedMesh, fill_gutter, texels_of, unwrap
from craym_nerfstudio.export.usdz import write_usdz
from craym_nerfstudio.geometry.lens import pixels_of
from tests.export.ball_scene import RADIUS, BallTracer, ball_surface, ball_views, color_of

TEXEL = 0.006
"""Less than what a pixel covers: many photos show more than one does."""


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[PhotoView]:
    return ball_views(tmp_path_factory.mktemp("ball"), np.ones(14))


@pytest.fixture(scope="module")
def layout(views: list[PhotoView]) -> tuple[UnwrappedMesh, Texels]:
    surface = ball_surface(views)
    unwrapped = unwrap(surface.vertices, surface.faces, texel=TEXEL, largest=1024)
    return unwrapped, texels_of(unwrapped)


@pytest.mark.parametrize("fisheye", [False, True])
def test_lenses_are_those_of_colmap(fisheye: bool) -> None:
    points = np.random.default_rng(0).normal(size=(200, 3)) * [0.4, 0.4, 0.1] - [0, 0, 1.5]
    pinhole, (k1, k2, k3, k4, p1, p2) = [80.0, 90.0, 50.0, 40.0], (0.05, -0.02, 0.01, 0.002, 0.003, -0.002)
    name, lens = ("OPENCV_FISHEYE", [k1, k2, k3, k4]) if fisheye else ("OPENCV", [k1, k2, p1, p2])
    if not fisheye:
        k3 = k4 = 0.0
    theirs = pycolmap.Camera(model=name, width=100, height=80, params=pinhole + lens)
    expected = np.array([theirs.img_from_cam(point) for point in points * [1, -1, -1]])
    distortion = np.array([k1, k2, k3, k4, p1, p2])
    pixels, shown = pixels_of(points, np.array(pinhole), distortion, np.array([100, 80]), fisheye)
    np.testing.assert_allclose(pixels[shown], expected[shown], atol=1e-9)
    assert shown.sum() > 50 and not shown.all()
    assert not pixels_of(-points, np.array(pinhole), distortion, np.array([100, 80]), fisheye)[1].any()


def test_only_what_nothing_hides_is_seen(views: list[PhotoView]) -> None:
    surface = ball_surface(views)
    shrunk = 0.8 * surface.vertices
    visibility = Visibility(BallTracer(), 0.01, torch.device("cpu"))  # type: ignore[arg-type]
    seen = visibility.of_view(views[0], surface.vertices, surface.normals)
    towards = surface.vertices - views[0].center
    cosine = -(towards * surface.normals).sum(-1) / np.linalg.norm(towards, axis=-1)
    assert seen[cosine > 0.1].all() and not seen[cosine < 0].any()
    assert not visibility.by_any(views, shrunk, surface.normals).any()
    assert visibility.by_any(views, surface.vertices, surface.normals).all()


def test_texels_lie_on_their_faces_and_cover_them(layout: tuple[UnwrappedMesh, Texels], views: list[PhotoView]) -> None:
    unwrapped, texels = layout
    surface = ball_surface(views)
    assert unwrapped.uv.min() >= 0 and unwrapped.uv.max() <= 1
    points = texels.interpolate(surface.vertices, unwrapped.source[unwrapped.faces])
    assert np.abs(np.linalg.norm(points, axis=-1) - RADIUS).max() < 0.005
    # A texel is as wide as asked for, up to the distortion of charts.
    area = len(texels.index) * TEXEL**2
    assert area == pytest.approx(4 * np.pi * RADIUS**2, rel=0.1)
    uv = (np.stack([texels.index % unwrapped.size, texels.index // unwrapped.size], axis=-1) + 0.5) / unwrapped.size
    expected = texels.interpolate(unwrapped.uv, unwrapped.faces)
    np.testing.assert_allclose(uv[:, 0], expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(1 - uv[:, 1], expected[:, 1], atol=1e-5)


def test_the_gutter_has_the_nearest_colour() -> None:
    texture, known = np.zeros((4, 6, 3)), np.zeros((4, 6), dtype=bool)
    texture[1, 1], texture[2, 4] = [1, 0, 0], [0, 1, 0]
    known[1, 1] = known[2, 4] = True
    filled = fill_gutter(texture, known)
    np.testing.assert_array_equal(filled[0, 0], [1, 0, 0])
    np.testing.assert_array_equal(filled[3, 5], [0, 1, 0])


def baked_error(views: list[PhotoView], layout: tuple[UnwrappedMesh, Texels], gains: np.ndarray) -> np.ndarray:
    """Of the colours of all texels."""
    surface, (unwrapped, texels) = ball_surface(views), layout
    corners = unwrapped.source[unwrapped.faces]
    points = texels.interpolate(surface.vertices, corners)
    points *= RADIUS / np.linalg.norm(points, axis=-1, keepdims=True)
    spots = SurfacePoints(points.astype(np.float32), (points / RADIUS).astype(np.float32), texels.face)
    baked = bake(spots, views, surface.seen[:, corners].all(-1), gains)
    assert baked.known.all()
    return baked.rgb - color_of(points)


def test_a_texture_has_the_colours_of_the_ball(
    views: list[PhotoView], layout: tuple[UnwrappedMesh, Texels], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = np.abs(baked_error(views, layout, np.ones((len(views), 3))))
    assert error.mean() < 0.008 and np.quantile(error, 0.999) < 0.1
    monkeypatch.setattr(baking, "_SHARPENINGS", 0)
    assert error.mean() < np.abs(baked_error(views, layout, np.ones((len(views), 3)))).mean()


def test_exposures_are_found_and_leave_no_seams(tmp_path: Path, layout: tuple[UnwrappedMesh, Texels]) -> None:
    true = np.random.default_rng(1).uniform(0.75, 1.15, 14)
    views = ball_views(tmp_path, true)
    surface = ball_surface(views, 3)
    gains = exposure_gains(surface.vertices, views, surface.seen)
    expected = np.exp(np.log(true).mean()) / true
    np.testing.assert_allclose(gains, np.tile(expected[:, None], 3), rtol=0.03)
    scaled = gains * np.exp(-np.log(true).mean())
    assert np.abs(baked_error(views, layout, scaled)).mean() < 0.015


def test_photos_that_differ_by_more_than_exposure_are_left(tmp_path: Path) -> None:
    rng, views = np.random.default_rng(1), ball_views(tmp_path, np.linspace(0.98, 1.02, 14))
    for view in views:
        photo = np.asarray(Image.open(view.path)).copy()
        shine = rng.normal(1.0, 0.1, (*photo.shape[:2], 1))
        photo[..., :3] = (photo[..., :3] * shine).clip(0, 255)
        Image.fromarray(photo).save(view.path)
    surface = ball_surface(views, 3)
    np.testing.assert_array_equal(exposure_gains(surface.vertices, views, surface.seen), 1.0)


def test_blurred_photos_are_known(tmp_path: Path) -> None:
    views = ball_views(tmp_path, np.ones(5))
    Image.open(views[2].path).filter(ImageFilter.GaussianBlur(2)).save(views[2].path)
    found = sharpness(views)
    assert found[2] < 0.5 and (np.delete(found, 2) > 0.8).all()


def textured_box() -> TexturedMesh:
    """A tall box in the z-up frame of the data, each of its corners with a texel of its own."""
    box = trimesh.creation.box((1.0, 2.0, 4.0))
    uv = (np.arange(8)[:, None] // [1, 4] % 4 + 0.5) / 4
    texture = np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return TexturedMesh(np.asarray(box.vertices), np.asarray(box.faces), np.asarray(box.vertex_normals), uv, texture)


def test_usdz_is_upright_and_textured(tmp_path: Path) -> None:
    usd = pytest.importorskip("pxr.Usd", reason="usdz wants usd-core (pip install)")
    from pxr import UsdGeom, UsdUtils

    mesh = textured_box()
    write_usdz(mesh, np.eye(3), tmp_path / "box.usdz")
    stage = usd.Stage.Open(str(tmp_path / "box.usdz"))
    box = UsdGeom.BBoxCache(0, [UsdGeom.Tokens.default_]).ComputeWorldBound(stage.GetPrimAtPath("/scene"))
    np.testing.assert_allclose(box.ComputeAlignedRange().GetSize(), [1.0, 4.0, 2.0], atol=1e-6)
    np.testing.assert_allclose(stage.GetPrimAtPath("/scene/surface").GetAttribute("points").Get(), mesh.vertices)
    assert UsdUtils.ComputeAllDependencies(str(tmp_path / "box.usdz"))[2] == []


def test_cameras_and_matched_rays_stand_beside_the_mesh() -> None:
    """In the frame of the data, below the node that turns it upright; a camera's tip is where it stands."""
    mesh = textured_box()
    given = np.concatenate([np.tile(np.eye(3), (2, 1, 1)), [[[0.0], [0], [9]], [[3.0], [0], [9]]]], axis=-1)
    rays = np.array([[[0.0, 0.0, 9.0], [0.0, 1.0, 2.0]], [[3.0, 0.0, 9.0], [0.0, 1.0, 2.0]]])
    content = glb_with_cameras(mesh, np.eye(3), given, given + 0.5, rays)
    scene = trimesh.load(io.BytesIO(content), file_type="glb", process=False)
    read = {name: np.asarray(part.vertices) for name, part in scene.geometry.items()}
    assert read.keys() == {"surface", "given", "refined", "rays"}
    np.testing.assert_allclose(read["given"].reshape(2, 5, 3)[:, 0], given[:, :, 3], atol=1e-6)
    assert (read["given"].reshape(2, 5, 3)[:, 1:, 2] < 9.0).all()
    np.testing.assert_allclose(read["rays"].reshape(2, 2, 3, 3).mean(2), rays, atol=1e-6)
    np.testing.assert_allclose(read["surface"], mesh.vertices, atol=1e-6)


def test_glb_is_upright_unlit_and_textured_for_others() -> None:
    mesh = textured_box()
    texture, vertices = mesh.texture, mesh.vertices
    content = glb_bytes(mesh, np.eye(3))
    scene = trimesh.load(io.BytesIO(content), file_type="glb", process=False)
    np.testing.assert_allclose(scene.extents, [1.0, 4.0, 2.0])
    (read,) = scene.geometry.values()
    np.testing.assert_allclose(read.vertices, vertices)
    np.testing.assert_array_equal(np.asarray(read.visual.material.baseColorTexture)[..., :3], texture)
    rows, columns = (3 - np.arange(8) // 4 % 4, np.arange(8) % 4)
    np.testing.assert_array_equal(read.visual.to_color().vertex_colors[:, :3], texture[rows, columns])
    length = struct.unpack("<I", content[12:16])[0]
    tree = json.loads(content[20 : 20 + length])
    assert (
        "KHR_materials_unlit" in tree["materials"][0]["extensions"] and "KHR_materials_unlit" in tree["extensionsUsed"]
    )
    attributes = tree["meshes"][0]["primitives"][0]["attributes"]
    assert "COLOR_0" not in attributes and {"POSITION", "NORMAL", "TEXCOORD_0"} <= set(attributes)
