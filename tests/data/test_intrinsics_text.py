"""Intrinsics beside poses that are text: as others write them, and what is none or cannot be those of the images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from craym_nerfstudio.data.intrinsics_text import read_intrinsics
from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.errors import InputError
from tests.data.written_poses import COUNT, matrix, tum, words, write_images


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("intrinsics.txt", "1.25 1.67 0.5 0.5", "do not fit images of 8 x 6 px"),
        ("intrinsics.txt", "10 10 8.5 6.5", "do not fit"),
        ("camera.yaml", "Camera1.fx: 10\nCamera1.fy: 10\nCamera2.fx: 12", "Several cameras"),
        ("camera.yaml", 'Camera.type: "KannalaBrandt8"\nCamera.fx: 10', "Lens model KannalaBrandt"),
        ("intrinsics.txt", "10 5 4 3\n10 11 5 3", r"No focal length .*; intrinsics\.txt not understood"),
        ("camera_timestamps.txt", "1305031102\n1305031103", "No focal length"),
        ("camera_trajectory.csv", "1 2 3 4 5 6", "No focal length"),
    ],
)
def test_what_tells_wrong_intrinsics(name: str, text: str, problem: str, tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "intrinsics.txt").unlink()
    (tmp_path / "poses.txt").write_text("\n".join(words(matrix(number)) for number in range(COUNT)))
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=problem):
        detect_and_read(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("intrinsics.txt", "10 11 4 3", [10, 11, 4, 3]),
        ("calib.txt", "10 11 4 3 0.1 0.2 0.01 0.02", [10, 11, 4, 3, 0.1, 0.2, 0, 0, 0.01, 0.02]),
        ("K.txt", "10 0 4\n0 11 3\n0 0 1", [10, 11, 4, 3]),
        ("intrinsics.txt", "10 0 4 0 0 11 3 0 0 0 1 0 0 0 0 1", [10, 11, 4, 3]),
        ("intrinsics.txt", "10. 4 3 0.\n0. 0. 0.\n0.\n1.\n6 8", [10, 10, 4, 3]),
        ("camera_matrix.csv", "10,0,4\n0,11,3\n0,0,1", [10, 11, 4, 3]),
        ("calib.txt", "P0: 10 0 4 0 0 11 3 0 0 0 1 0\nP1: 12 0 4 -3 0 11 3 0 0 0 1 0", [10, 11, 4, 3]),
        ("cam_params.json", '{"camera": {"w": 8, "h": 6, "fx": 10.0, "fy": 11, "cx": 4, "cy": 3}}', [10, 11, 4, 3]),
        (
            "camera.yaml",
            "%YAML:1.0\nCamera.fx: 10\nCamera.fy: 11\nCamera.cx: 4\nCamera.cy: 3\nCamera.k1: 0.1",
            [10, 11, 4, 3, 0.1],
        ),
        (
            "camera_info.yaml",
            "camera_matrix:\n  rows: 3\n  data: [10, 0., 4, 0, 11, 3, 0, 0, 1]\n"
            "distortion_coefficients:\n  data: [0.1, 0.2, 0.01, 0.02, 0.3]",
            [10, 11, 4, 3, 0.1, 0.2, 0.3, 0, 0.01, 0.02],
        ),
        ("calibration.txt", "10", [10, 10, 4, 3]),
        ("intrinsics.txt", "10 11 4 3 8 6", [10, 11, 4, 3]),
        ("intrinsics.yaml", "width: 8\nheight: 6\ncalibration: [10, 11, 4, 3]", [10, 11, 4, 3]),
    ],
)
def test_intrinsics_as_others_write_them(name: str, text: str, values: list[float], tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "intrinsics.txt").unlink()
    (tmp_path / "trajectory.txt").write_text("\n".join(words([number], tum(number)) for number in range(COUNT)))
    (tmp_path / name).write_text(text)
    frames = detect_and_read(tmp_path)
    padded = np.array([*values, *[0.0] * (10 - len(values))])
    assert np.allclose(frames.intrinsics_px, padded[:4]), frames.intrinsics_px[0]
    assert np.allclose(frames.distortion, padded[4:])


def test_what_tells_no_intrinsics(tmp_path: Path) -> None:
    path = tmp_path / "calib.txt"
    for text in ("# nothing", "1 2", "a b c d", "1 0 0\n0 1 0\n1 1 1", "-3 0 4\n0 4 1\n0 0 1", "0 0 1 1"):
        path.write_text(text)
        assert read_intrinsics(path) is None, text


def test_poses_without_a_focal_length_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "intrinsics.txt").unlink()
    (tmp_path / "poses.txt").write_text("\n".join(words(matrix(number)) for number in range(COUNT)))
    with pytest.raises(InputError, match="No focal length") as caught:
        detect_and_read(tmp_path)
    assert "intrinsics.txt" in caught.value.remedy
    (tmp_path / "camera_left.txt").write_text("10 10 4 3")
    (tmp_path / "camera_right.txt").write_text("12 12 4 3")
    with pytest.raises(InputError, match=r"Different intrinsics in camera_left\.txt, camera_right\.txt"):
        detect_and_read(tmp_path)
    for name in ("camera_left.txt", "camera_right.txt"):
        (tmp_path / name).unlink()
    for number in range(COUNT):
        exif = Image.Exif()
        exif[ExifTags.IFD.Exif] = {ExifTags.Base.FocalLengthIn35mmFilm: 43}  # film's diagonal: 43.3 mm
        path = tmp_path / f"images/{number:03d}.png"
        Image.open(path).save(path, exif=exif)
    assert np.allclose(detect_and_read(tmp_path).intrinsics_px[:, 0], 10, rtol=0.01)
