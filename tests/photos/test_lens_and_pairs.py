"""Focal lengths from EXIF, and pairs of images that look alike."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from craym_nerfstudio.matching.detectors import Features
from craym_nerfstudio.photos.lens import focal_from_exif, read_lens
from craym_nerfstudio.photos.look_alikes import EXHAUSTIVE_UP_TO, describe, pairs_without_poses

BASE = ExifTags.Base


def test_focal_length_of_the_35_mm_equivalent_relates_diagonals() -> None:
    # 26 mm of a frame with a diagonal of 43.267 mm, on a diagonal of 5000 px.
    found = focal_from_exif({BASE.FocalLengthIn35mmFilm: 26}, (4000, 3000))
    assert found == pytest.approx(26 / 43.2666 * 5000, rel=1e-4)


def test_focal_length_by_pixel_pitch_follows_the_shrinking() -> None:
    tags = {
        BASE.FocalLength: 50.0,
        BASE.FocalPlaneXResolution: 5000.0,
        BASE.FocalPlaneResolutionUnit: 2,
        BASE.ExifImageWidth: 6000,
        BASE.ExifImageHeight: 4000,
    }
    full = 50.0 * 5000.0 / 25.4
    assert focal_from_exif(tags, (6000, 4000)) == pytest.approx(full)
    assert focal_from_exif(tags, (1500, 1000)) == pytest.approx(full / 4)
    # Lies of the writer are not believed.
    assert focal_from_exif({**tags, BASE.FocalPlaneXResolution: 72.0}, (6000, 4000)) is None


@pytest.mark.parametrize("value", [0, "nonsense", float("nan"), float("inf")])
def test_nonsense_in_exif_is_no_focal_length(value: object) -> None:
    assert focal_from_exif({BASE.FocalLengthIn35mmFilm: value}, (4000, 3000)) is None


def test_lens_of_a_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[BASE.Model] = "Phone"
    exif[BASE.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[BASE.FocalLengthIn35mmFilm] = 26
    Image.new("RGB", (80, 60)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (80, 60)).save(tmp_path / "b.png")
    known, guessed = read_lens(tmp_path / "a.jpg"), read_lens(tmp_path / "b.png")
    assert known.is_known and known.orientation == 6 and known.kind == ("Phone",)
    assert known.focal_px == pytest.approx(26 / 43.2666 * 100, rel=1e-4)
    assert not guessed.is_known and guessed.focal_px == pytest.approx(96.0) and guessed.orientation == 1


def ring(count: int, shared: int = 40) -> list[Features]:
    """Images in a circle of which neighbours share half of their descriptors, in random file order."""
    random = np.random.RandomState(0)
    world = random.gamma(0.4, 40.0, (count * shared, 128)).clip(0, 255).astype(np.uint8)
    found = []
    for image in range(count):
        rows = world[np.arange(image * shared, (image + 2) * shared) % len(world)]
        numbers = np.arange(len(rows), dtype=np.int32)
        found.append(Features(random.uniform(0, 99, (len(rows), 2)).astype(np.float32), numbers, rows, np.full(2, 99)))
    return found


def test_look_alikes_find_neighbours_that_file_order_does_not() -> None:
    count = EXHAUSTIVE_UP_TO + 20
    features, order = ring(count), np.random.RandomState(1).permutation(count)
    pairs = {tuple(pair) for pair in pairs_without_poses([features[place] for place in order]).tolist()}
    place = np.argsort(order)
    neighbours = [tuple(sorted((int(place[n]), int(place[(n + 1) % count])))) for n in range(count)]
    assert sum(pair in pairs for pair in neighbours) >= 0.95 * count
    assert len(pairs) < 0.6 * count * (count - 1) / 2


def test_few_images_are_paired_completely_and_without_descriptors_too() -> None:
    empty = Features(np.zeros((0, 2), np.float32), np.zeros(0, np.int32), np.zeros((0, 128), np.uint8), np.full(2, 99))
    assert len(pairs_without_poses([empty] * 5)) == 10
    assert np.isfinite(describe([empty] * 3)).all()
    assert np.isfinite(describe([*ring(3), empty])).all()
