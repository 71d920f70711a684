"""Camera axes: OpenGL (x right, y up, z backward), as in this package, and OpenCV (x right, y down, z forward).

Every function is its own inverse.
"""

import numpy as np
from jaxtyping import Float

_FLIP = np.array([1.0, -1.0, -1.0])


def flip_pose_axes(c2w: Float[np.ndarray, "*b 3 4"]) -> Float[np.ndarray, "*b 3 4"]:
    """Camera-to-world pose with its camera axes changed from OpenGL to OpenCV or back; the world stays."""
    return c2w * np.append(_FLIP, 1.0)


def flip_motion_axes(motion: Float[np.ndarray, "*b 3 4"]) -> Float[np.ndarray, "*b 3 4"]:
    """Relative pose of two cameras with the axes of both changed from OpenGL to OpenCV or back."""
    return motion * _FLIP[:, None] * np.append(_FLIP, 1.0)
