"""Make ``samples/still_life``: images with exact poses, the exact mesh, and the surface points that cameras see.

Run from the repository root: ``python -m samples.make_still_life`` (about 10 minutes; the same files each time).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from samples.analytic_scene import (
    Scene,
    dome_cameras,
    extract_mesh,
    focal_length_px,
    look_at,
    render,
    split_cameras,
    still_life,
    visible_surface_points,
    write_ply,
    write_split,
)

TRAIN_COUNT, TEST_COUNT, SIZE_PX = 80, 20, 200
ELEVATION_DEG = (-3.0, 80.0)
SEED = 20
SAMPLES_PER_AXIS = 3
MESH_RESOLUTION = 108
POINT_COUNT = 64_000

README = """# still_life

On a terrazzo board: a tea box, a ring that leans on it, a ball, a painted peg, and a book that carries a mug with a
crayon. {train} training and {test} test views of {size}x{size} px (RGBA, straight alpha) in Blender layout, ray-traced
from one analytic signed distance function, so poses, mesh and points are exact.

| file | content |
|---|---|
| `transforms_{{train,test}}.json` | field of view, camera-to-world matrices (OpenGL axes, world z up) |
| `train/`, `test/` | the images |
| `mesh.ply` | triangles of the whole surface in world units ({vertices} vertices, each on the surface) |
| `visible_points.npz` | `points`, `normals` (float32, float16): surface points that at least one training view sees |
| `LICENSE.txt` | CC0 1.0 |

Made by `python -m samples.make_still_life` from the repository root (the scene: `samples/still_life_solids.py`).
"""

LICENSE = """The files in this folder are dedicated to the public domain under
CC0 1.0 Universal (https://creativecommons.org/publicdomain/zero/1.0/).

To the extent possible under law, the authors of craym_nerfstudio have waived all
copyright and related or neighboring rights to them. The lettering is set in
Pillow's built-in font Aileron (Sora Sagano, CC0 1.0).
"""


def write_still_life(folder: Path) -> None:
    """Write the whole sample folder."""
    scene = still_life()
    cameras = dome_cameras(TRAIN_COUNT + TEST_COUNT, seed=SEED, elevation_deg=ELEVATION_DEG)
    train_c2w, test_c2w = split_cameras(cameras, TEST_COUNT, SEED)
    write_split(folder, "train", scene, train_c2w, SIZE_PX, SAMPLES_PER_AXIS)
    write_split(folder, "test", scene, test_c2w, SIZE_PX, SAMPLES_PER_AXIS)
    write_geometry(folder, scene, train_c2w)


def write_geometry(folder: Path, scene: Scene, train_c2w: np.ndarray) -> None:
    """Write mesh, visible points, README and licence."""
    mesh = extract_mesh(scene, MESH_RESOLUTION)
    write_ply(folder / "mesh.ply", *mesh)
    dense_mesh = extract_mesh(scene, 2 * MESH_RESOLUTION)
    points, normals = visible_surface_points(scene, dense_mesh, train_c2w, POINT_COUNT)
    np.savez_compressed(
        folder / "visible_points.npz", points=points.astype(np.float32), normals=normals.astype(np.float16)
    )
    text = README.format(train=TRAIN_COUNT, test=TEST_COUNT, size=SIZE_PX, vertices=len(mesh[0]))
    (folder / "README.md").write_text(text)
    (folder / "LICENSE.txt").write_text(LICENSE)


def write_picture(path: Path, width: int = 800, height: int = 600) -> None:
    """One large view on white for the project's README."""
    elevation, azimuth = np.deg2rad(24.0), np.deg2rad(-72.0)
    heading = [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    c2w = look_at(4.6 * np.array(heading), np.array([0.02, 0.0, -0.05]))
    rgba, _, _ = render(still_life(), c2w, 1.68 * focal_length_px(height), width, height, samples_per_axis=4)
    image = Image.fromarray(rgba, "RGBA")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


def main() -> None:
    """Parse the command line and write the folder, or the picture alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "still_life")
    parser.add_argument("--picture", type=Path, help="write one large view to this PNG instead")
    arguments = parser.parse_args()
    if arguments.picture:
        write_picture(arguments.picture)
    else:
        write_still_life(arguments.output)
        print(f"Wrote {arguments.output}")


if __name__ == "__main__":
    main()
