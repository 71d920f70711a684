"""The object cut out and enlarged: learned detectors find more keypoints there, and place them more precisely."""

import numpy as np
from jaxtyping import Float, Int, UInt8

from craym_nerfstudio.matching.images import Picture

_BORDER = 0.05
"""Of the object's longest side: background left round it, since outlines are looked at in their surroundings."""
_MOST_ENLARGED = 4.0
"""Beyond it interpolation invents more than it shows."""
_GRID_PX = 32
"""Networks want sides that are multiples of it, and would pad or stretch the image to them."""


def object_box(picture: Picture, border: float = _BORDER) -> tuple[Int[np.ndarray, " 2"], Int[np.ndarray, " 2"]]:
    """Corner (x, y) and size (width, height) in px of what is usable with a border; of the image if all of it is."""
    extent = np.array(picture.rgb.shape[1::-1])
    if picture.usable is None or not picture.usable.any():
        return np.zeros(2, dtype=int), extent
    columns, rows = (np.flatnonzero(picture.usable.any(axis=axis)) for axis in (0, 1))
    low, high = np.array([columns[0], rows[0]]), np.array([columns[-1], rows[-1]]) + 1
    border_px = round(border * float((high - low).max()))
    low, high = np.maximum(low - border_px, 0), np.minimum(high + border_px, extent)
    return low, high - low


def enlarged_object(
    picture: Picture, longest_px: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "height width 3"], Float[np.ndarray, " 2"], Int[np.ndarray, " 2"]]:
    """The object's pixels, enlarged or shrunk until the longest side lies in `longest_px`; their scale and corner.

    A position there, first pixel's centre at 0.5, is ``scale * (x - corner)`` with x in px of the picture.
    """
    import cv2

    corner, size = object_box(picture)
    rgb = picture.rgb[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]]
    factor = min(float(np.clip(size.max(), *longest_px)) / size.max(), _MOST_ENLARGED)
    wanted = np.maximum(np.round(factor * size / _GRID_PX), 1).astype(int) * _GRID_PX
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(rgb, tuple(wanted.tolist()), interpolation=method), wanted / size, corner
