"""Better rough poses before matching, where masks isolate an object: from its outlines and colours alone."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from craym_nerfstudio.console import console
from craym_nerfstudio.geometry.alignment import align_poses
from craym_nerfstudio.geometry.lie import so3_exp
from craym_nerfstudio.matching.coarse_volume import Ball, Level, fitted
from craym_nerfstudio.matching.glances import Glance, centroid_bearings, glances
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.storage import alone, content_key, from_cache, read_npz, steady, write_npz

_VERSION = 1
_LEAST_IMAGES = 8
_COARSE_PX, _FINE_PX = 13.5, 27.0
"""Radius of the object in the pictures of the first levels and of the last."""
_COARSE = (Level(24, 2.0, 24, 20, 300, 1.0), Level(40, 1.0, 36, 25, 300, 0.5))
_FINE = Level(56, 0.7, 44, 40, 200, 0.3)
_EXPLAINED = 8e-4
"""Difference below which the volume explains the pictures: matte solids leave 5.7e-4, a gloss that moves 1.2e-3."""
_PROBES = np.array([[0.1, 0.1], [0.5, 0.5], [0.9, 0.1]])
"""Positions, in sizes of the image, whose bearings stand for the lens in the cache's key."""
_BALL = 1.9
"""Radius of the volume in radii of the object."""


@dataclass(frozen=True)
class CoarsePoses:
    """Poses in the frame of the rough ones."""

    c2w: Float[np.ndarray, "cams 3 4"]
    difference: Float[np.ndarray, ""]
    """Mean squared difference of colours and alpha between volume and pictures."""

    @property
    def explain(self) -> bool:
        """Whether the volume shows what the pictures show, so that its poses need no matches to lean on."""
        return float(self.difference) < _EXPLAINED


def coarse_poses(views: Views, pictures: list[str], cache_dir: Path) -> CoarsePoses | None:
    """Poses of a coarse volume that shows all masked images; None where masks do not isolate one object in them.

    `pictures` are the images' content keys.

    Raises:
        InputError: an image cannot be read, or the cache cannot be written.
    """
    if len(views.names) < _LEAST_IMAGES:
        return None
    lens = [views.bearings(k, _PROBES * views.size_px[k]) for k in range(len(views.names))]
    key = content_key(_VERSION, pictures, steady(views.c2w), views.focal_px, steady(np.stack(lens)))
    path = cache_dir / f"coarse-{key}.npz"
    with alone(path):
        found = from_cache(path, lambda path: CoarsePoses(**read_npz(path)))
        if found is None:
            images = glances(views, _COARSE_PX)
            if images is None:
                return None
            with console.status("Outlines and colours: a coarse volume"):
                found = _fit(views, images)
            write_npz(path, vars(found))
    return found


def _fit(views: Views, images: list[Glance]) -> CoarsePoses:
    rough = np.asarray(views.c2w, dtype=np.float64)
    aimed, center = aim(rough, centroid_bearings(views, images))
    fine = glances(views, _FINE_PX)
    assert fine is not None
    ball = Ball(center, _BALL * _object_radius(views, images, aimed, center))
    c2w, difference = fitted(views, aimed, ball, [*((images, level) for level in _COARSE), (fine, _FINE)])
    poses = torch.from_numpy(c2w)
    settled = align_poses(poses, torch.from_numpy(rough), robust=True).poses(poses)
    return CoarsePoses(settled.numpy(), np.asarray(difference))


def _object_radius(views: Views, images: list[Glance], c2w: np.ndarray, center: np.ndarray) -> float:
    """Of a ball that looks as large as the object in most images."""
    distance = np.linalg.norm(c2w[:, :, 3] - center, axis=-1)
    radius_px = [np.sqrt(image.rgba[..., 3].mean() * np.prod(image.size_px) / np.pi) for image in images]
    return float(np.median(np.array(radius_px) / views.focal_px * distance))


def aim(
    c2w: Float[np.ndarray, "cams 3 4"], bearing: Float[np.ndarray, "cams 3"], rounds: int = 3
) -> tuple[Float[np.ndarray, "cams 3 4"], Float[np.ndarray, "3"]]:
    """Cameras turned the shortest way until their `bearing` points at one point, and that point.

    It is the point nearest to all these rays, in a robust sense: the middle of the object.
    """
    c2w = c2w.copy()
    center = c2w[:, :, 3].mean(0)
    for _ in range(rounds):
        direction = (c2w[:, :, :3] @ bearing[..., None])[..., 0]
        center = _nearest_point(c2w[:, :, 3], direction)
        wanted = center - c2w[:, :, 3]
        wanted /= np.linalg.norm(wanted, axis=-1, keepdims=True)
        axis = np.cross(direction, wanted)
        sine = np.linalg.norm(axis, axis=-1, keepdims=True)
        angle = np.arctan2(sine, (direction * wanted).sum(-1, keepdims=True))
        turn = so3_exp(torch.from_numpy(axis / sine.clip(1e-12) * angle)).numpy()
        c2w[:, :, :3] = turn @ c2w[:, :, :3]
    return c2w, center


def _nearest_point(
    origin: Float[np.ndarray, "rays 3"], direction: Float[np.ndarray, "rays 3"], rounds: int = 20
) -> Float[np.ndarray, "3"]:
    """Point with the smallest distances to all rays, far ones counting little."""
    projector = np.eye(3) - direction[:, :, None] * direction[:, None, :]
    weight, point = np.ones(len(origin)), origin.mean(0)
    for _ in range(rounds):
        weighted = weight[:, None, None] * projector
        point = np.linalg.solve(weighted.sum(0), (weighted @ origin[..., None]).sum(0)[:, 0])
        distance = np.linalg.norm((projector @ (point - origin)[..., None])[..., 0], axis=-1)
        weight = 1 / (1 + (distance / max(np.median(distance), 1e-12)) ** 2)
    return point
