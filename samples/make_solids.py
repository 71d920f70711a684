"""Write a scene without texture, to measure matching where corners are scarce: smooth solids of one colour each.

Run from the repository root: ``python -m samples.make_solids FOLDER`` (about 10 minutes; the same files each time).
Blender layout, 100 views of 400 px with alpha and exact poses; the shading is the samples' mild light.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from samples import primitives
from samples.analytic_scene import Scene, Solid, rotation_about, write_blender_scene
from samples.primitives import Points
from samples.textures import Colours

VIEW_COUNT, SIZE_PX = 100, 400
SEED = 31
ELEVATION_DEG = (-20.0, 75.0)


def plain(red: float, green: float, blue: float) -> Callable[[Points], Colours]:
    """A texture of one colour, each channel in [0, 1]."""
    return lambda points: np.tile([red, green, blue], (len(points), 1))


def solids() -> Scene:
    """A toy of eight smooth parts, no two sides of it alike."""
    return Scene(
        (
            Solid("body", lambda p: primitives.round_cone(p, 0.58, 0.36, 0.62), plain(0.82, 0.79, 0.72), (0, 0, -0.35)),
            Solid("head", lambda p: primitives.sphere(p, 0.34), plain(0.76, 0.52, 0.40), (0.30, 0.05, 0.62)),
            Solid("nose", lambda p: primitives.sphere(p, 0.11), plain(0.28, 0.30, 0.36), (0.62, 0.10, 0.60)),
            Solid(
                "ear",
                lambda p: primitives.capsule(p, 0.16, 0.09),
                plain(0.62, 0.66, 0.52),
                (0.16, 0.30, 0.92),
                rotation_about((1, 0, 0), -35.0),
            ),
            Solid(
                "arm",
                lambda p: primitives.capsule(p, 0.30, 0.12),
                plain(0.46, 0.56, 0.68),
                (0.18, -0.66, 0.10),
                rotation_about((1, 0.3, 0), 55.0),
            ),
            Solid(
                "ring",
                lambda p: primitives.torus(p, 0.42, 0.10),
                plain(0.70, 0.66, 0.38),
                (-0.42, 0.42, -0.15),
                rotation_about((0.4, 1, 0.2), 50.0),
            ),
            Solid(
                "tail",
                lambda p: primitives.round_cone(p, 0.17, 0.06, 0.55),
                plain(0.72, 0.40, 0.42),
                (-0.45, -0.15, -0.45),
                rotation_about((0, 1, 0.2), -75.0),
            ),
            Solid(
                "foot",
                lambda p: primitives.rounded_box(p, (0.30, 0.17, 0.12), 0.11),
                plain(0.36, 0.40, 0.34),
                (0.42, 0.22, -0.84),
                rotation_about((0, 0, 1), 25.0),
            ),
        ),
        bound_radius=1.4,
    )


def main() -> None:
    """Parse the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--views", type=int, default=VIEW_COUNT)
    parser.add_argument("--size", type=int, default=SIZE_PX, help="width and height of the images in px")
    arguments = parser.parse_args()
    write_blender_scene(
        arguments.folder,
        solids(),
        arguments.views,
        0,
        arguments.size,
        seed=SEED,
        elevation_deg=ELEVATION_DEG,
    )
    # All views are for training; a list of no test views would be refused.
    (arguments.folder / "transforms_test.json").unlink()
    print(f"Wrote {arguments.folder}")


if __name__ == "__main__":
    main()
