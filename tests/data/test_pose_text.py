"""Poses as text beside images: every form gives the poses that were written; what is no pose is not taken for one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from craym_nerfstudio.data.pose_text import read_pose_table
from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.axes import flip_pose_axes
from tests.data.tiny_data import SIZE_PX, ring_poses, save_image
from tests.data.written_poses import COUNT, FORMS, matrix, tum, words, write_images


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
    """Nor need rows stand in the order of their numbers."""
    rows = [words([number], tum(number)) for number in (3, 1, 2, 0, 4, 5)]
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


def test_poses_without_an_image_are_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Counted from 1, with a row lost, each is taken for its neighbour's: a row is left over."""
    write_images(tmp_path)
    rows = [words([number + 1], tum(number)) for number in range(COUNT) if number != 2]
    (tmp_path / "traj.txt").write_text("\n".join(rows))
    detect_and_read(tmp_path)
    assert "1 of 5 poses belong to no image, such as that of 6. If rows and images count" in capsys.readouterr().out
    often = [f"{number + shift:.1f} " + words(tum(number)) for number in range(COUNT) for shift in (-0.3, 0, 0.3)]
    (tmp_path / "traj.txt").write_text("\n".join(often))
    assert np.allclose(detect_and_read(tmp_path).c2w, ring_poses(COUNT))
    assert "no image" not in capsys.readouterr().out


def test_numbers_of_a_log_say_which_image(tmp_path: Path) -> None:
    rows = [FORMS["after three numbers"](number) for number in reversed(range(COUNT))]
    assert np.allclose(read_with(tmp_path, "images/{:03d}.png", rows), ring_poses(COUNT))


W_FIRST = [0, 1, 2, 6, 3, 4, 5]


@pytest.mark.parametrize(
    "head",
    [
        "# timestamp tx ty tz qw qx qy qz",
        "t,x,y,z,qw,qx,qy,qz",
        "Timestamp[s] X Y Z Qw Qx Qy Qz",
        "Time [s], Position X [m], Position Y [m], Position Z [m], Quat W, Quat X, Quat Y, Quat Z",
        "#timestamp_ns x y z rw rx ry rz",
        "something x y z qw qx qy qz",
    ],
)
def test_a_headline_tells_the_order_of_the_quaternion(head: str, tmp_path: Path) -> None:
    rows = [words([number], tum(number)[W_FIRST]) for number in range(COUNT)]
    assert np.allclose(read_with(tmp_path, "images/{:03d}.png", [head, *rows]), ring_poses(COUNT))


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("x y z qx qy qz qw time", lambda k: words(tum(k), [k])),
        ("x,y,z,qx,qy,qz,qw,image", lambda k: words(tum(k)) + f" {k:03d}.png"),
        ("name x y z qx qy qz qw", lambda k: f"{k:03d}.png " + words(tum(k))),
        ("name,qw,qx,qy,qz,tx,ty,tz", FORMS["image name, quaternion and"]),
        ("time frame x y z qx qy qz qw", lambda k: words([-k, k], tum(k))),
        ("# file format: timestamp tx ty tz qx qy qz qw", lambda k: words([k], tum(k))),
        ("# the way of a camera in eight words", lambda k: words([k], tum(k))),
    ],
)
def test_a_headline_tells_what_belongs_to_the_images(head: str, row: Callable[[int], str], tmp_path: Path) -> None:
    rows = [row(number) for number in range(COUNT)]
    assert np.allclose(read_with(tmp_path, "images/{:03d}.png", [head, *rows]), ring_poses(COUNT))


@pytest.mark.parametrize(
    "head", ["t x y z q1 q2 q3 q4", "# t x y z q1 q2 q3 q4", "a,b,c,d,e,f,g,h", "# tx ty tz qw qx qy qz"]
)
def test_a_headline_that_leaves_the_order_open_is_refused(head: str, tmp_path: Path) -> None:
    rows = [words([number], tum(number)[W_FIRST]) for number in range(COUNT)]
    with pytest.raises(InputError, match="headline that is not understood") as caught:
        read_with(tmp_path, "images/{:03d}.png", [head, *rows])
    assert caught.value.path == tmp_path / "traj.txt" and "time x y z qx qy qz qw" in caught.value.remedy


def test_an_image_that_is_named_twice(tmp_path: Path) -> None:
    rows = [FORMS["image name, quaternion and"](number) for number in (*range(COUNT), 2)]
    with pytest.raises(InputError, match=r'Duplicate file name "002\.png"'):
        read_with(tmp_path, "images/{:03d}.png", rows)


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
