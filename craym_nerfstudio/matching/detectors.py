"""Keypoints, descriptors and their matching: RootSIFT, and ALIKED with LightGlue.

Detectors place the first pixel's centre at 0; it is moved to 0.5 here, where keypoints leave them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Float32, Int

from craym_nerfstudio.matching.crop import object_box
from craym_nerfstudio.matching.images import Picture
from craym_nerfstudio.matching.patches import Patch
from craym_nerfstudio.matching.verify import LEAST_SHARE, MIN_INLIERS


@dataclass(frozen=True)
class Features:
    """Keypoints of one image. A keypoint with several orientations owns several descriptors."""

    keypoints: Float32[np.ndarray, "n 2"]
    """(x, y) px, first pixel's centre at 0.5; all different."""
    keypoint_of: Int[np.ndarray, " d"]
    """Keypoint that each descriptor belongs to."""
    descriptors: np.ndarray
    """[d, channels], in the detector's own dtype."""
    size_px: Int[np.ndarray, " 2"]
    """Width, height of the image."""


@dataclass(frozen=True)
class Putative:
    """Unverified matches between two images, each keypoint at most once, the best first."""

    keypoints: Int[np.ndarray, "n 2"]
    """Keypoint numbers in the two images."""
    score: Float32[np.ndarray, " n"]
    """In (0, 1], higher is better."""
    strict: np.ndarray
    """[n] bool: trustworthy enough to estimate geometry from; the others only join if they fit it."""


MOST_TURNED_DEG = 110.0
"""Between cameras that look at an object from opposite sides: what matches there are look-alikes. Of 64 pairs of a Lego
model that ALIKED finds alike the right ones are turned by 85 degrees at most, by rough poses, the wrong ones by 140."""


class Detector(Protocol):
    """What `find_matches` needs of a matcher."""

    name: str
    parallel: bool
    """Whether threads may run it side by side; otherwise it spreads over all cores by itself."""
    settings: str
    """Changes whenever its results could; part of the cache keys."""
    knows_turned: bool
    """Whether it matches images that are upside down, so that a large turn does not speak against a pair."""
    patch: Patch
    """By which keypoints of its verified matches go where their pixels agree."""
    least_inliers: int
    least_share: float
    """Number and share of a pair's strict matches that have to agree before it is verified."""

    def detect(self, picture: Picture) -> Features:
        """Keypoints and descriptors of an image."""
        ...

    def match(self, first: Features, second: Features) -> Putative:
        """Mutual matches of two images."""
        ...


_OCTAVES_PX = 8
_BORDER = 0.12
"""Of the object's longest side: coarse octaves have no keypoints near the border, and smooth outlines need them."""
_CONTRAST = 0.005
"""Half a grey level between neighbouring blurs. Where there is texture, more keypoints than are wanted have more; where
there is little, a grey table or a wall, a limit of 0.02 leaves half or a quarter of them."""
ENLARGED_BELOW_PX = 1000
"""Longest side of images that are enlarged: it yields several times as many keypoints, and more precise ones."""


class Sift:
    """RootSIFT (Arandjelovic and Zisserman 2012) of OpenCV with mutual nearest neighbours and Lowe's ratio test."""

    name = "sift"
    parallel = knows_turned = True
    patch = Patch(blur_px=0.3, radius_px=5, finer=2)
    least_inliers, least_share = MIN_INLIERS, LEAST_SHARE

    def __init__(self, ratio: float = 0.8, loose_ratio: float = 0.9) -> None:
        self.ratio, self.loose_ratio = ratio, loose_ratio
        self.settings = f"sift-4 {ratio} {loose_ratio}"

    def detect(self, picture: Picture) -> Features:
        """The keypoints of highest contrast, 2000 to 4000 by image size; small images are enlarged first."""
        import cv2

        height, width = picture.rgb.shape[:2]
        scale = 2 if max(height, width) <= ENLARGED_BELOW_PX else 1
        # Matching costs the square of the keypoints, and more of them no longer sharpen the poses.
        most = int(np.clip(2000 + 2000 * width * height / 2e6, 2000, 4000))
        corner, size = object_box(picture, _BORDER)
        # Octaves sample the pixels that they would of the whole image.
        corner, end = corner // _OCTAVES_PX * _OCTAVES_PX, corner + size
        grey = cv2.cvtColor(picture.rgb[corner[1] : end[1], corner[0] : end[0]], cv2.COLOR_RGB2GRAY)
        if scale > 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        # Without precise upscaling OpenCV's doubled first octave shifts all keypoints by a quarter of a pixel.
        wanted = most if picture.usable is None else 0
        sift = cv2.SIFT.create(nfeatures=wanted, contrastThreshold=_CONTRAST, enable_precise_upscale=True)
        if picture.usable is None:
            points, descriptors = sift.detectAndCompute(grey, None)  # type: ignore[call-overload]
        else:  # what masks leave out does not count, and takes no descriptors
            points = _usable(sift.detect(grey), picture, corner, scale, most)
            points, descriptors = sift.compute(grey, points)
        if descriptors is None:
            descriptors = np.zeros((0, 128), np.float32)
        xy = _places(points, corner, scale)
        order = np.argsort([-point.response for point in points], kind="stable")[:most]
        # SIFT repeats a position bit by bit for each of its orientations: one keypoint.
        keypoints, keypoint_of = np.unique(xy[order].astype(np.float32), axis=0, return_inverse=True)
        size_px, found = np.array([width, height], np.int32), descriptors[order].astype(np.uint8)
        return Features(keypoints, keypoint_of.reshape(-1).astype(np.int32), found, size_px)

    def match(self, first: Features, second: Features) -> Putative:
        """Mutual nearest neighbours whose distance is below `loose_ratio` of the second nearest one's."""
        if min(len(first.descriptors), len(second.descriptors)) < 2:
            return best_per_keypoint(np.zeros((0, 2), np.int64), np.zeros(0), np.zeros(0, bool))
        likeness = _root_sift(first.descriptors) @ _root_sift(second.descriptors).T
        best, nearest = likeness.max(dim=1)
        rows = torch.arange(len(nearest))
        mutual = likeness.amax(dim=0)[nearest] == best
        likeness[rows, nearest] = -1.0
        # Unit vectors: squared distance is 2 - 2 likeness. The ratio is taken from both sides.
        row_second, column_second = likeness.amax(dim=1), likeness.amax(dim=0)[nearest]
        runner_up = torch.maximum(row_second, column_second)
        ratio = ((1 - best).clamp_min(0) / (1 - runner_up).clamp_min(1e-6)).sqrt()
        found = (mutual & (ratio < self.loose_ratio)).nonzero()[:, 0]
        pairs = np.stack([first.keypoint_of[found.numpy()], second.keypoint_of[nearest[found].numpy()]], axis=-1)
        ratio_found = ratio[found].numpy()
        return best_per_keypoint(pairs, 1.0 - 0.9 * ratio_found**2, ratio_found < self.ratio)


def _places(points: Sequence[Any], corner: np.ndarray, scale: int) -> Float[np.ndarray, "n 2"]:
    """Where OpenCV's keypoints of an enlarged part lie in the image."""
    return (np.array([point.pt for point in points], dtype=np.float64).reshape(-1, 2) + 0.5) / scale + corner


def _usable(points: Sequence[Any], picture: Picture, corner: np.ndarray, scale: int, most: int) -> list[Any]:
    """The keypoints of highest contrast that masks leave."""
    left = picture.is_usable(_places(points, corner, scale))
    return sorted((points[k] for k in np.flatnonzero(left)), key=lambda point: -point.response)[:most]


def _root_sift(descriptors: np.ndarray) -> Float[torch.Tensor, "d 128"]:
    values = torch.from_numpy(descriptors).float()
    return (values / values.sum(-1, keepdim=True).clamp_min(1.0)).sqrt()


def best_per_keypoint(pairs: Int[np.ndarray, "n 2"], score: Float[np.ndarray, " n"], strict: np.ndarray) -> Putative:
    """Sort by score and drop matches whose keypoint, on either side, has a better one."""
    order = np.argsort(-score, kind="stable")
    pairs, score, strict = pairs[order], score[order], strict[order]
    for side in (0, 1):
        first = np.sort(np.unique(pairs[:, side], return_index=True)[1])
        pairs, score, strict = pairs[first], score[first], strict[first]
    return Putative(pairs.astype(np.int32), score.clip(1e-3, 1.0).astype(np.float32), strict)
