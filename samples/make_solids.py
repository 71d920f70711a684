"""Write a scene without texture, to measure matching where corners are scarce: smooth solids of one colour each.

Run from the repository root: ``python -m samples.make_solids FOLDER`` (about 10 minutes; the same files each time).
Blender layout, 100 views of 400 px with alpha and exact poses; the shading is the samples' mild light.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
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


BOX, BALL, ROD, RING = "box", "ball", "rod", "ring"
PARTS: tuple[tuple[str, tuple[float, ...], int, tuple[float, float, float], tuple[float, float, float], float], ...] = (
    # kind, measures, colour, centre, axis and angle (degrees) of the turn
    (BOX, (0.52, 0.40, 0.30), 0, (0.00, 0.00, -0.42), (0, 0, 1), 18.0),
    (BOX, (0.30, 0.26, 0.24), 1, (0.06, 0.02, 0.10), (0, 0, 1), -25.0),
    (BALL, (0.25,), 2, (0.10, -0.02, 0.48), (0, 0, 1), 0.0),
    (BALL, (0.08,), 3, (0.32, 0.04, 0.50), (0, 0, 1), 0.0),
    (BALL, (0.06,), 3, (0.02, -0.25, 0.55), (0, 0, 1), 0.0),
    (ROD, (0.20, 0.06), 4, (0.00, 0.16, 0.72), (1, 0.4, 0), -40.0),
    (ROD, (0.30, 0.07), 5, (0.34, -0.34, 0.08), (1, 0.3, 0), 60.0),
    (RING, (0.24, 0.06), 6, (-0.42, 0.20, -0.02), (0.4, 1, 0.2), 50.0),
    (BOX, (0.14, 0.10, 0.10), 7, (0.46, 0.36, -0.62), (0, 0, 1), 40.0),
    (BOX, (0.10, 0.16, 0.08), 8, (-0.46, -0.30, -0.30), (1, 0, 1), 30.0),
    (BALL, (0.09,), 9, (0.12, -0.44, -0.34), (0, 0, 1), 0.0),
    (BALL, (0.07,), 9, (-0.14, 0.42, -0.50), (0, 0, 1), 0.0),
)
"""A toy of boxes, balls, rods and a ring: no two sides of it alike."""
COLOURS = (
    *((0.80, 0.77, 0.70), (0.46, 0.56, 0.68), (0.76, 0.52, 0.40), (0.28, 0.30, 0.36), (0.62, 0.66, 0.52)),
    *((0.72, 0.40, 0.42), (0.70, 0.66, 0.38), (0.36, 0.40, 0.34), (0.52, 0.38, 0.50), (0.86, 0.62, 0.34)),
)
SHAPES: dict[str, Callable[..., primitives.Values]] = {
    BOX: lambda points, *half: primitives.rounded_box(points, half, 0.04),
    BALL: primitives.sphere,
    ROD: primitives.capsule,
    RING: primitives.torus,
}


def solids() -> Scene:
    """All parts, each of one colour."""
    return Scene(
        tuple(
            Solid(kind, partial(_shape, kind, size), plain(*COLOURS[colour]), centre, rotation_about(axis, angle))
            for kind, size, colour, centre, axis, angle in PARTS
        ),
        bound_radius=1.15,
    )


def _shape(kind: str, size: tuple[float, ...], points: Points) -> primitives.Values:
    return SHAPES[kind](points, *size)


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
