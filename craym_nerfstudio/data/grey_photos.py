"""The training photos in grey, looked up by bearings: what is compared between them."""

import torch
from jaxtyping import Bool, Float, Int, UInt8
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from craym_nerfstudio.data.image_store import ImageStore, bilinear
from craym_nerfstudio.geometry.lens import bent

_LUMINANCE = (0.299, 0.587, 0.114)
_CHUNK = 1 << 20
_LEAST_SIDE_PX = 300
"""A patch of few pixels covers too much of smaller photos to be a plane (still_life of 200 px: 0.4 dB lost, and the
cameras' places off by 0.31 hundredths in place of 0.25)."""
_NEAREST = 1e-6
"""Depth, relative to a bearing's length, from which on something lies before a camera."""


class GreyPhotos:
    """Photos of perspective lenses, distorted or not, as one flat buffer; see `layout.Photos`.

    A pixel that a mask hides, or that is not opaque, is unknown: its grey value is 0, which no other pixel has.
    """

    def __init__(self, images: ImageStore, cameras: Cameras, neighbours: Int[Tensor, "images k"]) -> None:
        device = images.pixels.device
        self.grey = torch.cat([_grey(pixels) for pixels in images.pixels.split(_CHUNK)])
        if images.mask is not None:
            self.grey *= images.mask > 0
        self.rows = torch.cat([images.offset[:, None], images.size_px], dim=-1)
        lens = [cameras.fx, cameras.fy, cameras.cx, cameras.cy]
        distortion = cameras.distortion_params
        self.is_distorted = distortion is not None and bool(distortion.any())
        lens += [distortion] if distortion is not None else []
        self.lenses = torch.cat(lens, dim=-1).to(device, torch.float32)
        self.pixel = 1.0 / self.lenses[:, :2]
        self.neighbours = neighbours.to(device)

    @staticmethod
    def hindrance(cameras: Cameras) -> str | None:
        """Why photos of these cameras are not compared; None where they can be."""
        if not bool((cameras.camera_type == CameraType.PERSPECTIVE.value).all()):
            return "that needs perspective lenses, not fisheyes"
        side_px = int(torch.cat([cameras.width, cameras.height], dim=-1).amax(-1).median())
        return f"of {side_px} pixels a side they are too small" if side_px < _LEAST_SIDE_PX else None

    def at(
        self, image: Int[Tensor, " n"], bearings: Float[Tensor, "n points 3"]
    ) -> tuple[Float[Tensor, "n points"], Bool[Tensor, "n points"]]:
        """Bilinear grey values in [0, 1], differentiable in the bearings, and where all they are made of is known."""
        ahead = bearings[..., 2] < -_NEAREST
        plane = bearings[..., :2] / torch.where(ahead, -bearings[..., 2], 1.0)[..., None]
        lens = self.lenses.index_select(0, image)[:, None]
        focal, center = lens[..., :2], lens[..., 2:4]
        # Bearings count upwards, pixels downwards.
        xy = plane[..., 0], -plane[..., 1]
        if self.is_distorted:
            xy = bent(*xy, *lens[..., 4:].unbind(-1))
        offset, size = self.rows.index_select(0, image)[:, None].split([1, 2], dim=-1)
        place = torch.stack(xy, dim=-1) * focal + center - 0.5
        last = size - 1
        inside = ((place >= 0) & (place <= last)).all(-1) & ahead
        corners, shares = bilinear(place.clamp_min(0.0).minimum(last), offset[..., 0], size)
        values = self.grey[corners]
        return (shares * (values.float() / 255.0)).sum(-1), inside & (values.amin(-1) > 0)


def _grey(pixels: UInt8[Tensor, "n 4"]) -> UInt8[Tensor, " n"]:
    """Grey values of RGBA pixels, 0 where they are not opaque and there alone."""
    luminance = pixels[:, :3].float() @ torch.tensor(_LUMINANCE, device=pixels.device)
    return luminance.round().clamp(1.0, 255.0).byte() * (pixels[:, 3] == 255)
