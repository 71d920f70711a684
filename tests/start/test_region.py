"""The region: ground seen from above is covered whole, what is asked for is taken, and its figures are right."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from craym_nerfstudio.data.config import AskedRegion, SceneConfig
from craym_nerfstudio.data.scene import read_scene
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.sfm.adjust import adjust_rays
from craym_nerfstudio.sfm.result import StageZero
from craym_nerfstudio.start.region import asked_region, figures_in_data, find_region, is_survey, looked_at
from samples.cameras import look_at
from tests.data.tiny_data import write_nerfstudio
from tests.sfm.synthetic import make_scene, ring


@pytest.fixture(scope="module")
def stage() -> StageZero:
    made = make_scene(ring(8), ring(8), noise_px=0.2)
    return adjust_rays(made.views, made.matches)


def survey(tilt_deg: float = 0.0) -> np.ndarray:
    """Twenty cameras over a field of 100 x 80, in four flight lines 40 above it, that look down."""
    tilt = np.radians(tilt_deg)
    down = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    centers = [[x, y, 40.0] for y in (-30, -10, 10, 30) for x in (-40, -20, 0, 20, 40)]
    return np.stack([np.concatenate([down, np.array(center)[:, None]], axis=1) for center in centers])


def ground(seed: int = 0) -> np.ndarray:
    random = np.random.RandomState(seed)
    return random.uniform([-50, -40, -1], [50, 40, 1], (500, 3))


def seen(stage: StageZero, points: np.ndarray, c2w: np.ndarray) -> StageZero:
    return replace(stage, points=points, track_length=np.full(len(points), 3), c2w=c2w)


def facing(position: list[float], target: list[float]) -> np.ndarray:
    return look_at(np.array(position, dtype=float), np.array(target, dtype=float))


def walk_past(count: int = 12) -> np.ndarray:
    """Cameras in a row that all look along +y."""
    return np.stack([facing([x, -6.0, 1.0], [x, 0.0, 1.0]) for x in np.linspace(-3, 3, count)])


def test_an_object_and_what_it_stands_on_are_held(stage: StageZero) -> None:
    region = find_region(stage, has_alpha=False)
    assert region is not None
    inside = np.linalg.norm(stage.points - region.translation.numpy(), axis=-1) < float(region.scale)
    assert inside.mean() > 0.95


def test_what_lies_beyond_the_ring_of_cameras_is_background(stage: StageZero) -> None:
    """An object of radius 1 seen from a ring of radius 4, hills in the distance: half of the points are theirs."""
    random = np.random.default_rng(0)
    ring_c2w = np.stack([facing([4 * np.cos(a), 4 * np.sin(a), 1.0], [0, 0, 0]) for a in np.arange(0, 6.28, 0.4)])
    hills = random.normal(size=(500, 3))
    hills *= 40.0 / np.linalg.norm(hills, axis=-1, keepdims=True)
    region = find_region(seen(stage, np.concatenate([random.normal(size=(500, 3)) / 3, hills]), ring_c2w), False)
    assert region is not None
    assert np.linalg.norm(region.translation.numpy()) < 0.3
    assert 3.0 < float(region.scale) < 4.2


def test_what_is_behind_an_object_seen_from_one_side_is_held_unless_it_is_far(stage: StageZero) -> None:
    """Cameras 2 before a plant, a wall 1.5 behind it; then hills a hundred times as far."""
    random = np.random.default_rng(0)
    plant, wall = random.normal(size=(200, 3)) / 6, random.uniform([-2, 1.5, -1], [2, 1.6, 2], (800, 3))
    before = np.stack([facing([x, -2.0, z], [0, 0, 0]) for x in np.linspace(-0.5, 0.5, 5) for z in (0.0, 0.4)])
    region = find_region(seen(stage, np.concatenate([plant, wall]), before), has_alpha=False)
    assert region is not None
    inside = np.linalg.norm(wall - region.translation.numpy(), axis=-1) < float(region.scale)
    assert inside.mean() > 0.95
    hills = np.concatenate([plant, 100.0 * wall])
    region = find_region(seen(stage, hills, before), has_alpha=False)
    assert region is not None
    assert float(region.scale) == pytest.approx(2.5 * 2.0, rel=0.1)


def test_a_wall_that_cameras_walk_past_is_held_whole(stage: StageZero) -> None:
    random = np.random.default_rng(0)
    wall = random.uniform([-4, 2.0, 0], [4, 2.3, 4], (800, 3))
    region = find_region(seen(stage, wall, walk_past()), has_alpha=False)
    assert region is not None
    assert (np.linalg.norm(wall - region.translation.numpy(), axis=-1) < float(region.scale)).all()
    assert float(region.scale) < 6.5


def test_cameras_look_at_the_middle_of_their_ring_and_at_nothing_in_a_row_or_outwards() -> None:
    around = np.stack([facing([3 * np.cos(a), 3 * np.sin(a), 1.0], [0.5, 0, 0]) for a in np.arange(0, 6.28, 0.5)])
    found = looked_at(around)
    assert found is not None
    np.testing.assert_allclose(found, [0.5, 0, 0], atol=1e-6)
    assert looked_at(walk_past()) is None
    outwards = np.stack([facing([np.cos(a), np.sin(a), 0], [9 * np.cos(a), 9 * np.sin(a), 0]) for a in (0, 1, 2, 3, 4)])
    assert looked_at(outwards) is None


@pytest.mark.parametrize("tilt_deg", [0.0, 25.0])
def test_flat_ground_is_covered_whole(stage: StageZero, tilt_deg: float) -> None:
    """In the world a third of it would lie in the unit sphere; its corners are 64 from the middle."""
    world = Similarity.of(1 / 35.0)
    region = find_region(seen(stage, world.points(ground()), world.poses(survey(tilt_deg))), has_alpha=False)
    assert region is not None
    inside = np.linalg.norm(world.points(ground()) - region.translation.numpy(), axis=-1) < float(region.scale)
    assert inside.mean() == 1.0 and float(region.scale) * 35 < 75


def test_an_object_and_a_wall_are_no_ground(stage: StageZero) -> None:
    assert not is_survey(stage.points, stage.c2w)
    # One place before a wall: the camera turns and does not move along it.
    c2w = survey()
    c2w[:, :2, 3] *= 0.01
    assert not is_survey(ground(), c2w)


def test_what_is_asked_for_is_in_units_of_the_data() -> None:
    world_from_data = Similarity.of(0.1, translation=np.array([1.0, 0.0, 0.0]))
    default = Similarity.of(2.0, translation=np.array([0.0, 0.5, 0.0]))
    region = asked_region(AskedRegion((10.0, 20.0, 30.0), 5.0, 2.0), default, world_from_data)
    np.testing.assert_allclose(region.translation.numpy(), [2.0, 2.0, 3.0])
    assert float(region.scale) == pytest.approx(1.0)
    kept = asked_region(AskedRegion(scale=0.5), default, world_from_data)
    assert float(kept.scale) == 1.0 and kept.translation.tolist() == [0.0, 0.5, 0.0]


def test_figures_by_hand(stage: StageZero) -> None:
    """Of four points two lie inside; all cameras of a ring look at its middle with images of 44 degrees."""
    views = replace(make_scene(ring(8), ring(8)).views, c2w=ring(8).numpy())
    points = np.array([[0.0, 0, 0], [0.9, 0, 0], [1.1, 0, 0], [0, 5, 0]])
    data = Similarity.of(0.5, translation=np.array([0.0, 0, 1.0]))
    figures = figures_in_data(Similarity.of(), data, points, views)
    assert (figures.center.tolist(), figures.radius, figures.points) == ([0.0, 0.0, -2.0], 2.0, 0.5)
    # tan(14.5 deg) of a sphere of 1 at distance 4, in pixels of 500: 129 of 200; rays at 0, 80 and 160 px.
    assert figures.rays == pytest.approx(9 / 25)
    assert "50% of the points and 36% of the camera rays" in figures.in_words
    whole = figures_in_data(Similarity.of(10.0), data, None, views)
    assert whole.rays == 1.0 and np.isnan(whole.points) and "points" not in whole.in_words


def test_the_flags_reach_the_scene(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path)
    scene = read_scene(SceneConfig(folder, region_center=(1.0, 2.0, 3.0), region_scale=1.5))
    assert scene.asked_region == AskedRegion((1.0, 2.0, 3.0), None, 1.5)
    with pytest.raises(InputError, match="region-radius is -1"):
        read_scene(SceneConfig(folder, region_radius=-1.0))
