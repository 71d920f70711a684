"""What matching and the pose start know of the images: no nerfstudio types."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Views:
    """Images with rough poses; keypoints refer to the image resampled to `size_px`."""

    names: list[str]
    """Unique; file name relative to the data root."""
    paths: list[Path]
    mask_paths: list[Path | None] | None
    c2w: Float[np.ndarray, "cams 3 4"]
    """Rough camera-to-world poses, OpenGL axes, float64."""
    focal_px: Float[np.ndarray, " cams"]
    size_px: Int[np.ndarray, "cams 2"]
    """Width, height."""
    bearings: Callable[[int, np.ndarray], np.ndarray]
    """(image, [n, 2] keypoints (x, y) px) -> [n, 3] unit directions in the camera frame, lens distortion removed."""
    is_perspective: bool = True
    """Whether no lens is a fisheye, so that corrections in the image plane say something."""
