"""What other programs write: folders of NeuS are read; what is not read is named, and hinders nothing."""

from pathlib import Path

import numpy as np
import pytest

from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.photos.files import image_folder
from tests.data.tiny_data import ring_poses, save_image, write_colmap, write_json, write_nerfstudio
from tests.data.written_poses import COUNT, LAST, OPENCV, matrix, words, write_images


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


def test_photos_in_a_format_that_is_not_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Alone, in a folder of theirs, and beside other photos; a raw file is another photo only without its JPEG."""
    (tmp_path / "images").mkdir()
    for name in ("IMG_0.HEIC", "IMG_1.heic", "._IMG_1.heic", "IMG_2.DNG"):
        (tmp_path / "images" / name).write_bytes(b"something")
    for folder in (tmp_path, tmp_path / "images"):
        with pytest.raises(InputError, match="No dataset found") as caught:
            detect_and_read(folder)
        assert "3 photos are DNG or HEIC, which is not read: convert them to JPEG." in caught.value.remedy
    for number in range(2, 4):
        save_image(tmp_path / f"images/IMG_{number}.jpg", seed=number)
    with pytest.raises(InputError):  # photos of noise
        detect_and_read(tmp_path)
    said = capsys.readouterr().out
    assert "Photos: 2 photos are HEIC, which is not read" in said and "ignored" not in said


@pytest.mark.parametrize(
    ("kept", "renamed", "message"),
    [
        (("images.bin", "points3D.bin"), None, "images.bin without cameras.bin"),
        (("cameras.txt", "points3D.txt"), None, "cameras.txt without images.txt"),
        (("cameras.bin", "images.bin"), ("cameras.bin", "cameras.txt"), "images.bin and cameras.txt without"),
    ],
)  # fmt: skip
def test_a_part_of_a_colmap_model_is_refused(
    tmp_path: Path, kept: tuple[str, ...], renamed: tuple[str, str] | None, message: str
) -> None:
    model = write_colmap(tmp_path, text=kept[0].endswith(".txt")) / "sparse/0"
    for path in model.iterdir():
        if path.name not in kept:
            path.unlink()
    if renamed:
        (model / renamed[0]).rename(model / renamed[1])
    with pytest.raises(InputError, match=f"Incomplete COLMAP model, {message}") as caught:
        detect_and_read(tmp_path)
    assert caught.value.path == model and "Export the model again" in caught.value.remedy


@pytest.mark.parametrize(("place", "named"), [("run/sparse", "run"), ("dense/0/sparse", "dense/0")])
def test_a_colmap_model_further_down_is_named_beside_photos(
    tmp_path: Path, place: str, named: str, capsys: pytest.CaptureFixture
) -> None:
    write_colmap(tmp_path)
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / "sparse").rename(tmp_path / place)
    with pytest.raises(InputError):  # photos of noise
        detect_and_read(tmp_path)
    assert f"Not read: the COLMAP model in {named}/." in capsys.readouterr().out


def write_neus(folder: Path) -> dict[str, np.ndarray]:
    """A folder with world matrices; masks have other names than images."""
    for number in range(COUNT):
        save_image(folder / f"image/{number:06d}.png", seed=number)
        save_image(folder / f"mask/{number:03d}.png")
    camera = np.array([[10.0, 0, 4.25], [0, 11.0, 2.75], [0, 0, 1]])
    arrays = {}
    for number, pose in enumerate(OPENCV):
        motion = np.concatenate([pose[:, :3].T, -pose[:, :3].T @ pose[:, 3:]], axis=1)
        arrays[f"world_mat_{number}"] = np.concatenate([-2.5 * camera @ motion, LAST[None]])
        arrays[f"scale_mat_{number}"] = np.diag([3.0, 3.0, 3.0, 1.0])
    np.savez(folder / "cameras_sphere.npz", **arrays)
    return arrays


def test_masks_of_neus_that_are_fewer_go_by_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """And are said to be unused where names do not agree; hidden files of a Mac are neither images nor masks."""
    write_neus(tmp_path)
    for folder in ("image", "mask"):
        (tmp_path / folder / "._000000.png").write_bytes(b"something")
    masks = detect_and_read(tmp_path).mask_paths
    assert masks is not None and masks[0] == tmp_path / "mask/000.png"
    capsys.readouterr()
    (tmp_path / "mask/005.png").unlink()
    assert detect_and_read(tmp_path).mask_paths is None
    assert "000000.png.png: its 5 masks for 6 images are not used" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "mask/003.png").rename(tmp_path / "mask/000003.png")
    masks = detect_and_read(tmp_path).mask_paths
    assert masks is not None and masks[3] == tmp_path / "mask/000003.png" and masks.count(None) == 5
    assert "1 of 6 images have a mask" in capsys.readouterr().out


def test_neus(tmp_path: Path) -> None:
    """World matrices; masks go with the images in the order of their names, as there."""
    arrays, path = write_neus(tmp_path), tmp_path / "cameras_sphere.npz"
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
