"""A scene of analytic solids: a union of signed distance functions, each solid with its own procedural texture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Int

from samples.primitives import Points, Values, rounded_box, sphere, torus
from samples.textures import Colours, cells, palette

NORMAL_STEP = 1e-5


def rotation_about(axis: Sequence[float], angle_deg: float) -> Float[np.ndarray, "3 3"]:
    """Rotation by ``angle_deg`` about ``axis`` (right-handed)."""
    x, y, z = np.asarray(axis, dtype=np.float64) / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = np.deg2rad(angle_deg)
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross


@dataclass(frozen=True)
class Solid:
    """One object: ``shape`` (points -> distances) and ``texture`` (points -> colours), both in its own frame."""

    name: str
    shape: Callable[[Points], Values]
    texture: Callable[[Points], Colours]
    centre: Sequence[float] = (0.0, 0.0, 0.0)
    rotation: Float[np.ndarray, "3 3"] = field(default_factory=lambda: np.eye(3))
    """Columns are the solid's axes in world coordinates."""
    scale: float = 1.0
    """World size of the solid's unit of length."""

    def local(self, points: Points) -> Points:
        """World points in the solid's frame."""
        return (points - np.asarray(self.centre)) @ (self.rotation / self.scale)

    def sdf(self, points: Points) -> Values:
        """Signed distance at world points."""
        return self.scale * self.shape(self.local(points))

    def albedo(self, points: Points) -> Colours:
        """Colour in [0, 1] at world points on the surface."""
        return self.texture(self.local(points))

    def normals(self, points: Points) -> Points:
        """Outward unit normals at world points: central differences of the distance."""
        offsets = NORMAL_STEP * np.eye(3)
        gradient = np.stack([self.sdf(points + offset) - self.sdf(points - offset) for offset in offsets], axis=-1)
        return gradient / np.maximum(np.linalg.norm(gradient, axis=-1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Scene:
    """Union of solids inside the ball of ``bound_radius`` around the origin, world z up."""

    solids: tuple[Solid, ...]
    bound_radius: float

    def sdf(self, points: Points) -> Values:
        """Signed distance of the union (exact outside, a lower bound of the depth inside)."""
        distances = self.solids[0].sdf(points)
        for solid in self.solids[1:]:
            np.minimum(distances, solid.sdf(points), out=distances)
        return distances

    def owners(self, points: Points) -> Int[np.ndarray, " n"]:
        """Index of the solid nearest to each point."""
        return np.argmin(np.stack([solid.sdf(points) for solid in self.solids]), axis=0)

    def albedo(self, points: Points) -> Colours:
        """Colour in [0, 1] of the nearest solid at surface points."""
        return self._by_owner(points, lambda solid, chosen: solid.albedo(chosen))

    def normals(self, points: Points) -> Points:
        """Outward unit normals at surface points."""
        return self._by_owner(points, lambda solid, chosen: solid.normals(chosen))

    def _by_owner(self, points: Points, evaluate: Callable[[Solid, Points], Points]) -> Points:
        owners = self.owners(points)
        values = np.zeros_like(points)
        for index, solid in enumerate(self.solids):
            mine = owners == index
            if mine.any():
                values[mine] = evaluate(solid, points[mine])
        return values


def enlarged(solid: Solid, factor: float) -> Solid:
    """The solid in a world enlarged about the origin."""
    return replace(solid, centre=tuple(factor * x for x in solid.centre), scale=factor * solid.scale)


def tiny_scene() -> Scene:
    """A box, a ball and a ring that touch, in coarse patches that survive images of 48 px: the scene of fast tests."""
    warm = palette("#c8402f", "#e9a13b", "#7a2048", "#f2d15c", "#3c2a4d")
    cold = palette("#1f5f8b", "#39a394", "#12344d", "#8fce7f", "#5b4b9a")
    mixed = palette("#d95f43", "#2f6690", "#eebb4d", "#3a7d44", "#6b2d5c", "#81c3d7")
    solids = (
        Solid(
            "box",
            lambda points: rounded_box(points, (0.86, 0.64, 0.34), 0.06),
            lambda points: cells(points, 0.24, mixed, seed=1),
            centre=(0.0, 0.0, -0.42),
            rotation=rotation_about((0, 0, 1), 20.0),
        ),
        Solid(
            "ball",
            lambda points: sphere(points, 0.44),
            lambda points: cells(points, 0.20, cold, seed=2),
            centre=(0.26, 0.12, 0.35),
        ),
        Solid(
            "ring",
            lambda points: torus(points, 0.34, 0.12),
            lambda points: cells(points, 0.17, warm, seed=3),
            centre=(-0.44, -0.18, 0.25),
            rotation=rotation_about((0.3, 1.0, 0.0), -50.0),
        ),
    )
    return Scene(solids, bound_radius=1.35)
