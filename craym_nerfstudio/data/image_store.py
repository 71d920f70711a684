"""All training images as one flat uint8 buffer, sampled at pixels or between them; sizes and channels may differ."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import gcd

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

_BLOCK = 509
"""Pixels that are rolled together: about a row."""
_NEAR_SHARE, _NEAR_PX = 0.04, 8
"""How far from what is opaque transparent pixels are all drawn: of an image's longer side, and at least."""
_FAR_EVERY = 10
"""Of the transparent pixels farther away, one in so many is drawn: they say again and again that nothing is there."""


class ImageStore:
    """Images kept as 8-bit RGBA (4 bytes a pixel), looked up by image number and position.

    The alpha channel is the image's own (255 where it has none); a mask is kept beside it, because masked pixels are
    unknown while transparent ones are known to be empty.
    """

    def __init__(
        self,
        images: Iterable[UInt8[Tensor, "h w c"]],
        size_px: Sequence[tuple[int, int]],
        masks: Iterable[UInt8[Tensor, "h w"]] | None = None,
    ) -> None:
        """Copy images of known widths and heights, and masks, one by one: they may be decoded on the way."""
        self.size_px = torch.tensor(size_px)
        counts, width = self.size_px.prod(-1), self.size_px[:, :1]
        self.offset = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)[:-1]])
        # The last pixel of all, too, has one to its right and a row below: they have no share in what is looked up.
        self._padded = torch.zeros((int(counts.sum() + width.max() + 1), 4), dtype=torch.uint8)
        self.pixels = self._padded[: int(counts.sum())]
        first = self.offset[:, None]
        self.rows = torch.cat([width, first, first + 1, first + width, first + width + 1], dim=-1)
        """Widths, and flat numbers of the four pixels about a place in the first pixel."""
        self._last, self._least_side_px = self.size_px - 1.0, int(self.size_px.min())
        self.mask = None if masks is None else torch.empty(int(counts.sum()), dtype=torch.uint8)
        self.gain: Float[Tensor, "images 3"] | None = None
        """What each image's colours are divided by, to look as if all had been taken alike; None leaves them."""
        for image, part in zip(images, self.pixels.split(counts.tolist()), strict=True):
            part[:, 3] = 255
            part[:, : image.shape[-1]] = image.reshape(len(part), -1)
        if self.mask is not None and masks is not None:
            for mask, part in zip(masks, self.mask.split(counts.tolist()), strict=True):
                part[:] = mask.reshape(-1)
        self._left_out: Bool[Tensor, " images"] = torch.zeros(len(counts), dtype=torch.bool)
        self._near_objects = False
        self._drawn: Int[Tensor, " pixels"] | None = None
        self._images: Int[Tensor, " kept"] | None = None
        self._choose()

    def __len__(self) -> int:
        return self.size_px.shape[0]

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        return self.pixels.numel() + (0 if self.mask is None else self.mask.numel())

    def to(self, device: torch.device | str) -> "ImageStore":
        """Move the buffers to a device."""
        for name in ("_padded", "offset", "size_px", "rows", "_last"):
            setattr(self, name, getattr(self, name).to(device))
        self.pixels = self._padded[: len(self.pixels)]
        self.mask = None if self.mask is None else self.mask.to(device)
        self.gain = None if self.gain is None else self.gain.to(device)
        self._drawn = None if self._drawn is None else self._drawn.to(device)
        self._images = None if self._images is None else self._images.to(device)
        return self

    def _flat(self, image: Tensor, column: Tensor, row: Tensor) -> Tensor:
        return self.offset[image] + row * self.size_px[image, 0] + column

    def random_pixels(
        self, count: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, " count"], Float[Tensor, "count 2"]]:
        """Images and (x, y) pixel centres, drawn uniformly among those that tell something (`_drawn`)."""
        return self._places(torch.randint(self._walked, (count,), generator=generator, device=self.pixels.device))

    def next_pixels(self, first: int, count: int) -> tuple[Int[Tensor, " count"], Float[Tensor, "count 2"]]:
        """Images and (x, y) pixel centres of numbers `first` on of an endless walk over those that tell something.

        Each is visited before any is visited again, and any part of the walk is spread evenly over images and rows:
        drawn at random, as many rays as there are pixels would miss a third of them.
        """
        total = self._walked
        numbers = (first + torch.arange(count, device=self.pixels.device)) % total
        # Multiples of the golden ratio divide an interval most evenly.
        return self._places(_rolled((numbers * _stride(total)) % total, total))

    @property
    def _walked(self) -> int:
        """How many pixels are drawn."""
        return len(self.pixels if self._drawn is None else self._drawn)

    def _places(self, number: Int[Tensor, " n"]) -> tuple[Int[Tensor, " n"], Float[Tensor, "n 2"]]:
        """Images and centres of pixels by their numbers among those that are drawn."""
        flat = number if self._drawn is None else self._drawn[number].long()
        image = torch.searchsorted(self.offset, flat, right=True) - 1
        within, width = flat - self.offset[image], self.size_px[image, 0]
        xy = torch.stack([within % width, torch.div(within, width, rounding_mode="floor")], dim=-1)
        return image, xy + 0.5

    def draw_near_objects(self) -> None:
        """Draw few of the pixels far outside of an object, which need not tell that space is free where that is known.

        Where it is not, a field that begins as a blur needs them all.
        """
        self._near_objects = True
        self._choose()

    def leave_out(self, images: Bool[Tensor, " images"]) -> None:
        """Draw nothing of these images, and again of those that were left out before."""
        self._left_out = images.cpu()
        self._choose()

    def _choose(self) -> None:
        """Note what rays are drawn from: flat numbers of pixels, and of images; None for all of them.

        Masked pixels are unknown. Where all are masked, all are drawn.
        """
        device, sizes = self.pixels.device, self.size_px.cpu()
        drawn = None if self.mask is None else self.mask.cpu() > 0
        if self._near_objects:
            parts = self.pixels[:, 3].cpu().split(sizes.prod(-1).tolist())
            shapes = sizes.flip(-1).tolist()
            telling = torch.cat([_telling(part.view(shape)) for part, shape in zip(parts, shapes, strict=True)])
            drawn = telling & drawn if drawn is not None and drawn.any() else telling
        kept, counts = ~self._left_out, sizes.prod(-1)
        if drawn is not None:
            of_kept = drawn & kept.repeat_interleave(counts)
            drawn = of_kept if of_kept.any() else drawn
            self._drawn = None if drawn.all() or not drawn.any() else drawn.nonzero()[:, 0].int().to(device)
        else:
            ranges = zip(self.offset.cpu()[kept].tolist(), counts[kept].tolist(), strict=True)
            runs = [torch.arange(first, first + count, dtype=torch.int32) for first, count in ranges]
            self._drawn = None if kept.all() else torch.cat(runs).to(device)
        self._images = None if kept.all() else kept.nonzero()[:, 0].to(device)

    def random_patches(
        self, patches: int, side: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, " n"], Float[Tensor, "n 2"]]:
        """Images and pixel centres of square patches, ``patches * side * side`` in row-major order."""
        device = self.pixels.device
        images = len(self) if self._images is None else len(self._images)
        image = torch.randint(images, (patches,), generator=generator, device=device)
        image = image if self._images is None else self._images[image]
        unit = torch.rand((patches, 2), generator=generator, device=device)
        corner = (unit * (self._last[image] + (2 - side)).clamp_min(1.0)).floor()
        xy = (corner[:, None] + _offsets(side, device)).reshape(-1, 2)
        image = image.repeat_interleave(side * side)
        return image, xy if side <= self._least_side_px else self._clip(image, xy)

    def _clip(self, image: Tensor, xy: Tensor) -> Tensor:
        return xy.clamp_min(0.5).minimum(self.size_px[image] - 0.5)

    def whole(self, image: int) -> tuple[Float[Tensor, "h w 4"], Float[Tensor, "h w"]]:
        """An image's colours, at the exposure that all have, and alpha; and where it is not masked, 1, or is, 0."""
        width, height = self.size_px[image].tolist()
        row, column = (part.reshape(-1) for part in torch.meshgrid(*map(torch.arange, (height, width)), indexing="ij"))
        xy = torch.stack([column, row], dim=-1).to(self.pixels.device) + 0.5
        index = torch.full((len(xy),), image, device=self.pixels.device)
        return self.colors(index, xy).view(height, width, 4), self.visible(index, xy).view(height, width).float()

    def visible(self, image: Int[Tensor, " n"], xy: Float[Tensor, "n 2"]) -> Int[Tensor, " n"]:
        """1 where the pixel that contains the position is not masked."""
        if self.mask is None:
            return torch.ones_like(image)
        column, row = self._clip(image, xy).floor().long().unbind(-1)
        return (self.mask[self._flat(image, column, row)] > 0).long()

    def colors(self, image: Int[Tensor, " n"], xy: Float[Tensor, "n 2"]) -> Float[Tensor, "n 4"]:
        """Bilinear RGBA (straight alpha; exact at pixel centres) at (x, y) positions in px, in [0, 1] before `gain`."""
        corners, share = self._about(image, xy)
        rgba = self._padded[corners] / 255.0
        opaque = share * rgba[..., 3]
        alpha = opaque.sum(-1, keepdim=True)
        # Colours are weighted by their opacity: what a transparent pixel's colour channels hold means nothing.
        rgb = (opaque[:, None] @ rgba[..., :3])[:, 0] / alpha.clamp_min(1e-6)
        if self.gain is not None:
            rgb = rgb / self.gain.index_select(0, image)
        return torch.cat([rgb, alpha], dim=-1)

    def _about(
        self, image: Int[Tensor, " n"], xy: Float[Tensor, "n 2"]
    ) -> tuple[Int[Tensor, "n 4"], Float[Tensor, "n 4"]]:
        """The four pixels about positions, row by row, and what each counts; beyond the outer ones' centres, these."""
        place = (xy - 0.5).clamp_min(0.0).minimum(self._last.index_select(0, image))
        low = place.floor()
        first, rows = low.long(), self.rows.index_select(0, image)
        corners = torch.addcmul(first[:, 0], first[:, 1], rows[:, 0])[:, None] + rows[:, 1:]
        after = place - low
        across, down = torch.stack([1.0 - after, after], dim=-1).unbind(1)
        return corners, (down[:, :, None] * across[:, None]).flatten(1)

    def mean_colors(self, image: Int[Tensor, " n"], xy: Float[Tensor, "n 2"], radius_px: float) -> Float[Tensor, "n 3"]:
        """Mean colours of the nine points of a square of this half side round each position."""
        steps = torch.tensor([-radius_px, 0.0, radius_px], device=xy.device)
        around = xy[:, None] + torch.cartesian_prod(steps, steps)
        colors = self.colors(image.repeat_interleave(9), around.flatten(0, 1))
        return colors[:, :3].unflatten(0, (-1, 9)).mean(1)


def _telling(alpha: UInt8[Tensor, "h w"]) -> Bool[Tensor, " pixels"]:
    """Pixels near to what is opaque, and some of the others."""
    import cv2

    reach = max(_NEAR_PX, round(_NEAR_SHARE * max(alpha.shape)))
    near = cv2.dilate(alpha.numpy(), np.ones((2 * reach + 1,) * 2, np.uint8)) > 0
    return torch.from_numpy(near).flatten() | (torch.arange(alpha.numel()) % _FAR_EVERY == 0)


def _rolled(place: Int[Tensor, " n"], total: int) -> Int[Tensor, " n"]:
    """Places in [0, total), each block of them rolled by a number of its own.

    Equal steps through images of equal width would meet the same few columns again and again.
    """
    block = torch.div(place, _BLOCK, rounding_mode="floor")
    length, shift = (total - block * _BLOCK).clamp(max=_BLOCK), (block * 2654435761 % (1 << 32)) >> 8
    return block * _BLOCK + (place - block * _BLOCK + shift) % length


@lru_cache(maxsize=4)
def _stride(total: int) -> int:
    """The number nearest to the golden section of `total` that has no divisor in common with it."""
    stride = max(1, round(total * (5**0.5 - 1) / 2))
    while gcd(stride, total) > 1:
        stride += 1
    return stride


@lru_cache(maxsize=4)
def _offsets(side: int, device: torch.device) -> Float[Tensor, "n 2"]:
    """Pixel centres (x, y) of a square patch from its corner, row by row."""
    step = torch.arange(side, dtype=torch.float32) + 0.5
    return torch.cartesian_prod(step, step).flip(-1).to(device)
