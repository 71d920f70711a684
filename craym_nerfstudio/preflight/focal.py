"""The focal length by which given poses explain the matches best."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from craym_nerfstudio.geometry.epipolar import essential, sampson_distance
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.preflight.hypotheses import Poses
from craym_nerfstudio.preflight.observe import SamplePair, sampled_images

_LEAST, _MOST = 0.25, 4.0
_COARSE, _FINE = 49, 21
_MATCHES_OF_PAIR = 100
_WRONG_ABOVE = 1.06
"""Factor that is worth a word."""


@dataclass(frozen=True)
class _Rays:
    """Matched bearings of sampled pairs under the given intrinsics."""

    images: Int[np.ndarray, "matches 2"]
    bearings: Float[np.ndarray, "matches 2 3"]
    focal_px: Float[np.ndarray, " matches"]

    def median_px(self, c2w: Poses, factor: float) -> float:
        """Median Sampson distance under poses, in px of the images, if the focal length has that factor."""
        rays = self.bearings / [factor, factor, 1.0]
        rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        poses = torch.from_numpy(np.ascontiguousarray(c2w, dtype=np.float64))
        matrices = essential(poses[self.images[:, 0]], poses[self.images[:, 1]])
        first, second = torch.from_numpy(rays).unbind(1)
        angle = sampson_distance(matrices, first, second).numpy()
        # Away from the axis a pixel covers less. Without this a short focal length would make all distances small.
        cosine = np.abs(rays[..., 2]).mean(-1).clip(0.05, 1.0)
        return float(np.median(angle * factor * self.focal_px / cosine**1.5))


def _rays(views: Views, samples: Sequence[SamplePair]) -> _Rays:
    parts = [(s.keypoints_i[:_MATCHES_OF_PAIR], s.keypoints_j[:_MATCHES_OF_PAIR]) for s in samples]
    images = np.repeat(sampled_images(samples), [len(part[0]) for part in parts], axis=0)
    bearings = [
        np.concatenate([views.bearings(s.images[side], part[side]) for s, part in zip(samples, parts, strict=True)])
        for side in (0, 1)
    ]
    focal_px = np.asarray(views.focal_px, dtype=np.float64)[images].mean(-1)
    return _Rays(images, np.stack(bearings, axis=1), focal_px)


def focal_factor(views: Views, samples: Sequence[SamplePair]) -> tuple[float, float, float]:
    """Factor on the given focal length with the least median distance; that distance and the one at 1, in px."""
    rays, factors = _rays(views, samples), np.geomspace(_LEAST, _MOST, _COARSE)
    best = int(np.argmin([rays.median_px(views.c2w, float(factor)) for factor in factors]))
    near = np.geomspace(factors[max(best - 1, 0)], factors[min(best + 1, _COARSE - 1)], _FINE)
    values = [rays.median_px(views.c2w, float(factor)) for factor in near]
    best = int(np.argmin(values))
    return float(near[best]), values[best], rays.median_px(views.c2w, 1.0)


def is_wrong(factor: float) -> bool:
    """Whether a factor is neither 1 within tolerance nor at the end of the searched range."""
    return abs(np.log(factor)) > np.log(_WRONG_ABOVE) and _LEAST * 1.1 < factor < _MOST / 1.1
