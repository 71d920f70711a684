"""Whose intrinsics count: an image's own before shared ones, for the size they are stated for, and none dropped."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.errors import InputError
from tests.data.tiny_data import frame_entries, ring_poses, write_colmap, write_nerfstudio

ANGLE_RAD = 2 * math.atan(0.5 * 8 / 20.0)
"""Of a focal length of 20 px."""


def lens_of_third(folder: Path, own: dict[str, Any], **shared: Any) -> tuple[list[float], list[float], str]:
    """fx, fy, cx, cy, distortion and kind of an image with values of its own; shared: fl_x 10, fl_y 11."""
    entries = frame_entries(ring_poses(4))
    entries[2].update(own)
    frames = detect_and_read(write_nerfstudio(folder, 4, frames=entries, **shared))
    assert frames.intrinsics_px[1, :2].tolist() == [10, 11]
    return frames.intrinsics_px[2].tolist(), frames.distortion[2].tolist(), frames.camera_types[2]


@pytest.mark.parametrize(
    ("own", "focals"),
    [
        ({"camera_angle_x": ANGLE_RAD}, [20, 22]),
        ({"camera_angle_y": 2 * math.atan(0.5 * 6 / 33.0)}, [30, 33]),
        ({"fl_x": 30.0}, [30, 33]),
        ({"fl_x": 30.0, "camera_angle_x": ANGLE_RAD}, [30, 33]),
        ({"fl_x": None, "fl_y": 22.0}, [20, 22]),
    ],
)
def test_own_focal_lengths_come_before_shared_ones_of_any_form(
    tmp_path: Path, own: dict[str, Any], focals: list[float]
) -> None:
    assert np.allclose(lens_of_third(tmp_path, own, camera_angle_x=0.4)[0][:2], focals)


def test_own_distortion_and_kind_come_before_shared_ones_of_any_form(tmp_path: Path) -> None:
    listed = [0.1, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert lens_of_third(tmp_path, {"k1": 0.2}, distortion_params=listed)[1][0] == 0.2
    assert lens_of_third(tmp_path, {"distortion_params": listed}, k1=0.3, k5=0)[1][0] == 0.1
    assert lens_of_third(tmp_path, {"is_fisheye": True}, camera_model="OPENCV")[2] == "FISHEYE"


def test_images_of_another_size_and_the_same_shape_scale_their_intrinsics(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    frames = detect_and_read(write_nerfstudio(tmp_path, fl_x=40.0, fl_y=44.0, cx=17.0, cy=11.0, w=32, h=24))
    assert frames.intrinsics_px[0].tolist() == [10, 11, 4.25, 2.75] and frames.size_px[0].tolist() == [8, 6]
    assert "8 of 8 images have another size" in capsys.readouterr().out
    # Half of 17 x 13 pixels, rounded down.
    frames = detect_and_read(write_nerfstudio(tmp_path, fl_x=20.0, fl_y=20.0, w=17, h=13))
    assert np.allclose(frames.intrinsics_px[0, :2], [20 * 8 / 17, 20 * 6 / 13])


@pytest.mark.parametrize("center", [(16.0, 12.0), (8.0, 6.0), (0.0, 0.0)])
def test_a_principal_point_on_or_beyond_a_corner_is_refused(tmp_path: Path, center: tuple[float, float]) -> None:
    folder = write_nerfstudio(tmp_path, cx=center[0], cy=center[1], w=None, h=None)
    with pytest.raises(InputError, match="Principal point") as caught:
        detect_and_read(folder)
    assert (f"{center[0] / 4:g} times as large" in str(caught.value)) == (center[0] > 0)


def test_a_principal_point_far_from_the_middle_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    detect_and_read(write_nerfstudio(tmp_path, cx=7.0))
    assert "8 of 8 principal points far from the middle, such as (7, 2.75)" in capsys.readouterr().out
    detect_and_read(write_nerfstudio(tmp_path))
    assert "principal" not in capsys.readouterr().out


def test_the_third_radial_coefficient_of_colmap_is_read_and_a_rational_lens_refused(tmp_path: Path) -> None:
    folder = write_colmap(tmp_path, model="FULL_OPENCV", text=True)
    assert detect_and_read(folder).distortion[0].tolist() == [0.1, -0.02, 0.05, 0.0, 0.003, -0.004]
    cameras = folder / "sparse/0/cameras.txt"
    cameras.write_text(cameras.read_text().rstrip().removesuffix("0") + "0.3\n")
    with pytest.raises(InputError, match="FULL_OPENCV is not supported with k4, k5, k6"):
        detect_and_read(folder)
