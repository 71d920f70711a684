"""What images with masks show at a glance: few pixels round one object, its colour and its outline."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from craym_nerfstudio.images import load_image, load_mask
from craym_nerfstudio.matching.views import Views

_OPAQUE = 0.5
_LEAST_SHARE, _MOST_SHARE = 0.002, 0.6
"""Of the image's area: smaller objects say too little, larger ones leave no background to stand out from."""
_MOST_CUT = 0.1
"""Share of images whose object may be cut by the border."""
_GRAZED = 0.15
"""Length of the border that an object may cover and still count as whole, in circumferences of a disc of its area."""
_ROUND = 0.35
"""Pixels of the background that count too, in radii of the object."""


@dataclass(frozen=True)
class Glance:
    """One image as few pixels: colours premultiplied by alpha, and alpha."""

    rgba: Float[np.ndarray, "h w 4"]
    size_px: tuple[int, int]
    """Width and height of the image that it stands for."""


@dataclass(frozen=True)
class GlanceRays:
    """Rays of the pixels round the object in all images."""

    camera: Int[Tensor, " rays"]
    bearing: Float[Tensor, "rays 3"]
    rgba: Float[Tensor, "rays 4"]


def cutout(views: Views, index: int) -> Float[np.ndarray, "h w 4"]:
    """Image `index` at its camera's size with premultiplied colours; alpha is 1 where no mask says otherwise.

    Raises:
        InputError: the image or its mask cannot be read.
    """
    size = (int(views.size_px[index][0]), int(views.size_px[index][1]))
    pixels: UInt8[np.ndarray, "h w c"] = load_image(views.paths[index], size)
    alpha = pixels[..., 3] / 255.0 if pixels.shape[-1] == 4 else np.ones(pixels.shape[:2])
    mask = None if views.mask_paths is None else views.mask_paths[index]
    if mask is not None:
        alpha = alpha * (load_mask(mask, size) > 0)
    return np.dstack([pixels[..., :3] / 255.0 * alpha[..., None], alpha]).astype(np.float32)


def object_radius_px(alpha: Float[np.ndarray, "h w"]) -> tuple[float, bool] | None:
    """Radius of a disc of the object's area, and whether the border cuts it; None where no one object stands out."""
    inside = alpha > _OPAQUE
    if not _LEAST_SHARE < inside.mean() < _MOST_SHARE:
        return None
    covered = sum(int(side.sum()) for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
    radius = float(np.sqrt(inside.sum() / np.pi))
    return radius, covered > _GRAZED * 2.0 * np.pi * radius


def glances(views: Views, radius_px: float) -> list[Glance] | None:
    """All images shrunk until their object has about this radius; None unless masks isolate one whole object in them.

    Raises:
        InputError: an image or its mask cannot be read.
    """
    import cv2

    found, cuts = [], 0
    for index in range(len(views.names)):
        rgba = cutout(views, index)
        stands_out = object_radius_px(rgba[..., 3])
        if stands_out is None:
            return None
        radius, cut = stands_out
        cuts += cut
        if cuts > _MOST_CUT * len(views.names):
            return None
        height, width = rgba.shape[:2]
        factor = min(1.0, radius_px / radius)
        shape = (max(2, round(factor * width)), max(2, round(factor * height)))
        found.append(Glance(cv2.resize(rgba, shape, interpolation=cv2.INTER_AREA), (width, height)))
    return found


def centroid_bearings(views: Views, images: list[Glance]) -> Float[np.ndarray, "cams 3"]:
    """Unit direction of the middle of the object in each camera's frame."""
    found = []
    for index, image in enumerate(images):
        alpha = image.rgba[..., 3].astype(np.float64)
        height, width = alpha.shape
        middle = np.array([alpha.sum(0) @ (np.arange(width) + 0.5), alpha.sum(1) @ (np.arange(height) + 0.5)])
        middle *= np.array(image.size_px) / (width, height) / alpha.sum()
        found.append(views.bearings(index, middle[None])[0])
    return np.stack(found)


def glance_rays(views: Views, images: list[Glance], blur_px: float) -> GlanceRays:
    """Rays of the pixels on and round the object, their colours blurred."""
    import cv2

    cameras, bearings, colours = [], [], []
    for index, image in enumerate(images):
        inside = (image.rgba[..., 3] > 0.05).astype(np.uint8)
        border = max(2, round(_ROUND * float(np.sqrt(inside.sum() / np.pi))))
        rows, columns = np.nonzero(cv2.dilate(inside, np.ones((2 * border + 1,) * 2, np.uint8)))
        rgba = cv2.GaussianBlur(image.rgba, (0, 0), blur_px) if blur_px > 0 else image.rgba
        height, width = inside.shape
        pixels = (np.stack([columns, rows], axis=-1) + 0.5) * np.array(image.size_px) / (width, height)
        cameras.append(np.full(len(rows), index))
        bearings.append(views.bearings(index, pixels))
        colours.append(rgba[rows, columns])
    return GlanceRays(
        torch.from_numpy(np.concatenate(cameras)),
        torch.from_numpy(np.concatenate(bearings)).float(),
        torch.from_numpy(np.concatenate(colours)).float(),
    )
