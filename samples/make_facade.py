"""Write an outdoor scene without alpha: a fountain before a house front, seen by twelve photos, under a clouded sky.

Run from the repository root: ``python -m samples.make_facade FOLDER`` (about 10 minutes; the same files each time).
A `transforms.json` with exact poses, photos of 480 x 320 px, and the true depth of every pixel as nerfstudio has it
(``depth/*.png``, along the optical axis in mm, 0 for the sky): what depth and relief are measured by.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from samples.cameras import look_at
from samples.primitives import Points, Values, capsule, cup, rounded_box, sphere, torus
from samples.render import camera_rays, render
from samples.scene import Scene, Solid
from samples.textures import Colours, Palette, cells, colour, fractal_noise, palette, voronoi

PHOTOS, SIZE_PX, FOCAL_PX = 12, (480, 320), 400.0
SEED = 5
SAMPLES_PER_AXIS = 2
SANDSTONE = palette("#c9a877", "#b8925f", "#d8bf94", "#a07f55", "#c2b08c")
PLASTER = palette("#b9a48a", "#c7b497", "#a8947c")
COBBLES = palette("#6d6a66", "#8a8378", "#57544f", "#9b9184", "#77706a")
MARBLE = palette("#8f9a96", "#adb5ac", "#75807f", "#c4c6b8")
SHUTTERS = palette("#3e6650", "#2f5244", "#4f7a5c")
DARK = palette("#2b3038", "#3a414c", "#20242b")
MORTAR = colour("#5c4f41")

Box = tuple[tuple[float, float, float], tuple[float, float, float]]
FRONT: Box = ((0.0, 2.6, 1.9), (4.2, 0.5, 2.2))
GROUND: Box = ((0.0, 1.0, -0.5), (11.0, 9.0, 0.5))
WINDOWS = tuple((x, z) for x in (-3.0, -1.0, 1.0, 3.0) for z in (1.1, 3.0) if (x, z) != (1.0, 1.1))


def facade() -> Scene:
    """The scene: x to the right along the front, y into it, z up, the ground at z = 0."""
    stone, dark, wood = (
        partial(_stones, 0.34, SANDSTONE),
        partial(_speckled, 0.22, DARK),
        partial(_stones, 0.2, SHUTTERS),
    )
    solids = [
        Solid("ground", partial(_box, GROUND[1], 0.02), partial(_stones, 0.3, COBBLES), GROUND[0]),
        Solid("front", partial(_box, FRONT[1], 0.02), partial(_speckled, 0.5, PLASTER), FRONT[0]),
        Solid("cornice", partial(_box, (4.4, 0.22, 0.14), 0.04), stone, (0.0, 2.0, 4.05)),
        Solid("plinth", partial(_box, (4.3, 0.12, 0.28), 0.03), stone, (0.0, 2.05, 0.24)),
        Solid("door", partial(_box, (0.5, 0.08, 1.0), 0.03), wood, (1.0, 2.06, 1.0)),
    ]
    for x in (-4.0, -2.0, 0.0, 2.0, 4.0):
        solids.append(Solid("pilaster", partial(_box, (0.2, 0.14, 1.75), 0.03), stone, (x, 2.0, 2.2)))
    for x, z in WINDOWS:
        solids.append(Solid("sill", partial(_box, (0.55, 0.14, 0.06), 0.02), stone, (x, 2.0, z - 0.6)))
        solids.append(Solid("pane", partial(_box, (0.38, 0.05, 0.52), 0.02), dark, (x, 2.09, z)))
        for side in (-1.0, 1.0):
            centre = (x + 0.56 * side, 2.05, z)
            solids.append(Solid("shutter", partial(_box, (0.17, 0.06, 0.54), 0.02), wood, centre))
    marble = partial(_stones, 0.16, MARBLE)
    solids += [
        Solid("basin", lambda points: cup(points, 1.15, 0.5, 0.14), marble, (-0.4, -0.6, 0.0)),
        Solid("rim", lambda points: torus(points, 1.1, 0.1), marble, (-0.4, -0.6, 0.5)),
        Solid("column", lambda points: capsule(points, 0.55, 0.16), marble, (-0.4, -0.6, 0.7)),
        Solid("bowl", lambda points: torus(points, 0.38, 0.13), marble, (-0.4, -0.6, 1.3)),
        Solid("ball", partial(sphere, radius=0.24), partial(_speckled, 0.12, MARBLE), (-0.4, -0.6, 1.62)),
    ]
    return Scene(tuple(solids), bound_radius=14.0)


def _box(half_size: tuple[float, float, float], radius: float, points: Points) -> Values:
    return rounded_box(points, half_size, radius)


def _stones(size: float, colours: Palette, points: Points) -> Colours:
    """Irregular stones with joints between them."""
    nearest, second, _ = voronoi(points, size, seed=int(1000 * size))
    grain = 0.8 + 0.4 * fractal_noise(points, 0.3 * size, seed=3)
    joint = np.clip((second - nearest) / (0.12 * size), 0.0, 1.0)
    stone = cells(points, size, colours, seed=int(1000 * size)) * grain[:, None]
    return MORTAR * (1.0 - joint)[:, None] + stone * joint[:, None]


def _speckled(size: float, colours: Palette, points: Points) -> Colours:
    return cells(points, size, colours, seed=9) * (0.75 + 0.5 * fractal_noise(points, 0.2 * size, seed=4))[:, None]


def sky(directions: Points) -> Colours:
    """Clouds over a blue that pales towards the horizon, at no distance."""
    clouds = np.clip(2.4 * fractal_noise(directions, 0.35, seed=8) - 0.9, 0.0, 1.0)
    height = np.clip(directions[:, 2:], 0.0, 1.0)
    blue = colour("#b9d3e6") * (1.0 - height) + colour("#4f86c6") * height
    return blue * (1.0 - clouds[:, None]) + colour("#f1f1ee") * clouds[:, None]


def cameras(count: int) -> Float[np.ndarray, "cams 3 4"]:
    """A walk past the front at eye height, as if held by hand."""
    random = np.random.default_rng(SEED)
    poses = []
    for share in np.linspace(-1.0, 1.0, count):
        position = np.array([3.4 * share, -6.0 + 1.0 * share**2, 1.6]) + random.normal(scale=(0.1, 0.15, 0.12))
        target = np.array([0.8 * share, 1.5, 1.6]) + random.normal(scale=0.12, size=3)
        poses.append(look_at(position, target, 1.5 * random.normal()))
    return np.stack(poses)


def write(folder: Path, count: int = PHOTOS, scale: float = 1.0) -> None:
    """Photos, poses and true distances; `scale` multiplies the images' size."""
    scene, (width, height), focal_px = facade(), (round(scale * side) for side in SIZE_PX), scale * FOCAL_PX
    for name in ("images", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    frames = []
    for number, pose in enumerate(cameras(count)):
        rgba, distance, _ = render(scene, pose, focal_px, width, height, SAMPLES_PER_AXIS)
        directions = _directions(pose, focal_px, width, height)
        behind, cosine = sky(directions.reshape(-1, 3)).reshape(height, width, 3), -directions @ pose[:, 2]
        alpha = rgba[..., 3:] / 255.0
        photo = np.round(rgba[..., :3] * alpha + 255.0 * behind * (1.0 - alpha)).astype(np.uint8)
        Image.fromarray(photo).save(folder / "images" / f"{number:02d}.png", optimize=True)
        depth_mm = np.where(np.isfinite(distance), 1000.0 * distance * cosine, 0.0)
        Image.fromarray(depth_mm.round().astype(np.uint16)).save(folder / "depth" / f"{number:02d}.png")
        matrix = np.vstack([pose, [0.0, 0.0, 0.0, 1.0]]).tolist()
        names = {"file_path": f"images/{number:02d}.png", "depth_file_path": f"depth/{number:02d}.png"}
        frames.append({**names, "transform_matrix": matrix})
    intrinsics = {"w": width, "h": height, "fl_x": focal_px, "fl_y": focal_px, "cx": 0.5 * width, "cy": 0.5 * height}
    content = {"camera_model": "OPENCV", **intrinsics, "depth_unit_scale_factor": 0.001, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content, indent=1) + "\n")


def _directions(pose: Float[np.ndarray, "3 4"], focal_px: float, width: int, height: int) -> Float[np.ndarray, "h w 3"]:
    """Unit directions through the pixel centres, in the world."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    _, directions = camera_rays(pose, focal_px, np.stack([x, y], axis=-1).reshape(-1, 2), (width, height))
    return directions.reshape(height, width, 3)


def main() -> None:
    """Parse the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the images' size of 480 x 320 px")
    arguments = parser.parse_args()
    write(arguments.folder, scale=arguments.scale)
    print(f"Wrote {arguments.folder}")


if __name__ == "__main__":
    main()
