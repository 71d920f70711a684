"""Pictures of a run for eyes: its surface from around and above, training views before and after, a turntable."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from craym_nerfstudio.cameras.photometric import with_poses
from craym_nerfstudio.console import track
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.lie import compose, inverse, rotation_angle_deg
from craym_nerfstudio.geometry.pinhole import Pinhole
from craym_nerfstudio.pipeline import CraymPipeline
from craym_nerfstudio.rendering.sphere_tracing import SphereTracer
from craym_nerfstudio.storage import write_atomically

_SUPERSAMPLING = 2
_MARGIN = 1.08
_FIELD_OF_VIEW_DEG = 40.0
_FRAMES_PER_SECOND = 30
_COMPARED = (0.5, 0.8, 1.0)
"""Training views that are compared: by the rank of how far their cameras turned."""


@dataclass(frozen=True)
class Ball:
    """What pictures are to show whole, in the unit frame."""

    center: Float[np.ndarray, "3"]
    radius: float

    @classmethod
    def around(cls, points: Float[np.ndarray, "n 3"]) -> "Ball":
        """About the middle of the points' box."""
        center = 0.5 * (points.min(0) + points.max(0))
        return cls(center, float(np.linalg.norm(points - center, axis=-1).max()))


def orbit(elevation_deg: float, azimuth_deg: float, size_px: int, ball: Ball) -> Pinhole:
    """A view of a ball of the unit frame, whose z axis points up."""
    elevation, azimuth = np.deg2rad([elevation_deg, azimuth_deg])
    back = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    half = np.deg2rad(_FIELD_OF_VIEW_DEG / 2)
    distance = _MARGIN * ball.radius / np.sin(half)
    c2w = np.stack([right, np.cross(back, right), back, ball.center + distance * back], axis=-1)
    focal = 0.5 * size_px / np.tan(half)
    return Pinhole(c2w, np.array([focal, focal]), np.array([size_px / 2, size_px / 2]), (size_px, size_px))


def _traced(tracer: SphereTracer, view: Pinhole, fine: int) -> dict[str, Float[np.ndarray, "h w *c"]]:
    """Colours and normals of the first surface, and where there is one, at `fine` x `fine` rays per pixel."""
    width, height = view.size_px
    device = tracer.grid.values.device
    y, x = np.meshgrid(np.arange(height * fine), np.arange(width * fine), indexing="ij")
    pixels = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / fine
    towards = torch.from_numpy(view.rays(pixels)).float().to(device)
    start = torch.from_numpy(view.c2w[:, 3]).float().to(device).expand_as(towards)
    hits = tracer.trace(start, towards)
    shape = (height * fine, width * fine)
    return {
        "hit": hits.hit.cpu().numpy().reshape(shape),
        "rgb": hits.rgb.cpu().numpy().reshape(*shape, 3),
        "normal": hits.normal.cpu().numpy().reshape(*shape, 3),
    }


def _bytes(tile: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A supersampled tile, averaged."""
    height, width = (side // _SUPERSAMPLING for side in tile.shape[:2])
    mean = tile.reshape(height, _SUPERSAMPLING, width, _SUPERSAMPLING, 3).mean((1, 3))
    return np.round(mean.clip(0.0, 1.0) * 255).astype(np.uint8)


def draw_surface(tracer: SphereTracer, ball: Ball, path: Path, tile_px: int = 320) -> None:
    """Write a PNG of the surface from four sides and from above: its colours, and below them its lit shape."""
    columns = []
    for elevation, azimuth in ((20, 30), (20, 120), (20, 210), (20, 300), (85, 30)):
        view = orbit(elevation, azimuth, tile_px, ball)
        seen = _traced(tracer, view, _SUPERSAMPLING)
        light = 0.25 + 0.7 * np.maximum(seen["normal"] @ view.c2w[:, 2], 0.0)
        shown = seen["hit"][..., None]
        tiles = [np.where(shown, part, 1.0) for part in (seen["rgb"], light[..., None].repeat(3, -1))]
        columns.append(np.concatenate([_bytes(tile) for tile in tiles]))
    _save_png(np.concatenate(columns, axis=1), path)


def _save_png(picture: UInt8[np.ndarray, "h w 3"], path: Path) -> None:
    from PIL import Image

    write_atomically(path, lambda file: Image.fromarray(picture).save(file, format="PNG", optimize=True))


def before_and_after(pipeline: CraymPipeline, folder: Path) -> list[Path]:
    """Write NAME_photo.png, NAME_before.png and NAME_after.png of some training views; returns the photos' paths.

    Before is what the scene looks like from the pose as it was given, after from the refined one.

    Raises:
        InputError: a file cannot be written.
    """
    refined, given = pipeline.refined_c2w().double(), pipeline.given_c2w().double()
    model, was_training = pipeline.craym_model, pipeline.training
    pipeline.eval()
    given = model.camera_optimizer.drift_undone().inverse().poses(given)
    turned = rotation_angle_deg(compose(inverse(given), refined)[..., :3])
    order = turned.argsort()
    chosen = sorted({int(order[round(rank * (len(order) - 1))]) for rank in _COMPARED})
    dataset = pipeline.datamanager.train_dataset
    written = []
    for number in chosen:
        stem = f"{number:04d}"
        photo = dataset.get_image_float32(number).numpy()
        parts = {"photo": photo[..., :3]}
        for kind, poses in (("before", given), ("after", refined)):
            camera = with_poses(dataset.cameras[number : number + 1], poses[number : number + 1])
            parts[kind] = model.get_outputs_for_camera(camera)["rgb"].cpu().numpy()
        for kind, picture in parts.items():
            _save_png(np.round(picture.clip(0.0, 1.0) * 255).astype(np.uint8), folder / f"{stem}_{kind}.png")
        written.append(folder / f"{stem}_photo.png")
    pipeline.train(was_training)
    return written


def write_turntable(
    tracer: SphereTracer, ball: Ball, path: Path, size_px: int = 480, frames: int = 90, elevation_deg: float = 25.0
) -> None:
    """Write an MP4 (H.264) that goes round the surface once.

    Raises:
        InputError: this machine's PyAV cannot encode H.264, or the file cannot be written.
    """
    import av

    try:
        av.codec.Codec("libx264", "w")
    except (ValueError, av.error.FFmpegError) as error:
        remedy = "Install PyAV with libx264, or name the parts to export without video."
        raise InputError("No encoder for MP4", path, remedy) from error

    def write(file) -> None:
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=_FRAMES_PER_SECOND, options={"crf": "18"})
            stream.width = stream.height = size_px
            stream.pix_fmt = "yuv420p"
            for picture in _turn(tracer, ball, size_px, frames, elevation_deg):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())

    write_atomically(path, write)


def _turn(
    tracer: SphereTracer, ball: Ball, size_px: int, frames: int, elevation_deg: float
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    for number in track(range(frames), "Turntable"):
        seen = _traced(tracer, orbit(elevation_deg, 360.0 * number / frames, size_px, ball), 1)
        yield np.round(np.where(seen["hit"][..., None], seen["rgb"], 1.0).clip(0.0, 1.0) * 255).astype(np.uint8)
