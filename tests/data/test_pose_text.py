"""Poses as text beside images: every form gives the poses that were written; what is no pose is not taken for one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from scipy.spatial.transform import Rotation

from craym_nerfstudio.data.intrinsics_text import read_intrinsics
from craym_nerfstudio.data.pose_text import read_pose_table
from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.axes import flip_pose_axes
from craym_nerfstudio.photos.files import image_folder
from tests.data.tiny_data import SIZE_PX, ring_poses, save_image, write_colmap, write_json, write_nerfstudio

COUNT = 6
OPENCV = flip_pose_axes(ring_poses(COUNT))
LAST = np.array([0.0, 0.0, 0.0, 1.0])


def words(*values: object) -> str:
    return " ".join(
        f"{value:.12g}" if isinstance(value, float) else str(value) for value in np.concatenate(values).tolist()
    )


def matrix(number: int, rows: int = 3) -> np.ndarray:
    return np.concatenate([OPENCV[number].reshape(-1), LAST])[: 4 * rows]


def tum(number: int) -> np.ndarray:
    return np.concatenate([OPENCV[number, :, 3], Rotation.from_matrix(OPENCV[number, :, :3]).as_quat()])


def world_to_camera(number: int) -> np.ndarray:
    turned = OPENCV[number, :, :3].T
    return np.concatenate([Rotation.from_matrix(turned).as_quat()[[3, 0, 1, 2]], -turned @ OPENCV[number, :, 3]])


FORMS: dict[str, Callable[[int], str]] = {
    "time, position and quaternion": lambda k: words([k / 10], tum(k)),
    "3 x 4 matrix (KITTI)": lambda k: words(matrix(k)),
    "time and 3 x 4 matrix": lambda k: words([float(k)], matrix(k)),
    "4 x 4 matrix": lambda k: words(matrix(k, 4)),
    "time and 4 x 4": lambda k: words([float(k)], matrix(k, 4)),
    "image name, quaternion and": lambda k: f"{k:03d}.png " + words(world_to_camera(k)),
    "focal length .ACE0": lambda k: f"some/where/{k:03d}.png " + words(world_to_camera(k), [10.0, 900]),
    "image name and 3 x 4": lambda k: f"images/{k:03d}.png " + words(matrix(k)),
    "image name and 4 x 4": lambda k: f"./images/{k:03d}.png " + words(matrix(k, 4)),
    "after three numbers": lambda k: f"{k} {k} 0\n" + "\n".join(words(row) for row in matrix(k, 4).reshape(4, 4)),
}


def write_images(folder: Path, pattern: str = "images/{:03d}.png", count: int = COUNT) -> Path:
    for number in range(count):
        save_image(folder / pattern.format(number), seed=number)
    (folder / "intrinsics.txt").write_text("10 11 4.5 2.5")
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_a_table_gives_the_poses_that_were_written(form: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_images(tmp_path)
    rows = [FORMS[form](number) for number in range(COUNT)]
    (tmp_path / "poses.txt").write_text("# made by hand\n" + "\n".join(rows))
    frames = detect_and_read(tmp_path)
    assert frames.names == [f"images/{number:03d}.png" for number in range(COUNT)]
    assert np.allclose(frames.c2w, ring_poses(COUNT))
    is_named = "ACE0" in form
    assert np.allclose(frames.intrinsics_px, [10, 10, 4, 3] if is_named else [10, 11, 4.5, 2.5])
    assert frames.size_px[0].tolist() == list(SIZE_PX)
    said = capsys.readouterr().out
    assert f"Poses of {COUNT} images from poses.txt" in said and form.replace(".", "(") in said
    assert np.array_equal(detect_and_read(tmp_path / "poses.txt").c2w, frames.c2w)


def test_our_own_trajectory_is_read_back(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "trajectory_tum.txt").write_text("\n".join(words([number], tum(number)) for number in range(COUNT)))
    assert np.allclose(detect_and_read(tmp_path).c2w, ring_poses(COUNT))


def test_a_headline_names_the_columns(tmp_path: Path) -> None:
    write_images(tmp_path, "rgb/{:06d}.jpg")
    rows = [", ".join([f"{number / 60}", f"{number:06d}", *words(tum(number)).split()]) for number in range(COUNT)]
    (tmp_path / "odometry.csv").write_text("timestamp, frame, x, y, z, qx, qy, qz, qw\n" + "\n".join(rows))
    assert np.allclose(detect_and_read(tmp_path).c2w, ring_poses(COUNT))


def test_times_join_images_and_poses(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Three poses to each image, as motion capture has it; then keyframes alone; then names in nanoseconds."""
    write_images(tmp_path, "rgb/{:03d}.5.png")
    often = [f"{number + shift:.6f} " + words(tum(number)) for number in range(COUNT) for shift in (0.2, 0.5, 0.8)]
    (tmp_path / "groundtruth.txt").write_text("\n".join(often))
    assert np.allclose(detect_and_read(tmp_path).c2w, ring_poses(COUNT))
    (tmp_path / "groundtruth.txt").write_text("\n".join(f"{k}.52 " + words(tum(k)) for k in (1, 3, 4)))
    frames = detect_and_read(tmp_path)
    assert np.allclose(frames.c2w, ring_poses(COUNT)[[1, 3, 4]]) and len(frames.left_out) == 3
    assert "3 of 6 images have a pose" in capsys.readouterr().out
    nano = tmp_path / "nano"
    write_images(nano, "rgb/140363658{:01d}763555584.png")
    seconds = [f"140363658{k}.760000 " + words(tum(k)) for k in range(COUNT)]
    (nano / "traj.txt").write_text("\n".join(seconds))
    assert np.allclose(detect_and_read(nano).c2w, ring_poses(COUNT))


def test_the_list_of_a_tum_sequence_tells_the_times(tmp_path: Path) -> None:
    write_images(tmp_path, "rgb/{:03d}.png")
    for number in range(COUNT):
        save_image(tmp_path / f"depth/{number:03d}.png")
    lines = [f"{1305031102.1 + 5 * number:.6f} rgb/{number:03d}.png" for number in range(COUNT)]
    (tmp_path / "rgb.txt").write_text("# color images\n" + "\n".join(lines))
    times = [f"{1305031102.2 + 5 * number:.4f} " + words(tum(number)) for number in (0, 2, 3, 5)]
    (tmp_path / "groundtruth.txt").write_text("\n".join(times))
    assert np.allclose(detect_and_read(tmp_path).c2w, ring_poses(COUNT)[[0, 2, 3, 5]])


def test_matrices_for_each_image(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """ScanNet's folders, where tracking was lost for one image; 7-Scenes' files beside each other."""
    write_images(tmp_path, "color/{}.jpg")
    (tmp_path / "intrinsics.txt").unlink()
    (tmp_path / "pose").mkdir()
    for number in range(COUNT):
        rows = matrix(number, 4).reshape(4, 4) if number != 2 else np.full((4, 4), -np.inf)
        np.savetxt(tmp_path / f"pose/{number}.txt", rows)
    (tmp_path / "intrinsic").mkdir()
    for name, focal in (("intrinsic_color", 12.0), ("intrinsic_depth", 5.0), ("extrinsic_color", 1.0)):
        camera = np.diag([focal, focal, 1.0, 1.0])
        camera[:2, 2] = 4.25, 2.75
        np.savetxt(tmp_path / f"intrinsic/{name}.txt", camera)
    frames = detect_and_read(tmp_path)
    assert np.allclose(frames.c2w, np.delete(ring_poses(COUNT), 2, axis=0)) and "2.jpg" in frames.left_out
    assert "1 of 6 images have no valid pose" in capsys.readouterr().out
    assert np.allclose(frames.intrinsics_px[:, :2], 12)
    beside = write_images(tmp_path / "beside", "frame-{:06d}.color.png")
    for number in range(COUNT):
        save_image(beside / f"frame-{number:06d}.depth.png")
        np.savetxt(beside / f"frame-{number:06d}.pose.txt", matrix(number, 4).reshape(4, 4))
    assert np.allclose(detect_and_read(beside).c2w, ring_poses(COUNT))


def read_with(folder: Path, pattern: str, rows: list[str], count: int = COUNT, name: str = "traj.txt") -> np.ndarray:
    """Poses of images called by a pattern of their number, in the natural order of these names."""
    write_images(folder, pattern, count)
    (folder / name).write_text("\n".join(rows))
    frames = detect_and_read(folder)
    numbers = [int("".join(filter(str.isdigit, Path(path).stem)) or 0) for path in frames.names]
    return frames.c2w[np.argsort(numbers)]


def test_unpadded_names_are_in_their_natural_order(tmp_path: Path) -> None:
    turned = flip_pose_axes(ring_poses(12)).reshape(12, 12)
    found = read_with(tmp_path, "images/{}.png", [words(row) for row in turned], 12)
    assert np.allclose(found, ring_poses(12))


@pytest.mark.parametrize("first", [0, 1, 7])
def test_counts_may_begin_anywhere(first: int, tmp_path: Path) -> None:
    rows = [words([number], tum(number)) for number in range(COUNT)]
    for number in range(COUNT):
        save_image(tmp_path / f"images/frame_{first + number:04d}.png")
    (tmp_path / "intrinsics.txt").write_text("10 11 4.5 2.5")
    (tmp_path / "traj.txt").write_text("\n".join(rows))
    assert np.allclose(detect_and_read(tmp_path).c2w, ring_poses(COUNT))


def test_keyframes_in_seconds_are_no_numbers_of_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="6 poses for 60 images") as caught:
        read_with(tmp_path, "images/{:03d}.png", [words([number], tum(number)) for number in range(COUNT)], 60)
    assert "times or numbers" in caught.value.remedy


def test_clocks_that_overlap_join_what_they_share(tmp_path: Path) -> None:
    rows = [words([1700000002 + number], tum(number)) for number in range(COUNT)]
    assert np.allclose(read_with(tmp_path / "s", "images/170000000{}.png", rows), ring_poses(COUNT)[:4])
    rows = [f"{1700000000 + number}.000 " + words(tum(number)) for number in range(COUNT)]
    assert np.allclose(read_with(tmp_path / "ms", "images/170000000{}000.png", rows), ring_poses(COUNT))


def test_numbers_of_a_log_say_which_image(tmp_path: Path) -> None:
    rows = [FORMS["after three numbers"](number) for number in reversed(range(COUNT))]
    assert np.allclose(read_with(tmp_path, "images/{:03d}.png", rows), ring_poses(COUNT))


def test_a_headline_tells_the_order_of_the_quaternion(tmp_path: Path) -> None:
    rows = [words([number], tum(number)[[0, 1, 2, 6, 3, 4, 5]]) for number in range(COUNT)]
    head = "# timestamp tx ty tz qw qx qy qz"
    assert np.allclose(read_with(tmp_path, "images/{:03d}.png", [head, *rows]), ring_poses(COUNT))


def test_an_image_that_is_named_twice(tmp_path: Path) -> None:
    rows = [FORMS["image name, quaternion and"](number) for number in (*range(COUNT), 2)]
    with pytest.raises(InputError, match=r'Duplicate file name "002\.png"'):
        read_with(tmp_path, "images/{:03d}.png", rows)


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


def test_poses_that_belong_to_no_images(tmp_path: Path) -> None:
    write_images(tmp_path)
    table = tmp_path / "poses.txt"
    table.write_text("\n".join(words(matrix(number)) for number in range(COUNT - 1)))
    with pytest.raises(InputError, match="5 poses for 6 images"):
        detect_and_read(tmp_path)
    (tmp_path / "odometry.txt").write_text(table.read_text())
    with pytest.raises(InputError, match=r"Poses in odometry\.txt, poses\.txt"):
        detect_and_read(tmp_path)


def test_what_is_no_table_of_poses(tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    numbers = np.random.RandomState(0).normal(size=(9, 17))
    for columns in (1, 3, 7, 8, 12, 13, 16, 17):
        np.savetxt(path, numbers[:, :columns])
        assert read_pose_table(path) is None, columns
    np.savetxt(path, np.random.RandomState(0).normal(size=(1000, 8)))
    assert read_pose_table(path) is None
    for text in ("", "two words\nand more of them", "P0: " + words(matrix(0)), "1305.1 rgb/1305.1.png", "1 2\n3"):
        path.write_text(text)
        assert read_pose_table(path) is None, text


def test_poses_are_not_ignored_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A JSON file under another name is refused; other files beside the photos are named before these are placed."""
    write_nerfstudio(tmp_path)
    (tmp_path / "transforms.json").rename(tmp_path / "my_poses.json")
    with pytest.raises(InputError, match=r"Poses in my_poses\.json") as caught:
        detect_and_read(tmp_path)
    assert f"--data {tmp_path / 'my_poses.json'}" in caught.value.remedy
    assert len(detect_and_read(tmp_path / "my_poses.json")) == 8
    write_json(tmp_path / "my_poses.json", {"something": "else"})
    np.save(tmp_path / "poses.npy", ring_poses(8))
    with pytest.raises(InputError):  # photos of noise
        detect_and_read(tmp_path)
    assert "Not read: my_poses.json, poses.npy" in capsys.readouterr().out
    (tmp_path / "extrinsics").mkdir()
    with pytest.raises(InputError):
        detect_and_read(tmp_path)
    assert "poses.npy, extrinsics/." in capsys.readouterr().out


def test_what_lies_beside_photos_does_not_hinder_them(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_images(tmp_path)
    (tmp_path / "README.txt").write_bytes("Caf\xe9".encode("latin-1"))
    (tmp_path / "alignment.txt").write_text(words(matrix(0, 4)))
    (tmp_path / "slurm-1.out").write_text("done")
    (tmp_path / "gps.csv").write_text("time,latitude,longitude\n0,1,2")
    (tmp_path / "cameras.npz").write_bytes(b"something")
    (tmp_path / "video.json").write_text('{"frames": [1, 2]}')
    with pytest.raises(InputError):  # photos of noise
        detect_and_read(tmp_path)
    assert "Not read: README.txt, alignment.txt" in capsys.readouterr().out


def test_a_folder_without_a_dataset_is_looked_through(tmp_path: Path) -> None:
    """A COLMAP model further down, several folders of images, a video: the error names what might be meant."""
    write_colmap(tmp_path / "run/dense")
    (tmp_path / "run/dense/images").rename(tmp_path / "run/dense/pictures")
    for folder in (tmp_path / "run", tmp_path):
        with pytest.raises(InputError, match="No dataset found") as caught:
            detect_and_read(folder)
        assert f"--data {tmp_path / 'run/dense'}" in caught.value.remedy
    for name in ("left", "right", "depth"):
        save_image(tmp_path / f"cameras/{name}/0.png")
    with pytest.raises(InputError, match="No dataset found") as caught:
        detect_and_read(tmp_path / "cameras")
    assert "There are images in left, right:" in caught.value.remedy
    (tmp_path / "cameras").rename(tmp_path / "images")
    assert image_folder(tmp_path) == tmp_path / "images"
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/clip.MOV").touch()
    with pytest.raises(InputError, match="No dataset found") as caught:
        detect_and_read(tmp_path / "videos")
    assert "clip.MOV" in caught.value.remedy
    with pytest.raises(InputError, match="archive"):
        (tmp_path / "scene.zip").touch()
        detect_and_read(tmp_path / "scene.zip")


def test_neus(tmp_path: Path) -> None:
    """World matrices; masks go with the images in the order of their names, as there."""
    for number in range(COUNT):
        save_image(tmp_path / f"image/{number:06d}.png", seed=number)
        save_image(tmp_path / f"mask/{number:03d}.png")
    camera = np.array([[10.0, 0, 4.25], [0, 11.0, 2.75], [0, 0, 1]])
    arrays = {}
    for number, pose in enumerate(OPENCV):
        motion = np.concatenate([pose[:, :3].T, -pose[:, :3].T @ pose[:, 3:]], axis=1)
        arrays[f"world_mat_{number}"] = np.concatenate([-2.5 * camera @ motion, LAST[None]])
        arrays[f"scale_mat_{number}"] = np.diag([3.0, 3.0, 3.0, 1.0])
    path = tmp_path / "cameras_sphere.npz"
    np.savez(path, **arrays)
    frames = detect_and_read(tmp_path)
    assert np.allclose(frames.c2w, ring_poses(COUNT)) and np.allclose(frames.intrinsics_px, [10, 11, 4.25, 2.75])
    assert frames.mask_paths is not None and frames.mask_paths[3] == tmp_path / "mask/003.png"
    np.savez(path, **{name: value for name, value in arrays.items() if not name.endswith("5")})
    with pytest.raises(InputError, match="5 projection matrices for 6 images"):
        detect_and_read(tmp_path)
    for wrong in (np.zeros((4, 4)), np.full((4, 4), np.nan), np.zeros(16)):
        np.savez(path, **{**arrays, "world_mat_3": wrong})
        with pytest.raises(InputError, match=r"none of a pinhole camera|Unreadable"):
            detect_and_read(tmp_path)
    whole = path.read_bytes()
    for content in (b"no archive", b"", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="Unreadable projection matrices"):
            detect_and_read(tmp_path)
