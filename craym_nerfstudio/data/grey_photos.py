"""The training photos in grey, looked up by bearings: what is compared between them.

Their derivatives come along with the values: by autograd, the same takes twice as many operations, and on a GPU the
number of these is what a step waits for.
"""

import torch
from jaxtyping import Bool, Float, Int, UInt8
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from craym_nerfstudio.data.image_store import ImageStore
from craym_nerfstudio.geometry.lens import bent, bent_motion

_LUMINANCE = (0.299, 0.587, 0.114)
_CHUNK = 1 << 20
_LEAST_SIDE_PX = 300
"""A patch of few pixels covers too much of smaller photos to be a plane (still_life of 200 px: 0.4 dB lost, and the
cameras' places off by 0.31 hundredths in place of 0.25)."""
_NEAREST = 1e-6
"""Depth, relative to a bearing's length, from which on something lies before a camera."""
_FAR = 100.0
"""Place on the plane at distance 1 that no photo shows, and with which a lens's polynomials do not overflow."""


class GreyPhotos:
    """Photos of perspective lenses, distorted or not, as one flat buffer; see `layout.Photos`.

    A pixel that a mask hides, or that is not opaque, is unknown: its grey value is 0, which no other pixel has.
    """

    def __init__(self, images: ImageStore, cameras: Cameras, neighbours: Int[Tensor, "images k"]) -> None:
        device = images.pixels.device
        parts = [_grey(pixels) for pixels in images.pixels.split(_CHUNK)]
        if images.mask is not None:
            for part, mask in zip(parts, images.mask.split(_CHUNK), strict=True):
                part *= mask > 0
        # The last pixel of all, too, has one to its right and a row below.
        widest = int(images.size_px[:, 0].max())
        self.grey = torch.cat([*parts, torch.ones(widest + 1, dtype=torch.uint8, device=device)])
        self.rows = images.rows
        self.lenses, self.is_distorted = _lenses(cameras)
        self.lenses = self.lenses.to(device)
        self.pixel = (1.0 / torch.cat([cameras.fx, cameras.fy], dim=-1)).to(device, torch.float32)
        self.neighbours = neighbours.to(device)

    @staticmethod
    def hindrance(cameras: Cameras) -> str | None:
        """Why photos of these cameras are not compared; None where they can be."""
        if not bool((cameras.camera_type == CameraType.PERSPECTIVE.value).all()):
            return "that needs perspective lenses, not fisheyes"
        side_px = int(torch.cat([cameras.width, cameras.height], dim=-1).amax(-1).median())
        return f"of {side_px} pixels a side they are too small" if side_px < _LEAST_SIDE_PX else None

    def at(
        self, image: Int[Tensor, " n"], bearings: Float[Tensor, "n 3 points"], along: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "n points"], Float[Tensor, "n points"], Bool[Tensor, " n"]]:
        """Bilinear grey values, their derivatives, and where all that a row is made of is known; see `layout.Photos`.

        Between the centres of its outer pixels a photo is known. What lies behind a camera has in `plane` no third
        coordinate of 1, and is outside.
        """
        lens = self.lenses.index_select(0, image)[..., None].unbind(1)
        focal, middle, least, last = lens[:4]
        depth = bearings[:, 2:].clamp_max(-_NEAREST)
        plane = bearings / depth
        motion = torch.addcmul(along[:, :2, None], plane[:, :2], along[:, 2:, None], value=-1.0) / depth
        if self.is_distorted:
            plane, motion = _distorted(plane, motion, torch.cat(lens[4:], dim=1).unbind(1))
        place = torch.addcmul(middle, plane, focal)
        held = place.clamp(least, last)
        value, slope, known = self._bilinear(self.rows.index_select(0, image), held[:, :2], motion * focal[:, :2])
        return value, slope, known.logical_and((held == place).flatten(1).all(-1))

    def _bilinear(
        self, rows: Int[Tensor, "n 5"], place: Float[Tensor, "n 2 points"], motion: Float[Tensor, "n 2 points"]
    ) -> tuple[Float[Tensor, "n points"], Float[Tensor, "n points"], Bool[Tensor, " n"]]:
        """Values at places in px from the first pixels' centres, how fast they change, and which rows are known.

        On the last column or row the pixel after it has no share, whatever it is.
        """
        low = place.floor()
        across, down = (place - low).unbind(1)
        column, row = low.long().unbind(1)
        # Four corners of each place, row by row.
        corners = torch.addcmul(column, row, rows[:, :1])[..., None] + rows[:, None, 1:]
        counts = self.grey[corners]
        left, right = (counts / 255.0).unflatten(-1, (2, 2)).unbind(-1)
        upper, lower = torch.lerp(left, right, across[..., None]).unbind(-1)
        rise, rise_below = (right - left).unbind(-1)
        rise = torch.lerp(rise, rise_below, down)
        slope = torch.addcmul(rise * motion[:, 0], lower - upper, motion[:, 1])
        return torch.lerp(upper, lower, down), slope, counts.flatten(1).all(-1)


def _lenses(cameras: Cameras) -> tuple[Float[Tensor, "images rows 3"], bool]:
    """Of each camera, in three coordinates: focal lengths, middle, least and last place, distortion; whether any has.

    Coordinates across and down count from the first pixel's centre, in px; the third says whether something lies
    before the camera. Bearings are divided by their depth, which is negative there: what is across is mirrored, and
    with it the coefficient p2.
    """
    none, one = torch.zeros_like(cameras.fx), torch.ones_like(cameras.fx)
    rows = [-cameras.fx, cameras.fy, one, cameras.cx - 0.5, cameras.cy - 0.5, none, none, none, one]
    rows += [cameras.width - 1, cameras.height - 1, one]
    distortion = cameras.distortion_params
    if distortion is not None and distortion.any():
        rows.append(distortion * distortion.new_tensor([1.0, 1.0, 1.0, 1.0, 1.0, -1.0]))
    table = torch.cat(rows, dim=-1).float().unflatten(-1, (-1, 3))
    return table, table.shape[1] > 4


def _distorted(
    plane: Float[Tensor, "n 3 points"], motion: Float[Tensor, "n 2 points"], lens: tuple[Tensor, ...]
) -> tuple[Float[Tensor, "n 3 points"], Float[Tensor, "n 2 points"]]:
    """Places on the plane at distance 1 as a lens shows them, and how these move."""
    (x, y, before), motion = plane.clamp(-_FAR, _FAR).unbind(1), motion.clamp(-(_FAR**3), _FAR**3)
    moved = bent_motion(x, y, *motion.unbind(1), *lens)
    return torch.stack([*bent(x, y, *lens), before], dim=1), torch.stack(moved, dim=1)


def _grey(pixels: UInt8[Tensor, "n 4"]) -> UInt8[Tensor, " n"]:
    """Grey values of RGBA pixels, 0 where they are not opaque and there alone."""
    luminance = pixels[:, :3].float() @ torch.tensor(_LUMINANCE, device=pixels.device)
    return luminance.round().clamp(1.0, 255.0).byte() * (pixels[:, 3] == 255)
