"""Cameras on a dome around the origin, as if held by hand: jittered heights, distances, aims and tilts."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

CAMERA_ANGLE_X = 0.6911112070083618
"""Horizontal field of view in radians: that of the NeRF-synthetic scenes."""


def focal_length_px(width: int, camera_angle_x: float = CAMERA_ANGLE_X) -> float:
    """Focal length in px of a pinhole camera whose ``width`` px span ``camera_angle_x`` radians."""
    return 0.5 * width / np.tan(0.5 * camera_angle_x)


def look_at(
    position: Float[np.ndarray, " 3"], target: Float[np.ndarray, " 3"], roll_deg: float = 0.0
) -> Float[np.ndarray, "3 4"]:
    """OpenGL camera-to-world matrix at ``position`` looking at ``target``, z up, rolled by ``roll_deg``."""
    backward = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right)
    up = np.cross(backward, right)
    roll = np.deg2rad(roll_deg)
    turned_right = np.cos(roll) * right + np.sin(roll) * up
    return np.stack([turned_right, np.cross(backward, turned_right), backward, position], axis=-1)


def dome_cameras(
    count: int,
    radius: float = 4.03,
    seed: int = 0,
    elevation_deg: tuple[float, float] = (5.0, 80.0),
    radius_jitter: float = 0.03,
    aim_jitter: float = 0.04,
    roll_jitter_deg: float = 3.0,
) -> Float[np.ndarray, "cams 3 4"]:
    """Camera-to-world matrices spread evenly over a dome from low to high, every coordinate jittered.

    ``radius_jitter`` is relative; ``aim_jitter`` is the standard deviation of the point looked at, in world units.
    """
    random = np.random.default_rng(seed)
    low, high = np.sin(np.deg2rad(elevation_deg))
    step = (high - low) / count
    elevation = np.arcsin(low + step * (np.arange(count) + random.uniform(0.1, 0.9, count)))
    golden_angle = np.pi * (3.0 - np.sqrt(5.0))
    azimuth = golden_angle * np.arange(count) + random.uniform(-1.0, 1.0, count) * 0.6 / np.sqrt(count)
    distance = radius * (1.0 + radius_jitter * random.uniform(-1.0, 1.0, count))
    cameras = []
    for index in range(count):
        horizontal = np.cos(elevation[index]) * np.array([np.cos(azimuth[index]), np.sin(azimuth[index])])
        position = distance[index] * np.append(horizontal, np.sin(elevation[index]))
        cameras.append(look_at(position, aim_jitter * random.normal(size=3), roll_jitter_deg * random.normal()))
    return np.stack(cameras)
