"""Pixels for the detectors: images over white at the cameras' size, and where keypoints may lie."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, UnidentifiedImageError

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.matching.storage import content_key, file_key
from craym_nerfstudio.matching.views import Views

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
    size = (int(views.size_px[index][0]), int(views.size_px[index][1]))
    image = _decode(views.paths[index])
    usable = None
    if image.mode == "RGBA":
        image = _resized(image, size)
        alpha = np.asarray(image.getchannel("A"))
        # Pixels of a soft outline are opaque enough; what is fully transparent shows the background colour alone.
        usable = alpha > 0
        white = Image.new("RGBA", size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    rgb = np.array(_resized(image.convert("RGB"), size))
    if views.mask_paths is not None:
        mask = _resized(_decode(views.mask_paths[index]).convert("L"), size)
        shown = np.asarray(mask) > 0
        usable = shown if usable is None else usable & shown
    return Picture(rgb, None if usable is None or usable.all() else _dilated(usable))


def picture_key(views: Views, index: int) -> str:
    """Digest of everything that `load_picture` reads.

    Raises:
        InputError: the image or its mask is missing.
    """
    mask = "" if views.mask_paths is None else file_key(views.mask_paths[index])
    return content_key(file_key(views.paths[index]), mask, [int(n) for n in views.size_px[index]])


def _decode(path: Path) -> Image.Image:
    if not path.is_file():
        raise InputError("Missing image", path, "Put the file there, or remove it from the list of images.")
    try:
        with Image.open(path) as image:
            image.load()
            has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            if image.mode.startswith("I"):
                return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
            return image.convert("RGBA" if has_alpha else "RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        remedy = "Export the image again as PNG or JPEG, or remove it from the data."
        raise InputError("Unreadable image", path, remedy) from error


def _resized(image: Image.Image, size_px: tuple[int, int]) -> Image.Image:
    # Averages pixel areas, with colours weighted by alpha.
    return image if image.size == size_px else image.resize(size_px, Image.Resampling.BOX)


def _dilated(usable: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    import cv2

    kernel = np.ones((2 * _MARGIN_PX + 1,) * 2, dtype=np.uint8)
    return cv2.dilate(usable.astype(np.uint8), kernel) > 0
