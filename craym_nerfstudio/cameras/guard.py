"""Whether training's poses are still as good as those that it began with, by what their matches say."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.sfm.ray_graph import ray_graph

_WORSE = 1.1
"""Median distance of the matches from their epipolar lines, relative to that under the start poses, from which on poses
are worse. In 28 runs of 10 to 100 views it was 0.996 to 1.018, where training improved poses (chair_400, 0.208 to 0.189
degrees: 1.018) as where it did not."""
_WORSE_PX = 0.01
"""The same as a difference: exact matches say nothing by their ratio."""
_LEAST_MATCHES, _ENOUGH_MATCHES = 30, 20_000


@dataclass(frozen=True)
class PoseVerdict:
    """Median epipolar distances of the matches, in pixels."""

    start_px: float
    """Under the poses that training began with."""
    trained_px: float

    @property
    def is_worse(self) -> bool:
        """Whether the matches contradict what training has made of the poses."""
        return self.trained_px > max(_WORSE * self.start_px, self.start_px + _WORSE_PX)

    @property
    def in_words(self) -> str:
        """Both figures."""
        return f"matches are {self.trained_px:.2f} px off their epipolar lines, {self.start_px:.2f} px at the start"


class PoseGuard:
    """Judges poses by matches that stage 0 and training have both seen.

    To hold some of them out would cost precision and say the same: poses have 6 freedoms per camera and hundreds of
    matches, so that what they gain on those they were fitted to is a per cent or two.
    """

    def __init__(self, matches: Matches, focal_px: Float[np.ndarray, " cams"]) -> None:
        every = max(1, len(matches) // _ENOUGH_MATCHES)
        self._graph = ray_graph(matches.subset(np.arange(len(matches)) % every == 0), focal_px)

    def judge(self, start_c2w: Float[Tensor, "cams 3 4"], c2w: Float[Tensor, "cams 3 4"]) -> PoseVerdict | None:
        """Compare training's poses with those that it began with; None where matches are too few to tell."""
        if len(self._graph.ends) < _LEAST_MATCHES:
            return None
        with torch.no_grad():
            px = [self._graph.epipolar_px(poses.detach().cpu().double()) for poses in (start_c2w, c2w)]
        return PoseVerdict(*(float(np.median(each)) for each in px))
