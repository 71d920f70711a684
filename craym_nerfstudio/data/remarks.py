"""What is odd about a dataset that can be read: one yellow line for each kind, or an error where it cannot be meant."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from craym_nerfstudio.console import warn
from craym_nerfstudio.data.files import photos_in
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.photos.files import listed, natural
from craym_nerfstudio.photos.lens import PLAUSIBLE_RATIO
from craym_nerfstudio.storage import file_key

_OFF_CENTER = 0.25
"""Distance of a principal point from the middle, in parts of the image, beyond which it is remarkable."""


def remark_unused_images(frames: Frames) -> Frames:
    """Say how many images of the folders that were read have no pose, and count them as left out."""
    used = {path.absolute() for path in frames.paths}
    files = [path for folder in sorted({path.parent for path in used}) for path in photos_in(folder)]
    known = {Path(name).name for name in frames.left_out}
    unused = [path for path in files if path not in used and path.name not in known]
    if unused:
        total = len(used) + len(unused)
        warn(f"{len(used)} of {total} images have a pose; {unused[0]} is one that has none.")
    reason = f"no pose in {frames.source.name}"
    return replace(frames, left_out=frames.left_out | {path.name: reason for path in unused})


def without_copies(frames: Frames) -> Frames:
    """The images but for training images that are a copy of the one before, as converters make of a still video.

    Two cameras that see the very same do not agree with any pair of rough poses. Copies further apart are remarked.
    """
    names, paths = frames.names, frames.paths
    trained = range(len(frames)) if frames.train is None else frames.train.tolist()
    order = sorted(trained, key=lambda index: natural(Path(names[index])))
    size = {index: paths[index].stat().st_size for index in order}
    often = Counter(size.values())
    # Photos hardly ever have the same number of bytes, so that few are read.
    content = {index: file_key(paths[index]) for index in order if often[size[index]] > 1}
    first: dict[str, int] = {}
    copies: dict[int, int] = {}
    apart: dict[int, int] = {}
    for before, index in pairwise([-1, *order]):
        if index in content and (one := first.setdefault(content[index], index)) != index:
            (copies if content[index] == content.get(before) else apart)[index] = one
    if apart:
        index, one = next(iter(apart.items()))
        count = f"{len(apart)} of {len(order)} images repeat another one"
        warn(f"{count}, such as {names[index]} of {names[one]}: of use only if their poses are the same.")
    if not copies:
        return frames
    originals = [names[one] for one in dict.fromkeys(copies.values())]
    warn(f"{listed([names[index] for index in copies])} left out: copies of {listed(originals)}")
    reasons = {names[index]: f"a copy of {names[one]}" for index, one in copies.items()}
    kept = np.setdiff1d(np.arange(len(frames)), list(copies))
    return replace(frames.subset(kept), left_out=frames.left_out | reasons)


def remark_trained_tests(frames: Frames) -> None:
    """Say how many of the test images that the files name are training images too."""
    if frames.train is None or frames.test is None:
        return
    train, test = ({frames.paths[index] for index in part} for part in (frames.train, frames.test))
    if train & test:
        count = f"{len(train & test)} of {len(test)} test images"
        warn(f"{count} are training images too, such as {min(train & test)}: their figures say little.")


def remark_equal_poses(frames: Frames) -> None:
    """Say how many images have the pose of another image."""
    # Blender's test images may be training images.
    _, first = np.unique(list(map(str, frames.paths)), return_index=True)
    _, group, counts = np.unique(frames.c2w[first].reshape(-1, 12), axis=0, return_inverse=True, return_counts=True)
    if counts.max() > 1:
        one, other = first[group.reshape(-1) == counts.argmax()][:2]
        warn(
            f"{counts[counts > 1].sum()} of {len(first)} images have the pose of another one, such as "
            f"{frames.names[one]} and {frames.names[other]}: was tracking lost, or were no poses written?"
        )


def check_focals(frames: Frames) -> None:
    """Whether focal lengths can be those of a lens, in pixels.

    Raises:
        InputError: they cannot: most often they are in millimetres, or in parts of the image.
    """
    longest = frames.size_px.max(1)
    low, high = PLAUSIBLE_RATIO
    ratio = frames.intrinsics_px[:, :2] / longest[:, None]
    is_wide = np.array([kind == "FISHEYE" for kind in frames.camera_types])
    fits = ((ratio > np.where(is_wide, 0.5 * low, low)[:, None]) & (ratio < high)).all(1)
    if fits.all():
        return
    number = int((~fits).argmax())
    focal_px, (width, height) = frames.intrinsics_px[number, 0], frames.size_px[number]
    problem = f"Focal length {focal_px:.6g} px of {frames.names[number]} ({width} x {height} px) is that of no lens"
    remedy = "Give it in pixels of the image"
    if low < focal_px < high:
        remedy += f"; in parts of its width it would be {focal_px * width:.6g} px"
    raise InputError(problem, frames.source, f"{remedy}.")


def remark_centers(frames: Frames) -> None:
    """Say where principal points are far from the middle of their images.

    Raises:
        InputError: a principal point on or beyond the corner of its image.
    """
    relative = frames.intrinsics_px[:, 2:] / frames.size_px
    is_beyond = ((relative <= 0) | (relative >= 1)).all(-1)
    is_off = (np.abs(relative - 0.5) > _OFF_CENTER).any(-1)
    if not is_off.any():
        return
    number = int((is_beyond if is_beyond.any() else is_off).argmax())
    x, y = frames.intrinsics_px[number, 2:]
    width, height = frames.size_px[number]
    where = f"({x:.6g}, {y:.6g}) of {frames.names[number]} ({width} x {height} px)"
    if not is_beyond.any():
        warn(f"{is_off.sum()} of {len(frames)} principal points far from the middle, such as {where}.")
        return
    remedy = "Correct cx and cy"
    if relative[number].min() >= 1:
        times = f"{2 * relative[number].mean():.3g}"
        remedy = f"If the intrinsics are those of images {times} times as large, give w and h of these images too, or "
        remedy += f"divide by {times} what refers to them (cx, cy, fl_x, fl_y)"
    problem = f"Principal point {where} lies on or beyond a corner of the image"
    raise InputError(problem, frames.source, f"{remedy}; without cx and cy the middle is taken.")
