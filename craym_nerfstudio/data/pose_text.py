"""Poses as text, one row or one small file for each image: which form it has, and what it says.

What SLAM systems, depth cameras and relocalisers write has no header. The number of values tells the form, and
quaternions of length one and rotations that are some tell that it is poses at all. All use OpenCV's camera axes.
"""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from craym_nerfstudio.data.files import clean_name, match_key, read_text
from craym_nerfstudio.geometry.axes import flip_pose_axes

_FORMS = {
    "8": "time, position and quaternion (TUM)",
    "12": "3 x 4 matrix (KITTI)",
    "13": "time and 3 x 4 matrix",
    "16": "4 x 4 matrix",
    "17": "time and 4 x 4 matrix",
    "name 7": "image name, quaternion and translation of world to camera",
    "name 9": "image name, quaternion and translation of world to camera, focal length (ACE0)",
    "name 12": "image name and 3 x 4 matrix",
    "name 16": "image name and 4 x 4 matrix",
    "log": "4 x 4 matrix after a line of three numbers (Redwood, Tanks and Temples)",
}
_MATRIX_ROWS = ([4, 4, 4], [4, 4, 4, 4], [12], [16])
_COLUMNS = ("x", "y", "z", "qx", "qy", "qz", "qw")
_COUNTERS = ("frame", "index", "timestamp", "time")
"""Of a headline; the number of a frame says more than the time when it was taken."""
_MOST_OFF = 0.02
"""Of a quaternion's length, and of a rotation's rows from orthonormal ones: decimals are rounded."""
_LARGEST_BYTES = 50_000_000


@dataclass(frozen=True)
class PoseTable:
    """Poses of images that are told by name, by time, or by nothing but their order."""

    c2w: Float[np.ndarray, "rows 3 4"]
    """OpenGL camera axes; NaN where tracking was lost."""
    form: str
    """In words."""
    names: list[str] | None = None
    times: Float[np.ndarray, " rows"] | None = None
    focal_px: Float[np.ndarray, " rows"] | None = None


def read_pose_table(path: Path) -> PoseTable | None:
    """The poses that a text file lists; None where it holds something else."""
    head, rows = _rows(path)
    if head is not None:
        rows = _by_head(head, rows)
    widths = [len(row) for row in rows]
    if not rows:
        return None
    if len(rows) % 5 == 0 and widths == [3, 4, 4, 4, 4] * (len(rows) // 5):
        values = _numbers([list(chain(*rows[first + 1 : first + 5])) for first in range(0, len(rows), 5)])
        return _table("log", values)
    if len(set(widths)) > 1:
        return None
    if match_key(rows[0][0]) != clean_name(rows[0][0]):
        return _table(f"name {widths[0] - 1}", _numbers([row[1:] for row in rows]), [row[0] for row in rows])
    return _table(str(widths[0]), _numbers(rows))


def read_pose_matrix(path: Path) -> Float[np.ndarray, "3 4"] | None:
    """The pose (OpenGL axes) that a text file holds alone, in three or four rows or in one; None for something else."""
    _, rows = _rows(path)
    values = _numbers([list(chain(*rows))]) if [len(row) for row in rows] in _MATRIX_ROWS else None
    table = None if values is None else _table(str(values.shape[1]), values)
    return None if table is None else table.c2w[0]


def _rows(path: Path) -> tuple[list[str] | None, list[list[str]]]:
    """Words of the headline, if there is one, and of the lines that say something."""
    if path.stat().st_size > _LARGEST_BYTES:
        return None, []
    lines = (line.partition("#")[0].replace(",", " ").split() for line in read_text(path).splitlines())
    rows = [row for row in lines if row]
    if rows and _numbers([rows[0][1:]]) is None:
        return [word.lower().removeprefix("t") if len(word) == 2 else word.lower() for word in rows[0]], rows[1:]
    return None, rows


def _by_head(head: list[str], rows: list[list[str]]) -> list[list[str]]:
    """Rows as in TUM's form where the headline names its columns; else as they are."""
    counter = next((name for name in _COUNTERS if name in head), None)
    if counter is None or not set(_COLUMNS) <= set(head) or any(len(row) != len(head) for row in rows):
        return rows
    order = [head.index(name) for name in (counter, *_COLUMNS)]
    return [[row[column] for column in order] for row in rows]


def _numbers(rows: list[list[str]]) -> Float[np.ndarray, "rows columns"] | None:
    try:
        return np.array(rows, dtype=np.float64)
    except ValueError:
        return None


def _table(
    form: str, values: Float[np.ndarray, "rows columns"] | None, names: list[str] | None = None
) -> PoseTable | None:
    """Poses of rows without their names; None where they are none."""
    if values is None or form not in _FORMS:
        return None
    times, focal_px = None, None
    if form in ("8", "13", "17"):
        times, values = values[:, 0], values[:, 1:]
    if form == "8":
        c2w = _from_quaternions(values[:, 3:], values[:, :3])
    elif form in ("name 7", "name 9"):
        c2w = _inverse(_from_quaternions(values[:, [1, 2, 3, 0]], values[:, 4:7]))
        focal_px = values[:, 7] if form == "name 9" else None
    else:
        if values.shape[1] == 16 and not np.allclose(_known(values)[:, 12:], [0, 0, 0, 1], atol=1e-6):
            return None
        c2w = values[:, :12].reshape(-1, 3, 4)
    is_known = np.isfinite(c2w).all((1, 2))
    if not is_known.any() or not _are_rotations(c2w[is_known, :, :3]):
        return None
    c2w = np.where(is_known[:, None, None], c2w, np.nan)
    return PoseTable(flip_pose_axes(c2w), _FORMS[form], names, times, focal_px)


def _known(values: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "known columns"]:
    return values[np.isfinite(values).all(1)]


def _from_quaternions(xyzw: Float[np.ndarray, "n 4"], position: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 4"]:
    """NaN where the quaternion has not length one, as where tracking was lost."""
    from scipy.spatial.transform import Rotation

    is_one: Bool[np.ndarray, " n"] = np.abs(np.linalg.norm(xyzw, axis=-1) - 1) < _MOST_OFF
    turned = Rotation.from_quat(np.where(is_one[:, None], xyzw, [0.0, 0.0, 0.0, 1.0])).as_matrix()
    pose = np.concatenate([turned, position[:, :, None]], axis=2)
    return np.where(is_one[:, None, None], pose, np.nan)


def _inverse(pose: Float[np.ndarray, "n 3 4"]) -> Float[np.ndarray, "n 3 4"]:
    turned = pose[:, :, :3].transpose(0, 2, 1)
    return np.concatenate([turned, -turned @ pose[:, :, 3:]], axis=2)


def _are_rotations(matrices: Float[np.ndarray, "n 3 3"]) -> bool:
    """Whether most are, up to a common scale."""
    gram = matrices @ matrices.transpose(0, 2, 1)
    scale = np.trace(gram, axis1=1, axis2=2)[:, None, None] / 3
    off = np.abs(gram - scale * np.eye(3)).max((1, 2))
    return bool(np.median(off / np.maximum(scale[:, 0, 0], 1e-12)) < _MOST_OFF)
