"""The photos as splats are to reproduce them: without lens distortion, on a known background."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from craym_nerfstudio.export.bake import sample
from craym_nerfstudio.export.photo_views import PhotoView
from craym_nerfstudio.geometry.pinhole import Pinhole
from craym_nerfstudio.model import CraymModel

_MOST_VIEWS = 200
_MOST_PIXELS = 160_000
"""Of one picture; splats are limited in number and show no more."""


@dataclass(frozen=True)
class Picture:
    """What a camera sees of a scene on a background of one colour."""

    view: Pinhole
    rgb: Float[np.ndarray, "h w 3"]
    """Single precision."""
    valid: Bool[np.ndarray, "h w"]
    """Pixels that show the scene or its background; others are not looked at."""
    background: Float[np.ndarray, "3"]
    shrink: float = 1.0
    """Pixels of the photo for one of the picture, along an axis."""


def splat_pictures(model: CraymModel, views: list[PhotoView], sizes_px: Int[np.ndarray, "views 2"]) -> list[Picture]:
    """Pictures evenly chosen among the training photos, in the unit frame as these.

    A renderer widens splats by a part of its pixel, so that they look right at the size that they were made for.

    Where photos have no alpha, the surface decides which pixels are background.

    Args:
        sizes_px: at which the photos were trained.

    Raises:
        InputError: a photo cannot be read.
    """
    background = model.background_rgb.cpu().numpy().astype(np.float32)
    chosen = np.unique(np.linspace(0, len(views) - 1, min(_MOST_VIEWS, len(views))).round().astype(int))
    result = []
    for number in chosen:
        view = views[number]
        size = sizes_px[number] / max(1.0, (float(sizes_px[number].prod()) / _MOST_PIXELS) ** 0.5)
        shrink = float((view.size_px / size).mean())
        view = view.at_size(np.maximum(np.round(size), 1).astype(np.int64))
        pinhole = Pinhole(
            view.c2w, view.intrinsics_px[:2], view.intrinsics_px[2:], (int(view.size_px[0]), int(view.size_px[1]))
        )
        rgba, inside, towards = _undistorted(view, pinhole)
        rgb = rgba[..., :3] * rgba[..., 3:] + background * (1.0 - rgba[..., 3:])
        valid = inside
        if not model.has_alpha or view.mask_path is not None:
            # What lies behind the surface is not known to splats: they are to show nothing there.
            hit = _hit(model, pinhole, towards)
            valid = inside & (~hit | (rgba[..., 3] > 0.99))
            rgb[~hit] = background
        result.append(Picture(pinhole, rgb.astype(np.float32), valid, background, shrink))
    return result


def _undistorted(
    view: PhotoView, pinhole: Pinhole
) -> tuple[Float[np.ndarray, "h w 4"], Bool[np.ndarray, "h w"], Float[np.ndarray, "n 3"]]:
    """A photo as a pinhole sees it, which pixels it has, and the rays of all pixels."""
    width, height = pinhole.size_px
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    towards = pinhole.rays(np.stack([x, y], axis=-1).reshape(-1, 2))
    pixels, inside = view.project(view.center + towards)
    return sample(view.photo(), pixels).clip(0.0, 1.0).reshape(height, width, 4), inside.reshape(height, width), towards


def _hit(model: CraymModel, pinhole: Pinhole, towards: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, "h w"]:
    width, height = pinhole.size_px
    directions = torch.from_numpy(towards).float().to(model.device)
    start = torch.from_numpy(pinhole.c2w[:, 3]).float().to(model.device).expand_as(directions)
    return model.tracer.trace(start, directions).hit.cpu().numpy().reshape(height, width)
