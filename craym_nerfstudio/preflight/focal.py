"""The focal length by which given poses explain the matches best."""

from collections.abc import Sequence

import numpy as np
import torch

from craym_nerfstudio.geometry.epipolar import essential, sampson_distance
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.preflight.observe import SamplePair, sampled_images

_LEAST, _MOST = 1 / 9, 9.0
"""A little more than 1/8 to 8, so that these lie inside."""
_COARSE, _FINE = 73, 21
_MATCHES_OF_PAIR = 100
_WRONG_ABOVE = 1.06
"""Factor that is worth a word."""
_EXACT = 0.02
"""Relative distance from a power of two within which it is meant."""


def focal_factor(views: Views, samples: Sequence[SamplePair]) -> tuple[float, float, float]:
    """Factor on the given focal length with the least median distance; that distance and the one at 1, in px."""
    parts = [(s.keypoints_i[:_MATCHES_OF_PAIR], s.keypoints_j[:_MATCHES_OF_PAIR]) for s in samples]
    images = np.repeat(sampled_images(samples), [len(part[0]) for part in parts], axis=0)
    sides = [
        np.concatenate([views.bearings(s.images[side], part[side]) for s, part in zip(samples, parts, strict=True)])
        for side in (0, 1)
    ]
    bearings, focal_px = np.stack(sides, axis=1), np.asarray(views.focal_px, dtype=np.float64)[images].mean(-1)
    poses = torch.from_numpy(np.ascontiguousarray(views.c2w, dtype=np.float64))
    matrices = essential(poses[images[:, 0]], poses[images[:, 1]])

    def median_px(factor: float) -> float:
        """Median Sampson distance, in px of the images, if the focal length has that factor."""
        rays = bearings / [factor, factor, 1.0]
        rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        angle = sampson_distance(matrices, *torch.from_numpy(rays).unbind(1)).numpy()
        # Away from the axis a pixel covers less. Without this a short focal length would make all distances small.
        cosine = np.abs(rays[..., 2]).mean(-1).clip(0.05, 1.0)
        return float(np.median(angle * factor * focal_px / cosine**1.5))

    factors = np.geomspace(_LEAST, _MOST, _COARSE)
    best = int(np.argmin([median_px(float(factor)) for factor in factors]))
    near = np.geomspace(factors[max(best - 1, 0)], factors[min(best + 1, _COARSE - 1)], _FINE)
    values = [median_px(float(factor)) for factor in near]
    best = int(np.argmin(values))
    return float(near[best]), values[best], median_px(1.0)


def is_wrong(factor: float) -> bool:
    """Whether a factor is neither 1 within tolerance nor beyond the searched range."""
    return abs(np.log(factor)) > np.log(_WRONG_ABOVE) and _LEAST * 1.04 < factor < _MOST / 1.04


def power_of_two(factor: float) -> float | None:
    """The power of two other than 1 that a factor is within tolerance: images were halved, or halved again."""
    power = 2.0 ** round(np.log2(factor))
    return power if power != 1 and abs(factor / power - 1) < _EXACT else None
