"""Where training starts from: matches, and the poses that matched-ray bundle adjustment makes of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from craym_nerfstudio.matching.find import find_matches
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.views import Views


@dataclass
class PoseStart:
    """What is known before the field is trained, in the host's frame."""

    c2w: Float[np.ndarray, "cams 3 4"]
    matches: Matches | None = None
    region: tuple[Float[np.ndarray, "3"], float] | None = None
    """Centre and radius of the sphere that holds the surface, where triangulated points tell it."""


def pose_start(
    views: Views,
    matcher: Literal["auto", "aliked-lightglue", "sift", "none"],
    pose_init: Literal["matched-rays", "input"],
    cache_dir: Path,
) -> PoseStart:
    """Find matches and, with ``pose_init = "matched-rays"``, adjust the poses to them; both are cached."""
    if matcher == "none":
        return PoseStart(views.c2w)
    matches = find_matches(views, matcher, cache_dir)
    return PoseStart(views.c2w, matches)
