"""The training photos in grey, looked up by bearings: what is compared between them."""

import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from craym_nerfstudio.data.image_store import ImageStore

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
        masks = [None] * images.pixels.shape[0] if images.mask is None else images.mask.split(_CHUNK)
        parts = zip(images.pixels.split(_CHUNK), masks, strict=False)
        self.grey = torch.cat([_grey(pixels, mask) for pixels, mask in parts])
        self.rows = torch.cat([images.offset[:, None], images.size_px], dim=-1)
        lens = [cameras.fx, cameras.fy, cameras.cx, cameras.cy]
        bent = cameras.distortion_params
        self.is_distorted = bent is not None and bool(bent.any())
        lens += [bent] if bent is not None else []
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
        plane = torch.stack([plane[..., 0], -plane[..., 1]], dim=-1)
        if self.is_distorted:
            plane = _distorted(plane, lens[..., 4:])
        offset, *size = self.rows.index_select(0, image)[:, None].unbind(-1)
        place = plane * focal + center - 0.5
        last = torch.stack(size, dim=-1) - 1
        inside = ((place >= 0) & (place <= last)).all(-1) & ahead
        place = place.clamp_min(0.0).minimum(last)
        low = place.detach().floor()
        share = place - low
        low = low.long()
        columns, rows = torch.stack([low, torch.minimum(low + 1, last)], dim=-1).unbind(-2)
        corners = offset[..., None, None] + rows[..., :, None] * size[0][..., None, None] + columns[..., None, :]
        values = self.grey[corners.flatten(-2)]
        sides = torch.stack([1.0 - share, share], dim=-1)
        weights = (sides[..., 1, :, None] * sides[..., 0, None, :]).flatten(-2)
        return (weights * (values.float() / 255.0)).sum(-1), inside & (values.amin(-1) > 0)


def _grey(pixels: Tensor, mask: Tensor | None) -> Tensor:
    """Grey values [n] of RGBA pixels, 0 where they are unknown and there alone."""
    luminance = pixels[:, :3].float() @ torch.tensor(_LUMINANCE, device=pixels.device)
    known = pixels[:, 3] == 255
    if mask is not None:
        known &= mask > 0
    return luminance.round().clamp(1.0, 255.0).byte() * known


def _distorted(plane: Float[Tensor, "n points 2"], lens: Float[Tensor, "n 1 6"]) -> Float[Tensor, "n points 2"]:
    """`geometry.lens.distorted`, differentiable and for many lenses."""
    k1, k2, k3, k4, p1, p2 = lens.unbind(-1)
    x, y = plane.unbind(-1)
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    sideways = 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x), 2.0 * p2 * x * y + p1 * (r2 + 2.0 * y * y)
    return torch.stack([x * radial + sideways[0], y * radial + sideways[1]], dim=-1)
