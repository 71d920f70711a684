"""Scenes that nothing was tuned on, path-traced: a plant before a wall, shiny tools on a table, a room, drums.

    pip install --no-deps --target BLENDER bpy    # for Python 3.11; nothing else here needs it
    PYTHONPATH=BLENDER python -m benchmarks.path_traced tools DATA/tools
    ns-train craym-lite --data DATA/tools --vis tensorboard craym-data --pose-noise real
    python -m benchmarks.depth --output benchmarks/results/depth.json tools=RUN

Writes photos, a `transforms.json` with exact poses, and true depths along the optical axis in thousandths of the
unit, which `benchmarks.depth` reads. The same pictures each time but for the path tracer's noise; 5 to 20 minutes.
"""

import argparse
import json
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from jaxtyping import Float
from mathutils import Matrix
from PIL import Image

from benchmarks.blender import Capture, Color, Triple, light, material, prepared, sky, solid, true_depth
from samples.cameras import look_at

Pose = Float[np.ndarray, "3 4"]

CAPTURES = {
    "plant": Capture(25, (504, 378), 55.0),
    "tools": Capture(49, (800, 600), 26.0),
    "room": Capture(60, (480, 320), 75.0),
    "drums": Capture(100, (400, 400), math.degrees(2 * math.atan(0.5 / 1.389)), alpha=True),
}


def plant(drawn: random.Random, photos: int) -> Iterable[Pose]:
    """Leaves in front of bricks, cameras side by side."""
    sky((0.8, 0.85, 1), 0.4)
    bricks = material("brick", (0.55, 0.25, 0.2), (0.4, 0.2, 0.15), 6, 0.9)
    floor = material("wave", (0.35, 0.22, 0.12), (0.5, 0.34, 0.2), 3, 0.6)
    solid("plane", bricks, smooth=False, size=6, location=(0, 1.6, 1), rotation=(math.pi / 2, 0, 0))
    solid("plane", floor, smooth=False, size=6, location=(0, 0, -0.6))
    solid(
        "cylinder",
        material("noise", (0.6, 0.3, 0.2), (0.35, 0.15, 0.1), 12, 0.6),
        radius=0.28,
        depth=0.5,
        location=(0, 0, -0.35),
    )
    green = material("wave", (0.05, 0.25, 0.04), (0.25, 0.5, 0.1), 4, 0.35)
    for _ in range(46):
        _leaf(green, drawn.uniform(0, 2 * math.pi), drawn.uniform(0.2, 1.3), drawn.uniform(0.35, 0.8))
    blue = material("noise", (0.1, 0.2, 0.6), (0.9, 0.9, 0.8), 5, 0.7)
    solid("cube", blue, smooth=False, size=0.4, location=(0.7, 0.5, -0.4), rotation=(0, 0, 0.5))
    light((-2, -2.5, 3), 220, 2.0)
    side = int(math.sqrt(photos))
    for k in range(photos):
        across, up = k % side / (side - 1), k // side / (side - 1)
        place = (
            -0.55 + 1.1 * across + drawn.uniform(-0.05, 0.05),
            -2.1 + drawn.uniform(-0.08, 0.08),
            0.25 + 0.5 * (up - 0.5) + drawn.uniform(-0.04, 0.04),
        )
        yield _facing(place, (drawn.uniform(-0.1, 0.1), 0.2, drawn.uniform(-0.05, 0.1)), drawn.uniform(-0.04, 0.04))


def _facing(place: Triple, target: Triple, roll: float = 0.0) -> Pose:
    return look_at(np.array(place), np.array(target), math.degrees(roll))


def _leaf(green: Any, turn: float, tilt: float, length: float, parts: int = 10) -> None:
    corners, faces = [], []
    for k in range(parts + 1):
        along = k / parts
        width = 0.11 * math.sin(math.pi * min(along + 0.05, 1)) * length / 0.6
        bend = tilt * along * 1.3
        out, up = length * along * math.sin(bend), length * along * math.cos(bend) + 0.1
        for side in (-1, 0, 1):
            x = out * math.cos(turn) - side * width * math.sin(turn)
            y = out * math.sin(turn) + side * width * math.cos(turn)
            corners.append((x, y, up - (0 if side else 0.02)))
    for k in range(parts):
        faces += [(j, j + 1, j + 4, j + 3) for j in (3 * k, 3 * k + 1)]
    mesh = bpy.data.meshes.new("leaf")
    mesh.from_pydata(corners, [], faces)
    mesh.materials.append(green)
    bpy.context.scene.collection.objects.link(bpy.data.objects.new("leaf", mesh))
    for face in mesh.polygons:
        face.use_smooth = True


def tools(drawn: random.Random, photos: int) -> Iterable[Pose]:
    """Metal and plastic on a brick on a grey table in a black room, as DTU's scans are."""
    sky((0, 0, 0), 0)
    solid("plane", material("noise", (0.42, 0.42, 0.4), (0.5, 0.5, 0.48), 3, 0.7), smooth=False, size=2.4)
    brick = material("noise", (0.55, 0.22, 0.14), (0.35, 0.14, 0.1), 14, 0.9)
    solid("cube", brick, smooth=False, size=1, location=(0, 0, 0.12), scale=(0.7, 0.4, 0.24))
    steel = material("noise", (0.75, 0.75, 0.78), (0.6, 0.6, 0.62), 6, 0.28, 1.0)
    red = material("plain", (0.6, 0.03, 0.02), rough=0.25)
    along = (0, math.pi / 2, 0.3)
    solid("cylinder", steel, radius=0.035, depth=0.62, location=(0, 0.06, 0.28), rotation=along)
    solid("cylinder", red, radius=0.055, depth=0.3, location=(-0.22, -0.02, 0.3), rotation=along)
    solid("torus", steel, major_radius=0.11, minor_radius=0.03, location=(0.2, -0.1, 0.27))
    yellow = material("noise", (0.75, 0.55, 0.05), (0.6, 0.4, 0.05), 9, 0.4)
    solid("monkey", yellow, size=0.32, location=(0.18, 0.12, 0.42), rotation=(-0.5, 0, 0.6))
    solid(
        "uv_sphere", material("plain", (0.9, 0.9, 0.9), rough=0.12, metal=1.0), radius=0.09, location=(-0.1, 0.12, 0.33)
    )
    solid(
        "cone",
        material("wave", (0.1, 0.35, 0.2), (0.8, 0.8, 0.6), 8, 0.5),
        radius1=0.12,
        depth=0.3,
        location=(-0.5, -0.3, 0.15),
    )
    light((1.5, -1, 2.5), 60, 0.5)
    light((-1.8, -1.2, 1.8), 35, 0.5)
    light((0, -2, 2.2), 20)
    for k in range(photos):
        up, around = math.radians(22 + 48 * (k * 0.618 % 1)), math.radians(-90 + 110 * ((k + 0.5) / photos - 0.5))
        flat = 2.6 * math.cos(up)
        yield _facing((flat * math.cos(around), flat * math.sin(around), 0.15 + 2.6 * math.sin(up)), (0, 0, 0.18))


def room(drawn: random.Random, photos: int) -> Iterable[Pose]:
    """Plain walls with pictures, boxes along them, a table; seen from within."""
    sky((1, 1, 1), 0.15)
    walls = (
        ((0, 0, 0), (0, 0, 0), material("wave", (0.3, 0.18, 0.1), (0.45, 0.3, 0.17), 2, 0.4)),
        ((0, 0, 2.6), (math.pi, 0, 0), material("noise", (0.85, 0.85, 0.82), (0.8, 0.8, 0.78), 3)),
        ((0, 2.2, 1.3), (math.pi / 2, 0, 0), material("noise", (0.8, 0.75, 0.6), (0.7, 0.66, 0.55), 4)),
        ((0, -2.2, 1.3), (-math.pi / 2, 0, 0), material("brick", (0.5, 0.3, 0.25), (0.6, 0.4, 0.3), 5)),
        ((2.6, 0, 1.3), (0, -math.pi / 2, 0), material("noise", (0.5, 0.6, 0.7), (0.55, 0.65, 0.72), 2)),
        ((-2.6, 0, 1.3), (0, math.pi / 2, 0), material("noise", (0.75, 0.75, 0.7), (0.7, 0.72, 0.66), 5)),
    )
    for place, turn, made_of in walls:
        solid("plane", made_of, smooth=False, size=5.2, location=place, rotation=turn)

    def any_color() -> Color:
        return drawn.random(), drawn.random(), drawn.random()

    for _ in range(9):
        x, y, side = drawn.uniform(-2.2, 2.2), drawn.choice([-1, 1]) * drawn.uniform(1.5, 2.0), drawn.uniform(0.3, 0.7)
        scale = (side, side * drawn.uniform(0.5, 1), side * 1.5)
        kind = drawn.choice(["noise", "wave", "brick"])
        paint = material(kind, any_color(), any_color(), drawn.uniform(4, 14), drawn.uniform(0.3, 0.9))
        turn = (0, 0, drawn.uniform(0, 1.5))
        solid("cube", paint, smooth=False, scale=scale, size=1, location=(x, y, side / 2 * 1.5), rotation=turn)
    solid(
        "cylinder",
        material("wave", (0.4, 0.25, 0.12), (0.55, 0.36, 0.2), 5, 0.35),
        radius=0.6,
        depth=0.06,
        location=(0.2, 0, 0.7),
    )
    solid("cylinder", material("plain", (0.1, 0.1, 0.1)), radius=0.05, depth=0.7, location=(0.2, 0, 0.35))
    solid("monkey", material("noise", (0.8, 0.3, 0.2), (0.3, 0.1, 0.5), 6, 0.5), size=0.4, location=(0.2, 0, 0.95))
    for k in range(4):
        side = -1 if k < 2 else 1
        place, turn = (2.59 * side, -0.8 + 1.6 * (k % 2), 1.5), (0, -side * math.pi / 2, 0)
        solid(
            "plane",
            material("noise", any_color(), any_color(), 7),
            smooth=False,
            size=0.7,
            location=place,
            rotation=turn,
        )
    light((0, 0, 2.5), 90, 1.5)
    for k in range(photos):
        around, reach = 4 * math.pi * k / photos, 1.25 if k < photos / 2 else 0.9
        x, y = 1.2 * reach * math.cos(around), 0.9 * reach * math.sin(around)
        target = (-0.6 * x, -0.6 * y, 1.0) if k % 3 else (3 * x, 3 * y, 1.1)
        yield _facing((x, y, 1.35 + 0.3 * math.sin(3 * around)), target, drawn.uniform(-0.03, 0.03))


def drums(drawn: random.Random, photos: int) -> Iterable[Pose]:
    """Shiny, thin and plain, with alpha."""
    sky((0.9, 0.95, 1), 0.9)
    chrome = material("plain", (0.85, 0.85, 0.88), rough=0.15, metal=1.0)
    leg = material("plain", (0.8, 0.8, 0.82), rough=0.2, metal=1.0)
    kits = (
        (0, 0, 0.5, 0.45),
        (0.75, 0.3, 0.3, 0.3),
        (-0.75, 0.3, 0.3, 0.35),
        (0.35, -0.7, 0.28, 0.25),
        (-0.45, -0.6, 0.32, 0.28),
    )
    for k, (x, y, radius, height) in enumerate(kits):
        color = (drawn.random(), drawn.random() * 0.4, drawn.random() * 0.5)
        middle = (x, y, 0.1 + 0.15 * (k % 2))
        skin = material("noise", (0.9, 0.88, 0.8), (0.75, 0.72, 0.65), 4, 0.5)
        solid("cylinder", material("plain", color, rough=0.2), radius=radius, depth=height, location=middle)
        solid("cylinder", skin, radius=radius * 0.97, depth=height + 0.02, location=middle)
        rim = (x, y, middle[2] + height / 2)
        solid("torus", chrome, major_radius=radius, minor_radius=0.02, location=rim)
        for around in (0.0, 2.1, 4.2):
            place = (x + radius * math.cos(around), y + radius * math.sin(around), -0.2)
            solid("cylinder", leg, radius=0.015, depth=0.8, location=place)
    brass = material("noise", (0.8, 0.6, 0.2), (0.7, 0.5, 0.15), 3, 0.22, 1.0)
    rod = material("plain", (0.7, 0.7, 0.7), rough=0.3, metal=1.0)
    for x, y in ((0.5, 0.75), (-0.6, 0.8), (0.95, -0.35)):
        solid("cone", brass, radius1=0.35, depth=0.05, location=(x, y, 0.75), rotation=(0.2, 0.15, 0))
        solid("cylinder", rod, radius=0.015, depth=1.35, location=(x, y, 0.07))
    light((2, -2, 4), 250, 2.0)
    light((-3, 1, 3), 120, 2.0)
    for k in range(photos):
        up, around = 0.08 + 0.85 * (k * 0.618034 % 1), 2 * math.pi * k / photos * 7.3
        flat = 4 * math.sqrt(1 - up * up)
        yield _facing((flat * math.cos(around), flat * math.sin(around), 4 * up), (0, 0, 0.15))


def main() -> None:
    """Parse the command line and render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", choices=sorted(CAPTURES))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    capture, folder = CAPTURES[arguments.scene], arguments.folder
    scene = prepared(capture)
    build = {"plant": plant, "tools": tools, "room": room, "drums": drums}[arguments.scene]
    poses = list(build(random.Random(7), capture.photos))
    for name in ("images", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    width, height = capture.size_px
    frames = []
    for k, pose in enumerate(poses):
        scene.camera.matrix_world = Matrix([*pose.tolist(), (0, 0, 0, 1)])
        bpy.context.view_layer.update()
        names = {"file_path": f"images/{k:03d}.png", "depth_file_path": f"depth/{k:03d}.png"}
        scene.render.filepath, scene.cycles.seed = str(folder / names["file_path"]), k
        bpy.ops.render.render(write_still=True)
        Image.fromarray(true_depth(scene, pose, capture)).save(folder / names["depth_file_path"])
        frames.append({**names, "transform_matrix": [*pose.tolist(), [0, 0, 0, 1]]})
    camera = {
        "fl_x": capture.focal_px,
        "fl_y": capture.focal_px,
        "cx": width / 2,
        "cy": height / 2,
        "w": width,
        "h": height,
    }
    (folder / "transforms.json").write_text(json.dumps({**camera, "frames": frames}, indent=1))


if __name__ == "__main__":
    main()
