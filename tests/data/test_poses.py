"""Poses as other programs write them: scaled, rounded, lost, or all in one place."""

from pathlib import Path

import numpy as np
import pytest

from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.errors import InputError
from tests.data.tiny_data import edit_json, frame_entries, ring_poses, write_colmap, write_nerfstudio


def write_poses(folder: Path, poses: np.ndarray) -> Path:
    return write_nerfstudio(folder, len(poses), frames=frame_entries(poses))


def test_one_scale_in_all_rotations_is_divided_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    poses = ring_poses(8)
    poses[:, :, :3] *= 0.137
    assert np.allclose(detect_and_read(write_poses(tmp_path, poses)).c2w, ring_poses(8))
    assert "one scale, 0.137" in capsys.readouterr().out
    poses[3, :, :3] *= 1.5
    with pytest.raises(InputError, match="uniform scale of"):
        detect_and_read(write_poses(tmp_path, poses))


def test_coarsely_rounded_rotations_are_repaired(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = detect_and_read(write_poses(tmp_path, ring_poses(16).round(2))).c2w
    assert np.allclose(found, ring_poses(16), atol=0.02)
    assert np.allclose(found[:, :, :3] @ found[:, :, :3].transpose(0, 2, 1), np.eye(3))
    assert "of 16 rotations" in capsys.readouterr().out
    detect_and_read(write_poses(tmp_path, ring_poses(16).round(5)))
    assert "rounded" not in capsys.readouterr().out


def test_lost_poses_are_all_named(tmp_path: Path) -> None:
    poses = ring_poses(8)
    poses[2:4] = np.nan
    poses[6] = 0
    with pytest.raises(InputError, match="3 of 8 images have no pose") as caught:
        detect_and_read(write_poses(tmp_path, poses))
    assert all(f"images/00{number}.png" in str(caught.value) for number in (2, 3, 6))


def test_llff(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_nerfstudio(tmp_path)
    (tmp_path / "transforms.json").unlink()
    right, up, backward, center = np.moveaxis(ring_poses(8), -1, 0)
    shape = np.tile([12.0, 16.0, 20.0], (8, 1))
    rows = np.stack([-up, right, backward, center, shape], axis=-1).reshape(8, 15)
    rows = np.concatenate([rows, np.tile([1.0, 5.0], (8, 1))], axis=1)
    np.save(tmp_path / "poses_bounds.npy", rows)
    (tmp_path / "images/._000.png").write_bytes(b"what a Mac writes")
    frames = detect_and_read(tmp_path)
    assert np.allclose(frames.c2w, ring_poses(8)) and frames.intrinsics_px[0].tolist() == [10, 10, 4, 3]
    assert frames.names[1] == "images/001.png" and "another size" in capsys.readouterr().out
    np.save(tmp_path / "poses_bounds.npy", rows[:7])
    with pytest.raises(InputError, match="7 poses for 8 images"):
        detect_and_read(tmp_path)
    np.save(tmp_path / "poses_bounds.npy", rows[:, :5])
    with pytest.raises(InputError, match="Unreadable poses of LLFF"):
        detect_and_read(tmp_path)


@pytest.mark.parametrize(
    ("file", "capture"),
    [
        ("keyframes/cameras/1.json", "Polycam"),
        ("metadata.json", "Record3D"),
        ("meta_data.json", "sdfstudio"),
        ("cameras.csv", "RealityCapture"),
        ("cameras.xml", "Metashape"),
        ("odometry.csv", "Stray Scanner"),
        ("mav0/cam0/data.csv", "EuRoC"),
        ("reconstruction.json", "OpenSfM"),
        ("sfm_data.json", "openMVG"),
        ("cameras.sfm", "Meshroom"),
        ("cams/00000000_cam.txt", "MVSNet"),
        ("scene.nvm", "VisualSFM"),
        ("bundle.out", "Bundler"),
    ],
)
def test_captures_of_others_are_named_with_their_converter(tmp_path: Path, file: str, capture: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("#name,x,y,alt,heading,pitch,roll,f")
    with pytest.raises(InputError, match=capture) as caught:
        detect_and_read(tmp_path)
    assert "Convert it" in caught.value.remedy
    write_colmap(tmp_path)
    assert len(detect_and_read(tmp_path)) == 4


def test_what_is_not_used_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_nerfstudio(tmp_path, fisheye_crop_radius=3, camera_model="OPENCV_FISHEYE")
    detect_and_read(folder)
    assert "transforms.json: fisheye_crop_radius;" in capsys.readouterr().out
    path = (folder / "transforms.json").rename(folder / "transforms_train.json")
    edit_json(path, fisheye_crop_radius=None)
    (folder / "transforms_test.json").write_text(path.read_text())
    detect_and_read(folder)
    assert "8 of 8 test images are training images too" in capsys.readouterr().out
    names = [f"images/00{number}.png" for number in range(8)]
    detect_and_read(write_nerfstudio(tmp_path / "lists", train_filenames=names[:6], test_filenames=names[5:]))
    assert "1 of 3 test images are training images too" in capsys.readouterr().out


def test_images_with_equal_poses_are_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    poses = ring_poses(8)
    poses[6:] = poses[5]
    detect_and_read(write_poses(tmp_path, poses))
    assert "3 of 8 images have the pose of another one, such as images/005.png" in capsys.readouterr().out
    detect_and_read(write_poses(tmp_path, np.tile(np.eye(3, 4), (8, 1, 1))))
    assert "8 of 8 images have the pose of another one" in capsys.readouterr().out
    detect_and_read(write_poses(tmp_path, ring_poses(8)))
    assert "pose of another" not in capsys.readouterr().out


def test_map_coordinates_are_read_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """UTM metres keep their millimetres, and nothing about them is odd."""
    place, poses = np.array([512345.678, 5412345.123, 210.5]), ring_poses(8)
    poses[:, :, 3] += place
    folder = write_nerfstudio(tmp_path, frames=frame_entries(poses), cx=4.0, cy=3.0)
    np.testing.assert_allclose(detect_and_read(folder).c2w[:, :, 3] - place, ring_poses(8)[:, :, 3], atol=1e-8)
    assert capsys.readouterr().out == ""
