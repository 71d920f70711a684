"""Frames of a tiny synthetic video."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.photos.video import sharpness_of, video_frames
from tests.photos.clips import write_clip

SHARP = (2, 7, 11)


def write_video(path: Path, frames: int = 12) -> Path:
    """Noise, blurred but for the frames in SHARP."""
    noise = Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 96, 3)).astype(np.uint8))
    blurred = noise.filter(ImageFilter.GaussianBlur(2))
    return write_clip(path, [noise if number in SHARP else blurred for number in range(frames)])


def test_frames_are_turned_as_the_file_says(tmp_path: Path) -> None:
    picture = Image.new("RGB", (96, 64), "black")
    picture.paste((255, 255, 255), (0, 0, 48, 32))
    folder = video_frames(write_clip(tmp_path / "clip.mp4", [picture] * 2, 90.0), tmp_path / "cache")
    with Image.open(next(folder.iterdir())) as image:
        shown = np.asarray(image.convert("L"), dtype=np.float64)
    # The upper left corner, turned counter-clockwise, is the lower left one.
    np.testing.assert_allclose(shown, np.rot90(np.asarray(picture.convert("L"))), atol=40)


def test_each_interval_gives_its_sharpest_frame(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4")
    folder = video_frames(video, tmp_path / "cache", frames=3)
    assert [path.name for path in sorted(folder.iterdir())] == [f"frame_{number:06d}.jpg" for number in SHARP]
    with Image.open(folder / "frame_000002.jpg") as image:
        assert image.size == (96, 64)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert video_frames(video, tmp_path / "cache", frames=3) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_short_videos_give_every_frame(tmp_path: Path) -> None:
    assert len(list(video_frames(write_video(tmp_path / "clip.mp4", 5), tmp_path / "cache").iterdir())) == 5


def test_blur_lowers_sharpness() -> None:
    noise = Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8))
    assert sharpness_of(np.asarray(noise)) > 4 * sharpness_of(np.asarray(noise.filter(ImageFilter.GaussianBlur(1))))


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no video at all")
    with pytest.raises(InputError, match=r"Unreadable video.*clip\.mp4.*Convert"):
        video_frames(tmp_path / "clip.mp4", tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").glob("*video*") if path.suffix != ".lock"] == []
