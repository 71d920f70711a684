"""Stage 0's cameras, points and tracks as pycolmap knows them, which COLMAP and its followers read."""

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from craym_nerfstudio.geometry.axes import flip_pose_axes
from craym_nerfstudio.geometry.lie import inverse
from craym_nerfstudio.sfm.result import StageZero
from craym_nerfstudio.stops import load_pycolmap

_PROBE_BYTES = 1 << 20


def write_model(reconstruction: Any, folder: Path) -> None:
    """Write a ``pycolmap.Reconstruction`` as a COLMAP model (binary) into a folder.

    Raises:
        OSError: the disk is full, which pycolmap does not notice: what it wrote is cut off.
    """
    reconstruction.write_binary(str(folder))
    probe = folder / "probe"
    try:
        with probe.open("wb") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)


def make_reconstruction(
    names: Sequence[str],
    c2w: Float[np.ndarray, "cams 3 4"],
    cameras: Sequence[Any],
    stage: StageZero | None = None,
    size_px: Int[np.ndarray, "cams 2"] | None = None,
    colors: UInt8[np.ndarray, "points 3"] | None = None,
) -> Any:
    """A ``pycolmap.Reconstruction`` of posed images, with the points and tracks of stage 0 where it ran.

    Args:
        cameras: a ``pycolmap.Camera`` per image; equal ones become one.
        stage: under the same poses, of the same images.
        size_px: width and height that its keypoints refer to, where the cameras' are others.
    """
    pycolmap = load_pycolmap()

    result = pycolmap.Reconstruction()
    number_of: dict[tuple, int] = {}
    keypoints, first = _keypoints(len(names), cameras, stage, size_px)
    world_to_camera = inverse(torch.from_numpy(flip_pose_axes(c2w))).numpy()
    for number, (name, camera) in enumerate(zip(names, cameras, strict=True)):
        key = (camera.model_name, camera.width, camera.height, *camera.params)
        if key not in number_of:
            number_of[key] = camera.camera_id = len(number_of) + 1
            result.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(name=name, keypoints=keypoints[number], camera_id=number_of[key], image_id=number + 1)
        result.add_image_with_trivial_frame(image, pycolmap.Rigid3d(world_to_camera[number]))
    if stage is not None:
        _add_points(pycolmap, result, stage, first, colors)
        result.update_point_3d_errors()
    return result


def _keypoints(
    images: int, cameras: Sequence[Any], stage: StageZero | None, size_px: Int[np.ndarray, "cams 2"] | None
) -> tuple[list[Float[np.ndarray, "n 2"]], Int[np.ndarray, " rays"]]:
    """Keypoints of every image, in its camera's pixels, and the number of each ray's keypoint within its image."""
    if stage is None:
        return [np.zeros((0, 2))] * images, np.zeros(0, dtype=np.int64)
    ratio = np.ones((images, 2))
    if size_px is not None:
        ratio = np.array([[camera.width, camera.height] for camera in cameras]) / size_px
    order = np.argsort(stage.ray_image, kind="stable")
    counts = np.bincount(stage.ray_image, minlength=images)
    within = np.empty(len(order), dtype=np.int64)
    within[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    keypoints = stage.ray_keypoint_px * ratio[stage.ray_image]
    return np.split(keypoints[order], np.cumsum(counts)[:-1]), within


def _add_points(
    pycolmap: Any, result: Any, stage: StageZero, first: Int[np.ndarray, " rays"], colors: np.ndarray | None
) -> None:
    order = np.argsort(stage.ray_point, kind="stable")
    starts = np.searchsorted(stage.ray_point[order], np.arange(len(stage.points) + 1))
    for point, (start, stop) in enumerate(pairwise(starts)):
        rays = order[start:stop]
        elements = [pycolmap.TrackElement(int(stage.ray_image[ray]) + 1, int(first[ray])) for ray in rays]
        color = np.full(3, 128, dtype=np.uint8) if colors is None else colors[point]
        result.add_point3D(stage.points[point], pycolmap.Track(elements), color)
