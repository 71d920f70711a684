"""How differently the images are exposed and tinted, from the colours of matched key rays."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from craym_nerfstudio.data.image_store import ImageStore
from craym_nerfstudio.matching.matches import Matches

_ROUNDS = 12
_LEAST_GAIN = 0.02
"""Spread of the gains below which images count as equally exposed."""
_LEAST_HELP = 0.3
"""Share by which the gains must bring matched colours closer together. Light that falls differently into each view (a
phone's walk, a robot's arm under lamps) gains up to 0.25; there a colour that depends on direction serves too."""
_RANGE = (0.03, 0.95)
"""Colours beyond these are black or blown out and tell nothing of the exposure."""
_PRIOR = 1.0
"""Matches' worth of belief that an image is exposed like the mean."""


@dataclass(frozen=True)
class Exposure:
    """Logarithm of each image's gain per channel, zero on average, and how far apart matched colours are."""

    log_gain: Float[np.ndarray, "images 3"]
    before: float
    """Median difference of the logarithms of matched colours, as they are."""
    after: float
    """The same with the gains taken out."""

    @property
    def spread(self) -> float:
        """Standard deviation over the images, of the channel that differs most."""
        return float(self.log_gain.std(0).max())

    @property
    def needed(self) -> bool:
        """Whether images differ by more than what noise and viewing directions explain."""
        return self.spread > _LEAST_GAIN and self.after < (1.0 - _LEAST_HELP) * self.before

    @property
    def in_words(self) -> str:
        """For the terminal."""
        differ = f"images differ by {self.spread:.0%} in brightness or tint"
        apart = f"matched colours {self.before:.1%} -> {self.after:.1%} apart"
        return (
            f"{differ} ({apart}); they are trained as if taken alike, test views are judged at their photo's exposure"
        )


def find_exposure(store: ImageStore, matches: Matches) -> Exposure:
    """Gains of all images under which the colours round matched key points agree best."""
    number = torch.from_numpy(matches.images).long().to(store.pixels.device)
    keypoints = torch.from_numpy(matches.keypoints).to(store.pixels.device)
    # As wide as key rays are scattered (see `KeyRaySource`), and no wider than a tiny image's details.
    radius_px = float(np.clip(np.median(matches.size_px[:, 0]) / 200.0, 0.5, 4.0))
    colors = torch.stack([store.mean_colors(number[:, k], keypoints[:, k], radius_px) for k in (0, 1)], dim=1)
    return exposure_of(matches.images, colors.cpu().double().numpy(), len(store))


def exposure_of(images: Int[np.ndarray, "matches 2"], colors: Float[np.ndarray, "matches 2 3"], count: int) -> Exposure:
    """Gains of all images under which pairs of colours of one point agree best, robustly, channel by channel.

    The difference of the logarithms of two matched colours is that of their images' gains: linear least squares over
    the graph of the images, reweighted (Geman-McClure) for wrong matches and highlights.
    """
    usable = ((colors > _RANGE[0]) & (colors < _RANGE[1])).all((1, 2))
    images, logs = images[usable], np.log(colors[usable])
    difference = logs[:, 0] - logs[:, 1]
    if not len(images):
        return Exposure(np.zeros((count, 3)), 0.0, 0.0)
    gains = np.stack([_solve(images, difference[:, channel], count) for channel in range(3)], axis=-1)
    left = difference - gains[images[:, 0]] + gains[images[:, 1]]
    return Exposure(gains, float(np.median(np.abs(difference))), float(np.median(np.abs(left))))


def _solve(
    images: Int[np.ndarray, "matches 2"], difference: Float[np.ndarray, " matches"], count: int
) -> Float[np.ndarray, " images"]:
    first, second = images.T
    weights, gain = np.ones(len(difference)), np.zeros(count)
    for _ in range(_ROUNDS):
        pairs = np.bincount(first * count + second, weights, count * count).reshape(count, count)
        both = pairs + pairs.T
        laplacian = np.diag(both.sum(1) + _PRIOR) - both
        sums = np.bincount(first, weights * difference, count) - np.bincount(second, weights * difference, count)
        gain = np.linalg.solve(laplacian, sums)
        left = difference - gain[first] + gain[second]
        scale = 3.0 * max(float(np.median(np.abs(left))), 1e-6)
        weights = 1.0 / (1.0 + (left / scale) ** 2) ** 2
    return gain - gain.mean()
