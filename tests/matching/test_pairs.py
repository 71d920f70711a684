"""Candidate pairs: complete for few images, linear for many, sensible in domes, rooms and in front of a wall."""

from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from craym_nerfstudio.matching.pairs import candidate_pairs, covisibility, turned_at_most
from craym_nerfstudio.matching.views import Views
from samples.analytic_scene import dome_cameras


def views_of(c2w: np.ndarray, focal_px: float = 100.0) -> Views:
    count = len(c2w)
    names = [f"{number}.png" for number in range(count)]
    size = np.tile([100, 100], (count, 1))
    paths = [Path(name) for name in names]
    return Views(names, paths, None, c2w, np.full(count, focal_px), size, lambda _, keypoints: keypoints)


def facing(centers: np.ndarray, yaw_deg: np.ndarray | float = 0.0) -> np.ndarray:
    """Upright cameras that look along -z, turned about the vertical y axis."""
    yaw = np.deg2rad(np.broadcast_to(yaw_deg, len(centers)))
    cosine, sine, zero, one = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw), np.ones_like(yaw)
    rows = [[cosine, zero, sine], [zero, one, zero], [-sine, zero, cosine]]
    rotation = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    return np.concatenate([rotation, centers[:, :, None]], axis=2)


def test_few_images_are_paired_completely() -> None:
    pairs = candidate_pairs(views_of(dome_cameras(25)))
    assert len(pairs) == 25 * 24 // 2
    assert pairs.dtype == np.int32 and (pairs[:, 0] < pairs[:, 1]).all()
    assert candidate_pairs(views_of(dome_cameras(1))).shape == (0, 2)


def test_opposite_views_are_left_out_for_who_cannot_match_them() -> None:
    c2w = facing(np.zeros((3, 3)), np.array([0.0, 90.0, 180.0]))
    pairs = candidate_pairs(views_of(c2w))
    assert turned_at_most(pairs, c2w, 110.0).tolist() == [[0, 1], [1, 2]]
    assert turned_at_most(pairs, c2w, 45.0).shape == (0, 2)


def test_pairs_grow_with_the_images_and_hang_together() -> None:
    for count in (40, 80):
        pairs = candidate_pairs(views_of(dome_cameras(count)), neighbours=10)
        assert count * 5 <= len(pairs) <= count * 10
        assert len(np.unique(pairs, axis=0)) == len(pairs)
        graph = coo_matrix((np.ones(len(pairs)), tuple(pairs.T)), shape=(count, count))
        assert connected_components(graph, directed=False)[0] == 1
    again = candidate_pairs(views_of(dome_cameras(80)), neighbours=10)
    np.testing.assert_array_equal(pairs, again)


def test_dome_neighbours_are_near_in_direction() -> None:
    c2w = dome_cameras(100)
    pairs = candidate_pairs(views_of(c2w), neighbours=8)
    angle = np.rad2deg(np.arccos((c2w[pairs[:, 0], :, 2] * c2w[pairs[:, 1], :, 2]).sum(-1).clip(-1, 1)))
    every = np.rad2deg(np.arccos((c2w[:, :, 2] @ c2w[:, :, 2].T).clip(-1, 1)))
    assert angle.max() < np.median(every)
    assert angle.mean() < np.sort(every, axis=1)[:, 1:12].mean()


def test_forward_facing_cameras_pair_by_position() -> None:
    """All look the same way: a 6 x 6 grid of positions."""
    grid = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0), [0.0]), axis=-1).reshape(-1, 3)
    score = covisibility(views_of(facing(grid)))
    far = np.linalg.norm(grid[:, None] - grid[None], axis=-1)
    for number in range(len(grid)):
        order = np.argsort(-score[number] + (np.arange(len(grid)) == number) * 10)
        assert far[number, order[:3]].max() < far[number].max() / 2


def test_room_cameras_pair_by_overlap() -> None:
    """One spot, all directions: neighbours are those turned least; the opposite direction shares nothing."""
    yaw = np.arange(0, 360, 10.0)
    random = np.random.RandomState(0)
    views = views_of(facing(random.normal(0, 0.05, (36, 3)), yaw))
    score = covisibility(views)
    np.fill_diagonal(score, -1)
    turn = np.abs((yaw[:, None] - yaw[None] + 180) % 360 - 180)
    assert all(turn[number, score[number].argmax()] <= 30 for number in range(36))
    assert score[0, 18] < 0.05 * score[0].max()


def test_separate_groups_are_connected() -> None:
    """Two far clusters that see nothing in common still get the link that may hold them together."""
    random = np.random.RandomState(1)
    left, right = (random.normal(0, 0.3, (30, 3)) + np.array([shift, 0, 0]) for shift in (0.0, 100.0))
    pairs = candidate_pairs(views_of(facing(np.concatenate([left, right]))), neighbours=5)
    between = (pairs[:, 0] < 30) & (pairs[:, 1] >= 30)
    assert between.sum() >= 1
