"""The region: the sphere of the world that holds the surface, and is the unit sphere of the field."""

import numpy as np

from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.sfm.result import StageZero

_MIN_POINTS = 100


def find_region(stage: StageZero, has_alpha: bool) -> Similarity | None:
    """World from unit frame, by the triangulated points of an isolated object; None keeps the world's unit sphere.

    Where a background is seen too, the points do not tell what is of interest, unless that sphere misses nearly all.
    """
    points = stage.points[stage.track_length >= 3]
    if len(points) < _MIN_POINTS:
        return None
    inside = float((np.linalg.norm(points, axis=-1) < 1.0).mean())
    if not has_alpha and inside > 0.3:
        return None
    low, high = np.quantile(points, [0.02, 0.98], axis=0)
    center = 0.5 * (low + high)
    distance = np.linalg.norm(points - center, axis=-1)
    # Keypoints miss what has no texture: a wide margin.
    reach = 1.3 * np.quantile(distance, 0.98) if has_alpha else np.quantile(distance, 0.7)
    return Similarity.of(float(reach), translation=center)
