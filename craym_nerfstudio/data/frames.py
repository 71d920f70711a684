"""What every input layout is read into: one record of all images with their rough poses and intrinsics."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

_SPLIT = ("train", "test")
_PRIORS = ("pose_sigma_deg", "pose_sigma", "measured_centers")
Layout = Literal["nerfstudio", "blender", "colmap", "llff", "text", "neus"]


@dataclass(frozen=True)
class Frames:
    """The images of a dataset, as its files describe them.

    Poses are in the data's frame: that of the file that was read, nothing centred, scaled or turned.
    """

    layout: Layout
    source: Path
    """The file (or COLMAP folder) that the poses came from."""
    names: list[str]
    """Unique; the path relative to the data folder, with forward slashes."""
    paths: list[Path]
    mask_paths: list[Path | None] | None
    """None for an image without mask; None for all where no image has one."""
    c2w: Float[np.ndarray, "cams 3 4"]
    """OpenGL camera axes, float64."""
    intrinsics_px: Float[np.ndarray, "cams 4"]
    """fx, fy, cx, cy; the first pixel's centre is at 0.5."""
    size_px: Int[np.ndarray, "cams 2"]
    """Width and height that the intrinsics refer to."""
    distortion: Float[np.ndarray, "cams 6"]
    """nerfstudio's order k1 k2 k3 k4 p1 p2; for FISHEYE k1..k4 are OpenCV's polynomial in the angle."""
    camera_types: list[str]
    """PERSPECTIVE or FISHEYE, as nerfstudio names them."""
    pose_sigma_deg: Float[np.ndarray, " cams"] | None = None
    """How far the rotations are off per axis, by what the files say; NaN for images of which they say nothing."""
    pose_sigma: Float[np.ndarray, " cams"] | None = None
    """The same of the positions, in units of the data."""
    measured_centers: Float[np.ndarray, "cams 3"] | None = None
    """Positions that were measured apart from the poses (GPS), in the data's frame; NaN where there is none."""
    is_placed: bool = False
    """Whether the poses are our own, from the matches of photos that had none."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Names of images that have no pose or no file, and why."""
    train: Int[np.ndarray, " train"] | None = None
    """Indices of the training images where the files say which they are."""
    test: Int[np.ndarray, " test"] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def scaled_to(self, size_px: Int[np.ndarray, "cams 2"]) -> "Frames":
        """The same cameras for images resampled to `size_px`."""
        ratio = size_px / self.size_px
        return replace(self, size_px=size_px, intrinsics_px=self.intrinsics_px * np.concatenate([ratio, ratio], axis=1))

    def subset(self, indices: Int[np.ndarray, " n"]) -> "Frames":
        """The chosen images, in the order of `indices`; their own split is what is left of it."""
        chosen: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, list):
                chosen[item.name] = [value[index] for index in indices]
            elif isinstance(value, np.ndarray):
                is_split = item.name in _SPLIT
                chosen[item.name] = np.flatnonzero(np.isin(indices, value)) if is_split else value[indices]
        return replace(self, **chosen)


def concatenate(first: Frames, second: Frames) -> Frames:
    """Images of two files of one dataset as one record whose split is (first, second)."""
    joined: dict[str, Any] = {"left_out": first.left_out | second.left_out}
    for item in fields(Frames):
        one, two = getattr(first, item.name), getattr(second, item.name)
        if isinstance(one, list) and isinstance(two, list):
            joined[item.name] = one + two
        elif item.name in _PRIORS:
            joined[item.name] = _joined_priors((one, len(first)), (two, len(second)))
        elif isinstance(one, np.ndarray) and item.name not in _SPLIT:
            joined[item.name] = np.concatenate([one, two])
    split = np.arange(len(first) + len(second))
    masks = [frames.mask_paths or [None] * len(frames) for frames in (first, second)]
    joined["mask_paths"] = masks[0] + masks[1] if first.mask_paths or second.mask_paths else None
    return replace(first, **joined, train=split[: len(first)], test=split[len(first) :])


def _joined_priors(*parts: tuple[np.ndarray | None, int]) -> np.ndarray | None:
    """What files say of so many images each, NaN for those of a file that says nothing; None where none says it."""
    known = [values for values, _ in parts if values is not None]
    if not known:
        return None
    unknown = (np.full((count, *known[0].shape[1:]), np.nan) for _, count in parts)
    return np.concatenate(
        [none if values is None else values for (values, _), none in zip(parts, unknown, strict=True)]
    )
