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
from craym_nerfstudio.photos.lens import PLAUSIBLE_RATIO, read_lens

_FOLDERS = ("intrinsics", "intrinsic", "calibration", "calib")
_STEM = re.compile(r"intrinsic|calib|camera|^cam|^k$", re.IGNORECASE)
_OTHER_STEM = re.compile(r"extrinsic|depth|pose|traj|infra|time|stamp|odom|path|position|expos", re.IGNORECASE)
_SUFFIXES = (".txt", ".csv", ".json", ".yaml", ".yml")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NAMED = re.compile(rf"\b(fx|fy|cx|cy|fl_x|fl_y|k1|k2|k3|p1|p2|w|h|width|height)[\"']?\s*[:=]\s*({_NUMBER})")
"""As in the settings of ORB-SLAM (`Camera.fx: 525.0`) and in JSON."""
_LISTED = r"{}[\"']?\s*:[^\[]*\[([^\]]*)\]"
"""Numbers in brackets after the name that stands for the braces, as OpenCV, ROS and MASt3R-SLAM write into YAML."""
_OTHER_LENS = re.compile(r"KannalaBrandt|equidistant|fisheye|rational|omni", re.IGNORECASE)
_ROW = re.compile(r"P(?:_rect_0)?(\d):?\s")
"""Of KITTI's calibration: the projection matrix of one of several cameras."""
_LEAST, _MOST = 4, 9
"""Numbers of a line ``fx fy cx cy k1 k2 p1 p2 k3``, of which the distortion may be missing."""
_MOST_ASPECT, _MOST_SKEW = 2.0, 1e-3
"""Ratio of the focal lengths, and skew in focal lengths, that cameras have."""


@dataclass(frozen=True)
class TextIntrinsics:
    """Intrinsics of images at the size of their files."""

    pinhole_px: Float[np.ndarray, "images 4"]
    """fx, fy, cx, cy."""
    distortion: Float[np.ndarray, "images 6"]
    """k1, k2, k3, k4, p1, p2."""
    source: str
    """In words."""

    @classmethod
    def of_focals(
        cls, focal_px: Float[np.ndarray, " images"], size_px: Int[np.ndarray, "images 2"], source: str
    ) -> "TextIntrinsics":
        """Of focal lengths alone: no distortion, and the middle for a centre."""
        pinhole = np.concatenate([np.tile(focal_px[:, None], (1, 2)), size_px / 2], axis=1)
        return cls(pinhole, np.zeros((len(focal_px), 6)), source)


def find_intrinsics(
    data: Path, images: Sequence[Path], size_px: Int[np.ndarray, "images 2"], poses: Path
) -> TextIntrinsics:
    """Of a file for each image, else of one file for all, else of the images' EXIF.

    Raises:
        InputError: none of these tells the focal length, or they contradict each other or the size of the images.
    """
    folders = [folder for folder in (data, *(data / name for name in _FOLDERS)) if folder.is_dir()]
    files = [path for folder in folders for path in sorted(folder.iterdir()) if _may_tell(path) and path != poses]
    told = _of_each(data, images) or _of_all(data, files, images)
    if told is not None:
        values, source = told
        middle = np.where(np.isnan(values[:, 2:4]), size_px / 2, values[:, 2:4])
        pinhole = np.concatenate([values[:, :2], middle], axis=1)
        _check(pinhole, size_px, data / source)
        return TextIntrinsics(pinhole, values[:, 4:], source)
    lenses = [read_lens(path) for path in images]
    if not all(lens.is_known for lens in lenses):
        found = f"; {listed([path.name for path in files])} not understood" if files else ""
        remedy = 'Write "fx fy cx cy" in pixels (and k1 k2 p1 p2 where they are known) into intrinsics.txt beside it.'
        if images[0].parent != data:
            remedy += f" Not known? craym adjust --data {images[0].parent} finds it without these poses."
        raise InputError(f"No focal length for these poses{found}", poses, remedy)
    return TextIntrinsics.of_focals(np.array([lens.focal_px for lens in lenses]), size_px, "EXIF")


def _check(pinhole: Float[np.ndarray, "images 4"], size_px: Int[np.ndarray, "images 2"], source: Path) -> None:
    focal, center = pinhole[:, :2], pinhole[:, 2:]
    low, high = (bound * size_px.max(1, keepdims=True) for bound in PLAUSIBLE_RATIO)
    fits = ((focal > low) & (focal < high) & (center > 0) & (center < size_px)).all(1)
    fits &= focal.max(1) < _MOST_ASPECT * focal.min(1)
    if not fits.all():
        fx, fy, cx, cy = pinhole[first := int((~fits).argmax())]
        problem = f"Intrinsics fx {fx:.6g}, fy {fy:.6g}, cx {cx:.6g}, cy {cy:.6g} do not fit images of "
        remedy = "Write those of the images at the size of their files, in pixels, as fx fy cx cy."
        raise InputError("{}{} x {} px".format(problem, *size_px[first]), source, remedy)


def _of_each(data: Path, images: Sequence[Path]) -> tuple[Float[np.ndarray, "images 10"], str] | None:
    for folder in (data / name for name in _FOLDERS):
        paths = [folder / f"{image.stem}.txt" for image in images]
        if all(path.is_file() for path in paths):
            found = [read_intrinsics(path) for path in paths]
            values = [value for value in found if value is not None]
            if len(values) == len(paths):
                return np.array(values), folder.name
    return None


def _of_all(
    data: Path, files: Sequence[Path], images: Sequence[Path]
) -> tuple[Float[np.ndarray, "images 10"], str] | None:
    camera = re.search(r"_0?(\d)$", images[0].parent.name)
    read = ((path, read_intrinsics(path, camera[1] if camera else "0")) for path in files)
    found = {path: values for path, values in read if values is not None}
    for preferred in (r"^intrinsics$", r"colou?r|rgb", r"intrinsic"):
        found = {path: found[path] for path in found if re.search(preferred, path.stem, re.IGNORECASE)} or found
    if not found:
        return None
    first = next(iter(found.values()))
    if any(not np.array_equal(first, other, equal_nan=True) for other in found.values()):
        names = listed([path.relative_to(data).as_posix() for path in found])
        raise InputError(f"Different intrinsics in {names}", data, "Keep the one that belongs to the images.")
    return np.tile(first, (len(images), 1)), next(iter(found)).relative_to(data).as_posix()


def _may_tell(path: Path) -> bool:
    is_named = _STEM.search(path.stem) is not None and _OTHER_STEM.search(path.stem) is None
    return is_named and path.suffix.lower() in _SUFFIXES and path.is_file() and not path.name.startswith(".")


def read_intrinsics(path: Path, camera: str = "0") -> Float[np.ndarray, "10"] | None:
    """fx, fy, cx, cy [px; NaN for a centre that is not told] and k1, k2, k3, k4, p1, p2.

    None where a file tells no such thing. `camera` is the number of the one that is meant where it tells of several.

    Raises:
        InputError: a lens that is not supported, or several cameras.
    """
    try:
        lines = [line.partition("#")[0] for line in read_text(path).splitlines()]
    except InputError:
        return None
    matrices = {row[1]: line.split()[1:] for line in lines if (row := _ROW.match(line))}
    if matrices:
        lines = [" ".join(matrices.get(camera, matrices["0"] if set(matrices) == {"0"} else []))]
    words = [line.replace(",", " ").split() for line in lines if line.strip()]
    try:
        numbers = [[float(word) for word in line] for line in words]
    except ValueError:
        return _of_names("\n".join(lines), path)
    return _of_numbers(numbers) if numbers and np.isfinite(list(chain(*numbers))).all() else None


def _of_names(text: str, path: Path) -> Float[np.ndarray, "10"] | None:
    pairs = {(name.replace("fl_", "f"), float(number)) for name, number in _NAMED.findall(text)}
    values: dict[str, float] = dict(pairs)
    matrix, line, distortion = (
        [float(number) for number in re.findall(_NUMBER, found[1])] if found else []
        for found in (
            re.search(_LISTED.format(name), text)
            for name in (r"(?:camera|intrinsic)_matrix", "calibration", "distortion_coefficients")
        )
    )
    if "fx" not in values and len(matrix) != 9 and not _LEAST <= len(line) <= _MOST:
        return None
    if found := _OTHER_LENS.search(text):
        raise InputError(f"Lens model {found[0]} is not supported", path, "Undistort the images; write fx fy cx cy.")
    if len(pairs) > len(values):
        raise InputError("Several cameras in one file", path, "Keep the one that belongs to the images.")
    if "fx" not in values:
        return _of_line([matrix[0], matrix[4], matrix[2], matrix[5], *distortion[:5]] if matrix else line)
    fx = values["fx"]
    keys = ("cx", "cy", "k1", "k2", "p1", "p2", "k3")
    others = [values.get(key, float("nan") if key in ("cx", "cy") else 0.0) for key in keys]
    return _of_line([fx, values.get("fy", fx), *others])


def _of_numbers(rows: list[list[float]]) -> Float[np.ndarray, "10"] | None:
    """Of a matrix, in rows or in one, else of the lines."""
    shape = (len(rows), len(rows[0])) if len({len(row) for row in rows}) == 1 else (0, 0)
    flat = list(chain(*rows)) if shape in ((3, 3), (3, 4), (4, 4)) else rows[0]
    if len(flat) in (9, 12, 16):
        matrix = np.array(flat).reshape(4 if len(flat) == 16 else 3, -1)
        is_camera = np.allclose(matrix[[1, 2, 2], [0, 0, 1]], 0) and np.isclose(matrix[2, 2], 1)
        if is_camera and abs(matrix[0, 1]) <= _MOST_SKEW * matrix[0, 0]:
            return _of_line([*matrix[[0, 1], [0, 1]], *matrix[:2, 2]])
        if len(rows) > 1:
            return None
    # NSVF writes the focal length and the centre, then a zero, and other things below.
    is_nsvf = len(rows[0]) == 4 and rows[0][3] == 0
    if shape == (0, 0) and not is_nsvf:
        return None
    return _of_row(rows[0]) if is_nsvf or all(row == rows[0] for row in rows) else None


def _of_row(row: list[float]) -> Float[np.ndarray, "10"] | None:
    if len(row) == 1:
        return _of_line([row[0], row[0], np.nan, np.nan])
    if len(row) == 3 or (len(row) == 4 and row[3] == 0):
        return _of_line([row[0], *row[:3]])
    # Six are with width and height where the last are no distortion.
    return _of_line(row[:4] if len(row) == 6 and min(row[4:]) > 2 else row) if _LEAST <= len(row) <= _MOST else None


def _of_line(values: Sequence[float]) -> Float[np.ndarray, "10"] | None:
    """From ``fx fy cx cy k1 k2 p1 p2 k3``, of which the end may be missing."""
    fx, fy, cx, cy, k1, k2, p1, p2, k3 = (*values, *[0.0] * (_MOST - len(values)))
    return np.array([fx, fy, cx, cy, k1, k2, k3, 0.0, p1, p2]) if fx > 0 and fy > 0 else None
