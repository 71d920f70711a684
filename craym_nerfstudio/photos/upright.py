"""A frame for poses that came without one: +z is up, and the cameras surround the origin at about unit distance."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from craym_nerfstudio.sfm.global_solve import poses_of

_UP = {3: (0.0, -1.0, 0.0), 6: (-1.0, 0.0, 0.0), 8: (1.0, 0.0, 0.0)}
"""Where up is in OpenGL camera axes, for the EXIF orientations that turn; +y for all others."""


def stand_upright(reconstruction: Any, orientations: Sequence[int]) -> None:
    """Turn, shift and scale a reconstruction (in place). `orientations` are EXIF's, of all photos."""
    import pycolmap

    placed, c2w = poses_of(reconstruction)
    up_in_camera = np.array([_UP.get(orientations[photo], (0.0, 1.0, 0.0)) for photo in placed])
    rotation = _frame((c2w[:, :, :3] @ up_in_camera[..., None])[..., 0].mean(0), c2w[0, :, 0])
    centers = c2w[:, :, 3]
    middle = np.median(centers, axis=0)
    extent = float(np.median(np.linalg.norm(centers - middle, axis=1)))
    scale = 1.0 / extent if extent > 1e-12 else 1.0
    move = pycolmap.Sim3d(scale, pycolmap.Rotation3d(rotation), -scale * rotation @ middle)
    reconstruction.transform(move)


def _frame(up: Float[np.ndarray, "3"], right: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Rotation that brings `up` to +z and what `right` has across it to +x; the identity where either is lost."""
    across = right - up * (right @ up) / max(float(up @ up), 1e-12)
    if min(np.linalg.norm(up), np.linalg.norm(across)) < 1e-3:
        return np.eye(3)
    z, x = up / np.linalg.norm(up), across / np.linalg.norm(across)
    return np.stack([x, np.cross(z, x), z])
