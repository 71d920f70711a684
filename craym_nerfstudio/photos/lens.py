"""What EXIF says of the lens: a focal length in pixels, and which photos share a camera."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from craym_nerfstudio.images import exif_of

_GUESSED_RATIO = 1.2
"""Focal length over the longest side where nothing is known: between a phone's main lens and a standard lens. Mapping
finds the right one from half as much, too."""
_FULL_FRAME_DIAGONAL_MM = math.hypot(36.0, 24.0)
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0}
"""EXIF's FocalPlaneResolutionUnit: inch, centimetre, millimetre."""
PLAUSIBLE_RATIO = (0.2, 20.0)
"""Focal length over the longest side; others are errors of the writer."""


@dataclass(frozen=True)
class Lens:
    """The camera of one photo as far as its file tells."""

    size_px: tuple[int, int]
    """Width and height of the pixels as they lie in the file."""
    focal_px: float
    is_known: bool
    """From EXIF; otherwise a guess from the image size."""
    orientation: int = 1
    """EXIF's; the pixels are used as they lie in the file, but it tells where up is."""
    kind: tuple[str, ...] = ()
    """Camera, lens and zoom as written; photos that agree in it and in their size share a camera."""


def read_lens(path: Path) -> Lens:
    """Size and focal length of an image file that can be opened; its pixels are not decoded."""
    with Image.open(path) as image:
        size = (image.width, image.height)
        try:
            exif = exif_of(image)
            tags = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
        except (OSError, SyntaxError, ValueError, KeyError, TypeError):  # a broken block says nothing of the pixels
            tags = {}
    focal_px = focal_from_exif(tags, size)
    names = (ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.LensModel, ExifTags.Base.FocalLength)
    kind = tuple(str(tags[name]).strip("\0 ") for name in names if name in tags)
    orientation = int(_number(tags, ExifTags.Base.Orientation)) or 1
    if focal_px is None:
        return Lens(size, _GUESSED_RATIO * max(size), False, orientation, kind)
    return Lens(size, focal_px, True, orientation, kind)


def focal_from_exif(tags: Mapping[int, Any], size_px: tuple[int, int]) -> float | None:
    """Focal length in px of an image of that size; None where the tags do not tell it or tell nonsense.

    The 35 mm equivalent relates diagonals, as the standard of the camera makers defines it. Failing that, the focal
    length in mm times the sensor's pixels per mm, scaled by how much the image was shrunk since.
    """
    base = ExifTags.Base
    longest = max(size_px)
    focal_px = _number(tags, base.FocalLengthIn35mmFilm) * math.hypot(*size_px) / _FULL_FRAME_DIAGONAL_MM
    if focal_px <= 0:
        unit_mm = _MM_PER_UNIT.get(int(_number(tags, base.FocalPlaneResolutionUnit) or 2), 25.4)
        focal_px = _number(tags, base.FocalLength) * _number(tags, base.FocalPlaneXResolution) / unit_mm
        taken = max(_number(tags, base.ExifImageWidth), _number(tags, base.ExifImageHeight))
        focal_px *= longest / taken if taken > 0 else 1.0
    low, high = PLAUSIBLE_RATIO
    return focal_px if low * longest < focal_px < high * longest else None


def _number(tags: Mapping[int, Any], tag: int) -> float:
    """A tag's value, 0 where it is missing, infinite or no number."""
    try:
        value = float(tags[tag])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return value if math.isfinite(value) else 0.0
