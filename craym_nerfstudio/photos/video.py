"""The sharpest frames of a video, evenly spread, as photos."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from craym_nerfstudio.console import console, progress
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.storage import alone, content_key, file_key, write_folder

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
FRAMES = 120
"""Enough to see a scene from all sides; twice as many take four times as long to match."""
_JUDGED_PX = 320
"""Longest side at which sharpness is judged: above it noise counts as detail."""
_QUALITY = 95
_VERSION = 1


def video_frames(path: Path, cache_dir: Path, frames: int = FRAMES) -> Path:
    """Folder with about `frames` JPEG files of a video, turned upright; decoded once for the same video.

    The video is cut into that many intervals of equal length, each of which gives its sharpest frame.

    Raises:
        InputError: a missing package, no video, one that cannot be decoded, or a cache that cannot be written.
    """
    folder = cache_dir / f"video-{content_key(_VERSION, file_key(path), frames)}"
    with alone(folder):
        if not folder.is_dir():
            write_folder(folder, lambda place: _extract(path, place, frames))
    chosen = len(list(folder.glob("*.jpg")))
    console.print(f"Video: {chosen} frames in {folder}")
    return folder


def _extract(path: Path, folder: Path, frames: int) -> None:
    """The sharpest frame of every interval, numbered by its place in the video; one pass, one frame kept at a time."""
    best: tuple[float, int, np.ndarray] | None = None
    current = -1
    with progress() as bars:
        total = _count(path)
        bar = bars.add_task("Video frames", total=total)
        for number, rgb in enumerate(_frames(path)):
            bars.advance(bar)
            interval = number * frames // total if total > frames else number
            if interval != current:
                _save(best, folder)
                best, current = None, interval
            sharpness = sharpness_of(rgb)
            if best is None or sharpness > best[0]:
                best = (sharpness, number, rgb)
    _save(best, folder)


def _save(best: tuple[float, int, np.ndarray] | None, folder: Path) -> None:
    if best is not None:
        Image.fromarray(best[2]).save(folder / f"frame_{best[1]:06d}.jpg", quality=_QUALITY, subsampling=0)


def sharpness_of(rgb: UInt8[np.ndarray, "h w 3"]) -> float:
    """Variance of the Laplacian of the shrunk grey image: motion blur takes it away."""
    grey = Image.fromarray(rgb).convert("L")
    grey.thumbnail((_JUDGED_PX, _JUDGED_PX), Image.Resampling.BOX)
    values: Float[np.ndarray, "h w"] = np.asarray(grey, dtype=np.float64)
    inner = values[1:-1, 1:-1]
    around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
    return float((around - 4.0 * inner).var())


def _open(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise InputError("Reading a video needs PyAV", path, "Run: pip install av") from error
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"Unreadable video ({error.strerror})", path, "Convert it to MP4 (H.264).") from error
    if not container.streams.video:
        container.close()
        raise InputError("No pictures in this video", path, "Give a video file, or a folder of images.")
    return container


def _count(path: Path) -> int:
    """Frames of the video; counted by reading its packets, since headers often lack or guess the number."""
    with _open(path) as container:
        return max(1, sum(1 for packet in container.demux(video=0) if packet.size > 0))


def _frames(path: Path) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """All frames in the order they are shown, turned upright as the file says."""
    import av

    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            for frame in container.decode(stream):
                turns = round(getattr(frame, "rotation", 0) / 90) % 4
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
        except (av.error.FFmpegError, OSError) as error:
            remedy = "Convert it again; what precedes the damage is not used."
            raise InputError(f"The video breaks off ({error.strerror})", path, remedy) from error
