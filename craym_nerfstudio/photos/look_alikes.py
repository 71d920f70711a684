"""Which photos may show the same thing, from the photos alone: neighbours in file order, and look-alikes.

A photo is described by its own local descriptors (VLAD: Jegou et al. 2010): what they leave over after their nearest of
a few typical descriptors is taken away, summed for each of these. The typical ones are found in the same photos.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.nn.functional import normalize

from craym_nerfstudio.matching.detectors import Features
from craym_nerfstudio.matching.pairs import best_pairs

EXHAUSTIVE_UP_TO = 60
"""Up to here all pairs cost less than a minute, and none is missed."""
_IN_FILE_ORDER, _ALIKE = 5, 20
"""Partners of an image in larger sets."""
_WORDS = 64
_DESCRIPTORS_OF_IMAGE = 400
"""Enough of each image to find the typical descriptors with; all of them describe it."""
_ROUNDS = 12


def planned_pairs(count: int) -> int:
    """About how many pairs of that many images will be tried."""
    return count * (count - 1) // 2 if count <= EXHAUSTIVE_UP_TO else count * (_IN_FILE_ORDER + _ALIKE) * 2 // 3


def pairs_without_poses(features: Sequence[Features], seed: int = 0) -> Int32[np.ndarray, "pairs 2"]:
    """Pairs (i, j), i < j, in ascending order: all of a small set, else neighbours in the given order and look-alikes.

    What look-alikes leave unconnected is joined by its most alike pair. Deterministic.
    """
    count = len(features)
    if count <= EXHAUSTIVE_UP_TO:
        return np.stack(np.triu_indices(count, 1), axis=-1).astype(np.int32)
    described, order = describe(features, seed), np.arange(count)
    return best_pairs(described @ described.T, _ALIKE, also=np.abs(order[:, None] - order) <= _IN_FILE_ORDER)


def describe(features: Sequence[Features], seed: int = 0) -> Float[np.ndarray, "images channels"]:
    """A unit vector per image; the product of two says how alike the images are, in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    local = [_unit(each.descriptors) for each in features]
    sample = torch.cat([rows[torch.randperm(len(rows), generator=generator)[:_DESCRIPTORS_OF_IMAGE]] for rows in local])
    if len(sample) == 0:
        return np.zeros((len(features), 1))
    words = _typical(sample, min(_WORDS, len(sample)), generator)
    return torch.stack([_left_over(rows, words) for rows in local]).double().numpy()


def _unit(descriptors: np.ndarray) -> Float[Tensor, "d channels"]:
    values = torch.from_numpy(np.asarray(descriptors)).float()
    if descriptors.dtype == np.uint8:  # histograms: RootSIFT compares them better than their own distance does
        values = values.sqrt()
    return normalize(values, dim=-1)


def _typical(sample: Float[Tensor, "n channels"], words: int, generator: torch.Generator) -> Tensor:
    """Centres of a k-means on the unit sphere; one that loses all its members stays where it is."""
    centers = sample[torch.randperm(len(sample), generator=generator)[:words]].clone()
    for _ in range(_ROUNDS):
        nearest = (sample @ centers.T).argmax(dim=1)
        sums = torch.zeros_like(centers).index_add_(0, nearest, sample)
        has_members = torch.bincount(nearest, minlength=words) > 0
        centers[has_members] = normalize(sums[has_members], dim=-1)
    return centers


def _left_over(rows: Float[Tensor, "d channels"], words: Float[Tensor, "words channels"]) -> Tensor:
    """What is left of an image's descriptors beyond their typical ones; each of these counts alike."""
    nearest = (rows @ words.T).argmax(dim=1)
    sums = torch.zeros_like(words).index_add_(0, nearest, rows - words[nearest])
    return normalize(normalize(sums, dim=-1).flatten(), dim=0)
