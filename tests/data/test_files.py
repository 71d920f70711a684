"""Names of files as other systems write them, images that are missing, and what is said of either."""

import unicodedata
from pathlib import Path

import pytest

from craym_nerfstudio.data.config import SceneConfig
from craym_nerfstudio.data.files import find_files
from craym_nerfstudio.data.scene import detect_and_read, read_scene
from craym_nerfstudio.errors import InputError
from tests.data.tiny_data import edit_json, frame_entries, ring_poses, save_image, write_colmap, write_nerfstudio


def found(root: Path, names: list[str]) -> list[str | None]:
    return [path and path.relative_to(root).as_posix() for path in find_files(root, names)]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (".\\images\\a b.png", "images/a b.png"),
        (" ./images/a b.png\r", "images/a b.png"),
        ("images/a", "images/a.JPG"),
        ("images/a.jpg", "images/a.JPG"),
        ("images/a.png", "images/a.jpeg"),
        ("images/a.HEIC", "images/a.jpg"),
        ("Images/IMG_1.JPG", "images/img_1.jpg"),
        ("/home/someone/images/a.png", "images/a.png"),
        ("C:\\work\\left\\a.png", "cameras/left/a.png"),
        ("images/a.png", "images_4/a.png"),
        ("images/a.png", "a.png"),
        ("rgb/" + unicodedata.normalize("NFD", "\u00e9.png"), "rgb/\u00e9.png"),
    ],
)
def test_a_name_finds_its_file(tmp_path: Path, name: str, file: str) -> None:
    save_image(tmp_path / file)
    save_image(tmp_path / "masks/a.png")
    save_image(tmp_path / "cameras/right/other.png")
    assert found(tmp_path, [name]) == [file]


def test_a_file_of_another_image_or_folder_is_not_taken(tmp_path: Path) -> None:
    for file in ("left/a.png", "right/b.png", "images_2/c.png", "images_4/c.png", "images/d.png", "thumbs/e.png"):
        save_image(tmp_path / file)
    assert found(tmp_path, ["left/a.png", "gone/a.png"]) == ["left/a.png", None]
    assert found(tmp_path, ["left/b.png"]) == [None]
    assert found(tmp_path, ["pictures/c.png"]) == ["images_2/c.png"]
    save_image(tmp_path / "other/d.png")
    assert found(tmp_path, ["pictures/d.png"]) == [None]


def test_a_few_missing_images_are_left_out_and_their_number_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = write_nerfstudio(tmp_path, 12, test_filenames=["images/003.png", "images/005.png"])
    for name in ("003", "009"):
        (folder / f"images/{name}.png").unlink()
    frames = detect_and_read(folder)
    assert len(frames) == 10 and frames.test is not None and frames.train is not None
    assert [frames.names[index] for index in frames.test] == ["images/005.png"] and len(frames.train) == 9
    assert frames.c2w[-1, 0, 3] == pytest.approx(ring_poses(12)[-1, 0, 3])
    assert "2 of 12 images" in capsys.readouterr().out
    with pytest.raises(InputError, match="Missing image and 1 more of 12"):
        read_scene(SceneConfig(folder, missing_images="error"))
    (folder / "images/001.png").rename(folder / "images/001x.png")
    with pytest.raises(InputError, match="Missing image and 2 more of 12") as caught:
        detect_and_read(folder)
    assert "Is it" in str(caught.value) and "001x.png" in str(caught.value)


def test_other_names_and_images_without_pose_are_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_colmap(tmp_path)
    (folder / "images").rename(folder / "input")
    save_image(folder / "input/extra.png")
    frames = detect_and_read(folder)
    assert frames.names[0] == "view_0.png" and frames.paths[0] == folder / "input/view_0.png"
    said = capsys.readouterr().out
    assert "4 of 4 images" in said and "another name" in said and "4 of 5 images have a pose" in said


def test_one_file_under_two_names_is_refused(tmp_path: Path) -> None:
    frames = frame_entries(ring_poses(8))
    frames.append({**frames[2], "file_path": str(tmp_path / "images/002.png")})
    with pytest.raises(InputError, match="are one image"):
        detect_and_read(write_nerfstudio(tmp_path, frames=frames))


@pytest.mark.parametrize("has_split", [True, False])
def test_copies_of_training_images_are_left_out(has_split: bool, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Of the one before, as ffmpeg makes of a still video; a test image that is a copy is the user's own affair."""
    folder = write_nerfstudio(tmp_path)
    for copy in (2, 3, 6):
        (folder / f"images/{copy:03d}.png").write_bytes((folder / "images/001.png").read_bytes())
    if has_split:
        names = [f"images/{number:03d}.png" for number in range(8)]
        edit_json(folder / "transforms.json", train_filenames=names[:5], test_filenames=names[5:])
    frames = detect_and_read(folder)
    left = ("images/002.png", "images/003.png")
    assert frames.left_out == dict.fromkeys(left, "a copy of images/001.png") and len(frames) == 6
    said = capsys.readouterr().out
    assert f"{', '.join(left)} left out: copies of images/001.png" in said
    assert ("1 of 8 images repeat another one, such as images/006.png of images/001.png" in said) is not has_split
    if has_split:
        assert frames.train.tolist() == [0, 1, 2] and [frames.names[k] for k in frames.test] == names[5:]


def test_images_of_a_relative_folder_are_not_said_to_lack_poses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    frames = frame_entries(ring_poses(8), f"{tmp_path}/images/{{:03d}}.png")
    frames[0]["file_path"] = "images/000.png"
    write_nerfstudio(tmp_path, frames=frames)
    monkeypatch.chdir(tmp_path)
    assert detect_and_read(Path()).left_out == {} and "have a pose" not in capsys.readouterr().out


def test_a_json_file_in_utf_16(tmp_path: Path) -> None:
    path = write_nerfstudio(tmp_path) / "transforms.json"
    path.write_text(path.read_text(), encoding="utf-16")
    assert len(detect_and_read(tmp_path)) == 8


def test_null_is_absent(tmp_path: Path) -> None:
    entries = frame_entries(ring_poses(8))
    entries[2].update(mask_path=None, cx=None, w=None)
    edit_json(write_nerfstudio(tmp_path) / "transforms.json", frames=entries, k3=None, camera_model=None)
    assert detect_and_read(tmp_path).intrinsics_px[2, 2] == 4.25
