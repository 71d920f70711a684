"""Reads LLFF's poses_bounds.npy with its images."""

from pathlib import Path

import numpy as np

from craym_nerfstudio.data.files import images_in
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.data.masks import masks_beside
from craym_nerfstudio.data.validate import checked_poses, checked_sizes
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.images import read_header

LLFF_POSES = "poses_bounds.npy"
_FOLDERS = ("images", "images_2", "images_4", "images_8", ".")


def read_llff(folder: Path) -> Frames:
    """The images of a folder in the order of their names, which is that of the poses.

    Raises:
        InputError: poses of another form or number than the images.
    """
    path = folder / LLFF_POSES
    paths = next((files for name in _FOLDERS if (files := images_in(folder / name))), [])
    try:
        # A 3x5 matrix by rows (axes down, right, backward; centre; height, width, focal length) and two depths.
        matrices = np.load(path).astype(np.float64)[:, :-2].reshape(-1, 3, 5)
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise InputError("Unreadable poses of LLFF", path, "It must hold N x 17 numbers: run imgs2poses.py.") from error
    if len(paths) != len(matrices):
        remedy = "Keep exactly the images that have poses: they belong together in the order of names."
        raise InputError(f"{len(matrices)} poses for {len(paths)} images", path, remedy)
    down, right, backward, center, shape = np.moveaxis(matrices, -1, 0)
    height, width, focal = shape.T
    size = np.stack([width, height], axis=-1).round().astype(np.int64)
    declared = [(int(w), int(h)) for w, h in size]
    names = [image.relative_to(folder).as_posix() for image in paths]
    found = checked_sizes(declared, [read_header(image) for image in paths], paths, path)
    frames = Frames(
        layout="llff",
        source=path,
        names=names,
        paths=paths,
        mask_paths=masks_beside(folder, paths, found),
        c2w=checked_poses(list(np.stack([right, -down, backward, center], axis=-1)), names, path),
        intrinsics_px=np.stack([focal, focal, width / 2, height / 2], axis=-1),
        size_px=size,
        distortion=np.zeros((len(paths), 6)),
        camera_types=["PERSPECTIVE"] * len(paths),
    )
    return frames.scaled_to(np.array(found, dtype=np.int64))
