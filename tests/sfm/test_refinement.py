"""Refinement: how precise a track is told by its own rays."""

from dataclasses import replace

import numpy as np
import pytest

from craym_nerfstudio.geometry.alignment import pose_errors
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.sfm.ray_graph import RayGraph, ray_graph
from craym_nerfstudio.sfm.refinement import FINE, refine, track_scatter
from craym_nerfstudio.sfm.structure import build_structure
from tests.sfm.synthetic import FOCAL_PX, Scene, bearings, disturbed, make_scene, ring


def graph_of(scene: Scene) -> RayGraph:
    return ray_graph(scene.matches, scene.views.focal_px)


def drifting(matches: Matches, share: float, most_px: float) -> Matches:
    """Matches in which that share of the points moves with the viewpoint, in every image elsewhere."""
    random = np.random.RandomState(1)
    drift = random.uniform(-most_px, most_px, (len(matches.names), int(matches.keypoint_ids.max()) + 1, 2))
    moves = random.uniform(size=drift.shape[1]) < share
    shift = drift[matches.images, matches.keypoint_ids] * moves[matches.keypoint_ids][..., None]
    keypoints = matches.keypoints + shift
    rays = bearings(0, keypoints.reshape(-1, 2)).reshape(-1, 2, 3)
    return replace(matches, keypoints=keypoints.astype(np.float32), bearings=rays.astype(np.float32))


def test_a_track_is_as_precise_as_its_rays_meet() -> None:
    """Every second point is off by five times as much as the others."""
    c2w, random = ring(12), np.random.RandomState(0)
    graph = graph_of(make_scene(c2w, c2w))
    off_px = np.where(graph.keypoint_id % 2, 1.0, 0.2)[:, None] * random.standard_normal((len(graph.image), 3))
    bearing = graph.bearing + off_px / FOCAL_PX
    graph = replace(graph, bearing=bearing / np.linalg.norm(bearing, axis=1, keepdims=True))
    structure = build_structure(graph, c2w, np.ones(len(graph.ends), dtype=bool), 20.0)
    scatter = track_scatter(graph, structure, c2w, 1.0)[structure.node]
    bad = graph.keypoint_id[structure.node] % 2 == 1
    assert 3.0 < np.median(scatter[bad]) / np.median(scatter[~bad]) < 5.5
    assert np.median(scatter) == pytest.approx(1.0, rel=0.3)
    same = [len(np.unique(scatter[structure.point == point])) for point in range(20)]
    assert same == [1] * 20


def test_tracks_that_differ_by_chance_alone_are_alike() -> None:
    c2w, random = ring(12), np.random.RandomState(0)
    graph = graph_of(make_scene(c2w, c2w))
    bearing = graph.bearing + 0.3 / FOCAL_PX * random.standard_normal((len(graph.image), 3))
    graph = replace(graph, bearing=bearing / np.linalg.norm(bearing, axis=1, keepdims=True))
    structure = build_structure(graph, c2w, np.ones(len(graph.ends), dtype=bool), 20.0)
    assert np.ptp(track_scatter(graph, structure, c2w, 0.3)) < 0.25


@pytest.mark.parametrize("seed", range(2))
def test_points_that_move_with_the_viewpoint_count_for_less(seed: int) -> None:
    """Six of ten points drift by up to 1.5 px, the others are precise to 0.1 px; few views take them as they come."""
    found = {}
    for count in (16, 30):
        c2w = ring(count, seed=seed)
        rough = disturbed(c2w, 0.3, 0.01, seed=seed)
        scene = make_scene(c2w, rough, points=200, noise_px=0.1, seed=seed)
        graph = graph_of(replace(scene, matches=drifting(scene.matches, 0.6, 1.5)))
        everything, nothing = np.ones(len(graph.ends), dtype=bool), np.zeros(count, dtype=bool)
        ends = [refine(graph, c2w, ~nothing, rough, everything, nothing, 0, rounds) for rounds in (FINE[:1], FINE)]
        found[count] = [pose_errors(end.c2w, c2w).rotation_deg_mean for end in ends]
    assert found[16][0] == found[16][1]
    assert found[30][1] < 0.75 * found[30][0]
