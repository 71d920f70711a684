"""Reads the folders of IDR and NeuS: images and masks with projection matrices in an .npz file."""

import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from craym_nerfstudio.data.files import images_in, photos_in
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.data.masks import masks_beside
from craym_nerfstudio.data.validate import check_masks, checked_poses
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.axes import flip_pose_axes
from craym_nerfstudio.images import read_header

_NAMES = ("cameras_sphere.npz", "cameras.npz", "cameras_large.npz")
_LOAD_ERRORS = (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, IndexError, zipfile.BadZipFile)
_MOST_SKEW = 1e-3
"""Of the pixel axes, in focal lengths."""


def find_neus(folder: Path) -> Path | None:
    """The file of projection matrices in a folder; other archives may have its name."""
    paths = [folder / name for name in _NAMES if (folder / name).is_file()]
    return next((path for path in paths if _are_there(path)), None)


def _are_there(path: Path) -> bool:
    try:
        with np.load(path) as arrays:
            return "world_mat_0" in arrays.files
    except _LOAD_ERRORS:
        return path.name == _NAMES[0]  # nothing else is called so


def read_neus(folder: Path, path: Path) -> Frames:
    """The images of a folder in the order of their names, which is that of the matrices, in the frame of ``world_mat``.

    So do masks where they are as many, else they belong to the images whose names they have.

    Raises:
        InputError: an unreadable file, other images than matrices, matrices that are none of a pinhole camera.
    """
    paths = photos_in(folder / "image") or photos_in(folder / "images")
    masks = images_in(folder / "mask") or images_in(folder / "masks")
    try:
        with np.load(path) as arrays:
            count = sum(name.startswith("world_mat_") and name[10:].isdecimal() for name in arrays.files)
            matrices = [np.asarray(arrays[f"world_mat_{number}"], dtype=np.float64)[:3] for number in range(count)]
    except _LOAD_ERRORS as error:
        raise InputError(
            "Unreadable projection matrices", path, "It must hold world_mat_0, world_mat_1, ..."
        ) from error
    if len(paths) != len(matrices) or not paths:
        remedy = "Keep exactly the images that have matrices: they belong together in the order of names."
        raise InputError(f"{len(matrices)} projection matrices for {len(paths)} images", path, remedy)
    names = [image.relative_to(folder).as_posix() for image in paths]
    cameras, c2w = zip(*(_decomposed(matrix, path) for matrix in matrices), strict=True)
    sizes = [read_header(image).size_px for image in paths]
    if len(masks) == len(paths):
        check_masks(masks, sizes)
        mask_paths: list[Path | None] | None = list(masks)
    else:
        mask_paths = masks_beside(folder, paths, sizes)
    return Frames(
        layout="neus",
        source=path,
        names=names,
        paths=paths,
        mask_paths=mask_paths,
        c2w=checked_poses(list(flip_pose_axes(np.array(c2w))), names, path),
        intrinsics_px=np.array(cameras),
        size_px=np.array(sizes, dtype=np.int64),
        distortion=np.zeros((len(paths), 6)),
        camera_types=["PERSPECTIVE"] * len(paths),
    )


def _decomposed(
    matrix: Float[np.ndarray, "3 4"], path: Path
) -> tuple[Float[np.ndarray, "4"], Float[np.ndarray, "3 4"]]:
    """fx, fy, cx, cy and the OpenCV camera-to-world pose of a projection matrix."""
    import cv2

    problem = InputError("A projection matrix is none of a pinhole camera", path, "It must be K [R t], without skew.")
    is_regular = matrix.shape == (3, 4) and np.isfinite(matrix).all()
    sign = np.sign(np.linalg.det(matrix[:, :3])) if is_regular else 0.0
    if sign == 0:
        raise problem
    # Known up to a factor, of either sign.
    camera, rotation, center = cv2.decomposeProjectionMatrix(sign * matrix)[:3]
    camera = camera / camera[2, 2]
    if not np.isfinite(camera).all() or abs(camera[0, 1]) > _MOST_SKEW * camera[0, 0]:
        raise problem
    pose = np.concatenate([rotation.T, center[:3] / center[3]], axis=1)
    return np.array([camera[0, 0], camera[1, 1], *camera[:2, 2]]), pose
