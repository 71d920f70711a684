"""What silhouettes say of the given poses where no matches do: whether the cameras stand about where they should."""

from dataclasses import dataclass

import numpy as np
import torch

from craym_nerfstudio.data.outlines import Outlines
from craym_nerfstudio.geometry.rays import focus_point
from craym_nerfstudio.matching.views import Views

_CLOSE, _FAR = 0.14, 0.33
"""Of true poses and such with `real` noise 0.05 to 0.11 (lego, chair, spot), with `barf` 0.17 to 0.30, with `l2g-low`
0.36 to 0.58. Those between turn wrongly rather than stand wrongly: to shift them first makes them worse."""
_MOST = 0.9
"""Share of the images that must hold what they show as a whole: the middle of a part tells nothing."""


@dataclass(frozen=True)
class Silhouettes:
    """Outlines of all images, and how well they agree."""

    outlines: Outlines
    miss: float
    """Median distance of rays through their middles from where these meet, in radii of what they show."""

    @classmethod
    def of(cls, outlines: Outlines, views: Views) -> "Silhouettes | None":
        """Compare the outlines of views at their given poses; None where they do not show one whole object."""
        shown = np.flatnonzero(outlines.whole)
        if len(shown) < max(3, _MOST * len(views.names)):
            return None
        origins = views.c2w[shown, :, 3]
        bearings = np.stack([views.bearings(index, outlines.middle_px[index][None])[0] for index in shown])
        directions = (views.c2w[shown, :, :3] @ bearings[..., None])[..., 0]
        middle = focus_point(torch.from_numpy(origins), torch.from_numpy(directions)).numpy()
        offset = middle - origins
        radius = np.linalg.norm(offset, axis=-1) * outlines.radius_px[shown] / views.focal_px[shown]
        misses = np.linalg.norm(np.cross(offset, directions), axis=-1)
        return cls(outlines, float(np.median(misses / radius)))

    @property
    def agree(self) -> bool:
        """Whether the cameras stand about where they should, as far as can be told."""
        return self.miss < _CLOSE

    @property
    def far_off(self) -> bool:
        """Whether cameras must be shifted before colours can tell anything."""
        return self.miss > _FAR

    @property
    def in_words(self) -> str:
        """For the terminal."""
        begin = f"at the given poses their middles miss each other by {self.miss:.0%} of what they show"
        if self.agree:
            return f"{begin}: the poses wait for the field"
        return f"{begin}: the cameras are shifted first" if self.far_off else f"{begin}: colours find the poses"
