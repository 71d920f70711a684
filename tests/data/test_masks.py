"""Masks in every depth and channel, under every usual name, for some or all of the images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from craym_nerfstudio.data.dataparser import CraymDataParserConfig
from craym_nerfstudio.data.dataset import load_image_store
from craym_nerfstudio.data.image_store import ImageStore
from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.data.views import views_of
from craym_nerfstudio.images import load_mask
from craym_nerfstudio.matching.images import load_picture, picture_keys
from tests.data.tiny_data import frame_entries, ring_poses, save_image, write_colmap, write_nerfstudio

USABLE = np.zeros((6, 8), dtype=np.uint8)
USABLE[:, 3:] = 1


def save_mask(path: Path, pixels: np.ndarray = USABLE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def stored(folder: Path) -> ImageStore:
    return load_image_store(CraymDataParserConfig(data=folder, eval_interval=0).setup().get_dataparser_outputs("train"))


@pytest.mark.parametrize(
    "pixels",
    [
        USABLE,
        USABLE.astype(bool),
        USABLE.astype(np.uint16),
        USABLE.astype(np.uint16) * 255,
        USABLE.astype(np.int32) * 40000,
        USABLE.astype(np.float32),
        np.stack([0 * USABLE, 0 * USABLE, USABLE], -1),
        np.stack([*[255 * USABLE] * 3, np.full_like(USABLE, 255)], -1),
        np.stack([*[np.zeros_like(USABLE)] * 3, USABLE], -1),
        np.stack([*[np.full_like(USABLE, 255)] * 3, USABLE], -1),
    ],
)
def test_any_value_above_zero_is_usable(tmp_path: Path, pixels: np.ndarray) -> None:
    save_mask(tmp_path / "mask.tif", pixels)
    assert np.array_equal(load_mask(tmp_path / "mask.tif"), USABLE * 255)


def test_uniform_masks(tmp_path: Path) -> None:
    for value in (0, 255):
        for shape in ((6, 8), (6, 8, 4)):
            pixels = np.full(shape, value, dtype=np.uint8)
            pixels[..., 3:] = 255 if len(shape) == 3 else value
            save_mask(tmp_path / "mask.png", pixels)
            assert (load_mask(tmp_path / "mask.png") == value).all()
    assert load_mask(None, (8, 6)).shape == (6, 8) and load_mask(None, (8, 6)).all()


@pytest.mark.parametrize("key", ["mask_path", "mask_file_path", "mask"])
def test_an_image_without_mask_is_usable_whole(tmp_path: Path, key: str) -> None:
    entries = frame_entries(ring_poses(8))
    entries[2][key] = ".\\masks\\2.PNG"
    save_mask(tmp_path / "masks/2.png")
    folder = write_nerfstudio(tmp_path, frames=entries)
    frames = detect_and_read(folder)
    assert frames.mask_paths == [None, None, tmp_path / "masks/2.png", *[None] * 5]
    views = views_of(frames, frames.c2w)
    usable = [load_picture(views, number).usable for number in range(3)]
    assert usable[0] is usable[1] is None and usable[2] is not None
    keys = picture_keys(views)
    assert keys[1] != keys[2]
    store = load_image_store(
        CraymDataParserConfig(data=folder, eval_interval=0).setup().get_dataparser_outputs("train")
    )
    assert store.mask is not None and (store.mask > 0).sum() == 7 * 48 + USABLE.sum()


@pytest.mark.parametrize("name", ["masks/view_1.png.png", "masks/view_1.png", "mask/images/view_1.tif"])
def test_masks_under_the_usual_names_are_used_and_said(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture
) -> None:
    save_mask(write_colmap(tmp_path) / name)
    assert detect_and_read(tmp_path).mask_paths == [None, tmp_path / name, None, None]
    assert "1 of 4 images have a mask" in capsys.readouterr().out


def test_a_mask_of_another_folder_is_not_taken(tmp_path: Path) -> None:
    entries = frame_entries(ring_poses(8), "images/front/{:03d}.png")
    for number in range(8):
        save_image(tmp_path / f"images/front/{number:03d}.png")
    save_mask(tmp_path / "masks/front/001.png")
    save_mask(tmp_path / "masks/back/002.png")
    masks = detect_and_read(write_nerfstudio(tmp_path, frames=entries)).mask_paths
    assert masks == [None, tmp_path / "masks/front/001.png", *[None] * 6]


def test_masks_that_are_not_used_are_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_nerfstudio(tmp_path)
    save_mask(folder / "masks/other.png")
    save_mask(folder / "images/dynamic_mask_000.png")
    assert detect_and_read(folder).mask_paths is None
    said = capsys.readouterr().out
    assert "has no mask under the name of an image" in said and "1 masks beside the images" in said


def test_images_that_are_masked_whole_are_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_nerfstudio(tmp_path, 3)
    for number in range(3):
        save_mask(folder / f"masks/{number:03d}.png", USABLE * np.uint8(number != 1))
    stored(folder)
    assert "1 of 3 images are masked whole" in capsys.readouterr().out
