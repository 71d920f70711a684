"""Patches of pixels found again in other images by Gauss-Newton, whatever their shift, brightness and contrast.

Lucas and Kanade 1981; the warp is affine, and known or found as well.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from craym_nerfstudio.console import progress
from craym_nerfstudio.matching.images import Picture, load_picture
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.matching.workers import Result, workers

_LONGEST_PX = 1024
"""Larger images are shrunk to it, as detectors do."""
_ITERATIONS, _ITERATIONS_OF_SHIFT = 10, 6
_DAMPING = (1e-3, 1e-3, 1e-4, 1e-3, 0.05, 0.05, 0.05, 0.05)
"""Of shift, brightness, contrast and warp: corners fix all of them, an edge only some."""


@dataclass(frozen=True)
class Patch:
    """What is compared round a keypoint."""

    blur_px: float
    """Of the image before it is compared."""
    radius_px: int
    finer: int = 1
    """Times that the image is magnified first: straight lines between pixels miss by some hundredths of one."""

    @property
    def pixels(self) -> int:
        """Number of pixels compared."""
        return (2 * self.radius_px + 1) ** 2


@dataclass(frozen=True)
class Brightness:
    """An image in [0, 1] and its derivatives to the right and down per px; positions in px, the first centre at 0.5."""

    values: Float[Tensor, "1 3 h w"]
    finer: int = 1

    def at(self, at_px: Float[Tensor, "n pixels 2"]) -> Float[Tensor, "3 n pixels"]:
        """Brightness and derivatives."""
        height, width = self.values.shape[-2:]
        where = 2 * self.finer * at_px / torch.tensor([width, height]) - 1
        return grid_sample(self.values, where[None], padding_mode="border", align_corners=False)[0]


class Aligned(NamedTuple):
    """Where patches were found."""

    at_px: Float[Tensor, "n 2"]
    warp: Float[Tensor, "n 2 2"]
    """Of a patch into the image."""
    agreement: Float[Tensor, " n"]
    """Normalised correlation there."""
    agreement_before: Float[Tensor, " n"]
    """And at the start."""


def compared_scale(views: Views) -> Float[np.ndarray, " cams"]:
    """By what each image is shrunk before it is compared."""
    return np.minimum(1.0, _LONGEST_PX / np.max(views.size_px, axis=1))


def brightness(picture: Picture, scale: float, patch: Patch) -> Brightness:
    """An image, shrunk by its `compared_scale` and blurred."""
    import cv2

    grey = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2GRAY)
    if scale < 1:
        height, width = (round(scale * length) for length in grey.shape)
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    grey = cv2.GaussianBlur(grey.astype(np.float32) / 255.0, (0, 0), patch.blur_px)
    if patch.finer > 1:
        grey = cv2.resize(grey, None, fx=patch.finer, fy=patch.finer, interpolation=cv2.INTER_LANCZOS4)
    down, right = np.gradient(grey)
    return Brightness(torch.from_numpy(np.stack([grey, patch.finer * right, patch.finer * down])[None]), patch.finer)


def over_images(
    views: Views, images: Sequence[int], patch: Patch, title: str, work: Callable[[int, Brightness, Picture], Result]
) -> list[Result]:
    """What `work` makes of each of these images, on all cores, under a progress bar.

    Raises:
        InputError: an image cannot be read.
    """
    scale = compared_scale(views)

    def of(index: int) -> Result:
        picture = load_picture(views, index)
        return work(index, brightness(picture, scale[index], patch), picture)

    results = []
    with workers(True) as run, progress() as bars:
        bar = bars.add_task(title, total=len(images))
        for result in run(of, [int(index) for index in images]):
            results.append(result)
            bars.advance(bar)
    return results


def cut_out(image: Brightness, at_px: Float[Tensor, "n 2"], patch: Patch) -> Float[Tensor, "n pixels"]:
    """Normalised patches round positions of an image."""
    return _normalised(image.at(at_px[:, None] + _grid(patch.pixels))[0])[0]


def align_patches(
    patches: Float[Tensor, "n pixels"],
    image: Brightness,
    start_px: Float[Tensor, "n 2"],
    warp: Float[Tensor, "n 2 2"],
    warp_is_known: bool = False,
) -> Aligned:
    """Where normalised patches lie in an image, by Gauss-Newton from a start and a warp."""
    grid, weight = _grid(patches.shape[1]), _weight(patches.shape[1])
    damping = torch.diag(torch.tensor(_DAMPING[:4] if warp_is_known else _DAMPING))
    at, before = start_px, _agreement(patches, image, start_px, warp)
    for _ in range(_ITERATIONS_OF_SHIFT if warp_is_known else _ITERATIONS):
        seen, right, down = image.at(at[:, None] + grid @ warp.transpose(1, 2))
        seen, spread = _normalised(seen)
        right, down = right / spread, down / spread
        columns = [right, down, torch.ones_like(seen), seen]
        if not warp_is_known:
            columns += [right * grid[:, 0], right * grid[:, 1], down * grid[:, 0], down * grid[:, 1]]
        jacobian = torch.stack(columns, dim=-1)
        weighted = (jacobian * weight[:, None]).transpose(1, 2)
        step = torch.linalg.solve(weighted @ jacobian + damping, (weighted @ (patches - seen)[..., None]).squeeze(-1))
        at = at + step[:, :2] / step[:, :2].norm(dim=1, keepdim=True).clamp_min(1.0)
        if not warp_is_known:
            warp = warp + step[:, 4:].reshape(-1, 2, 2).clamp(-0.2, 0.2)
    return Aligned(at, warp, _agreement(patches, image, at, warp), before)


def _agreement(
    patches: Float[Tensor, "n pixels"], image: Brightness, at_px: Float[Tensor, "n 2"], warp: Float[Tensor, "n 2 2"]
) -> Float[Tensor, " n"]:
    """Normalised correlation."""
    seen = _normalised(image.at(at_px[:, None] + _grid(patches.shape[1]) @ warp.transpose(1, 2))[0])[0]
    return (_weight(patches.shape[1]) * patches * seen).sum(-1)


def _radius_px(pixels: int) -> int:
    return (math.isqrt(pixels) - 1) // 2


def _grid(pixels: int) -> Float[Tensor, "pixels 2"]:
    """Where the pixels of a patch lie, seen from its middle."""
    radius = _radius_px(pixels)
    side = torch.arange(-radius, radius + 1, dtype=torch.float32)
    return torch.cartesian_prod(side, side).flip(-1)


def _weight(pixels: int) -> Float[Tensor, " pixels"]:
    weight = torch.exp(-0.5 * (_grid(pixels) / (0.6 * _radius_px(pixels))).square().sum(-1))
    return weight / weight.sum()


def _normalised(patches: Float[Tensor, "n pixels"]) -> tuple[Float[Tensor, "n pixels"], Float[Tensor, "n 1"]]:
    """Patches of weighted mean 0 and spread 1, and their spread."""
    weight = _weight(patches.shape[1])
    centred = patches - (weight * patches).sum(-1, keepdim=True)
    spread = (weight * centred.square()).sum(-1, keepdim=True).sqrt().clamp_min(1e-3)
    return centred / spread, spread
