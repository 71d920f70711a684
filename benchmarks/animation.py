"""The moving picture at the head of the README: rough poses, refined poses, the mesh with its texture.

    python -m benchmarks.animation RUN docs/images/craym.webp

RUN is an exported run of the bundled scene (the README's first two commands). Points are triangulated anew from the
tracks of stage 0 for every picture, under the poses that the picture shows.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial.transform import Rotation, Slerp

from benchmarks.raster import FINE, Painted, Pinhole, draw
from craym_nerfstudio.export.cameras import point_colors
from craym_nerfstudio.export.refined import RefinedCameras, cameras_of_run
from craym_nerfstudio.export.run import load_run

SIZE_PX = (640, 400)
WAIT, MOVE, LOOK, COME, TURN = 8, 22, 8, 12, 34
"""Frames: rough poses, on the way, refined poses, towards the mesh, around it."""
FRAME_MS = 80
GIVEN, REFINED, GREY = np.array([235, 130, 30]), np.array([35, 110, 210]), (90, 98, 108)
FIELD_OF_VIEW_DEG, ELEVATION_DEG, FIRST_DEG, STEP_DEG = 30.0, 24.0, 110.0, 2.2
CORNERS = np.array([[0, 0, 0], [-0.6, -0.45, -1], [0.6, -0.45, -1], [0.6, 0.45, -1], [-0.6, 0.45, -1]])
EDGES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1))


@dataclass(frozen=True)
class Show:
    """What there is to be seen."""

    cameras: RefinedCameras
    colors: np.ndarray
    mesh: Painted
    figures: dict[str, float]

    @property
    def center(self) -> np.ndarray:
        """Of the mesh."""
        return 0.5 * (self.mesh.vertices.min(0) + self.mesh.vertices.max(0))

    @property
    def reach(self) -> float:
        """How far cameras stand from it."""
        return float(np.median(np.linalg.norm(self.cameras.frames.c2w[:, :, 3] - self.center, axis=-1)))

    def poses(self, share: float) -> np.ndarray:
        """From the given ones (0) to the refined (1)."""
        given, refined = self.cameras.given_c2w, self.cameras.frames.c2w
        turned = [
            Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([a[:, :3], b[:, :3]])))(share).as_matrix()
            for a, b in zip(given, refined, strict=True)
        ]
        center = (1.0 - share) * given[:, :, 3] + share * refined[:, :, 3]
        return np.concatenate([np.stack(turned), center[..., None]], axis=-1)

    def pictures(self) -> list[Image.Image]:
        """All frames."""
        total = WAIT + MOVE + LOOK + COME + TURN
        return [self.picture(number) for number in range(total)]

    def picture(self, number: int) -> Image.Image:
        """One frame."""
        moved = _smooth((number - WAIT) / MOVE)
        near = _smooth((number - WAIT - MOVE - LOOK) / COME)
        view = self.view(number, near)
        image = np.ones((SIZE_PX[1], SIZE_PX[0], 3))
        if near > 0:
            drawn, _ = draw(self.mesh, view, np.ones(3))
            image = near * drawn + (1.0 - near) * image
        sheet = Image.fromarray(np.round(255 * image).astype(np.uint8)).resize(_times(FINE), Image.Resampling.BICUBIC)
        if near < 1.0:
            self.mark(ImageDraw.Draw(sheet), view, moved, near)
        small = sheet.resize(SIZE_PX, Image.Resampling.LANCZOS)
        self.write(ImageDraw.Draw(small), moved, near)
        return small

    def view(self, number: int, near: float) -> Pinhole:
        """From outside of all cameras to close by."""
        half = np.deg2rad(FIELD_OF_VIEW_DEG / 2)
        extent = 0.5 * float(np.linalg.norm(np.ptp(self.mesh.vertices, axis=0)))
        distance = (1.0 - near) * 1.15 * self.reach / np.sin(half) + near * 0.95 * extent / np.sin(half)
        up, around = np.deg2rad([ELEVATION_DEG, FIRST_DEG + STEP_DEG * number])
        back = np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])
        right = np.array([-np.sin(around), np.cos(around), 0.0])
        target = self.center + (1.0 - near) * 0.35 * self.reach * np.array([0.0, 0.0, 1.0])
        c2w = np.stack([right, np.cross(back, right), back, target + distance * back], axis=-1)
        focal = 0.5 * SIZE_PX[1] / np.tan(half)
        return Pinhole(c2w, (focal, focal), (SIZE_PX[0] / 2, SIZE_PX[1] / 2), SIZE_PX)

    def mark(self, pen: ImageDraw.ImageDraw, view: Pinhole, moved: float, near: float) -> None:
        """Cameras, and the points that their rays meet in."""
        poses, stage = self.poses(moved), self.cameras.stage
        assert stage is not None, "animate a run with stage 0"
        pixels, depth = _projected(stage.under(poses).points, view)
        for k in np.argsort(-depth):
            if depth[k] > 0 and near < 0.5:
                x, y = pixels[k] * FINE
                pen.rectangle((x - 2, y - 2, x + 2, y + 2), fill=tuple(_faded(self.colors[k], 2 * near)))
        color = tuple(_faded((1.0 - moved) * GIVEN + moved * REFINED, near))
        corners = CORNERS * 0.09 * self.reach @ poses[:, :, :3].transpose(0, 2, 1) + poses[:, None, :, 3]
        pixels, depth = _projected(corners.reshape(-1, 3), view)
        for frustum, ahead in zip(pixels.reshape(-1, 5, 2) * FINE, depth.reshape(-1, 5), strict=True):
            for a, b in EDGES if (ahead > 0).all() else ():
                pen.line((*frustum[a], *frustum[b]), fill=color, width=4)

    def write(self, pen: ImageDraw.ImageDraw, moved: float, near: float) -> None:
        """What one sees."""
        off = [round(self.figures[f"pose_rotation_deg{suffix}"], 2) for suffix in ("_before", "")]
        lines = {
            moved <= 0: f"{len(self.cameras.frames)} rough poses, {off[0]:.1f} degrees off",
            0 < moved < 1: "matched rays are brought together",
            moved >= 1: f"refined poses, {off[1]:.2f} degrees off",
            near > 0.3: "and the surface, with a texture from the photos",
        }
        pen.text((14, 10), [text for shown, text in lines.items() if shown][-1], GREY, ImageFont.load_default(19))


def _smooth(share: float) -> float:
    share = min(max(share, 0.0), 1.0)
    return share * share * (3.0 - 2.0 * share)


def _faded(color: np.ndarray, share: float) -> list[int]:
    share = min(max(share, 0.0), 1.0)
    return [round((1.0 - share) * float(part) + share * 255.0) for part in color]


def _times(factor: int) -> tuple[int, int]:
    return SIZE_PX[0] * factor, SIZE_PX[1] * factor


def _projected(points: np.ndarray, view: Pinhole) -> tuple[np.ndarray, np.ndarray]:
    local = (points - view.c2w[:, 3]) @ view.c2w[:, :3]
    depth = -local[:, 2]
    flat = local[:, :2] / np.maximum(depth, 1e-6)[:, None] * view.focal_px * [1.0, -1.0] + view.center_px
    return flat, depth


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of an exported run")
    parser.add_argument("output", type=Path, help="a .webp or .gif file")
    given = parser.parse_args()
    cameras = cameras_of_run(load_run(given.run))
    results = json.loads((given.run / "metrics.json").read_text())["results"]
    show = Show(cameras, point_colors(cameras), Painted.read(given.run / "export" / "mesh.glb"), results)
    first, *others = show.pictures()
    options = {"quality": 72, "method": 4} if given.output.suffix == ".webp" else {"optimize": True}
    first.save(given.output, save_all=True, append_images=others, duration=FRAME_MS, loop=0, **options)


if __name__ == "__main__":
    main()
