"""The sample generator: distances by hand, exact depth, normals, mesh; the bundled still life as it lies on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from samples import primitives
from samples.analytic_scene import (
    CAMERA_ANGLE_X,
    Scene,
    Solid,
    camera_rays,
    dome_cameras,
    extract_mesh,
    focal_length_px,
    look_at,
    render,
    render_geometry,
    sample_mesh,
    still_life,
    tiny_scene,
    trace,
    visible_surface_points,
    write_blender_scene,
    write_ply,
)

STILL_LIFE = Path(__file__).resolve().parents[2] / "samples" / "still_life"


def at(*point: float) -> np.ndarray:
    return np.array([point], dtype=np.float64)


def grey_ball(radius: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Scene:
    ball = Solid("ball", lambda p: primitives.sphere(p, radius), lambda p: np.full(p.shape, 0.5), centre)
    return Scene((ball,), bound_radius=2.0)


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (primitives.sphere(at(0, 3, 4), 2.0), 3.0),
        (primitives.rounded_box(at(2, 0, 0), (1, 1, 1), 0.1), 1.0),
        (primitives.rounded_box(at(0, 0, 0), (1, 2, 3), 0.1), -1.0),
        (primitives.rounded_box(at(1.9, 2.9, 0), (1, 2, 3), 0.1), np.sqrt(2.0) - 0.1),
        (primitives.board(at(0, 0, 1), (2, 1, 0.25), 0.5, 0.1), 0.75),
        (primitives.board(at(3, 0, 0), (2, 1, 0.25), 0.5, 0.1), 1.0),
        (primitives.board(at(4.5, 4.5, 0), (2, 1, 0.25), 0.5, 0.1), 5.0 - 0.5),
        (primitives.torus(at(0, 0, 4), 3.0, 1.0), 4.0),
        (primitives.torus(at(0, 3, 0), 3.0, 1.0), -1.0),
        (primitives.capsule(at(0, 3, 6), 2.0, 1.0), 4.0),
        (primitives.round_cone(at(0, 0, -3), 2.0, 1.0, 4.0), 1.0),
        (primitives.round_cone(at(0, 0, 8), 2.0, 1.0, 4.0), 3.0),
        (primitives.cup(at(0, 0, -1), 1.0, 2.0, 0.2), 1.0),
        (primitives.cup(at(0, 0, 1.2), 1.0, 2.0, 0.2), 0.8),
        (primitives.cup(at(0.9, 0, 1), 1.0, 2.0, 0.2), -0.1),
        (primitives.half_ring(at(3, 0, 0), 2.0, 0.5), 0.5),
        (primitives.half_ring(at(-3, 0, 2 + 4), 2.0, 0.5), 4.5),
    ],
)
def test_distances_by_hand(distance: np.ndarray, expected: float) -> None:
    assert distance == pytest.approx([expected])


def test_distance_of_a_turned_enlarged_solid_is_in_world_units() -> None:
    solid = Solid("box", lambda p: primitives.rounded_box(p, (1, 2, 3), 0.1), lambda p: p, (1.0, 0.0, 0.0), scale=2.0)
    assert solid.sdf(at(4, 0, 0)) == pytest.approx([1.0])


def test_no_distance_of_the_still_life_grows_faster_than_the_way() -> None:
    random = np.random.default_rng(0)
    start = random.uniform(-1.3, 1.3, (4000, 3))
    step = random.normal(0.0, 0.05, (4000, 3))
    for solid in still_life().solids:
        change = np.abs(solid.sdf(start + step) - solid.sdf(start))
        assert (change <= np.linalg.norm(step, axis=-1) + 1e-12).all(), solid.name


def test_depth_of_a_ball_is_the_root_of_its_quadratic() -> None:
    centre = np.array([0.1, -0.2, 0.3])
    c2w = look_at(np.array([3.0, 1.0, 1.5]), np.zeros(3), roll_deg=10.0)
    depth, normals = render_geometry(grey_ball(0.7, tuple(centre)), c2w, 60.0, 48, 40)
    x, y = np.meshgrid(np.arange(48) + 0.5, np.arange(40) + 0.5)
    origins, directions = camera_rays(c2w, 60.0, np.stack([x.ravel(), y.ravel()], -1), (48, 40))
    half = ((origins - centre) * directions).sum(-1)
    discriminant = half**2 - ((origins - centre) ** 2).sum(-1) + 0.7**2
    clear = np.abs(discriminant) > 1e-4
    expected = np.where(discriminant > 0, -half - np.sqrt(np.maximum(discriminant, 0)), np.inf)
    assert np.isfinite(expected).sum() > 200
    np.testing.assert_allclose(depth.ravel()[clear], expected[clear], atol=1e-5)
    hit = np.isfinite(depth.ravel()) & clear
    outward = (origins + expected[:, None] * directions - centre)[hit] / 0.7
    np.testing.assert_allclose(normals.reshape(-1, 3)[hit], outward, atol=1e-4)


def test_alpha_of_a_ball_is_its_share_of_the_pixels() -> None:
    c2w = look_at(np.array([0.0, -4.0, 0.0]), np.zeros(3))
    rgba, depth, _ = render(grey_ball(0.8), c2w, 50.0, 40, 40, samples_per_axis=4)
    radius_px = 50.0 * 0.8 / np.sqrt(4.0**2 - 0.8**2)
    assert rgba[..., 3].sum() / 255.0 == pytest.approx(np.pi * radius_px**2, rel=0.01)
    assert rgba[20, 20, 3] == 255 and rgba[0, 0].tolist() == [0, 0, 0, 0] and np.isinf(depth[0, 0])


def test_a_point_is_seen_where_the_camera_model_says() -> None:
    c2w = look_at(np.array([1.0, -3.0, 2.0]), np.array([0.1, 0.0, 0.2]), roll_deg=-15.0)
    pixels = np.array([[0.5, 0.5], [31.5, 20.5], [17.0, 3.25]])
    origins, directions = camera_rays(c2w, 70.0, pixels, (32, 24))
    local = (origins + 2.5 * directions - c2w[:, 3]) @ c2w[:, :3]
    assert (local[:, 2] < 0.0).all()
    x = 16.0 + 70.0 * local[:, 0] / -local[:, 2]
    y = 12.0 - 70.0 * local[:, 1] / -local[:, 2]
    np.testing.assert_allclose(np.stack([x, y], -1), pixels, atol=1e-9)


def test_grazing_rays_find_the_plane() -> None:
    slab = Solid("slab", lambda p: primitives.rounded_box(p, (1, 1, 0.1), 0.01), lambda p: p)
    angle = np.deg2rad([0.6, 1.0, 3.0, 20.0])
    directions = np.stack([np.cos(angle), np.zeros(4), -np.sin(angle)], axis=-1)
    target = np.array([0.3, 0.2, 0.1])
    hits = trace(Scene((slab,), bound_radius=1.6), target - 1.2 * directions, directions)
    np.testing.assert_allclose(hits.depth, 1.2, atol=1e-3)


def test_dome_cameras_are_rigid_look_inwards_and_are_not_a_perfect_ring() -> None:
    cameras = dome_cameras(40, radius=4.03, seed=3, elevation_deg=(5.0, 80.0))
    rotation, centre = cameras[:, :, :3], cameras[:, :, 3]
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (40, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0)
    radius = np.linalg.norm(centre, axis=-1)
    assert radius.std() > 0.02 and np.abs(radius / 4.03 - 1.0).max() <= 0.03
    miss = np.linalg.norm(np.cross(centre, rotation[:, :, 2]), axis=-1)
    assert 0.0 < miss.max() < 0.25
    elevation_deg = np.rad2deg(np.arcsin(centre[:, 2] / radius))
    assert elevation_deg.min() > 5.0 and elevation_deg.max() < 80.0


@pytest.mark.parametrize("make_scene", [tiny_scene, still_life])
def test_mesh_vertices_lie_on_the_surface_and_faces_point_outwards(make_scene) -> None:
    scene = make_scene()
    vertices, faces = extract_mesh(scene, 56)
    assert np.abs(scene.sdf(vertices)).max() < 1e-6
    assert np.linalg.norm(vertices, axis=-1).max() < scene.bound_radius - 0.01, "the bounding ball cuts something off"
    np.testing.assert_allclose(np.linalg.norm(scene.normals(vertices), axis=-1), 1.0, atol=1e-9)
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    agreement = (across * scene.normals(corners.mean(axis=1))).sum(-1)
    assert (agreement > 0.0).mean() > 0.98


def test_mesh_file_and_even_samples(tmp_path: Path) -> None:
    vertices, faces = extract_mesh(grey_ball(1.0), 48)
    write_ply(tmp_path / "ball.ply", vertices, faces)
    content = (tmp_path / "ball.ply").read_bytes()
    assert content.startswith(b"ply\n") and len(content.split(b"end_header\n", 1)[1]) == 12 * len(vertices) + 13 * len(
        faces
    )
    points = sample_mesh(vertices, faces, 20_000)
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose((points**2).mean(axis=0), 1.0 / 3.0, atol=0.02)


def test_visible_points_of_a_ball_are_the_cap_towards_the_camera() -> None:
    scene = grey_ball(1.0)
    c2w = look_at(np.array([0.0, -4.0, 0.0]), np.zeros(3))
    points, normals = visible_surface_points(scene, extract_mesh(scene, 48), c2w[None], count=5000)
    np.testing.assert_allclose(normals, points, atol=1e-6)
    assert points[:, 1].max() < -0.24, "the horizon of a ball of radius 1 seen from distance 4 lies at 1/4"
    assert len(points) / 5000 == pytest.approx(0.5 * (1.0 - 0.25), abs=0.03)


def test_tiny_scene_in_blender_layout(tmp_path: Path) -> None:
    written = write_blender_scene(tmp_path, tiny_scene(), train_count=3, test_count=1, size_px=24)
    content = json.loads((tmp_path / "transforms_train.json").read_text())
    assert written.train_c2w.shape == (3, 3, 4) and written.test_c2w.shape == (1, 3, 4)
    assert written.focal_px == pytest.approx(12.0 / np.tan(0.5 * content["camera_angle_x"]))
    np.testing.assert_array_equal(np.array(content["frames"][2]["transform_matrix"])[:3], written.train_c2w[2])
    with Image.open(tmp_path / (content["frames"][2]["file_path"] + ".png")) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (24, 24, 4) and 0.1 < (pixels[..., 3] > 0).mean() < 0.8


def bundled_cameras(split: str) -> tuple[list[str], np.ndarray]:
    content = json.loads((STILL_LIFE / f"transforms_{split}.json").read_text())
    assert content["camera_angle_x"] == CAMERA_ANGLE_X
    frames = content["frames"]
    return [frame["file_path"] for frame in frames], np.array([frame["transform_matrix"] for frame in frames])


def test_bundled_scene_is_complete_and_small() -> None:
    for split, count in (("train", 80), ("test", 20)):
        names, c2w = bundled_cameras(split)
        assert len(names) == len(set(names)) == count == len(list((STILL_LIFE / split).glob("*.png")))
        rotation = c2w[:, :3, :3]
        np.testing.assert_allclose(rotation.transpose(0, 2, 1) @ rotation, np.tile(np.eye(3), (count, 1, 1)), atol=1e-9)
        for name in names[::7]:
            with Image.open(STILL_LIFE / f"{name}.png") as image:
                assert image.mode == "RGBA" and image.size == (200, 200)
    for name in ("mesh.ply", "visible_points.npz", "LICENSE.txt", "README.md"):
        assert (STILL_LIFE / name).is_file()
    assert sum(path.stat().st_size for path in STILL_LIFE.rglob("*") if path.is_file()) < 5 * 2**20


def test_test_views_lie_among_but_not_at_the_training_views() -> None:
    train, test = (bundled_cameras(split)[1][:, :3, 3] for split in ("train", "test"))
    spacing = np.linalg.norm(train[:, None] - train[None], axis=-1)
    spacing[np.diag_indices(len(train))] = np.inf
    gap = np.linalg.norm(test[:, None] - train[None], axis=-1).min(axis=-1)
    assert gap.min() > 0.1 and gap.max() < spacing.min(axis=-1).max()


def test_bundled_points_project_into_the_objects() -> None:
    stored = np.load(STILL_LIFE / "visible_points.npz")
    points, normals = stored["points"].astype(np.float64), stored["normals"].astype(np.float64)
    assert len(points) > 40_000 and points.shape == normals.shape
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1.0, atol=2e-3)
    names, c2w = bundled_cameras("train")
    for index in (0, 37):
        with Image.open(STILL_LIFE / f"{names[index]}.png") as image:
            # A point on a silhouette may lie between the rays of its pixel: its neighbour then has coverage.
            alpha = np.asarray(image.getchannel("A").filter(ImageFilter.MaxFilter(3)))
        local = (points - c2w[index, :3, 3]) @ c2w[index, :3, :3]
        x = 100.0 + focal_length_px(200) * local[:, 0] / -local[:, 2]
        y = 100.0 - focal_length_px(200) * local[:, 1] / -local[:, 2]
        assert (alpha[np.floor(y).astype(int), np.floor(x).astype(int)] > 0).all()


def test_bundled_image_is_what_the_generator_renders() -> None:
    names, c2w = bundled_cameras("train")
    with Image.open(STILL_LIFE / f"{names[5]}.png") as image:
        stored = np.asarray(image).astype(float)
    scene = still_life()
    depth, _ = render_geometry(scene, c2w[5, :3], focal_length_px(200), 200, 200)
    disagree = np.isfinite(depth) != (stored[..., 3] > 127)
    assert disagree.mean() < 0.005
