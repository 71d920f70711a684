"""Sphere tracing of an analytic scene: supersampled RGBA, depth along the ray and normals of a pinhole camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from samples.primitives import Points, Values
from samples.scene import Scene
from samples.textures import Colours

HIT_DISTANCE = 1e-6
NEAR_DISTANCE = 4e-3
LONGEST_TANGENT_STEP = 0.05
MAX_STEPS = 256
RAYS_PER_CHUNK = 16384
SUN = np.array([0.42, -0.55, 0.72]) / np.linalg.norm([0.42, -0.55, 0.72])
"""Direction towards the soft lamp of every scene, fixed in the world: appearance does not depend on the view."""


@dataclass(frozen=True)
class Hits:
    """Where rays meet the scene: mask of hits, distance along the ray (else inf), point and unit normal (else 0)."""

    mask: Bool[np.ndarray, " n"]
    depth: Values
    points: Points
    normals: Points


def camera_rays(
    c2w: Float[np.ndarray, "3 4"], fl: float, pixels: Float[np.ndarray, "n 2"], size_px: tuple[int, int]
) -> tuple[Points, Points]:
    """World origins and unit directions through positions (x, y) px, the centre of the first pixel at 0.5."""
    x = (pixels[:, 0] - 0.5 * size_px[0]) / fl
    y = (0.5 * size_px[1] - pixels[:, 1]) / fl
    directions = np.stack([x, y, -np.ones_like(x)], axis=-1) @ c2w[:, :3].T
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return np.broadcast_to(c2w[:, 3], directions.shape), directions


def trace(scene: Scene, origins: Points, directions: Points) -> Hits:
    """First hits of rays with unit directions, by sphere tracing inside the scene's bounding ball."""
    along = -(origins * directions).sum(axis=-1)
    discriminant = scene.bound_radius**2 - (origins**2).sum(axis=-1) + along**2
    half_chord = np.sqrt(np.maximum(discriminant, 0.0))
    depth = np.maximum(along - half_chord, 0.0)
    exit_depth = along + half_chord
    mask = np.zeros(len(depth), dtype=bool)
    active = np.flatnonzero((discriminant > 0.0) & (exit_depth > 0.0))
    for _ in range(MAX_STEPS):
        if len(active) == 0:
            break
        position = origins[active] + depth[active, None] * directions[active]
        distance = scene.sdf(position)
        depth[active] += _steps(scene, position, directions[active], distance)
        arrived = np.abs(distance) < HIT_DISTANCE
        mask[active[arrived]] = True
        active = active[~arrived & (depth[active] < exit_depth[active])]
    points = origins[mask] + depth[mask, None] * directions[mask]
    all_points, normals = np.zeros_like(directions), np.zeros_like(directions)
    all_points[mask], normals[mask] = points, scene.normals(points)
    return Hits(mask, np.where(mask, depth, np.inf), all_points, normals)


def _steps(scene: Scene, points: Points, directions: Points, distance: Values) -> Values:
    """Lengths of the next steps: the distance itself, near a surface the distance along the ray to its tangent plane.

    Plain steps shrink by only (1 - sin) of the grazing angle; the tangent plane of a convex solid is never beyond it.
    """
    steps = distance.copy()
    near = np.flatnonzero(np.abs(distance) < NEAR_DISTANCE)
    approach = -(scene.normals(points[near]) * directions[near]).sum(axis=-1)
    facing = approach > 1e-4
    tangent = distance[near[facing]] / approach[facing]
    steps[near[facing]] = np.clip(tangent, -LONGEST_TANGENT_STEP, LONGEST_TANGENT_STEP)
    return steps


def shade(scene: Scene, points: Points, normals: Points) -> Colours:
    """Display colours of surface points: sky light dimmed in corners, and one lamp with soft shadows."""
    openness = np.zeros(len(points))
    for reach, weight in ((0.04, 0.4), (0.12, 0.35), (0.28, 0.25)):
        openness += weight * np.clip(scene.sdf(points + reach * normals) / reach, 0.0, 1.0)
    sky = (0.45 + 0.55 * openness) * (0.85 + 0.15 * normals[:, 2])
    lamp = np.maximum(normals @ SUN, 0.0) * sun_visibility(scene, points + 2e-3 * normals)
    # Light adds up in linear intensity; textures are display values, so the sum goes through the display's gamma.
    light = (0.64 * sky + 0.50 * lamp) ** (1 / 2.2)
    return np.clip(scene.albedo(points) * light[:, None], 0.0, 1.0)


def sun_visibility(scene: Scene, points: Points, softness: float = 7.0) -> Values:
    """Share of the lamp seen from each point in [0, 1], estimated from the nearest miss on the way to the lamp."""
    visible = np.ones(len(points))
    travelled = np.full(len(points), 0.02)
    active = np.arange(len(points))
    for _ in range(20):
        distance = scene.sdf(points[active] + travelled[active, None] * SUN)
        visible[active] = np.minimum(visible[active], softness * distance / travelled[active])
        travelled[active] += np.clip(distance, 0.02, 0.25)
        active = active[(visible[active] > 0.0) & (travelled[active] < 1.8)]
        if len(active) == 0:
            break
    visible = np.clip(visible, 0.0, 1.0)
    return visible * visible * (3.0 - 2.0 * visible)


def _grid(width: int, height: int, samples_per_axis: int) -> Float[np.ndarray, "n 2"]:
    """Sample positions (x, y) px, row by row of the supersampled image."""
    x = (np.arange(width * samples_per_axis) + 0.5) / samples_per_axis
    y = (np.arange(height * samples_per_axis) + 0.5) / samples_per_axis
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def render(
    scene: Scene, c2w: Float[np.ndarray, "3 4"], fl: float, width: int, height: int, samples_per_axis: int = 3
) -> tuple[UInt8[np.ndarray, "h w 4"], Float[np.ndarray, "h w"], Float[np.ndarray, "h w 3"]]:
    """One view: RGBA with straight alpha, distance along the rays of the pixel centres, world normals there.

    ``c2w`` has OpenGL camera axes, ``fl`` is the focal length in px; colour and alpha average ``samples_per_axis ** 2``
    rays per pixel. Where a pixel's central ray meets nothing, its distance is inf and its normal 0.
    """
    samples = _grid(width, height, samples_per_axis)
    shaded = np.zeros((len(samples), 4))
    for start in range(0, len(samples), RAYS_PER_CHUNK):
        chunk = slice(start, start + RAYS_PER_CHUNK)
        hits = trace(scene, *camera_rays(c2w, fl, samples[chunk], (width, height)))
        found = start + np.flatnonzero(hits.mask)
        shaded[found, :3] = shade(scene, hits.points[hits.mask], hits.normals[hits.mask])
        shaded[found, 3] = 1.0
    pixels = shaded.reshape(height, samples_per_axis, width, samples_per_axis, 4).mean(axis=(1, 3))
    pixels[..., :3] /= np.maximum(pixels[..., 3:], 1e-6)
    depth, normals = render_geometry(scene, c2w, fl, width, height)
    return np.round(255.0 * pixels).astype(np.uint8), depth, normals


def render_geometry(
    scene: Scene, c2w: Float[np.ndarray, "3 4"], fl: float, width: int, height: int
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w 3"]]:
    """Distance along the ray and world normals through the pixel centres, without shading."""
    hits = trace(scene, *camera_rays(c2w, fl, _grid(width, height, 1), (width, height)))
    return hits.depth.reshape(height, width), hits.normals.reshape(height, width, 3)
