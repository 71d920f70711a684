"""Where the unit sphere of the field lies in the user's world, found from the rough training poses alone."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.geometry.rays import focus_point

BLENDER_CAMERA_DISTANCE = 4.0311
"""Distance of the cameras from the object in the Blender scenes, whose units the noise protocols are stated in."""

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


@dataclass(frozen=True)
class FieldFrame:
    """The map ``x_field = scale * rotation @ (x_user - center)``."""

    center: Float[np.ndarray, "3"]
    rotation: Float[np.ndarray, "3 3"]
    scale: float

    @property
    def transform(self) -> Float[np.ndarray, "3 4"]:
        """nerfstudio's dataparser transform, to be followed by the scale."""
        return np.concatenate([self.rotation, -(self.rotation @ self.center)[:, None]], axis=1)

    def poses(self, c2w: Float[np.ndarray, "cams 3 4"]) -> Float[np.ndarray, "cams 3 4"]:
        """Poses of the user's frame in the field's; rotations stay orthonormal."""
        centers = self.scale * (c2w[:, :, 3] - self.center) @ self.rotation.T
        return np.concatenate([self.rotation @ c2w[:, :, :3], centers[:, :, None]], axis=2)


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


def find_field_frame(frames: Frames, c2w: Float[np.ndarray, "cams 3 4"], is_isolated: bool) -> FieldFrame:
    """The frame in which the object of interest lies inside the unit sphere, axes parallel to the user's.

    The sphere fills the frame of the median camera: its longer side where whole objects are seen before an empty
    background, its diagonal otherwise, and a tenth more. Captures that look around from inside get a sphere that
    holds their cameras and some room.
    """
    target = find_target(c2w)
    if target.is_outside_in:
        sine = math.sin(float(np.median(_half_angles_rad(frames, is_isolated))))
        radius = target.distance * min(_MARGIN * sine, _MAX_RADIUS_TO_DISTANCE)
    else:
        reach = np.linalg.norm(c2w[:, :, 3] - target.center, axis=-1)
        radius = 1.25 * float(np.quantile(reach, 0.95))
    # Cameras at one place leave the scale open.
    return FieldFrame(target.center, np.eye(3), 1.0 / radius if radius > 1e-9 else 1.0)


def _half_angles_rad(frames: Frames, is_isolated: bool) -> Float[np.ndarray, " cams"]:
    """Angle between the optical axis and the edge (or the corner) of each image."""
    half_extent = 0.5 * frames.size_px / frames.intrinsics_px[:, :2]
    tangent = half_extent.max(-1) if is_isolated else np.linalg.norm(half_extent, axis=-1)
    fisheye = np.array([kind == "FISHEYE" for kind in frames.camera_types])
    return np.where(fisheye, tangent.clip(max=math.pi / 2), np.arctan(tangent))


def upright_rotation(
    c2w: Float[np.ndarray, "cams 3 4"], orientation: Literal["auto", "up", "none"]
) -> Float[np.ndarray, "3 3"]:
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
