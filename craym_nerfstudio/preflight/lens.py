"""Assumptions on the lens, and the relative motions of sampled pairs under them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int

from craym_nerfstudio.geometry.epipolar import essential_from_motion, sampson_distance
from craym_nerfstudio.matching.two_view import ransac_motion
from craym_nerfstudio.matching.verify import PutativePairs, threshold_px, verify
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.preflight.observe import Observed, SamplePair


@dataclass(frozen=True)
class Lens:
    """What is assumed beside the given intrinsics."""

    focal_factor: float = 1.0
    """True focal length over the given one."""
    quarter_turns: int = 0
    """Clockwise turns by 90 degrees of the files against what intrinsics and poses describe."""


AS_GIVEN = Lens()


@dataclass(frozen=True)
class Motions:
    """Relative motions of sampled pairs, ``x_j = R x_i + t`` in OpenGL camera frames; NaN where there is none."""

    rotation: Float[np.ndarray, "pairs 3 3"]
    translation: Float[np.ndarray, "pairs 3"]
    explained: Float[np.ndarray, " pairs"]
    """Share of the matches (all inliers of a fundamental matrix) that the motion explains."""


def upright(
    keypoints_px: Float[np.ndarray, "n 2"], size_px: Int[np.ndarray, " 2"], quarter_turns: int
) -> Float[np.ndarray, "n 2"]:
    """Keypoints after an image of width and height `size_px` is turned back, counter-clockwise."""
    x, y = np.asarray(keypoints_px, dtype=np.float64).T
    width, height = (float(v) for v in size_px)
    turned = [(x, y), (y, width - x), (width - x, height - y), (height - y, x)]
    return np.stack(turned[quarter_turns % 4], axis=-1)


def assumed_views(views: Views, lens: Lens, only: Sequence[int] | None = None) -> Views:
    """Views whose bearings, of all images or `only` of some, follow the assumed lens; keypoints stay those of files."""
    if lens == AS_GIVEN:
        return views
    chosen = set(range(len(views.names)) if only is None else only)

    def bearings(image: int, keypoints_px: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
        if image not in chosen:
            return views.bearings(image, keypoints_px)
        rays = np.array(views.bearings(image, upright(keypoints_px, views.size_px[image], lens.quarter_turns)))
        rays[:, :2] /= lens.focal_factor
        return rays / np.linalg.norm(rays, axis=1, keepdims=True)

    factor = np.ones(len(views.names))
    factor[list(chosen)] = lens.focal_factor
    return replace(views, focal_px=np.asarray(views.focal_px) * factor, bearings=bearings)


def motions(samples: Sequence[SamplePair], views: Views) -> Motions:
    """Robust relative motions of sampled pairs with the lens of `views`."""
    limit_px = threshold_px(views)
    rotation = np.full((len(samples), 3, 3), np.nan)
    translation = np.full((len(samples), 3), np.nan)
    explained = np.zeros(len(samples))
    for number, sample in enumerate(samples):
        i, j = sample.images
        rays_i, rays_j = views.bearings(i, sample.keypoints_i), views.bearings(j, sample.keypoints_j)
        limit_rad = limit_px / float(np.mean(views.focal_px[[i, j]]))
        motion = ransac_motion(rays_i, rays_j, limit_rad)
        if motion is None:
            continue
        rotation[number], translation[number] = motion[:, :3], motion[:, 3]
        matrix = essential_from_motion(torch.from_numpy(motion))
        distance = sampson_distance(matrix, torch.from_numpy(rays_i), torch.from_numpy(rays_j)).numpy()
        explained[number] = (distance < limit_rad).mean()
    return Motions(rotation, translation, explained)


def verified_motions(observed: Observed, views: Views) -> tuple[Int[np.ndarray, "pairs 2"], Motions]:
    """Motions of all pairs that agree with each other, whatever the poses say; `explained` is their relative support.

    Slower than the motions of a sample, and needed where chains of pairs must lead to right rotations.
    """
    bearings = [np.asarray(views.bearings(k, xy), dtype=np.float64) for k, xy in enumerate(observed.keypoints)]
    matches, _ = verify(observed.putative, views, observed.keypoints, bearings, observed.detector, None)
    support = matches.pair_counts / matches.pair_counts.max(initial=1)
    return matches.pairs.astype(np.int64), Motions(matches.rotation, matches.translation, support)


def putative_under(observed: Observed, views: Views, bearings: list[Float[np.ndarray, "n 3"]]) -> PutativePairs:
    """The putative matches with the pairs' motions found anew from other bearings."""
    putative = observed.putative
    limit_px = threshold_px(views)
    strict, motion = putative.strict.astype(bool), np.array(putative.motion)
    for pair, (i, j) in enumerate(putative.pairs):
        rows = np.flatnonzero((putative.pair_of_match == pair) & strict)
        ids = putative.keypoint_ids[rows]
        limit_rad = limit_px / float(np.mean(views.focal_px[[i, j]]))
        found = ransac_motion(bearings[i][ids[:, 0]], bearings[j][ids[:, 1]], limit_rad)
        if found is not None:
            motion[pair] = found
    return replace(putative, motion=motion)
