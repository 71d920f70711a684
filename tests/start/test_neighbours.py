"""Neighbours by common points: those beside an image, neither too near nor too far; few are repeated."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from craym_nerfstudio.start.neighbours import NEIGHBOURS, neighbours_of


def ring(angles_deg: list[float], seen_by: np.ndarray) -> Any:
    """Stage 0 of cameras on a circle about points at its middle, of which each is seen by some of them."""
    angle = np.radians(angles_deg)
    c2w = np.zeros((len(angle), 3, 4))
    c2w[:, :, 3] = 4.0 * np.stack([np.cos(angle), np.sin(angle), 0.0 * angle], axis=-1)
    points = 0.1 * np.random.default_rng(0).standard_normal((len(seen_by), 3))
    ray_point, ray_image = np.nonzero(seen_by)
    return SimpleNamespace(c2w=c2w, points=points, ray_point=ray_point, ray_image=ray_image)


def test_the_best_neighbours_are_ten_degrees_away() -> None:
    angles = [float(angle) for angle in range(0, 120, 2)]
    found = neighbours_of(ring(angles, np.ones((50, len(angles)), dtype=bool)))
    assert found.shape == (60, NEIGHBOURS)
    apart = np.abs(np.subtract.outer(angles, angles))
    assert all(abs(apart[30, k] - 10.0) <= 2.0 for k in found[30, :4].tolist())
    assert all(4.0 <= apart[30, k] <= 18.0 for k in found[30].tolist())


def test_images_without_common_points_are_no_neighbours() -> None:
    seen = np.zeros((40, 5), dtype=bool)
    seen[:20, [0, 1]] = True
    seen[20:, [2, 3]] = True
    found = neighbours_of(ring([0.0, 10.0, 20.0, 30.0, 5.0], seen))
    assert [set(row) for row in found.tolist()] == [{1}, {0}, {3}, {2}, {4}]


def test_more_common_points_are_better_than_few() -> None:
    seen = np.ones((30, 3), dtype=bool)
    seen[5:, 2] = False
    assert neighbours_of(ring([0.0, 10.0, -10.0], seen))[0].tolist() == [1, 2] * 4
