"""A coloured ball with photos of it, all of which is known exactly."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import trimesh
from PIL import Image

from craym_nerfstudio.export.photo_views import PhotoView
from craym_nerfstudio.export.seen_surface import SeenSurface

RADIUS = 0.6
SIZE_PX = 96
FOCAL_PX = 140.0


class BallTracer:
    """The first surface of the ball along rays, as `SphereTracer.trace` gives it."""

    def trace(self, origins: torch.Tensor, directions: torch.Tensor) -> Any:
        middle = -(origins * directions).sum(-1)
        squared = RADIUS**2 - (origins.square().sum(-1) - middle**2)
        distance = torch.where(squared > 0, middle - squared.clamp_min(0).sqrt(), torch.inf)
        return SimpleNamespace(distance=distance, hit=squared > 0)


def color_of(points: np.ndarray) -> np.ndarray:
    """Smooth shades with a finer pattern on them."""
    shade = 0.5 + 0.25 * points / RADIUS
    return shade + 0.12 * np.sin(150 * points[..., [1, 2, 0]])


def camera(back: np.ndarray) -> np.ndarray:
    """c2w of a camera on the line from the origin through `back` that looks at the origin."""
    z = back / np.linalg.norm(back)
    x = np.cross([0.3, 0.5, 0.8], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z, back], axis=-1)


def ball_views(folder: Path, gains: np.ndarray) -> list[PhotoView]:
    """One view per gain, spread over the sphere at distance 2; 4 x 4 rays per pixel."""
    count, views = len(gains), []
    height = 1 - (2 * np.arange(count) + 1) / count
    turn = np.pi * (3 - 5**0.5) * np.arange(count)
    ring = np.sqrt(1 - height**2)
    for number, back in enumerate(2.0 * np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=-1)):
        c2w, fine = camera(back), 4
        x, y = np.meshgrid((np.arange(SIZE_PX * fine) + 0.5) / fine, (np.arange(SIZE_PX * fine) + 0.5) / fine)
        local = np.stack([x - SIZE_PX / 2, SIZE_PX / 2 - y, np.full_like(x, -FOCAL_PX)], axis=-1)
        towards = local / np.linalg.norm(local, axis=-1, keepdims=True) @ c2w[:, :3].T
        start = np.broadcast_to(c2w[:, 3], towards.shape).copy()
        distance = BallTracer().trace(torch.from_numpy(start), torch.from_numpy(towards)).distance.numpy()[..., None]
        hit = np.isfinite(distance)
        rgb = color_of(start + np.where(hit, distance, 0.0) * towards) * gains[number]
        rgba = np.concatenate([np.where(hit, rgb, 0.0), hit], axis=-1)
        mean = rgba.reshape(SIZE_PX, fine, SIZE_PX, fine, 4).mean((1, 3))
        mean[..., :3] /= np.maximum(mean[..., 3:], 1e-6)
        path = folder / f"{number}.png"
        Image.fromarray(np.round(mean.clip(0, 1) * 255).astype(np.uint8)).save(path)
        pinhole = np.array([FOCAL_PX, FOCAL_PX, SIZE_PX / 2, SIZE_PX / 2])
        views.append(PhotoView(c2w, pinhole, np.zeros(6), np.array([SIZE_PX, SIZE_PX]), False, path))
    return views


def ball_surface(views: list[PhotoView], subdivisions: int = 4) -> SeenSurface:
    """The ball as a mesh, with what the views see of it."""
    sphere = trimesh.creation.icosphere(subdivisions=subdivisions, radius=RADIUS)
    vertices = np.asarray(sphere.vertices)
    normals = vertices / RADIUS
    seen = np.stack([((vertices - view.center) * normals).sum(-1) < 0 for view in views])
    footprint = np.full(len(vertices), (2.0 - RADIUS) / FOCAL_PX)
    return SeenSurface(vertices, np.asarray(sphere.faces), normals, seen, footprint)
