"""Tiny datasets for the tests: a ring of cameras that look at the origin, noise for images."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE_PX = (8, 6)
FOCAL_PX = 10.0


def ring_poses(count: int, radius: float = 4.0, height: float = 1.5) -> np.ndarray:
    """Camera-to-world poses [count, 3, 4], OpenGL axes, z up, looking at the origin."""
    poses = []
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False):
        center = np.array([radius * np.cos(angle), radius * np.sin(angle), height])
        backward = center / np.linalg.norm(center)
        right = np.cross([0.0, 0.0, 1.0], backward)
        right /= np.linalg.norm(right)
        poses.append(np.stack([right, np.cross(backward, right), backward, center], axis=1))
    return np.stack(poses)


def save_image(path: Path, size_px: tuple[int, int] = SIZE_PX, channels: int = 3, seed: int | None = None) -> None:
    """A noise image, by default another one under each name; with four channels its left half is transparent."""
    seed = zlib.crc32("/".join(path.parts[-2:]).encode()) if seed is None else seed
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (size_px[1], size_px[0], channels)).astype(np.uint8)
    if channels == 4:
        pixels[..., 3] = 255
        pixels[:, : size_px[0] // 2, 3] = 0
    Image.fromarray(pixels).save(path)


def frame_entries(poses: np.ndarray, name: str = "images/{:03d}.png") -> list[dict[str, Any]]:
    """Entries of `frames` with 4x4 matrices."""
    last = np.array([[0.0, 0.0, 0.0, 1.0]])
    return [
        {"file_path": name.format(number), "transform_matrix": np.concatenate([pose, last]).tolist()}
        for number, pose in enumerate(poses)
    ]


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Write a JSON file; returns its path."""
    path.write_text(json.dumps(content))
    return path


def write_nerfstudio(folder: Path, count: int = 8, **top_level: Any) -> Path:
    """A nerfstudio dataset of `count` images; keyword arguments replace or add top-level keys."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        save_image(folder / f"images/{number:03d}.png", seed=number)
    intrinsics = {"fl_x": FOCAL_PX, "fl_y": FOCAL_PX + 1, "cx": 4.25, "cy": 2.75, "w": SIZE_PX[0], "h": SIZE_PX[1]}
    write_json(folder / "transforms.json", {**intrinsics, "frames": frame_entries(ring_poses(count)), **top_level})
    return folder


def edit_json(path: Path, **top_level: Any) -> dict[str, Any]:
    """Change top-level keys of a JSON file; returns the new content."""
    content = {**json.loads(path.read_text()), **top_level}
    write_json(path, content)
    return content


def write_blender(folder: Path, train: int = 5, test: int = 3) -> Path:
    """A Blender dataset of RGBA images, file names without suffix."""
    for split, count in (("train", train), ("test", test)):
        for number in range(count):
            save_image(folder / f"{split}/r_{number}.png", channels=4, seed=number)
        entries = frame_entries(ring_poses(count, height=1.0 + (split == "test")), f"./{split}/r_{{}}")
        write_json(folder / f"transforms_{split}.json", {"camera_angle_x": 0.8, "frames": entries})
    return folder


def write_colmap(folder: Path, count: int = 4, model: str = "OPENCV", text: bool = False) -> Path:
    """A COLMAP dataset with one shared camera, written by pycolmap."""
    import pycolmap

    parameters = {
        "OPENCV": [FOCAL_PX, FOCAL_PX + 1, 4.25, 2.75, 0.1, -0.02, 0.003, -0.004],
        "SIMPLE_RADIAL": [FOCAL_PX, 4.0, 3.0, 0.05],
        "OPENCV_FISHEYE": [FOCAL_PX, FOCAL_PX, 4.0, 3.0, 0.1, 0.02, 0.0, 0.01],
        "FULL_OPENCV": [FOCAL_PX, FOCAL_PX, 4.0, 3.0, 0.1, -0.02, 0.003, -0.004, 0.05, 0.0, 0.0, 0.0],
        "FOV": [FOCAL_PX, FOCAL_PX, 4.0, 3.0, 0.9],
    }[model]
    reconstruction = pycolmap.Reconstruction()
    camera = pycolmap.Camera(model=model, width=SIZE_PX[0], height=SIZE_PX[1], params=parameters, camera_id=1)
    reconstruction.add_camera_with_trivial_rig(camera)
    for number, pose in enumerate(ring_poses(count)):
        opencv = pose * np.array([1.0, -1.0, -1.0, 1.0])
        rotation = opencv[:, :3].T
        world_to_camera = pycolmap.Rigid3d(np.concatenate([rotation, -rotation @ opencv[:, 3:]], axis=1))
        image = pycolmap.Image(name=f"view_{number}.png", camera_id=1, image_id=number + 1)
        reconstruction.add_image_with_trivial_frame(image, world_to_camera)
        save_image(folder / f"images/view_{number}.png", seed=number)
    target = folder / "sparse/0"
    target.mkdir(parents=True)
    (reconstruction.write_text if text else reconstruction.write_binary)(str(target))
    return folder
