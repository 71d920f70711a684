"""Intrinsics that lie in text files beside images: as a matrix, as a line of numbers, or under their names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from craym_nerfstudio.data.files import read_text
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.photos.files import listed
from craym_nerfstudio.photos.lens import read_lens

_FOLDERS = ("intrinsics", "intrinsic", "calibration", "calib")
_STEM = re.compile(r"intrinsic|calib|camera|^cam|^k$", re.IGNORECASE)
_OTHER_STEM = re.compile(r"extrinsic|depth|pose|trajectory|infra", re.IGNORECASE)
_SUFFIXES = (".txt", ".csv", ".json", ".yaml", ".yml")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NAMED = re.compile(rf"\b(fx|fy|cx|cy|fl_x|fl_y|k1|k2|k3|p1|p2)[\"']?\s*[:=]\s*({_NUMBER})")
"""As in the settings of ORB-SLAM (`Camera.fx: 525.0`) and in JSON."""
_LISTED = r"{}[\"']?\s*:.*?data[\"']?\s*:\s*\[([^\]]*)\]"
"""As OpenCV and ROS write matrices into YAML: the name stands for the braces."""
_ROW = re.compile(r"(?:P(?:_rect_0)?(\d)):?\s")
"""Of KITTI's calibration: the projection matrix of one of several cameras."""
_LEAST, _MOST = 4, 9
"""Numbers of a line ``fx fy cx cy k1 k2 p1 p2 k3``, of which the distortion may be missing."""


@dataclass(frozen=True)
class TextIntrinsics:
    """Intrinsics of images at the size of their files."""

    pinhole_px: Float[np.ndarray, "images 4"]
    """fx, fy, cx, cy."""
    distortion: Float[np.ndarray, "images 6"]
    """k1, k2, k3, k4, p1, p2."""
    source: str
    """In words."""


def find_intrinsics(
    data: Path, images: Sequence[Path], size_px: Int[np.ndarray, "images 2"], poses: Path
) -> TextIntrinsics:
    """Of a file for each image, else of one file for all, else of the images' EXIF.

    Raises:
        InputError: none of these tells the focal length, or several files that could are there.
    """
    single = _of_each(data, images) or _of_all(data, images)
    if single is not None:
        values, source = single
        middle = np.where(np.isnan(values[:, 2:4]), size_px / 2, values[:, 2:4])
        return TextIntrinsics(np.concatenate([values[:, :2], middle], axis=1), values[:, 4:], source)
    lenses = [read_lens(path) for path in images]
    if not all(lens.is_known for lens in lenses):
        remedy = 'Write "fx fy cx cy" in pixels (and k1 k2 p1 p2 where they are known) into intrinsics.txt beside it. '
        remedy += f"Not known? craym adjust --data {images[0].parent} finds it without these poses."
        raise InputError("No focal length for these poses", poses, remedy)
    focal = np.array([lens.focal_px for lens in lenses])[:, None]
    return TextIntrinsics(np.concatenate([focal, focal, size_px / 2], axis=1), np.zeros((len(images), 6)), "EXIF")


def _of_each(data: Path, images: Sequence[Path]) -> tuple[Float[np.ndarray, "images 10"], str] | None:
    for folder in (data / name for name in _FOLDERS):
        paths = [folder / f"{image.stem}.txt" for image in images]
        if all(path.is_file() for path in paths):
            found = [read_intrinsics(path) for path in paths]
            values = [value for value in found if value is not None]
            if len(values) == len(paths):
                return np.array(values), f"{folder.name}/"
    return None


def _of_all(data: Path, images: Sequence[Path]) -> tuple[Float[np.ndarray, "images 10"], str] | None:
    folders = [folder for folder in (data, *(data / name for name in _FOLDERS)) if folder.is_dir()]
    files = [path for folder in folders for path in sorted(folder.iterdir()) if _may_tell(path)]
    camera = re.search(r"_0?(\d)$", images[0].parent.name)
    read = ((path, read_intrinsics(path, camera[1] if camera else "0")) for path in files)
    found = {path: values for path, values in read if values is not None}
    colour = {path: values for path, values in found.items() if re.search(r"colou?r|rgb", path.stem, re.IGNORECASE)}
    found = colour or found
    if not found:
        return None
    first = next(iter(found.values()))
    if any(not np.array_equal(first, other, equal_nan=True) for other in found.values()):
        names = listed([path.relative_to(data).as_posix() for path in found])
        raise InputError(f"Different intrinsics in {names}", data, "Keep the one that belongs to the images.")
    return np.tile(first, (len(images), 1)), next(iter(found)).relative_to(data).as_posix()


def _may_tell(path: Path) -> bool:
    is_named = _STEM.search(path.stem) is not None and _OTHER_STEM.search(path.stem) is None
    return is_named and path.suffix.lower() in _SUFFIXES and path.is_file()


def read_intrinsics(path: Path, camera: str = "0") -> Float[np.ndarray, "10"] | None:
    """fx, fy, cx, cy [px; NaN for a centre that is not told] and k1, k2, k3, k4, p1, p2; None where none are told.

    `camera` is the number of the one that is meant where a file tells of several.
    """
    text = read_text(path)
    if path.suffix.lower() in (".json", ".yaml", ".yml"):
        return _of_names(text)
    rows = [row[1] for row in map(_ROW.match, text.splitlines()) if row]
    if rows:
        meant = camera if camera in rows or len(rows) > 1 else rows[0]
        lines = [line.split()[1:] for line in text.splitlines() if (row := _ROW.match(line)) and row[1] == meant]
    else:
        lines = [line.partition("#")[0].replace(",", " ").split() for line in text.splitlines()]
    try:
        numbers = [[float(word) for word in line] for line in lines if line]
    except ValueError:
        return _of_names(text)
    return _of_numbers(numbers) if numbers else None


def _of_names(text: str) -> Float[np.ndarray, "10"] | None:
    values = {name.replace("fl_", "f"): float(number) for name, number in _NAMED.findall(text)}
    matrix, distortion = (
        re.search(_LISTED.format(name), text, re.DOTALL) for name in ("camera_matrix", "distortion_coefficients")
    )
    if not values and matrix:
        numbers = [float(number) for number in re.findall(_NUMBER, matrix[1])]
        lens = [float(number) for number in re.findall(_NUMBER, distortion[1])] if distortion else []
        if len(numbers) == 9:
            return _of_line([numbers[0], numbers[4], numbers[2], numbers[5], *lens[:5]])
    if "fx" not in values:
        return None
    fx = values["fx"]
    keys = ("cx", "cy", "k1", "k2", "p1", "p2", "k3")
    return _of_line([fx, values.get("fy", fx), *(values.get(key, np.nan if key[0] == "c" else 0.0) for key in keys)])


def _of_numbers(rows: list[list[float]]) -> Float[np.ndarray, "10"] | None:
    """Of a matrix, in rows or in one, else of the first line."""
    shape = (len(rows), len(rows[0])) if len({len(row) for row in rows}) == 1 else (0, 0)
    flat = list(chain(*rows)) if shape in ((3, 3), (3, 4), (4, 4)) else rows[0]
    if len(flat) in (9, 12, 16):
        matrix = np.array(flat).reshape(4 if len(flat) == 16 else 3, -1)
        if np.allclose(matrix[[1, 2, 2], [0, 0, 1]], 0) and np.isclose(matrix[2, 2], 1):
            return _of_line([*matrix[[0, 1], [0, 1]], *matrix[:2, 2]])
        if len(rows) > 1:
            return None
    line = rows[0]
    if len(line) == 1:
        return _of_line([line[0], line[0], np.nan, np.nan])
    # NSVF writes the focal length and the centre, then a zero.
    if len(line) == 3 or (len(line) == 4 and line[3] == 0):
        return _of_line([line[0], *line[:3]])
    return _of_line(line) if _LEAST <= len(line) <= _MOST else None


def _of_line(values: Sequence[float]) -> Float[np.ndarray, "10"] | None:
    """From ``fx fy cx cy k1 k2 p1 p2 k3``, of which the end may be missing."""
    fx, fy, cx, cy, k1, k2, p1, p2, k3 = (*values, *[0.0] * (_MOST - len(values)))
    return np.array([fx, fy, cx, cy, k1, k2, k3, 0.0, p1, p2]) if fx > 0 and fy > 0 else None
