"""COLMAP models as people keep them: several, written by hand, edited, or without points."""

import os
import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.errors import InputError
from tests.data.tiny_data import ring_poses, save_image, write_colmap


def rows_of(folder: Path) -> list[str]:
    """Lines of the images in a text model."""
    lines = (folder / "sparse/0/images.txt").read_text().splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("between", ["\n", "\r\n", "\n\n", "\n1.5 2.5 -1 3.5 4.5 -1\n"])
def test_images_written_by_hand(tmp_path: Path, between: str, encoding: str) -> None:
    folder = write_colmap(tmp_path, text=True)
    lines = [row.replace("view_", "a view ") for row in rows_of(folder)]
    for path in (folder / "images").iterdir():
        path.rename(path.with_name(path.name.replace("view_", "a view ")))
    (folder / "sparse/0/images.txt").write_bytes("".join(line + between for line in lines).encode(encoding))
    (folder / "sparse/0/points3D.txt").unlink()
    frames = detect_and_read(folder)
    assert frames.names == [f"a view {number}.png" for number in range(4)]
    assert np.allclose(frames.c2w, ring_poses(4))


def test_a_line_that_is_no_image_is_shown(tmp_path: Path) -> None:
    folder = write_colmap(tmp_path, text=True)
    (folder / "sparse/0/images.txt").write_text("1 1 0 0 0 view_0.png\n")
    with pytest.raises(InputError, match="No image in the line"):
        detect_and_read(folder)


@pytest.mark.parametrize("text", [False, True])
def test_points_may_be_absent(tmp_path: Path, text: bool) -> None:
    folder = write_colmap(tmp_path, text=text)
    (folder / f"sparse/0/points3D.{'txt' if text else 'bin'}").unlink()
    assert np.allclose(detect_and_read(folder).c2w, ring_poses(4))


def test_the_largest_of_several_models_is_taken_and_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_colmap(tmp_path, 5)
    shutil.move(folder / "sparse/0", folder / "sparse/1")
    assert detect_and_read(folder).source == folder / "sparse/1"
    assert capsys.readouterr().out == ""
    shutil.copytree(write_colmap(tmp_path / "small", 3, text=True) / "sparse/0", folder / "sparse/0")
    frames = detect_and_read(folder)
    assert len(frames) == 5
    assert "sparse/1 with 5 images is read, not sparse/0 (3)" in capsys.readouterr().out


def test_the_newer_of_a_binary_and_a_text_model_is_taken_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = write_colmap(tmp_path, 5)
    for path in (write_colmap(tmp_path / "edited", 3, text=True) / "sparse/0").iterdir():
        shutil.copy(path, folder / "sparse/0")
    for newer, count in ((".txt", 3), (".bin", 5)):
        for path in (folder / "sparse/0").iterdir():
            time = 2e9 if path.suffix == newer else 1e9
            os.utime(path, (time, time))
        assert len(detect_and_read(folder)) == count
        assert f"the newer is read, images{newer}" in capsys.readouterr().out


def test_shrunk_images_alone_are_read_at_their_size(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_colmap(tmp_path)
    shutil.rmtree(folder / "images")
    for number in range(4):
        save_image(folder / f"images_2/view_{number}.png", (4, 3))
    frames = detect_and_read(folder)
    assert frames.intrinsics_px[0].tolist() == [5, 5.5, 2.125, 1.375]
    assert "4 of 4 images have another size" in capsys.readouterr().out


def test_a_model_in_sparse_itself_is_read(tmp_path: Path) -> None:
    """As VGGT and MASt3R write it, without the folder 0."""
    folder = write_colmap(tmp_path)
    for path in (folder / "sparse/0").iterdir():
        path.rename(folder / "sparse" / path.name)
    (folder / "sparse/0").rmdir()
    frames = detect_and_read(folder)
    assert frames.layout == "colmap" and len(frames) == 4


def test_a_rig_of_two_cameras_is_read(tmp_path: Path) -> None:
    """COLMAP 3.12: the second camera's pose is that of the rig's frame, moved as the rig says."""
    left = ring_poses(1)[0]
    apart = np.eye(3, 4)
    apart[0, 3] = -0.5
    reconstruction = pycolmap.Reconstruction()
    for number in (1, 2):
        lens = pycolmap.Camera(model="PINHOLE", width=8, height=6, params=[10.0, 10.0, 4.0, 3.0], camera_id=number)
        reconstruction.add_camera(lens)
    rig = pycolmap.Rig(rig_id=1)
    rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, 1))
    rig.add_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, 2), pycolmap.Rigid3d(apart))
    reconstruction.add_rig(rig)
    frame = pycolmap.Frame()
    frame.frame_id, frame.rig_id = 1, 1
    images = [pycolmap.Image(name=f"{side}/0.png", camera_id=k, image_id=k) for k, side in ((1, "left"), (2, "right"))]
    for image in images:
        image.frame_id = 1
        frame.add_data_id(image.data_id)
        save_image(tmp_path / "images" / image.name)
    opencv = left * [1.0, -1.0, -1.0, 1.0]
    world_to_camera = np.concatenate([opencv[:, :3].T, -opencv[:, :3].T @ opencv[:, 3:]], axis=1)
    frame.rig_from_world = pycolmap.Rigid3d(world_to_camera)
    reconstruction.add_frame(frame)
    for image in images:
        reconstruction.add_image(image)
    reconstruction.register_frame(1)
    (tmp_path / "sparse/0").mkdir(parents=True)
    reconstruction.write(str(tmp_path / "sparse/0"))
    frames = detect_and_read(tmp_path)
    assert frames.names == ["left/0.png", "right/0.png"]
    np.testing.assert_allclose(frames.c2w[0], left, atol=1e-12)
    # x_right = x_left - 0.5: the right camera stands 0.5 along x of the left one.
    np.testing.assert_allclose(frames.c2w[1, :, 3], left[:, 3] + 0.5 * left[:, 0], atol=1e-12)
