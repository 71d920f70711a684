"""Three textured walls of a room corner, seen by a few cameras: small images with exact poses for matching."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from craym_nerfstudio.geometry.lie import so3_exp
from craym_nerfstudio.matching.views import Views

SIZE_PX = (160, 120)
FOCAL_PX = 150.0


def bearings(image: int, keypoints: np.ndarray) -> np.ndarray:
    """Unit OpenGL directions of a pinhole camera with the principal point in the middle."""
    del image
    plane = (np.asarray(keypoints, dtype=np.float64) - np.array(SIZE_PX) / 2) / FOCAL_PX * [1.0, -1.0]
    rays = np.concatenate([plane, -np.ones((len(plane), 1))], axis=1)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def poses(count: int, spread: float = 1.6) -> np.ndarray:
    """True poses [count, 3, 4] on an arc, looking into the corner at the origin."""
    found = []
    for number in np.linspace(-1.0, 1.0, count):
        center = np.array([3.5 - spread * number, 3.5 + spread * number, 2.0 + 0.6 * number**2])
        backward = (center - 0.6) / np.linalg.norm(center - 0.6)
        right = np.cross([0.0, 0.0, 1.0], backward)
        right /= np.linalg.norm(right)
        found.append(np.stack([right, np.cross(backward, right), backward, center], axis=1))
    return np.stack(found)


def _walls() -> np.ndarray:
    """Three smooth random textures [3, 256, 256, 3], 0..1, with structure at several sizes."""
    random = np.random.RandomState(3)
    textures = np.zeros((3, 256, 256, 3))
    for cells, share in ((128, 0.5), (64, 0.6), (24, 0.5)):
        for wall in range(3):
            coarse = Image.fromarray(random.randint(0, 256, (cells, cells, 3)).astype(np.uint8))
            textures[wall] += share * np.asarray(coarse.resize((256, 256), Image.Resampling.BICUBIC)) / 255.0
    return (textures - textures.min()) / (textures.max() - textures.min())


def render(pose: np.ndarray, samples: int = 2) -> np.ndarray:
    """Image [h, w, 3] uint8, each pixel the mean of `samples` x `samples` rays."""
    width, height = SIZE_PX
    step = (np.arange(max(SIZE_PX) * samples) + 0.5) / samples
    x, y = np.meshgrid(step[: width * samples], step[: height * samples])
    rays = bearings(0, np.stack([x.ravel(), y.ravel()], axis=-1)) @ pose[:, :3].T
    # Walls lie in the planes x = 0, y = 0, z = 0; the nearest one ahead is seen.
    distance = np.where(rays < -1e-9, -pose[:, 3] / np.minimum(rays, -1e-9), np.inf)
    wall = distance.argmin(axis=1)
    points = pose[:, 3] + distance.min(axis=1)[:, None] * rays
    first = np.where(wall == 0, points[:, 1], points[:, 0])
    second = np.where(wall == 2, points[:, 1], points[:, 2])
    rows, columns = (np.clip(np.abs(value) / 5.0 * 255, 0, 254.99) for value in (second, first))
    low_row, low_column = rows.astype(int), columns.astype(int)
    part_row, part_column = (rows - low_row)[:, None], (columns - low_column)[:, None]
    walls = _walls()
    upper = walls[wall, low_row, low_column] * (1 - part_column) + walls[wall, low_row, low_column + 1] * part_column
    lower = walls[wall, low_row + 1, low_column] * (1 - part_column)
    lower = lower + walls[wall, low_row + 1, low_column + 1] * part_column
    colors = (upper * (1 - part_row) + lower * part_row).reshape(height, samples, width, samples, 3)
    return (colors.mean(axis=(1, 3)) * 255).round().astype(np.uint8)


def write_views(folder: Path, count: int = 4) -> Views:
    """Images on disk and their views, with true poses."""
    folder.mkdir(parents=True, exist_ok=True)
    true = poses(count)
    paths = []
    for number, pose in enumerate(true):
        paths.append(folder / f"{number:02d}.png")
        Image.fromarray(render(pose)).save(paths[-1])
    return Views(
        names=[path.name for path in paths],
        paths=paths,
        mask_paths=None,
        c2w=true,
        focal_px=np.full(count, FOCAL_PX),
        size_px=np.tile(SIZE_PX, (count, 1)),
        bearings=bearings,
    )


def turned(views: Views, degrees: float, seed: int = 0) -> Views:
    """The views with every rough pose turned by that angle about a random axis through its camera."""
    import torch

    axes = np.random.RandomState(seed).normal(size=(len(views.c2w), 3))
    axes *= np.deg2rad(degrees) / np.linalg.norm(axes, axis=1, keepdims=True)
    rotation = views.c2w[:, :, :3] @ so3_exp(torch.from_numpy(axes)).numpy()
    return replace(views, c2w=np.concatenate([rotation, views.c2w[:, :, 3:]], axis=2))
