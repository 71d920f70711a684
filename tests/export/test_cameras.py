"""Refined cameras: the frame they are written in, and the files."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from craym_nerfstudio.data.dataparser import CraymDataParserConfig, detect_and_read
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.data.read_colmap import read_poses
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.export.cameras import RefinedCameras, write_colmap, write_corrections, write_transforms
from craym_nerfstudio.geometry.alignment import Similarity, undrift
from craym_nerfstudio.geometry.lie import compose, se3_exp
from tests.data.tiny_data import ring_poses, write_blender, write_nerfstudio
from tests.data.tiny_data import write_colmap as write_colmap_data

NONE_FIXED = torch.zeros(8, dtype=torch.bool)


def poses() -> torch.Tensor:
    return torch.from_numpy(ring_poses(8))


def drift() -> Similarity:
    """What a run may do to its whole frame."""
    turn = se3_exp(torch.tensor([0.0, 0, 0, 0.1, -0.2, 0.05], dtype=torch.float64))[:, :3]
    return Similarity(torch.tensor(1.2).double(), turn, torch.tensor([0.3, -0.1, 0.2]).double())


def test_drift_is_undone_despite_cameras_that_were_really_wrong() -> None:
    given, moved = poses(), drift().poses(poses())
    moved[:2] = compose(moved[:2], se3_exp(torch.tensor([0.5, 0.2, 0.1, 0.3, 0.0, 0.1], dtype=torch.float64)))
    back = undrift(moved, given, NONE_FIXED)
    torch.testing.assert_close(back.poses(moved)[2:], given[2:], rtol=0, atol=1e-6)
    assert (back.poses(moved)[0] - given[0]).abs().max() > 0.1


def test_two_fixed_cameras_leave_no_freedom() -> None:
    fixed = NONE_FIXED.clone()
    fixed[:2] = True
    moved = drift().poses(poses())
    moved[:2] = poses()[:2]
    torch.testing.assert_close(undrift(moved, poses(), fixed).poses(moved), moved)


def test_one_fixed_camera_leaves_the_scale() -> None:
    fixed = NONE_FIXED.clone()
    fixed[3] = True
    given = poses()
    moved = given.clone()
    moved[:, :, 3] = given[3, :, 3] + 1.25 * (given[:, :, 3] - given[3, :, 3])
    torch.testing.assert_close(undrift(moved, given, fixed).poses(moved), given)


def cameras_of(frames: Frames, test: Frames | None = None) -> RefinedCameras:
    """Cameras that were all moved by a known motion in their own frame, but the first, which is fixed."""
    motion = se3_exp(torch.tensor([0.03, 0.0, 0.04, 0.0, np.deg2rad(2.0), 0.0], dtype=torch.float64))
    refined = compose(torch.from_numpy(frames.c2w), motion).numpy()
    fixed = np.zeros(len(frames), dtype=bool)
    fixed[0], refined[0] = True, frames.c2w[0]
    return RefinedCameras(replace(frames, c2w=refined), frames.c2w, fixed, test or frames.subset(np.arange(0)))


@pytest.mark.parametrize("paths", ["absolute", "relative"])
def test_transforms_are_data_again(tmp_path: Path, paths: str) -> None:
    lens = {"k1": 0.1, "k2": -0.02, "p1": 0.003, "p2": -0.004, "camera_model": "OPENCV", "applied_scale": 0.5}
    frames = detect_and_read(write_nerfstudio(tmp_path / "data", **lens))
    cameras = cameras_of(frames)
    target = tmp_path / "out" / "transforms.json"
    write_transforms(cameras, target, paths)
    content = json.loads(target.read_text())
    assert content["applied_scale"] == 0.5 and content["camera_model"] == "OPENCV" and content["k1"] == 0.1
    assert (content["frames"][0]["file_path"][:3] == "../") == (paths == "relative")
    again = detect_and_read(target)
    np.testing.assert_allclose(again.c2w, cameras.frames.c2w, atol=1e-12)
    np.testing.assert_array_equal(again.intrinsics_px, frames.intrinsics_px)
    np.testing.assert_array_equal(again.distortion, frames.distortion)
    assert [path.resolve() for path in again.paths] == [path.resolve() for path in frames.paths]


def test_nerfstudios_own_parser_reads_them(tmp_path: Path) -> None:
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    frames = detect_and_read(write_nerfstudio(tmp_path / "data"))
    write_transforms(cameras_of(frames), tmp_path / "out" / "transforms.json")
    config = NerfstudioDataParserConfig(
        data=tmp_path / "out", eval_mode="all", center_method="none", orientation_method="none", auto_scale_poses=False
    )
    outputs = config.setup().get_dataparser_outputs("train")
    assert [path.resolve() for path in outputs.image_filenames] == [path.resolve() for path in frames.paths]
    np.testing.assert_allclose(outputs.cameras.camera_to_worlds, cameras_of(frames).frames.c2w, atol=1e-6)


def test_test_images_keep_their_poses_and_their_part(tmp_path: Path) -> None:
    write_blender(tmp_path / "data")
    frames = detect_and_read(tmp_path / "data")
    train, test = frames.subset(frames.train), frames.subset(frames.test)
    write_transforms(cameras_of(train, test), tmp_path / "transforms.json", include_test=True)
    outputs = CraymDataParserConfig(data=tmp_path / "transforms.json").setup().get_dataparser_outputs("test")
    assert len(outputs.image_filenames) == 3
    again = detect_and_read(tmp_path / "transforms.json")
    np.testing.assert_allclose(again.subset(again.test).c2w, test.c2w, atol=1e-12)


@pytest.mark.parametrize(
    ("model", "expected"), [("OPENCV", "OPENCV"), ("SIMPLE_RADIAL", "OPENCV"), ("OPENCV_FISHEYE", "OPENCV_FISHEYE")]
)
def test_colmap_model_is_read_back(tmp_path: Path, model: str, expected: str) -> None:
    frames = detect_and_read(write_colmap_data(tmp_path / "data", model=model))
    cameras = cameras_of(frames)
    write_colmap(cameras, tmp_path / "out" / "sparse" / "0")
    names, c2w = read_poses(tmp_path / "out" / "sparse" / "0")
    assert names == frames.names
    np.testing.assert_allclose(c2w, cameras.frames.c2w, atol=1e-12)
    lines = (tmp_path / "out" / "sparse" / "0" / "cameras.txt").read_text().splitlines()
    assert len(lines) == 2 and lines[1].split()[1] == expected
    (tmp_path / "out" / "images").symlink_to(tmp_path / "data" / "images")
    again = detect_and_read(tmp_path / "out")
    np.testing.assert_allclose(again.intrinsics_px, frames.intrinsics_px)
    np.testing.assert_allclose(again.distortion, frames.distortion)


def test_a_lens_that_colmap_does_not_know_is_named(tmp_path: Path) -> None:
    frames = detect_and_read(write_nerfstudio(tmp_path / "data", k4=0.1))
    with pytest.raises(InputError, match="k4"):
        write_colmap(cameras_of(frames), tmp_path / "out")


def test_corrections_by_hand(tmp_path: Path) -> None:
    write_corrections(cameras_of(detect_and_read(write_nerfstudio(tmp_path / "data"))), tmp_path / "corrections.csv")
    with (tmp_path / "corrections.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["fixed"] for row in rows[:2]] == ["1", "0"]
    assert float(rows[0]["rotation_deg"]) == 0 and float(rows[0]["translation"]) == 0
    assert float(rows[1]["rotation_deg"]) == pytest.approx(2.0, abs=1e-5)
    # exp() bends the translation a little: its length is that of the chord.
    assert float(rows[1]["translation"]) == pytest.approx(0.05, rel=1e-3)
    before, after = ([float(rows[1][f"{axis}{suffix}"]) for axis in "xyz"] for suffix in ("_before", ""))
    assert np.linalg.norm(np.subtract(after, before)) == pytest.approx(float(rows[1]["translation"]), rel=1e-6)
