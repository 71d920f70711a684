"""A room corner from its images alone, and what cannot be placed."""

from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

from craym_nerfstudio.cli.main import main
from craym_nerfstudio.data.read_photos import is_photos, read_unposed
from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.alignment import pose_errors
from craym_nerfstudio.photos.files import Photos, read_photos
from craym_nerfstudio.photos.mappers import PhotoCamera
from craym_nerfstudio.photos.upright import stand_upright
from craym_nerfstudio.sfm.global_solve import poses_of
from craym_nerfstudio.sfm.reconstruction import make_reconstruction
from tests.matching.corner_scene import FOCAL_PX, SIZE_PX, poses, render
from tests.photos.clips import write_clip

COUNT = 7


@pytest.fixture(scope="module")
def corner() -> list[Image.Image]:
    """Photos of the corner, rendered once."""
    return [Image.fromarray(render(pose)) for pose in poses(COUNT)]


def save(images: list[Image.Image], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        image.save(folder / f"photo{number}.png")
    return folder


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (36, 48, 3)).astype(np.uint8))


def test_corner_is_placed_from_its_images_alone(
    corner: list[Image.Image], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = save([*corner, noise(0)], tmp_path / "data" / "images")
    (folder / "notes.txt").write_text("not a photo")
    frames = read_unposed(tmp_path / "data", "sift", tmp_path / "cache")
    said = capsys.readouterr().out
    assert "notes.txt ignored" in said
    assert f"not placed: photo{COUNT}.png (fewer than 15 matches" in said
    assert list(frames.left_out) == [f"photo{COUNT}.png"] and "fewer than 15" in frames.left_out[f"photo{COUNT}.png"]
    assert frames.names == [f"photo{number}.png" for number in range(COUNT)]
    assert frames.paths[0] == folder / "photo0.png"
    errors = pose_errors(torch.from_numpy(frames.c2w), torch.from_numpy(poses(COUNT)))
    assert errors.rotation_deg_mean < 1.0
    assert frames.intrinsics_px[0, 0] == pytest.approx(FOCAL_PX, rel=0.05)
    np.testing.assert_array_equal(frames.size_px, np.tile(SIZE_PX, (COUNT, 1)))
    # Cameras stand upright: what is up in the images is +z.
    assert frames.c2w[:, :, 1].mean(0) @ [0, 0, 1] > 0.7
    again = read_unposed(tmp_path / "data", "sift", tmp_path / "cache")
    np.testing.assert_array_equal(again.c2w, frames.c2w)
    assert "not placed: photo" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["sparse/0/images.bin", "photos.json"])
def test_a_damaged_cache_is_made_anew(
    file: str, corner: list[Image.Image], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = save(corner, tmp_path / "data")
    first = read_unposed(folder, "sift", tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob(f"photos-*/{file}")
    path.write_bytes(path.read_bytes()[:40])
    again = read_unposed(folder, "sift", tmp_path / "cache")
    assert "computed again" in capsys.readouterr().out
    np.testing.assert_allclose(again.c2w, first.c2w, atol=1e-6)


def test_large_photos_keep_the_pixels_of_their_files(
    corner: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("craym_nerfstudio.photos.files._LONGEST_PX", SIZE_PX[0])
    large = [image.resize((2 * SIZE_PX[0], 2 * SIZE_PX[1]), Image.Resampling.BICUBIC) for image in corner]
    frames = read_unposed(save(large, tmp_path / "data"), "sift", tmp_path / "cache")
    assert frames.intrinsics_px[0, 0] == pytest.approx(2 * FOCAL_PX, rel=0.05)
    np.testing.assert_array_equal(frames.size_px, np.tile([2 * SIZE_PX[0], 2 * SIZE_PX[1]], (COUNT, 1)))


def test_video_becomes_photos(corner: list[Image.Image], tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", corner)
    assert is_photos(tmp_path / "clip.mp4")
    frames = read_unposed(tmp_path / "clip.mp4", "sift", tmp_path / "cache")
    assert frames.names == [f"frame_{number:06d}.jpg" for number in range(COUNT)]
    assert pose_errors(torch.from_numpy(frames.c2w), torch.from_numpy(poses(COUNT))).rotation_deg_mean < 2.0


def test_up_follows_the_orientation_of_the_photos() -> None:
    upright = poses(COUNT)
    # Held so that the right edge of the file is the bottom of the picture: EXIF orientation 6, up is -x.
    held = upright.copy()
    held[:, :, 0], held[:, :, 1] = -upright[:, :, 1], upright[:, :, 0]
    camera = PhotoCamera.of(SIZE_PX, FOCAL_PX).of_pycolmap()
    model = make_reconstruction([str(number) for number in range(COUNT)], held, [camera] * COUNT)
    stand_upright(model, [6] * COUNT)
    _, found = poses_of(model)
    assert -found[:, :, 0].mean(0) @ [0, 0, 1] > 0.7
    assert np.median(np.linalg.norm(found[:, :, 3], axis=1)) == pytest.approx(1.0)
    assert pose_errors(torch.from_numpy(found), torch.from_numpy(held)).rotation_deg_mean < 1e-6


def test_two_photos_are_placed(corner: list[Image.Image], tmp_path: Path) -> None:
    assert len(read_unposed(save(corner[2:4], tmp_path / "data"), "sift", tmp_path / "cache")) == 2


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([noise(0)], r"Only one photo.*photo0\.png.*Add photos"),
        ([noise(0)] * 3, r"3 copies of one photo.*Add photos"),
        ([noise(seed) for seed in range(30)], r"No two of the 30 photos show the same thing.*overlap"),
        ([Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64), "red")], r"No two of the 2 photos"),
    ],
)
def test_what_cannot_be_placed_says_so(images: list[Image.Image], message: str, tmp_path: Path) -> None:
    folder = save(images, tmp_path / "data")
    with pytest.raises(InputError, match=message):
        read_unposed(folder, "sift", tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").glob("*photos-*") if path.suffix != ".lock"] == []


def test_a_broken_photo_is_named(tmp_path: Path) -> None:
    folder = save([noise(0), noise(1)], tmp_path / "data")
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (90, 120, 3)).astype(np.uint8)).save(folder / "x.jpg")
    (folder / "x.jpg").write_bytes((folder / "x.jpg").read_bytes()[:2000])
    with pytest.raises(InputError, match=r"Unreadable image.*x\.jpg.*remove it"):
        read_unposed(folder, "sift", tmp_path / "cache")


def test_known_photos_are_not_decoded_again(
    corner: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(corner, tmp_path / "data")
    first = read_unposed(folder, "sift", tmp_path / "cache")

    def refuse(self: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    assert (read_unposed(folder, "sift", tmp_path / "cache").c2w == first.c2w).all()


def test_masks_of_some_photos_are_used(corner: list[Image.Image], tmp_path: Path) -> None:
    """Photos of a turntable fold where the still background counts: a mask that lacks does not undo the others."""
    data = tmp_path / "data"
    save(corner, data / "images")
    (data / "masks").mkdir()
    for number in range(1, COUNT):
        Image.new("L", SIZE_PX, 255).save(data / f"masks/photo{number}.PNG", "PNG")
    seen: list[list[Path | None] | None] = []

    def placed(photos: Photos, masks: list[Path | None] | None, *_: object) -> NoReturn:
        seen.append(masks)
        raise InputError("enough")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError, match="enough"):
        patch.setattr("craym_nerfstudio.data.read_photos.place_photos", placed)
        read_unposed(data, "sift", tmp_path / "cache")
    assert seen == [[None, *(data / f"masks/photo{number}.PNG" for number in range(1, COUNT))]]


def test_folders_that_hold_no_photos_are_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """What craym wrote beside the photos, masks and depth; folders that are linked count."""
    folder = save([noise(0), noise(1)], tmp_path / "data")
    save([noise(2)], tmp_path / "elsewhere")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "linked" / "back").symlink_to(folder)
    for number, (name, file) in enumerate({"adjusted": "summary.json", "depth": "notes", "masks": "notes"}.items()):
        save([noise(10 + number)], folder / name)
        (folder / name / file).touch()
    assert read_photos(folder).names == ["linked/photo0.png", "photo0.png", "photo1.png"]
    said = capsys.readouterr().out
    assert "adjusted, depth passed over" in said and "masks" not in said


def test_doors_and_exit_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save([noise(0)], tmp_path / "data")
    assert is_photos(folder) and not is_photos(tmp_path / "nothing")
    with pytest.raises(InputError, match="a folder of photos, or a video"):
        detect_and_read(tmp_path / "nothing")
    with pytest.raises(SystemExit) as end:
        main(["adjust", "--data", str(folder), "--output", str(tmp_path / "out")])
    assert end.value.code == 2
    assert "Only one photo" in capsys.readouterr().err
