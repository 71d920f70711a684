"""The world frame, nerfstudio's normalised one, found from the rough training poses alone.

What the cameras look at lies in its unit sphere, and up is +z.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from craym_nerfstudio.data.config import Orientation
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.geometry.rays import focus_point

_MARGIN = 1.1
_MAX_RADIUS_TO_DISTANCE = 0.75
_FORWARD_FACING_ABOVE = 0.85
"""Length of the mean viewing direction over which all cameras look one way."""
_FORWARD_DEPTH_TO_SPREAD = 8.0
"""Assumed scene depth of forward-facing captures in median distances of a camera from the mean camera centre."""


@dataclass(frozen=True)
class Target:
    """What a set of cameras looks at: a point, and whether the cameras surround it from outside."""

    center: Float[np.ndarray, "3"]
    is_outside_in: bool
    distance: float
    """Median distance of a camera from the point."""


def find_target(c2w: Float[np.ndarray, "cams 3 4"]) -> Target:
    """The point that the cameras look at.

    Cameras that share one give the point nearest to their optical axes; cameras that all look one way, a point at a
    plausible depth before them; cameras that look around, their mean centre.
    """
    centers, directions = c2w[:, :, 3], -c2w[:, :, 2]
    focus = focus_point(torch.from_numpy(centers.copy()), torch.from_numpy(directions.copy())).numpy()
    offset = focus - centers
    depth = (offset * directions).sum(-1)
    distance = np.linalg.norm(offset, axis=-1)
    miss = np.linalg.norm(offset - depth[:, None] * directions, axis=-1)
    mean_center = centers.mean(0)
    spread = float(np.median(np.linalg.norm(centers - mean_center, axis=-1)))
    # A spread far below the distance means nearly parallel axes: their crossing point is noise.
    is_focus_sure = (depth > 0).mean() >= 0.9 and np.median(miss) < 0.4 * np.median(distance)
    if is_focus_sure and np.median(distance) < 30 * spread:
        return Target(focus, True, float(np.median(distance)))
    ahead = directions.mean(0)
    if np.linalg.norm(ahead) > _FORWARD_FACING_ABOVE:
        depth_ahead = _FORWARD_DEPTH_TO_SPREAD * spread
        return Target(mean_center + ahead / np.linalg.norm(ahead) * depth_ahead, True, depth_ahead)
    return Target(mean_center, False, spread)


def find_world(
    frames: Frames, c2w: Float[np.ndarray, "cams 3 4"], is_isolated: bool, orientation: Orientation, auto_scale: bool
) -> Similarity:
    """The map from the data's frame to the world frame.

    The unit sphere fills the image of the median camera: its longer side where whole objects are seen before an empty
    background, its diagonal otherwise, and a tenth more. Captures that look around from inside get a sphere that
    holds their cameras and some room.
    """
    rotation = upright_rotation(c2w, orientation)
    if not auto_scale:
        return Similarity.of(rotation=rotation)
    target = find_target(c2w)
    if target.is_outside_in:
        sine = math.sin(float(np.median(_half_angles_rad(frames, is_isolated))))
        radius = target.distance * min(_MARGIN * sine, _MAX_RADIUS_TO_DISTANCE)
    else:
        reach = np.linalg.norm(c2w[:, :, 3] - target.center, axis=-1)
        radius = 1.25 * float(np.quantile(reach, 0.95))
    # Cameras at one place leave the scale open.
    scale = 1.0 / radius if radius > 1e-9 else 1.0
    return Similarity.of(scale, rotation, -scale * rotation @ target.center)


def _half_angles_rad(frames: Frames, is_isolated: bool) -> Float[np.ndarray, " cams"]:
    """Angle between the optical axis and the edge (or the corner) of each image."""
    half_extent = 0.5 * frames.size_px / frames.intrinsics_px[:, :2]
    tangent = half_extent.max(-1) if is_isolated else np.linalg.norm(half_extent, axis=-1)
    fisheye = np.array([kind == "FISHEYE" for kind in frames.camera_types])
    return np.where(fisheye, tangent.clip(max=math.pi / 2), np.arctan(tangent))


def upright_rotation(c2w: Float[np.ndarray, "cams 3 4"], orientation: Orientation) -> Float[np.ndarray, "3 3"]:
    """Rotation that brings the cameras' mean up direction to +z.

    "auto" turns only where the cameras agree on an up direction that is more than 60 degrees off +z.
    """
    up = c2w[:, :, 1].mean(0)
    length = np.linalg.norm(up)
    cosine = up[2] / length if length > 1e-9 else 1.0
    if orientation == "none" or length < 1e-9 or (orientation == "auto" and (length < 0.3 or cosine > 0.5)):
        return np.eye(3)
    axis = np.array([up[1], -up[0], 0.0])
    if np.linalg.norm(axis) < 1e-9:
        return np.eye(3) if cosine > 0 else np.diag([1.0, -1.0, -1.0])
    axis /= np.linalg.norm(axis)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + math.sqrt(1 - cosine**2) * cross + (1 - cosine) * cross @ cross
