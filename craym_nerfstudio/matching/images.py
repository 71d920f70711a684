"""Pixels for the detectors: images over white at the cameras' size, and where keypoints may lie."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from craym_nerfstudio.images import load_image, load_mask
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.storage import content_key, file_key

_MARGIN_PX = 2
"""Keypoints this far outside of what may be used still count: outlines make good corners."""


@dataclass(frozen=True)
class Picture:
    """One view as detectors see it."""

    rgb: UInt8[np.ndarray, "h w 3"]
    usable: Bool[np.ndarray, "h w"] | None
    """Where keypoints may lie; None when everywhere."""

    def is_usable(self, keypoints_px: Float[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
        """Whether keypoints (x, y), first pixel's centre at 0.5, lie on usable pixels."""
        if self.usable is None:
            return np.ones(len(keypoints_px), dtype=bool)
        height, width = self.usable.shape
        column, row = np.floor(keypoints_px).astype(int).T
        return self.usable[row.clip(0, height - 1), column.clip(0, width - 1)]


def load_picture(views: Views, index: int) -> Picture:
    """Image `index` over white at its camera's size; transparent and masked pixels are not usable.

    Raises:
        InputError: the image or its mask is missing or cannot be decoded.
    """
    import cv2

    size = (int(views.size_px[index][0]), int(views.size_px[index][1]))
    rgb, usable = load_image(views.paths[index], size), None
    if rgb.shape[-1] == 4:
        # Pixels of a soft outline are opaque enough; what is fully transparent shows the background colour alone.
        usable = rgb[..., 3] > 0
        white = Image.new("RGBA", size, (255, 255, 255, 255))
        rgb = np.array(Image.alpha_composite(white, Image.fromarray(rgb)).convert("RGB"))
    mask = None if views.mask_paths is None else views.mask_paths[index]
    if mask is not None:
        shown = load_mask(mask, size) > 0
        usable = shown if usable is None else usable & shown
    if usable is None or usable.all():
        return Picture(rgb, None)
    kernel = np.ones((2 * _MARGIN_PX + 1,) * 2, dtype=np.uint8)
    return Picture(rgb, cv2.dilate(usable.astype(np.uint8), kernel) > 0)


def picture_key(views: Views, index: int) -> str:
    """Digest of everything that `load_picture` reads.

    Raises:
        InputError: the image or its mask is missing.
    """
    mask = None if views.mask_paths is None else views.mask_paths[index]
    return content_key(
        file_key(views.paths[index]), "" if mask is None else file_key(mask), [int(n) for n in views.size_px[index]]
    )
