"""One textured object in several guises, each with one property of real things: what do keypoints make of it?

All have the same texture, cameras and exact poses. `planes` is a block under even light; the others add to it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from samples.analytic_scene import CAMERA_ANGLE_X, Scene, Solid, camera_rays, dome_cameras, focal_length_px, trace
from samples.primitives import Points, Values, capsule, rounded_box, sphere
from samples.render import SUN, shade
from samples.textures import Colours, cells, fractal_noise, noise, palette

SIZE_PX, VIEWS, SEED, DISTANCE = 400, 48, 7, 3.2
_HALF_SIZE, _ROUNDED = (0.62, 0.50, 0.56), 0.02
_INKS = palette("#c8402f", "#e9a13b", "#7a2048", "#f2d15c", "#1f5f8b", "#39a394", "#8fce7f", "#5b4b9a", "#d8d2c4")
_RELIEF, _RELIEF_SIZE = 0.04, 0.16
_GLOSS, _SHININESS = 0.5, 20.0


@dataclass(frozen=True)
class Guise:
    """How the object looks."""

    solids: tuple[Solid, ...]
    samples_per_axis: int = 2
    """Rays of a pixel along either axis: 2 is a picture of twice the size averaged down, 1 one that was not."""
    lit: bool = False
    """Whether a lamp shines and corners are dark, fixed in the world; else colours are the texture's."""
    glossy: bool = False
    """Whether the lamp is mirrored, which moves with the camera."""


def texture(points: Points) -> Colours:
    """Patches of a palette with finer grain."""
    return cells(points, 0.075, _INKS, seed=21) * (0.55 + 0.45 * fractal_noise(points, 0.05, 40))[:, None]


def _block(points: Points) -> Values:
    return rounded_box(points, _HALF_SIZE, _ROUNDED)


def _rough_block(points: Points) -> Values:
    # The slope of the bumps is up to 1.5 of their height over their size, so that distances are no bounds without 0.7.
    return 0.7 * (_block(points) + _RELIEF * noise(points, _RELIEF_SIZE, 60))


def _solid(shape: Callable[[Points], Values], centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Solid:
    # The texture runs through the world, so that no two solids have the same.
    return Solid("part", shape, lambda points: texture(points + np.asarray(centre)), centre)


def _pegs() -> tuple[Solid, ...]:
    """Upright pegs on the block's top and round it, which hide each other and the faces."""
    random = np.random.default_rng(3)
    places = [(x, y, 0.66) for x in (-0.42, -0.14, 0.14, 0.42) for y in (-0.32, 0.0, 0.32)]
    places += [(0.80 * np.cos(a) * 1.05, 0.80 * np.sin(a), -0.34) for a in np.linspace(0.0, 2 * np.pi, 12, False)]
    shifted = (np.array(place) + np.append(random.uniform(-0.05, 0.05, 2), 0.0) for place in places)
    return tuple(_solid(lambda points: capsule(points, 0.14, 0.05), tuple(place.tolist())) for place in shifted)


BLOCK, PEGS = _solid(_block), _pegs()
GUISES = {
    "planes": Guise((BLOCK,)),
    "not averaged": Guise((BLOCK,), samples_per_axis=1),
    "ball": Guise((_solid(lambda points: sphere(points, 0.68)),)),
    "relief": Guise((_solid(_rough_block),)),
    "pegs": Guise((BLOCK, *PEGS)),
    "pegs, shadows": Guise((BLOCK, *PEGS), lit=True),
    "gloss": Guise((BLOCK,), lit=True, glossy=True),
}


def colours(guise: Guise, scene: Scene, points: Points, normals: Points, directions: Points) -> Colours:
    """What a camera sees of surface points along unit directions."""
    shaded = shade(scene, points, normals) if guise.lit else scene.albedo(points)
    if not guise.glossy:
        return shaded
    mirrored = directions - 2.0 * (directions * normals).sum(-1, keepdims=True) * normals
    shine = _GLOSS * np.clip(mirrored @ SUN, 0.0, 1.0) ** _SHININESS
    return np.clip(shaded + shine[:, None], 0.0, 1.0)


def picture(guise: Guise, c2w: np.ndarray, size_px: int) -> np.ndarray:
    """RGBA of one view, 8 bit, straight alpha."""
    scene, n = Scene(guise.solids, bound_radius=1.2), guise.samples_per_axis
    axis = (np.arange(size_px * n) + 0.5) / n
    pixels = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    seen = np.zeros((len(pixels), 4))
    for part in np.array_split(np.arange(len(pixels)), max(1, len(pixels) // 16384)):
        origins, directions = camera_rays(c2w, focal_length_px(size_px), pixels[part], (size_px, size_px))
        hits = trace(scene, origins, directions)
        met = hits.mask
        seen[part[met], :3] = colours(guise, scene, hits.points[met], hits.normals[met], directions[met])
        seen[part, 3] = met
    image = seen.reshape(size_px, n, size_px, n, 4).mean(axis=(1, 3))
    image[..., :3] /= np.maximum(image[..., 3:], 1e-6)
    return np.round(255.0 * image).astype(np.uint8)


def write_guise(folder: Path, name: str, views: int = VIEWS, size_px: int = SIZE_PX) -> Path:
    """A folder in Blender layout, all views for training; one that is there is left alone."""
    if not (folder / "transforms_train.json").is_file():
        (folder / "train").mkdir(parents=True, exist_ok=True)
        frames = []
        for index, c2w in enumerate(dome_cameras(views, DISTANCE, SEED)):
            Image.fromarray(picture(GUISES[name], c2w, size_px)).save(folder / "train" / f"r_{index}.png")
            matrix = np.vstack([c2w, [0.0, 0.0, 0.0, 1.0]]).tolist()
            frames.append({"file_path": f"./train/r_{index}", "transform_matrix": matrix})
        content = {"camera_angle_x": CAMERA_ANGLE_X, "frames": frames}
        (folder / "transforms_train.json").write_text(json.dumps(content, indent=1) + "\n")
    return folder
