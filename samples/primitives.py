"""Signed distance functions of simple solids in their own frame: points [n, 3] -> distances [n], positive outside.

Elementary geometry (J. C. Hart, "Sphere Tracing", 1996): every function is the exact Euclidean distance outside its
solid, except where two parts of a solid meet.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Points = Float[np.ndarray, "n 3"]
Values = Float[np.ndarray, " n"]


def sphere(points: Points, radius: float) -> Values:
    """Ball around the origin."""
    return np.linalg.norm(points, axis=-1) - radius


def rounded_box(points: Points, half_size: Sequence[float], radius: float) -> Values:
    """Axis-aligned box of the given outer half sizes whose edges are rounded by ``radius``."""
    x, y, z = (np.abs(points[:, axis]) - (half_size[axis] - radius) for axis in range(3))
    outside = np.sqrt(np.maximum(x, 0.0) ** 2 + np.maximum(y, 0.0) ** 2 + np.maximum(z, 0.0) ** 2)
    return outside + np.minimum(np.maximum(np.maximum(x, y), z), 0.0) - radius


def board(points: Points, half_size: Sequence[float], corner_radius: float, edge_radius: float) -> Values:
    """Flat plate of the given outer half sizes: corners of its outline rounded, edges of the outline bevelled round."""
    x, y = (np.abs(points[:, axis]) - (half_size[axis] - corner_radius) for axis in range(2))
    inside = np.minimum(np.maximum(x, y), 0.0)
    outline = np.hypot(np.maximum(x, 0.0), np.maximum(y, 0.0)) + inside - corner_radius + edge_radius
    above = np.abs(points[:, 2]) - half_size[2] + edge_radius
    outside = np.hypot(np.maximum(outline, 0.0), np.maximum(above, 0.0))
    return outside + np.minimum(np.maximum(outline, above), 0.0) - edge_radius


def torus(points: Points, major_radius: float, minor_radius: float) -> Values:
    """Ring around the z axis: a tube of ``minor_radius`` along a circle of ``major_radius``."""
    ring = np.hypot(points[:, 0], points[:, 1]) - major_radius
    return np.hypot(ring, points[:, 2]) - minor_radius


def capsule(points: Points, half_length: float, radius: float) -> Values:
    """Cylinder along z with hemispherical ends, ``2 * half_length`` between the centres of the hemispheres."""
    along = points[:, 2] - np.clip(points[:, 2], -half_length, half_length)
    return np.sqrt(points[:, 0] ** 2 + points[:, 1] ** 2 + along**2) - radius


def round_cone(points: Points, bottom_radius: float, top_radius: float, height: float) -> Values:
    """Hull of a ball at the origin and a smaller one ``height`` above it."""
    slope = (bottom_radius - top_radius) / height
    normal_z = np.sqrt(1.0 - slope**2)
    radial = np.hypot(points[:, 0], points[:, 1])
    along = normal_z * points[:, 2] - slope * radial
    at_side = radial * normal_z + points[:, 2] * slope - bottom_radius
    at_bottom = np.hypot(radial, points[:, 2]) - bottom_radius
    at_top = np.hypot(radial, points[:, 2] - height) - top_radius
    return np.where(along < 0.0, at_bottom, np.where(along > normal_z * height, at_top, at_side))


def cup(points: Points, radius: float, height: float, wall: float) -> Values:
    """Hollow cylinder without a lid, its floor at z = 0, ``wall`` thick everywhere, its rim rounded.

    ``radius`` and ``height`` are the outer measures; the distance is exact inside the wall too.
    """
    half = 0.5 * wall
    radial = np.hypot(points[:, 0], points[:, 1])
    middle_radius = radius - half
    to_side = np.hypot(radial - middle_radius, points[:, 2] - np.clip(points[:, 2], half, height - half))
    to_floor = np.hypot(radial - np.minimum(radial, middle_radius), points[:, 2] - half)
    return np.minimum(to_side, to_floor) - half


def half_ring(points: Points, major_radius: float, minor_radius: float) -> Values:
    """The half x >= 0 of a ring around the y axis, its ends closed by balls: the handle of a mug."""
    ring = np.hypot(points[:, 0], points[:, 2]) - major_radius
    to_arc = np.hypot(ring, points[:, 1])
    end_z = np.abs(points[:, 2]) - major_radius
    to_end = np.sqrt(points[:, 0] ** 2 + points[:, 1] ** 2 + end_z**2)
    return np.where(points[:, 0] >= 0.0, to_arc, to_end) - minor_radius


def mug(points: Points, radius: float, height: float, wall: float, handle: tuple[float, float]) -> Values:
    """A :func:`cup` with a handle on the +x side; ``handle`` = (radius of its arc, thickness of its bar)."""
    arc_radius, thickness = handle
    start = np.array([radius + 0.5 * (thickness - wall) - 0.5 * wall, 0.0, 0.5 * height])
    return np.minimum(cup(points, radius, height, wall), half_ring(points - start, arc_radius, 0.5 * thickness))
