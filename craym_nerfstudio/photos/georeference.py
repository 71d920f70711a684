"""The frame and scale of measured positions for cameras that were placed by their images alone."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from craym_nerfstudio.geometry.alignment import Similarity, align_poses
from craym_nerfstudio.photos.positions import Positions

FEWEST = 4
"""Positions, below which they fix no frame."""
_MOST_ERROR = 0.25
"""Of the positions' spread: beyond it they say nothing of the frame, as those of a phone in a room."""
_OFF_LINE = 4.0
"""Errors by which cameras must leave a line for positions alone to fix the turn about it."""


@dataclass(frozen=True)
class Georeference:
    """Where the images' own frame lies in that of the positions, and how well these are known."""

    similarity: Similarity
    error: float
    """Standard deviation of a position along an axis, as it is seen, in units of the positions."""
    scale_error: float
    """Relative standard deviation of the scale."""


def georeference(c2w: Float[np.ndarray, "cams 3 4"], positions: Float[np.ndarray, "cams 3"]) -> Georeference | None:
    """The robust similarity to `positions` (NaN where there is none); None where they contradict the cameras.

    `c2w` stand upright: z is up in both frames. Where all cameras are on a line, this fixes the turn about it.
    """
    known = ~np.isnan(positions).any(1)
    if known.sum() < FEWEST:
        return None
    centers, targets = c2w[known, :, 3], positions[known]
    middle = np.median(targets, axis=0)  # map coordinates of seven digits would cost as many
    found = _fit(c2w[known], targets - middle)
    off = np.linalg.norm(found.points(centers) - (targets - middle), axis=1)
    error = float(np.median(off)) / 1.54 * (3 * len(off) / (3 * len(off) - 7)) ** 0.5
    spread = np.linalg.svd(targets - targets.mean(0), compute_uv=False) / len(off) ** 0.5
    if spread[1] < _OFF_LINE * error:
        found = _upright_fit(centers, targets - middle)
    if not error < _MOST_ERROR * spread[0]:
        return None
    moved = Similarity.of(translation=middle) @ found
    return Georeference(moved, error, error / float(np.linalg.norm(spread) * len(off) ** 0.5))


def _fit(c2w: Float[np.ndarray, "cams 3 4"], targets: Float[np.ndarray, "cams 3"]) -> Similarity:
    upright = _upright_fit(c2w[:, :, 3], targets)
    wanted = np.concatenate([upright.poses(c2w)[:, :, :3], targets[..., None]], axis=-1)
    return align_poses(torch.from_numpy(c2w), torch.from_numpy(wanted), robust=True)


def _upright_fit(centers: Float[np.ndarray, "cams 3"], targets: Float[np.ndarray, "cams 3"]) -> Similarity:
    """The similarity that keeps z up."""
    source, target = centers - centers.mean(0), targets - targets.mean(0)
    # As complex numbers, horizontal vectors turn by multiplication.
    yaw = np.angle(np.vdot(source[:, 0] + 1j * source[:, 1], target[:, 0] + 1j * target[:, 1]))
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0.0], [np.sin(yaw), np.cos(yaw), 0.0], [0.0, 0.0, 1.0]])
    turned = source @ turn.T
    scale = max(float((turned * target).sum()), 0.0) / max(float((turned**2).sum()), 1e-300)
    scale = scale if scale > 0 else 1.0
    return Similarity.of(scale, turn, targets.mean(0) - scale * turn @ centers.mean(0))


def sigmas(positions: Positions, error: float, kept: Bool[np.ndarray, " photos"]) -> Float[np.ndarray, " some"]:
    """How far positions are off: what was said of them, but at least half of what is seen; NaN without a position."""
    said = np.where(np.isnan(positions.accuracy), error, np.maximum(positions.accuracy, 0.5 * error))
    return np.where(np.isnan(positions.points).any(1), np.nan, said)[kept]
