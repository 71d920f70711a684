"""What matching and the pose start know of the images: no nerfstudio types."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from craym_nerfstudio.geometry.alignment import Similarity


@dataclass(frozen=True)
class PosePriors:
    """How far poses are off by what was said of them, per axis; NaN where nothing was said."""

    rotation_sigma_deg: Float[np.ndarray, " cams"]
    translation_sigma: Float[np.ndarray, " cams"]
    """Units of the poses; of `centers` where these are known."""
    centers: Float[np.ndarray, "cams 3"] | None = None
    """Measured positions of the cameras, such as GPS, NaN where there is none; by default those of the poses."""

    def moved(self, similarity: Similarity) -> "PosePriors":
        """The same in another frame."""
        centers = None if self.centers is None else similarity.points(self.centers)
        return PosePriors(self.rotation_sigma_deg, similarity.lengths(self.translation_sigma), centers)


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
    priors: PosePriors | None = None
    is_placed: bool = False
    """Whether the poses are our own, from matches like those of stage 0, so that nobody's exact poses are at stake."""
    is_test: Bool[np.ndarray, " cams"] | None = None
    """Images that are placed with the others and then held out: what the others need must not hang on them."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Images of the data that have no pose or no file, and why."""

    def moved(self, similarity: Similarity) -> "Views":
        """The same in another frame."""
        priors = None if self.priors is None else self.priors.moved(similarity)
        return replace(self, c2w=similarity.poses(self.c2w), priors=priors)
