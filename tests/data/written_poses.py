"""Poses of a ring of cameras, written as every form of text has them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from craym_nerfstudio.geometry.axes import flip_pose_axes
from tests.data.tiny_data import ring_poses, save_image

COUNT = 6
OPENCV = flip_pose_axes(ring_poses(COUNT))
LAST = np.array([0.0, 0.0, 0.0, 1.0])


def words(*values: object) -> str:
    return " ".join(
        f"{value:.12g}" if isinstance(value, float) else str(value) for value in np.concatenate(values).tolist()
    )


def matrix(number: int, rows: int = 3) -> np.ndarray:
    return np.concatenate([OPENCV[number].reshape(-1), LAST])[: 4 * rows]


def tum(number: int) -> np.ndarray:
    return np.concatenate([OPENCV[number, :, 3], Rotation.from_matrix(OPENCV[number, :, :3]).as_quat()])


def world_to_camera(number: int) -> np.ndarray:
    turned = OPENCV[number, :, :3].T
    return np.concatenate([Rotation.from_matrix(turned).as_quat()[[3, 0, 1, 2]], -turned @ OPENCV[number, :, 3]])


FORMS: dict[str, Callable[[int], str]] = {
    "time, position and quaternion": lambda k: words([k / 10], tum(k)),
    "3 x 4 matrix (KITTI)": lambda k: words(matrix(k)),
    "time and 3 x 4 matrix": lambda k: words([float(k)], matrix(k)),
    "4 x 4 matrix": lambda k: words(matrix(k, 4)),
    "time and 4 x 4": lambda k: words([float(k)], matrix(k, 4)),
    "image name, quaternion and": lambda k: f"{k:03d}.png " + words(world_to_camera(k)),
    "focal length .ACE0": lambda k: f"some/where/{k:03d}.png " + words(world_to_camera(k), [10.0, 900]),
    "image name and 3 x 4": lambda k: f"images/{k:03d}.png " + words(matrix(k)),
    "image name and 4 x 4": lambda k: f"./images/{k:03d}.png " + words(matrix(k, 4)),
    "after three numbers": lambda k: f"{k} {k} 0\n" + "\n".join(words(row) for row in matrix(k, 4).reshape(4, 4)),
}


def write_images(folder: Path, pattern: str = "images/{:03d}.png", count: int = COUNT) -> Path:
    for number in range(count):
        save_image(folder / pattern.format(number), seed=number)
    (folder / "intrinsics.txt").write_text("10 11 4.5 2.5")
    return folder
