"""Surfaces carved between points, and what points say of the distance: a ball from outside, a room from inside."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from nerfstudio.data.scene_box import SceneBox

from craym_nerfstudio.fields.sdf_field import SDFField, SDFFieldConfig
from craym_nerfstudio.methods import craym_lite
from craym_nerfstudio.objective.losses import bounds_loss
from craym_nerfstudio.start.carving import CarvedSurface, sphere_points
from craym_nerfstudio.start.landmarks import Landmarks

RADIUS, WALL = 0.5, 0.8


def ball() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on a ball, and the rays of 30 cameras that see them."""
    points, cameras = RADIUS * sphere_points(900), 3.0 * sphere_points(30)
    towards = cameras[:, None] - points
    camera, point = np.nonzero((towards * points).sum(-1) > 0.2 * RADIUS * np.linalg.norm(towards, axis=-1))
    return points, point, cameras[camera]


def room() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on the walls of a cube, all seen by cameras near its middle."""
    generator = np.random.default_rng(1)
    points = generator.uniform(-WALL, WALL, (1200, 3))
    points[np.arange(1200), generator.integers(3, size=1200)] = WALL * generator.choice([-1.0, 1.0], 1200)
    cameras = generator.uniform(-0.2, 0.2, (8, 3))
    return points, np.tile(np.arange(1200), 8), np.repeat(cameras, 1200, axis=0)


def test_a_ball_seen_from_outside_is_solid_and_closed():
    carved = CarvedSurface(*ball())
    queries = np.random.default_rng(0).uniform(-1, 1, (2000, 3))
    true = np.linalg.norm(queries, axis=-1) - RADIUS
    found = carved.signed_distance(queries)
    clear = np.abs(true) > 0.05
    assert np.array_equal(found[clear] > 0, true[clear] > 0)
    assert np.abs(found - true).max() < 0.05


def test_a_room_is_empty_within_its_walls_and_solid_behind_them():
    carved = CarvedSurface(*room())
    assert carved.signed_distance(np.zeros((1, 3)))[0] == pytest.approx(WALL, abs=0.05)
    behind = np.array([[0.95, 0, 0], [0, -0.95, 0], [0, 0, 0.95]])
    assert (carved.signed_distance(behind) < 0).all()


def test_wrong_points_are_outvoted():
    points, ray_point, ray_origin = ball()
    stray = np.array([[0.0, 0.0, 0.9], [0.3, 0.8, 0.0]])
    rays = np.repeat([len(points), len(points) + 1], 3)
    origins = np.repeat(3.0 * stray / np.linalg.norm(stray, axis=-1, keepdims=True), 3, axis=0)
    carved = CarvedSurface(
        np.concatenate([points, stray]), np.concatenate([ray_point, rays]), np.concatenate([ray_origin, origins])
    )
    assert (carved.signed_distance(0.97 * stray) > 0.05).all()


def test_points_in_a_plane_are_a_wall():
    generator = np.random.default_rng(0)
    flat = generator.uniform(-0.5, 0.5, (300, 3)) * [1, 1, 0]
    cameras = np.array([[0.0, 0.0, 2.0], [1.0, 0.0, 2.0], [0.0, 1.0, 2.0]])
    carved = CarvedSurface(flat, np.tile(np.arange(300), 3), np.repeat(cameras, 300, axis=0))
    found = carved.signed_distance(np.array([[0.0, 0.0, 0.3], [0.0, 0.0, -0.2]]))
    assert found == pytest.approx([0.3, -0.2], abs=0.03)


def test_rays_that_see_too_little_carve_nothing():
    flat = np.random.default_rng(0).uniform(-0.5, 0.5, (200, 3)) * [1, 1, 0]
    assert len(CarvedSurface(flat, np.arange(3), np.tile([0.0, 0.0, 2.0], (3, 1))).faces) == 0


def test_the_true_distance_lies_within_the_bounds():
    points, ray_point, ray_origin = ball()
    carved = CarvedSurface(points, ray_point, ray_origin)
    landmarks = Landmarks(points, ray_point, ray_origin, np.ones(len(points)), carved)
    probes = landmarks.draw(2000, torch.Generator().manual_seed(0), carved=0.5)
    assert probes.points.shape == (4000, 3)
    true = probes.points.norm(dim=-1) - RADIUS
    assert bool((probes.least - 1e-3 < true).all() and (true < probes.most + 1e-3).all())
    on_landmarks = (probes.least == 0) & (probes.most == 0)
    assert float(on_landmarks[:2000].float().mean()) == pytest.approx(0.4, abs=0.01)
    assert torch.equal(probes.weights[2000:], torch.full((2000,), 0.5))
    # Free space is probed where the field is: within the sphere.
    assert float(probes.points[:2000].norm(dim=-1).max()) < 1.0 + 1e-4


def test_bounds_loss_by_hand():
    values = torch.tensor([0.5, -0.2, 0.3, 0.0], requires_grad=True)
    least, most = torch.tensor([0.0, 0.0, 0.4, 0.0]), torch.tensor([0.3, 0.1, 0.6, 0.0])
    loss = bounds_loss(values, least, most, torch.tensor([1.0, 1.0, 0.5, 1.0]))
    assert float(loss) == pytest.approx((0.2 + 0.2 + 0.5 * 0.1 + 0.0) / 4)
    loss.backward()
    assert values.grad is not None
    assert torch.allclose(values.grad, torch.tensor([0.25, -0.25, -0.125, 0.0]))


def test_the_field_begins_with_the_carved_surface(tiny_model):
    points, ray_point, ray_origin = ball()
    scaled = 0.6 * points
    carved = CarvedSurface(scaled, ray_point, ray_origin)
    landmarks = Landmarks(scaled, ray_point, ray_origin, np.ones(len(points)), carved)
    before = tiny_model.scene.field.sdf(torch.zeros(1, 3), tiny_model.level_weights)
    tiny_model.learn_landmarks(landmarks)
    field = tiny_model.scene.field
    on_surface = field.sdf(torch.from_numpy(scaled).float(), tiny_model.level_weights)
    assert float(on_surface.abs().mean()) < 0.02
    middle = float(field.sdf(torch.zeros(1, 3), tiny_model.level_weights))
    assert middle == pytest.approx(-0.6 * RADIUS, abs=0.08) and abs(float(before) - middle) > 0.1


@pytest.fixture
def tiny_model():
    """A model of 12 cameras with a tiny field."""
    config = craym_lite.config.pipeline.model
    field = SDFFieldConfig(num_levels=4, log2_table_size=12, base_resolution=8, hidden_width=32)
    config = replace(config, sdf_field=field, background="color", grid_resolution=16)
    metadata = {"has_alpha": True, "background_rgb": [1.0, 1.0, 1.0], "image_size_px": torch.tensor([[32, 24]])}
    box = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    model = config.setup(scene_box=box, num_train_data=12, metadata=metadata)
    assert isinstance(model.scene.field, SDFField)
    return model
