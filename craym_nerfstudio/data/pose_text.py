"""Poses as text, one row or one small file for each image: which form it has, and what it says.

What SLAM systems, depth cameras and relocalisers write often has no headline. The number of values tells the form, and
quaternions of length one and rotations that are some tell that it is poses at all. All use OpenCV's camera axes.
"""

import re
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from craym_nerfstudio.data.files import clean_name, match_key, read_text
from craym_nerfstudio.geometry.axes import flip_pose_axes
from craym_nerfstudio.geometry.lie import inverse

_FORMS = {
    "8": "time, position and quaternion (TUM), camera to world",
    "12": "3 x 4 matrix (KITTI), camera to world",
    "13": "time and 3 x 4 matrix, camera to world",
    "16": "4 x 4 matrix, camera to world",
    "17": "time and 4 x 4 matrix, camera to world",
    "name 7": "image name, quaternion and translation, world to camera",
    "name 9": "image name, quaternion and translation, world to camera, focal length (ACE0)",
    "name 12": "image name and 3 x 4 matrix, camera to world",
    "name 16": "image name and 4 x 4 matrix, camera to world",
    "log": "4 x 4 matrix after three numbers (Redwood, Tanks and Temples), camera to world",
}
_MATRIX_ROWS = ([4, 4, 4], [4, 4, 4, 4], [12], [16])
_HEADS = {
    "time": re.compile(r"#?\s*(frame|index|timestamp|time|stamp)s?$"),
    **{axis: re.compile(rf"(t|p|pos|position)?[._]?{axis}$") for axis in "xyz"},
    **{f"q{axis}": re.compile(rf"(q|quat|quaternion|orientation)[._]?{axis}$") for axis in "xyzw"},
}
"""Columns of a headline, in the order of TUM's form; the number of a frame counts before the time when it was taken."""
_MOST_OFF = 0.02
"""Of a quaternion's length, and of a rotation's rows from orthonormal ones: decimals are rounded."""
_MOST_OTHERS = 0.05
"""Share of the rows that may be neither poses nor what is written where tracking was lost."""
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
    are_counts: bool = False
    """Whether the times are numbers of images, counted from the first as 0."""


def read_pose_table(path: Path) -> PoseTable | None:
    """The poses that a text file lists; None where it holds something else.

    Raises:
        InputError: the file cannot be read.
    """
    head, rows = _rows(path)
    widths = [len(row) for row in rows]
    if not rows:
        return None
    if len(rows) % 5 == 0 and widths == [3, 4, 4, 4, 4] * (len(rows) // 5):
        values = _numbers([[rows[k][0], *chain(*rows[k + 1 : k + 5])] for k in range(0, len(rows), 5)])
        return _table("log", values)
    if len(set(widths)) > 1:
        return None
    if head and len(head) == widths[0]:
        order = [next((k for k, word in enumerate(head) if form.match(word)), -1) for form in _HEADS.values()]
        if min(order) >= 0:
            return _table("8", _numbers([[row[column] for column in order] for row in rows]))
    if match_key(rows[0][0]) != clean_name(rows[0][0]):
        return _table(f"name {widths[0] - 1}", _numbers([row[1:] for row in rows]), [row[0] for row in rows])
    return _table(str(widths[0]), _numbers(rows))


def read_pose_matrix(path: Path) -> Float[np.ndarray, "3 4"] | None:
    """The pose (OpenGL axes) that a text file holds alone, in three or four rows or in one; None for something else.

    Raises:
        InputError: the file cannot be read.
    """
    _, rows = _rows(path)
    values = _numbers([list(chain(*rows))]) if [len(row) for row in rows] in _MATRIX_ROWS else None
    table = None if values is None else _table(str(values.shape[1]), values)
    return None if table is None else table.c2w[0]


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Words of the headline, a comment or not, and of the lines that say something."""
    if path.stat().st_size > _LARGEST_BYTES:
        return [], []
    lines = [line.replace(",", " ").split() for line in read_text(path).splitlines() if line.strip()]
    comments = [line for line in lines if line[0].startswith("#")]
    rows = [line for line in lines if not line[0].startswith("#")]
    if rows and len(rows[0]) > 1 and _numbers([rows[0][1:]]) is None:
        return [word.lower() for word in rows[0]], rows[1:]
    head = [word.lower() for word in comments[-1]] if comments else []
    return head[1:] if head[:1] == ["#"] else head, rows


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
    if form in ("8", "13", "17", "log"):
        times, values = values[:, 0], values[:, 1:]
    if form == "8":
        c2w = _from_quaternions(values[:, 3:], values[:, :3])
    elif form in ("name 7", "name 9"):
        c2w = _from_quaternions(values[:, [1, 2, 3, 0]], values[:, 4:7])
        c2w = None if c2w is None else inverse(torch.from_numpy(c2w)).numpy()
        focal_px = values[:, 7] if form == "name 9" else None
    else:
        c2w = _from_matrices(values)
    if c2w is None:
        return None
    return PoseTable(flip_pose_axes(c2w), _FORMS[form], names, times, focal_px, form == "log")


def _from_quaternions(
    xyzw: Float[np.ndarray, "n 4"], position: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 3 4"] | None:
    """Poses, NaN where tracking was lost (no quaternion, or zero); None where these are no quaternions."""
    from scipy.spatial.transform import Rotation

    length = np.linalg.norm(xyzw, axis=-1)
    is_one = (np.abs(length - 1) < _MOST_OFF) & np.isfinite(position).all(-1)
    are_others = ~is_one & np.isfinite(length) & (length > 0)
    if not is_one.any() or are_others.mean() > _MOST_OTHERS:
        return None
    turned = Rotation.from_quat(np.where(is_one[:, None], xyzw, [0.0, 0.0, 0.0, 1.0])).as_matrix()
    pose = np.concatenate([turned, position[:, :, None]], axis=2)
    return np.where(is_one[:, None, None], pose, np.nan)


def _from_matrices(values: Float[np.ndarray, "n columns"]) -> Float[np.ndarray, "n 3 4"] | None:
    """Poses, NaN where tracking was lost (no numbers, or zeros); None where these are no poses."""
    is_known = np.isfinite(values).all(1) & values[:, :3].any(1)
    known = values[is_known]
    if not len(known) or (known.shape[1] == 16 and not np.allclose(known[:, 12:], [0, 0, 0, 1], atol=1e-6)):
        return None
    pose = values[:, :12].reshape(-1, 3, 4)
    if not _are_rotations(pose[is_known, :, :3]):
        return None
    return np.where(is_known[:, None, None], pose, np.nan)


def _are_rotations(matrices: Float[np.ndarray, "n 3 3"]) -> bool:
    """Whether nearly all are, up to a scale."""
    gram = matrices @ matrices.transpose(0, 2, 1)
    scale = np.trace(gram, axis1=1, axis2=2)[:, None, None] / 3
    off = np.abs(gram - scale * np.eye(3)).max((1, 2))
    return bool((off > _MOST_OFF * scale[:, 0, 0]).mean() <= _MOST_OTHERS)
