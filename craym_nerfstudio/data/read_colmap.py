"""Reads a COLMAP model (binary or text) with its images."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from craym_nerfstudio.data.colmap_model import load_model
from craym_nerfstudio.data.config import MissingImages
from craym_nerfstudio.data.files import clean_name, find_images, without_file
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.data.masks import masks_beside
from craym_nerfstudio.data.validate import checked_poses, checked_sizes
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.axes import flip_pose_axes
from craym_nerfstudio.images import read_header

_PARAMETERS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 d4 d5 d6",
    "SIMPLE_RADIAL_FISHEYE": "f cx cy k1",
    "RADIAL_FISHEYE": "f cx cy k1 k2",
    "OPENCV_FISHEYE": "fx fy cx cy k1 k2 k3 k4",
}
"""Camera models that nerfstudio's rays can follow, with COLMAP's order of their parameters."""
_DENOMINATOR = ("d4", "d5", "d6")
"""Of OpenCV's rational model, which is supported where they are zero."""


def read_poses(model: Path) -> tuple[list[str], Float[np.ndarray, "cams 3 4"]]:
    """Image names and OpenGL camera-to-world poses in the model's world; the images themselves need not exist."""
    images = _registered(load_model(model), model)
    return [clean_name(image.name) for image in images], _poses(images, model)


def read_colmap(folder: Path, model: Path, images_in: Path | None = None, missing: MissingImages = "skip") -> Frames:
    """The registered images of a model, sorted by name; masks are looked for in `masks/`.

    Files are looked for in `images_in`, by default in `images/`.

    Raises:
        InputError: an unreadable model, an unsupported camera model, or images that are missing or of another size.
    """
    reconstruction = load_model(model)
    images = _registered(reconstruction, model)
    root, prefix = (folder, "images/") if images_in is None else (images_in, "")
    listed = [clean_name(image.name) for image in images]
    paths, kept = find_images(root, [prefix + name for name in listed], model, missing)
    images = [images[number] for number in kept]
    cameras = [reconstruction.cameras[image.camera_id] for image in images]
    parameters = [_parameters(camera, model) for camera in cameras]
    declared = [(camera.width, camera.height) for camera in cameras]
    sizes = checked_sizes(declared, [read_header(path) for path in paths], paths, model)
    frames = Frames(
        layout="colmap",
        source=model,
        names=[clean_name(image.name) for image in images],
        paths=paths,
        mask_paths=masks_beside(folder, paths, sizes),
        c2w=_poses(images, model),
        intrinsics_px=np.array([_take(values, ("fx", "fy", "cx", "cy")) for values in parameters]),
        size_px=np.array(declared, dtype=np.int64),
        distortion=np.array([_take(values, ("k1", "k2", "k3", "k4", "p1", "p2")) for values in parameters]),
        camera_types=["FISHEYE" if "FISHEYE" in camera.model_name else "PERSPECTIVE" for camera in cameras],
        left_out=without_file(listed, kept),
    )
    return frames.scaled_to(np.array(sizes, dtype=np.int64))


def _registered(reconstruction: Any, model: Path) -> list[Any]:
    images = sorted((image for image in reconstruction.images.values() if image.has_pose), key=lambda image: image.name)
    if not images:
        raise InputError("The COLMAP model has zero registered images", model, "Run the mapper again.")
    return images


def _poses(images: list[Any], model: Path) -> Float[np.ndarray, "cams 3 4"]:
    poses = [image.cam_from_world for image in images]
    matrices = [(pose() if callable(pose) else pose).inverse().matrix() for pose in poses]
    opengl = flip_pose_axes(np.array(matrices, dtype=np.float64))
    return checked_poses(list(opengl), [f'image "{image.name}"' for image in images], model)


def _parameters(camera: Any, model: Path) -> dict[str, float]:
    names = _PARAMETERS.get(camera.model_name, "").split()
    values = dict(zip(names, map(float, camera.params), strict=False))
    if not names or any(values.get(name) for name in _DENOMINATOR):
        raise InputError(
            f"Camera model {camera.model_name} is not supported{' with k4, k5, k6' if names else ''}",
            model,
            f"Undistort the images with `colmap image_undistorter`, or use one of {', '.join(_PARAMETERS)}.",
        )
    if "f" in values:
        values["fx"] = values["fy"] = values["f"]
    return values


def _take(values: dict[str, float], keys: tuple[str, ...]) -> list[float]:
    return [values.get(key, 0.0) for key in keys]
