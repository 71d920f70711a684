"""Lenses: from bearings (OpenGL axes) to pixels, with the distortion models of nerfstudio."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

_FAR_OUT = 0.5
"""Share of the image by which undistorted positions may lie outside of it: farther out the polynomials fold back."""


def distorted(plane: Float[np.ndarray, "n 2"], distortion: Float[np.ndarray, "6"]) -> Float[np.ndarray, "n 2"]:
    """OpenCV's polynomial as nerfstudio writes it (k1 k2 k3 k4 p1 p2), on the plane at distance 1."""
    return np.stack(bent(*plane.T, *distortion), axis=-1)


def bent(x: Any, y: Any, k1: Any, k2: Any, k3: Any, k4: Any, p1: Any, p2: Any) -> tuple[Any, Any]:
    """`distorted` of coordinates one by one: numbers, arrays or tensors, with coefficients of each or of all."""
    r2 = x**2 + y**2
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    across, down = 2 * p1 * x * y + p2 * (r2 + 2 * x**2), 2 * p2 * x * y + p1 * (r2 + 2 * y**2)
    return x * radial + across, y * radial + down


def bent_motion(
    x: Any, y: Any, dx: Any, dy: Any, k1: Any, k2: Any, k3: Any, k4: Any, p1: Any, p2: Any
) -> tuple[Any, Any]:
    """How fast `bent` moves where (x, y) moves by (dx, dy)."""
    r2, twice, cross = x**2 + y**2, 2 * (x * dx + y * dy), 2 * (x * dy + y * dx)
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    growth = twice * (k1 + r2 * (2 * k2 + r2 * (3 * k3 + r2 * (4 * k4))))
    across, down = p1 * cross + p2 * (twice + 4 * x * dx), p2 * cross + p1 * (twice + 4 * y * dy)
    return dx * radial + x * growth + across, dy * radial + y * growth + down


def distorted_fisheye(plane: Float[np.ndarray, "n 2"], distortion: Float[np.ndarray, "6"]) -> Float[np.ndarray, "n 2"]:
    """OpenCV's equidistant model: a polynomial (k1..k4) in the angle off the axis."""
    radius = np.linalg.norm(plane, axis=-1)
    angle = np.arctan(radius)
    k1, k2, k3, k4 = distortion[:4]
    squared = angle**2
    bent = angle * (1 + squared * (k1 + squared * (k2 + squared * (k3 + squared * k4))))
    return plane * (bent / np.maximum(radius, 1e-12))[:, None]


def pixels_of(
    local: Float[np.ndarray, "n 3"],
    intrinsics_px: Float[np.ndarray, "4"],
    distortion: Float[np.ndarray, "6"],
    size_px: Float[np.ndarray, "2"],
    is_fisheye: bool = False,
) -> tuple[Float[np.ndarray, "n 2"], Bool[np.ndarray, " n"]]:
    """Pixel positions of points of a camera's frame, and which of them the image shows."""
    focal, center = np.split(intrinsics_px.astype(local.dtype), 2)
    ahead = local[:, 2] < -1e-6
    depth = np.where(ahead, -local[:, 2], 1.0)
    plane = np.stack([local[:, 0] / depth, -local[:, 1] / depth], axis=-1)
    coefficients = distortion.astype(local.dtype)
    if is_fisheye:
        pixels = distorted_fisheye(plane, coefficients) * focal + center
    else:
        pixels = plane * focal + center
        if distortion.any():
            margin = _FAR_OUT * size_px
            ahead &= ((pixels > -margin) & (pixels < size_px + margin)).all(-1)
            pixels = distorted(plane, coefficients) * focal + center
    return pixels, ahead & ((pixels >= 0) & (pixels < size_px)).all(-1)
