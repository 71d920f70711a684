"""What a scene leaves on disk: a folder in Blender (NeRF-synthetic) layout, its mesh, the surface that cameras see."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from samples.cameras import CAMERA_ANGLE_X, dome_cameras, focal_length_px
from samples.primitives import Points
from samples.render import render, trace
from samples.scene import Scene

Faces = Int[np.ndarray, "faces 3"]


@dataclass(frozen=True)
class WrittenScene:
    """Exact cameras made by :func:`write_blender_scene`: ``c2w`` in the order of the frames, focal length in px."""

    train_c2w: Float[np.ndarray, "train 3 4"]
    test_c2w: Float[np.ndarray, "test 3 4"]
    focal_px: float


def split_cameras(
    cameras: Float[np.ndarray, "cams 3 4"], test_count: int, seed: int
) -> tuple[Float[np.ndarray, "train 3 4"], Float[np.ndarray, "test 3 4"]]:
    """Training and test cameras in random order: one test camera from each of ``test_count`` parts of the spiral."""
    random = np.random.default_rng(seed)
    parts = np.array_split(np.arange(len(cameras)), test_count) if test_count else []
    test = np.array([random.choice(part) for part in parts], dtype=int)
    train = np.setdiff1d(np.arange(len(cameras)), test)
    return cameras[random.permutation(train)], cameras[random.permutation(test)]


def write_blender_scene(
    folder: Path,
    scene: Scene,
    train_count: int,
    test_count: int,
    size_px: int,
    *,
    seed: int = 0,
    radius: float = 4.03,
    elevation_deg: tuple[float, float] = (5.0, 80.0),
    samples_per_axis: int = 2,
) -> WrittenScene:
    """Write ``transforms_{train,test}.json`` and RGBA images ``{train,test}/r_N.png`` from a dome, with exact poses."""
    cameras = dome_cameras(train_count + test_count, radius, seed, elevation_deg)
    train_c2w, test_c2w = split_cameras(cameras, test_count, seed)
    focal_px = focal_length_px(size_px)
    for split, c2w in (("train", train_c2w), ("test", test_c2w)):
        write_split(Path(folder), split, scene, c2w, size_px, samples_per_axis)
    return WrittenScene(train_c2w, test_c2w, focal_px)


def write_split(
    folder: Path, split: str, scene: Scene, c2w: Float[np.ndarray, "cams 3 4"], size_px: int, samples_per_axis: int
) -> None:
    """Write one split of the Blender layout: its images and its ``transforms_<split>.json``."""
    from PIL import Image

    (folder / split).mkdir(parents=True, exist_ok=True)
    frames = []
    for index, pose in enumerate(c2w):
        rgba, _, _ = render(scene, pose, focal_length_px(size_px), size_px, size_px, samples_per_axis)
        Image.fromarray(rgba, "RGBA").save(folder / split / f"r_{index}.png", optimize=True)
        matrix = np.vstack([pose, [0.0, 0.0, 0.0, 1.0]])
        frames.append({"file_path": f"./{split}/r_{index}", "transform_matrix": matrix.tolist()})
    content = {"camera_angle_x": CAMERA_ANGLE_X, "frames": frames}
    (folder / f"transforms_{split}.json").write_text(json.dumps(content, indent=1) + "\n")


def extract_mesh(scene: Scene, resolution: int) -> tuple[Points, Faces]:
    """Vertices and faces of the surface: marching cubes on ``resolution``^3 points, then every vertex moved onto it."""
    from skimage.measure import marching_cubes

    axis = np.linspace(-scene.bound_radius, scene.bound_radius, resolution)
    planes = [scene.sdf(np.stack(np.meshgrid([x], axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)) for x in axis]
    volume = np.stack(planes).reshape(resolution, resolution, resolution)
    vertices, faces, _, _ = marching_cubes(volume, 0.0, spacing=(axis[1] - axis[0],) * 3)
    vertices = vertices.astype(np.float64) - scene.bound_radius
    return project_to_surface(scene, vertices), faces.astype(np.int32)


def project_to_surface(scene: Scene, points: Points, steps: int = 4) -> Points:
    """Nearby points moved onto the surface along the normals of their nearest solid."""
    for _ in range(steps):
        points = points - scene.sdf(points)[:, None] * scene.normals(points)
    return points


def sample_mesh(vertices: Points, faces: Faces, count: int, seed: int = 0) -> Points:
    """Points spread uniformly over the faces of a mesh."""
    random = np.random.default_rng(seed)
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    chosen = random.choice(len(faces), size=count, p=area / area.sum())
    first, second = np.sqrt(random.random(count)), random.random(count)
    weights = np.stack([1.0 - first, first * (1.0 - second), first * second], axis=-1)
    return (weights[:, :, None] * corners[chosen]).sum(axis=1)


def visible_surface_points(
    scene: Scene,
    mesh: tuple[Points, Faces],
    cameras: Float[np.ndarray, "cams 3 4"],
    count: int = 50_000,
    camera_angle_x: float = CAMERA_ANGLE_X,
    seed: int = 0,
) -> tuple[Points, Points]:
    """Those of ``count`` points spread over the surface that some square image shows, and their unit normals."""
    points = project_to_surface(scene, sample_mesh(*mesh, count, seed))
    normals = scene.normals(points)
    seen = np.zeros(count, dtype=bool)
    for c2w in cameras:
        hidden = np.flatnonzero(~seen)
        if len(hidden) == 0:
            break
        local = (points[hidden] - c2w[:, 3]) @ c2w[:, :3]
        extent = np.tan(0.5 * camera_angle_x) * -local[:, 2]
        ray = points[hidden] - c2w[:, 3]
        facing = (ray * normals[hidden]).sum(axis=-1) < 0.0
        inside = (np.abs(local[:, :2]) < extent[:, None]).all(axis=-1)
        candidates = hidden[facing & inside]
        distance = np.linalg.norm(points[candidates] - c2w[:, 3], axis=-1)
        directions = (points[candidates] - c2w[:, 3]) / distance[:, None]
        hits = trace(scene, np.broadcast_to(c2w[:, 3], directions.shape), directions)
        seen[candidates[hits.depth > distance - 1e-3]] = True
    return points[seen], normals[seen]


def write_ply(path: Path, vertices: Points, faces: Faces) -> None:
    """Write a triangle mesh as binary little-endian PLY (float32 vertices, int32 indices)."""
    records = np.empty(len(faces), dtype=[("corners", "u1"), ("indices", "<i4", (3,))])
    records["corners"], records["indices"] = 3, faces
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    path.write_bytes(header.encode() + vertices.astype("<f4").tobytes() + records.tobytes())
