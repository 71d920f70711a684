"""Small planes through points: how a patch of one view looks in another, and how planes are tilted.

A plane is an inverse depth and its slope over the pixels of a reference view. The map of its patch into another view is
then linear in the slope, so a handful of such maps, found by aligning pixels, gives the tilt by least squares.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.sfm.result import Intrinsics
from craym_nerfstudio.sfm.shared_intrinsics import correct_bearings

_FLIP = np.array([1.0, -1.0, -1.0])
"""From OpenGL axes to right, down, forward."""
_PROBES = np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
_INVERSIONS = 6
"""Steps by which pixels are found from directions; one is enough for a pinhole."""
_ROUNDS, _OUTLIER = 5, 0.1
"""Of the robust least squares, and an entry of a warp that is off by so much is worth half."""


class Cameras:
    """Cameras with known poses and lenses; directions are points (right, down) of the plane at distance 1."""

    def __init__(self, views: Views, c2w: Float[np.ndarray, "cams 3 4"], intrinsics: Intrinsics | None = None) -> None:
        self.rotation = _FLIP[:, None] * c2w[:, :, :3].transpose(0, 2, 1)
        """World to camera."""
        self.centers = c2w[:, :, 3]
        self._views, self._intrinsics = views, intrinsics

    def plane(self, image: int, px: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Directions of pixels."""
        bearing = torch.from_numpy(np.asarray(self._views.bearings(image, px), dtype=np.float64))
        if self._intrinsics is not None:
            bearing = correct_bearings(bearing, self._intrinsics, np.full(len(px), image))
        local = bearing.numpy() * _FLIP
        return local[:, :2] / local[:, 2:]

    def slope(self, image: int, px: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2 2"]:
        """Derivative of `plane` by the pixel."""
        moved = [self.plane(image, px + step) - self.plane(image, px - step) for step in 0.5 * np.eye(2)]
        return np.stack(moved, axis=-1)

    def pixel(self, image: int, plane: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Pixels of directions."""
        probes = _PROBES * self._views.size_px[image]
        design = np.concatenate([self.plane(image, probes), np.ones((len(probes), 1))], axis=1)
        affine = np.linalg.lstsq(design, probes, rcond=None)[0]
        px = plane @ affine[:2] + affine[2]
        for _ in range(_INVERSIONS):
            px = px + (plane - self.plane(image, px)) @ affine[:2]
        return px

    def depth(self, image: Int[np.ndarray, " n"], points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Distance of points along the axes of cameras."""
        return (self.rotation[image, 2] * (points - self.centers[image])).sum(-1)


@dataclass
class Planes:
    """One plane per reference pixel."""

    image: Int[np.ndarray, " planes"]
    """Of the reference."""
    px: Float[np.ndarray, "planes 2"]
    plane: Float[np.ndarray, "planes 2"]
    """Its direction."""
    slope: Float[np.ndarray, "planes 2 2"]
    """Derivative of the direction by the pixel."""
    inverse_depth: Float[np.ndarray, " planes"]
    tilt: Float[np.ndarray, "planes 2"]
    """Derivative of the inverse depth by the pixel."""

    def normals(self, cameras: Cameras) -> Float[np.ndarray, "planes 3"]:
        """Unit normals in the world, towards the reference."""
        # On the plane ``(g, w - g p) . (p, 1) / w = 1`` where g is the derivative of the inverse depth w by p.
        by_plane = (_inverse(self.slope).transpose(0, 2, 1) @ self.tilt[..., None])[..., 0]
        constant = self.inverse_depth - (by_plane * self.plane).sum(-1)
        normal = np.concatenate([by_plane, constant[:, None]], axis=1)
        towards = -np.concatenate([self.plane, np.ones((len(normal), 1))], axis=1)
        normal *= np.sign((normal * towards).sum(-1, keepdims=True)) / np.linalg.norm(normal, axis=1, keepdims=True)
        return (normal[:, None] @ cameras.rotation[self.image])[:, 0]

    def subset(self, keep: np.ndarray) -> "Planes":
        """Only these."""
        return Planes(**{name: values[keep] for name, values in vars(self).items()})


class Seen(NamedTuple):
    """How planes look in another image, per pixel of their references."""

    px: Float[np.ndarray, "planes 2"]
    facing: Float[np.ndarray, "planes 2 2"]
    """Map of a patch without tilt."""
    by_tilt: Float[np.ndarray, "planes 2"]
    """A tilt t adds ``by_tilt t^T`` to the map."""

    def warp(self, tilt: Float[np.ndarray, "planes 2"]) -> Float[np.ndarray, "planes 2 2"]:
        """Map of a patch with a tilt."""
        return self.facing + self.by_tilt[:, :, None] * tilt[:, None]


def seen_in(planes: Planes, cameras: Cameras, image: int) -> Seen:
    """How planes look in an image that they lie in front of; what lies beyond its borders may come out as anything."""
    rotation, references = cameras.rotation[image], cameras.rotation[planes.image]
    turn = rotation @ references.transpose(0, 2, 1)
    shift = (cameras.centers[planes.image] - cameras.centers[image]) @ rotation.T
    direction = np.concatenate([planes.plane, np.ones((len(turn), 1))], axis=1)
    at = (turn @ direction[..., None])[..., 0] + planes.inverse_depth[:, None] * shift
    depth, plane = at[:, 2:], at[:, :2] / at[:, 2:]
    facing = (turn[:, :2, :2] - plane[:, :, None] * turn[:, 2:, :2]) / depth[..., None]
    by_tilt = (shift[:, :2] - plane * shift[:, 2:]) / depth
    px = cameras.pixel(image, plane)
    to_px = _inverse(cameras.slope(image, px))
    return Seen(px, to_px @ facing @ planes.slope, (to_px @ by_tilt[..., None])[..., 0])


def _inverse(matrices: Float[np.ndarray, "n 2 2"]) -> Float[np.ndarray, "n 2 2"]:
    """Inverses, not finite where there is none: beyond an image a lens may bend all directions to one."""
    (a, b), (c, d) = np.moveaxis(matrices, 0, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.moveaxis(np.array([[d, -b], [-c, a]]) / (a * d - b * c), -1, 0)


def fit_tilts(
    count: int,
    plane: Int[np.ndarray, " maps"],
    facing: Float[np.ndarray, "maps 2 2"],
    by_tilt: Float[np.ndarray, "maps 2"],
    warp: Float[np.ndarray, "maps 2 2"],
) -> Float[np.ndarray, "planes 2"]:
    """Tilts of `count` planes that explain maps of their patches best, by robust least squares; 0 without any."""
    offset, trust = warp - facing, np.ones(len(plane))
    tilt = np.zeros((count, 2))
    for _ in range(_ROUNDS):
        explained = trust[:, None] * (by_tilt[:, None] @ offset)[:, 0]
        sums = np.stack([np.bincount(plane, column, count) for column in explained.T], axis=1)
        weight = np.bincount(plane, trust * np.square(by_tilt).sum(-1), count)
        tilt = sums / np.maximum(weight, 1e-12)[:, None]
        left = offset - by_tilt[:, :, None] * tilt[plane][:, None]
        trust = 1 / (1 + np.square(left).sum((1, 2)) / _OUTLIER**2)
    return tilt
