"""How far each pixel lies from the outline of what its image shows, by the image's alpha, at low resolution."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from craym_nerfstudio.data.image_store import ImageStore

_SIDE = 128
"""Cells along each side of an image."""


class Outlines:
    """Signed distances from the outlines in all images, in parts of each image's longer side; positive outside."""

    def __init__(self, images: ImageStore) -> None:
        """Read the alpha of all images; one that is opaque or empty throughout has no outline, and distance 0."""
        self._size_px = images.size_px
        parts = images.pixels[:, 3].cpu().split(images.size_px.prod(-1).tolist())
        cells = [_inside(alpha, *size) for alpha, size in zip(parts, images.size_px.tolist(), strict=True)]
        size_px = images.size_px.cpu().numpy()
        found = [_distances(inside, *size) for inside, size in zip(cells, size_px, strict=True)]
        self.middle_px = np.stack([_middle(inside) for inside in cells]) * size_px
        """Mean position (x, y) of what is opaque, per image."""
        self.radius_px = np.sqrt(np.stack(cells).mean((1, 2)) * size_px.prod(-1) / np.pi)
        """Of the disc of the same area; 0 where there is no outline."""
        self.whole = np.array([inside.any() and not _is_cut(inside) for inside in cells])
        """Whether what is opaque lies in the image as a whole."""
        # Half precision: a thousandth of the distance is enough, and a thousand images take 32 MiB.
        self._distance = torch.from_numpy(np.stack(found)).half().to(images.pixels.device)

    def at(self, image: Int[Tensor, " n"], xy: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        """Distances at positions in px."""
        column, row = (xy * _SIDE / self._size_px[image]).long().clamp(0, _SIDE - 1).unbind(-1)
        return self._distance[image, row, column].float()


def _inside(alpha: Tensor, width: int, height: int) -> Bool[np.ndarray, "side side"]:
    """The opaque cells of one image; none where all are."""
    cells = interpolate(alpha.view(1, 1, height, width).float(), size=(_SIDE, _SIDE), mode="area")[0, 0]
    inside = cells.numpy() >= 127.5
    return inside & ~inside.all()


def _is_cut(inside: Bool[np.ndarray, "side side"]) -> bool:
    """Whether opaque cells touch the border of the image."""
    return bool(inside[[0, -1]].any() or inside[:, [0, -1]].any())


def _middle(inside: Bool[np.ndarray, "side side"]) -> Float[np.ndarray, "2"]:
    """Mean position (x, y) of the opaque cells in parts of width and height; the image's where there are none."""
    rows, columns = np.nonzero(inside)
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5]) / _SIDE if len(rows) else np.full(2, 0.5)


def _distances(inside: Bool[np.ndarray, "side side"], width: int, height: int) -> Float[np.ndarray, "side side"]:
    """Signed distances of the cells of one image."""
    if not inside.any():
        return np.zeros((_SIDE, _SIDE), dtype=np.float32)
    cell = np.array([height, width]) / (_SIDE * max(width, height))
    return _to_outline(~inside, cell) - _to_outline(inside, cell)


def _to_outline(part: Bool[np.ndarray, "side side"], cell: Float[np.ndarray, "2"]) -> Float[np.ndarray, "side side"]:
    """Distance of the cells of a part from those that are not of it; 0 elsewhere."""
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(part, sampling=cell).astype(np.float32)
