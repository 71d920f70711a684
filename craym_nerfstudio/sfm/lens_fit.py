"""Whether it is the lens that is wrong and not the poses: intrinsics fitted to the matches while the poses stay.

A rotation soaks up a wrong principal point and a bent arc a wrong focal length, so that adjusted poses explain matches
well under a wrong lens. Exact poses betray it: five shared intrinsics then explain what six freedoms a camera did.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.geometry.epipolar import relative_pose
from craym_nerfstudio.sfm.ray_graph import MatchMask, Poses, RayGraph, match_angle
from craym_nerfstudio.sfm.result import Intrinsics
from craym_nerfstudio.sfm.shared_intrinsics import correct_bearings

FACTORS = np.geomspace(1 / 8, 8, 37)
"""Of the focal length that are tried first; their ends, and all powers of two between, are among them."""
_MOST_MATCHES = 1000
_LEAST_MATCHES = 60
_BOUNDS = ([-2.2, -2.0, -2.0, -0.6, -0.6], [2.2, 2.0, 2.0, 0.6, 0.6])
"""Of log focal factor, principal point in focal lengths, k1, k2."""
_STEPS = (0.1, 0.05, 0.05, 0.1, 0.1)
_EVALUATIONS = 40
_CLEARLY = 0.9
"""Part of the distance that distortion has to leave at most, to be believed."""
_SCALES_PX = (8.0, 1.0)
"""Of the robust loss: wide at first, for what a wrong start leaves."""


@dataclass(frozen=True)
class _Rays:
    """Matches with the motions that the poses say, ready to be seen through other lenses."""

    motion: Float[Tensor, "matches 3 4"]
    bearings: Float[Tensor, "matches 2 3"]
    focal_px: Float[Tensor, " matches"]

    def distance_px(self, intrinsics: Intrinsics) -> Float[Tensor, " matches"]:
        """Sampson distance in pixels of the images under corrected intrinsics."""
        rays = correct_bearings(self.bearings, intrinsics)
        return pixel_distance(self.motion, rays, self.focal_px * intrinsics.focal_factor)

    def median_px(self, intrinsics: Intrinsics) -> float:
        """The median of these distances."""
        return float(self.distance_px(intrinsics).median())


def pixel_distance(
    motion: Float[Tensor, "matches 3 4"], bearings: Float[Tensor, "matches 2 3"], focal_px: Float[Tensor, " matches"]
) -> Float[Tensor, " matches"]:
    """Sampson distance in pixels of the images.

    An angle is as many pixels as the lens has there, away from the axis more: in radians every longer focal length
    would look better.
    """
    angle = match_angle(motion, *bearings.unbind(1))
    cosine = bearings[..., 2].abs().mean(-1).clamp(0.05, 1.0)
    return angle * focal_px / cosine**1.5


def _rays(graph: RayGraph, c2w: Poses, use: MatchMask) -> _Rays:
    images = torch.from_numpy(graph.images_of_matches[use])
    i, j = images.unbind(-1)
    focal_px = torch.from_numpy(graph.focal_px)[images].mean(-1)
    return _Rays(relative_pose(c2w[i], c2w[j]), torch.from_numpy(graph.bearing[graph.ends[use]]), focal_px)


def lens_distance_px(graph: RayGraph, c2w: Poses) -> Float[np.ndarray, " matches"]:
    """Sampson distance of every match in px of the images, under the intrinsics that the graph has."""
    everything = np.ones(len(graph.ends), dtype=bool)
    return _rays(graph, c2w, everything).distance_px(Intrinsics()).numpy()


def fit_lens(graph: RayGraph, c2w: Poses, use: MatchMask, seed: int = 0) -> Intrinsics | None:
    """Intrinsics shared by all views that bring the matches in `use` nearest to their epipolar lines under `c2w`.

    Radial distortion is left alone unless it clearly helps. None with too few matches to tell.
    """
    chosen = np.flatnonzero(use)
    if len(chosen) < _LEAST_MATCHES:
        return None
    drawn = np.random.RandomState(seed).permutation(chosen)[:_MOST_MATCHES]
    rays = _rays(graph, c2w, np.isin(np.arange(len(use)), drawn))
    medians = [rays.median_px(Intrinsics(float(factor))) for factor in FACTORS]
    # A wrong principal point hides the focal length: the given one is a start, too.
    starts = [Intrinsics(float(FACTORS[int(np.argmin(medians))])), Intrinsics()]
    pinhole = min((_fitted(rays, start, 3) for start in starts), key=rays.median_px)
    radial = _fitted(rays, pinhole, 5)
    return radial if rays.median_px(radial) < _CLEARLY * rays.median_px(pinhole) else pinhole


def _fitted(rays: _Rays, start: Intrinsics, free: int) -> Intrinsics:
    """The first `free` of log focal factor, principal point, k1 and k2 moved to the least robust distance."""
    from scipy.optimize import least_squares

    fixed = _values(start)[free:]

    def intrinsics(values: Float[np.ndarray, " free"]) -> Intrinsics:
        return _intrinsics(np.concatenate([values, fixed]))

    state = _values(start)[:free]
    low, high = (np.array(bound[:free]) for bound in _BOUNDS)
    for scale_px in _SCALES_PX:
        state = least_squares(
            lambda values: rays.distance_px(intrinsics(values)).numpy(),
            state.clip(low, high),
            bounds=(low, high),
            loss="cauchy",
            f_scale=scale_px,
            x_scale=_STEPS[:free],
            max_nfev=_EVALUATIONS,
        ).x
    return intrinsics(state)


def _values(intrinsics: Intrinsics) -> Float[np.ndarray, "5"]:
    focal_factor, *others = intrinsics.values()
    return np.array([np.log(focal_factor), *others])


def _intrinsics(values: Float[np.ndarray, "5"]) -> Intrinsics:
    return Intrinsics.from_values([float(np.exp(values[0])), *values[1:].tolist()])
