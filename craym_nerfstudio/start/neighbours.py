"""Which images to compare an image with: by stage 0's points, and the angles under which both see them."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from craym_nerfstudio.sfm.result import StageZero

NEIGHBOURS = 8
"""Of each image; one that has fewer has some of them twice."""
_BEST_DEG, _LESS_DEG, _MORE_DEG = 10.0, 4.0, 12.0
"""Angle at a point that tells most of depth while a patch still looks alike; spreads of what is less and more (as
MVSNet's views are chosen, Yao et al. 2018)."""
_POINTS = 20_000
"""So many of stage 0's points say it as well as all."""


def neighbours_of(stage: StageZero) -> Int[Tensor, "images k"]:
    """The neighbours of each image, best first; images without common points with others are their own."""
    cameras = len(stage.c2w)
    score = np.zeros(cameras * cameras)
    drawn = np.ones(len(stage.points), dtype=bool)
    if len(drawn) > _POINTS:
        drawn[np.random.default_rng(0).permutation(len(drawn))[_POINTS:]] = False
    rays = np.flatnonzero(drawn[stage.ray_point])
    rays = rays[np.argsort(stage.ray_point[rays], kind="stable")]
    point, image = stage.ray_point[rays], stage.ray_image[rays]
    towards = stage.c2w[image][:, :, 3] - stage.points[point]
    towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
    for apart in range(1, len(rays)):
        pairs = np.flatnonzero(point[apart:] == point[:-apart])
        if not len(pairs):
            break
        first, second = pairs, pairs + apart
        angle = np.degrees(np.arccos((towards[first] * towards[second]).sum(-1).clip(-1.0, 1.0)))
        spread = np.where(angle < _BEST_DEG, _LESS_DEG, _MORE_DEG)
        worth = np.exp(-((angle - _BEST_DEG) ** 2) / (2.0 * spread**2))
        score += np.bincount(image[first] * cameras + image[second], worth, cameras * cameras)
    both = score.reshape(cameras, cameras)
    both = both + both.T
    np.fill_diagonal(both, 0.0)
    rows = [_best(row, number) for number, row in enumerate(both)]
    return torch.from_numpy(np.stack(rows))


def _best(score: np.ndarray, own: int) -> Int[np.ndarray, " k"]:
    """The neighbours of one image, over and over where they are few."""
    order = np.argsort(-score, kind="stable")[:NEIGHBOURS]
    found = order[score[order] > 0.0]
    return np.resize(found if len(found) else [own], NEIGHBOURS)
