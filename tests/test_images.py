"""One decoder and one rule for masks: training and matching must see the same pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.images import load_image, load_mask, read_header
from craym_nerfstudio.matching.images import load_picture
from craym_nerfstudio.matching.views import Views


def views_of(image: Path, size_px: tuple[int, int], mask: Path | None = None) -> Views:
    """One view of an image file."""
    return Views(
        names=[image.name],
        paths=[image],
        mask_paths=None if mask is None else [mask],
        c2w=np.eye(3, 4)[None],
        focal_px=np.ones(1),
        size_px=np.array([size_px]),
        bearings=lambda *_: np.zeros((0, 3)),
    )


def test_floats_are_refused_by_both(tmp_path: Path) -> None:
    path = tmp_path / "depth.tif"
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(path)
    for load in (lambda: load_image(path), lambda: load_picture(views_of(path, (8, 8)), 0)):
        with pytest.raises(InputError, match="Floating-point image"):
            load()


def test_a_pixel_that_is_mostly_masked_is_unknown_to_both(tmp_path: Path) -> None:
    """Shrunk by two: one usable pixel of four is not enough, three are."""
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    Image.new("RGB", (32, 32), "grey").save(image)
    values = np.zeros((32, 32), dtype=np.uint8)
    values[:16:2, :16:2] = 255
    values[16:, 16:] = 255
    values[16::2, 16::2] = 0
    Image.fromarray(values).save(mask)
    usable = load_mask(mask, (16, 16)) > 0
    assert usable[8:, 8:].all() and usable.sum() == 64
    seen = load_picture(views_of(image, (16, 16), mask), 0).usable
    # Keypoints may lie two pixels beyond: outlines make good corners.
    assert seen is not None and seen[6:, 6:].all() and seen.sum() == 100


def test_transparent_pixels_lie_on_white_and_colours_do_not_bleed(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[..., 1] = 200
    pixels[:, :2] = [255, 0, 0, 255]
    Image.fromarray(pixels).save(path)
    assert load_image(path, (2, 2))[0].tolist() == [[255, 0, 0, 255], [0, 0, 0, 0]]
    assert load_picture(views_of(path, (2, 2)), 0).rgb[0].tolist() == [[255, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_header_is_read_without_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    Image.new("RGB", (30, 20)).save(tmp_path / f"plain.{suffix}")

    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    assert read_header(path).size_px == (30, 20) and read_header(path).is_turned_by_exif
    assert not read_header(tmp_path / f"plain.{suffix}").is_turned_by_exif


def test_values_of_twelve_bits_in_sixteen_are_remarked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As machine vision cameras write them: they would be sixteen times too dark."""
    monkeypatch.setattr("craym_nerfstudio.images._said_dark", False)
    for name, largest in (("full", 60000), ("few", 4000), ("also", 4000)):
        Image.fromarray(np.full((4, 4), largest, dtype=np.uint16)).save(tmp_path / f"{name}.png")
        load_image(tmp_path / f"{name}.png")
    said = capsys.readouterr().out
    assert "few.png" in said and "no value above 4000" in said and "full.png" not in said and "also.png" not in said
