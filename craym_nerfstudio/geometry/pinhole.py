"""The pinhole camera: between bearings, the image plane and pixels (x right, y down, first pixel's centre at 0.5)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_LEAST_DEPTH = 1e-3


def plane_from_bearings(bearings: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 2"]:
    """Where bearings before the camera (OpenGL axes, of any length) meet the plane at distance 1: right and down."""
    return bearings[..., :2] * [1.0, -1.0] / -bearings[..., 2:]


def bearings_from_plane(plane: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 3"]:
    """Unit bearings (OpenGL axes) through points of the plane at distance 1, given right and down."""
    local = np.concatenate([plane * [1.0, -1.0], -np.ones_like(plane[..., :1])], axis=-1)
    return local / np.linalg.norm(local, axis=-1, keepdims=True)


@dataclass(frozen=True)
class Pinhole:
    """A posed camera without lens distortion."""

    c2w: Float[np.ndarray, "3 4"]
    focal_px: Float[np.ndarray, "2"]
    center_px: Float[np.ndarray, "2"]
    size_px: tuple[int, int]
    """Width, height."""

    def project(self, points: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
        """Pixel positions of world points, and the inverse of their depth, 0 for points that are not in front."""
        local = (points - self.c2w[:, 3]) @ self.c2w[:, :3]
        depth = -local[:, 2]
        ahead = depth > _LEAST_DEPTH
        local[~ahead] = [0.0, 0.0, -1.0]
        pixels = plane_from_bearings(local) * self.focal_px + self.center_px
        return pixels, np.where(ahead, 1.0 / np.where(ahead, depth, 1.0), 0.0)

    def rays(self, pixels: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
        """Unit directions in the world through positions (x, y) of the image."""
        return bearings_from_plane((pixels - self.center_px) / self.focal_px) @ self.c2w[:, :3].T

    def shows(self, pixels: Float[np.ndarray, "n 2"]) -> np.ndarray:
        """[n] bool: whether positions lie in the image."""
        return ((pixels >= 0) & (pixels < self.size_px)).all(-1)


def refocused(bearing: Float[np.ndarray, "*n 3"], factor: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 3"]:
    """Bearings (unit, OpenGL axes) of the same pixels if the focal length is multiplied by a factor."""
    rays = np.concatenate([bearing[..., :2] / factor[..., None], bearing[..., 2:]], axis=-1)
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)
