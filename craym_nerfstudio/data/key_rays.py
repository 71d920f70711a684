"""Matched key rays and their auxiliary rays, drawn for a training step."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from craym_nerfstudio.layout import MatchedPairs
from craym_nerfstudio.matching.matches import Matches


class KeyRaySource:
    """Draws matches for key rays (rendered) and for the epipolar loss alone (not rendered, therefore many)."""

    def __init__(self, matches: Matches, focal_px: np.ndarray, size_px: np.ndarray) -> None:
        self.cameras = torch.from_numpy(matches.pairs[matches.pair_of_match]).long()
        self.keypoints = torch.from_numpy(matches.keypoints).float()
        bearings, confidence = (torch.from_numpy(each).float() for each in (matches.bearings, matches.confidence))
        # A pixel is worth 1/focal radians; both images of a pair share one figure.
        focal = torch.from_numpy(focal_px).float()[self.cameras].mean(-1)
        # Side by side, so that one look-up serves all of them.
        self._numbers = torch.column_stack([bearings.flatten(1), confidence, focal])
        # 2 px at an image width of 400, scaled with the resolution (method note [C] of Eq. 2).
        self.jitter_px = float(np.clip(np.median(size_px[:, 0]) / 200.0, 1.0, 4.0))
        self._odds = confidence.double().cumsum(0)

    def __len__(self) -> int:
        return self.cameras.shape[0]

    def to(self, device: torch.device | str) -> "KeyRaySource":
        """Move the buffers to a device."""
        for name in ("cameras", "keypoints", "_numbers", "_odds"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def _draw(self, count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
        """Numbers of matches, drawn in proportion to their confidence."""
        unit = torch.rand(count, generator=generator, device=self._odds.device, dtype=torch.float64)
        return torch.searchsorted(self._odds, unit * self._odds[-1]).clamp(max=len(self) - 1)

    def pairs(self, count: int, generator: torch.Generator) -> MatchedPairs:
        """Matches for the epipolar loss."""
        return self._gather(self._draw(count, generator))

    def _gather(self, index: Tensor) -> MatchedPairs:
        bearings, confidence, focal = self._numbers.index_select(0, index).split([6, 1, 1], dim=-1)
        return MatchedPairs(
            self.cameras.index_select(0, index), bearings.unflatten(-1, (2, 3)), confidence[:, 0], focal[:, 0]
        )

    def key_pixels(
        self, count: int, aux: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, " n"], Float[Tensor, "n 2"], MatchedPairs]:
        """Images and positions of key rays, each with `aux` auxiliary rays scattered around it, and their matches.

        They come pair by pair, view by view, the key first, then its auxiliaries.
        """
        index = self._draw(count, generator)
        keys, pairs = self.keypoints.index_select(0, index), self._gather(index)
        offset = torch.randn((count, 2, aux, 2), generator=generator, device=keys.device) * self.jitter_px
        # Auxiliary rays go through pixel centres, where the image is known without interpolation.
        around = (keys[:, :, None] + offset).floor() + 0.5
        xy = torch.cat([keys[:, :, None], around], dim=2)
        image = pairs.cameras[:, :, None].expand(-1, -1, 1 + aux)
        return image.reshape(-1), xy.reshape(-1, 2), pairs
