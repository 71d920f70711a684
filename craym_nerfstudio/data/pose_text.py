"""Poses as text, one row or one small file for each image: which form it has, and what it says.

What SLAM systems, depth cameras and relocalisers write often has no headline. The number of values tells the form, and
quaternions of length one and rotations that are some tell that it is poses at all. All use OpenCV's camera axes.
"""

from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from craym_nerfstudio.data.files import clean_name, match_key, read_text
from craym_nerfstudio.data.pose_headline import (
    POSITION_FIRST,
    QUATERNION_FIRST,
    columns_of,
    label_column,
    names_quaternion,
    stand_together,
    words_of,
)
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.axes import flip_pose_axes
from craym_nerfstudio.geometry.lie import inverse

_FORMS = {
    "8": "time, position and quaternion (TUM), camera to world",
    "headline": "position and quaternion under their headline, camera to world",
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
_ORDERS = {"8": POSITION_FIRST, "name 7": QUATERNION_FIRST, "name 9": QUATERNION_FIRST}
"""Of the parts, where no headline tells another."""
_MATRIX_ROWS = ([4, 4, 4], [4, 4, 4, 4], [12], [16])
_MOST_OFF = 0.02
"""Of a quaternion's length, and of a rotation's rows from orthonormal ones: decimals are rounded."""
_MOST_OTHERS = 0.05
"""Share of the rows that may be neither poses nor what is written where tracking was lost."""
_LARGEST_BYTES = 50_000_000


class HeadlineError(InputError):
    """Poses are there, but what their columns are is not told."""


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
        HeadlineError: a headline that leaves the order of a quaternion open.
        InputError: the file cannot be read.
    """
    lines, rows = _rows(path)
    widths = [len(row) for row in rows]
    if not rows:
        return None
    if len(rows) % 5 == 0 and widths == [3, 4, 4, 4, 4] * (len(rows) // 5):
        values = _numbers([[rows[k][0], *chain(*rows[k + 1 : k + 5])] for k in range(0, len(rows), 5)])
        return _table("log", values)
    if len(set(widths)) > 1:
        return None
    is_named = match_key(rows[0][0]) != clean_name(rows[0][0])
    form = f"name {widths[0] - 1}" if is_named else str(widths[0])
    # The last comment that may be one: those before it tell of other things.
    heads = [words for line in lines if _is_headline(words := words_of(line, widths[0]), line)]
    head = heads[-1] if heads else []
    columns = columns_of(head)
    is_usual = columns is not None and stand_together(head, columns, _ORDERS.get(form, ()), at_end=form != "name 9")
    if columns is not None and not is_usual and len(head) == widths[0]:
        return _under_headline(head, columns, rows, path)
    names = [row[0] for row in rows] if is_named else None
    table = _table(form, _numbers([row[is_named:] for row in rows]), names)
    if table is not None and form in _ORDERS and head and not is_usual:
        raise _not_understood(head, path)
    return table


def _is_headline(words: list[str], line: str) -> bool:
    """Whether this is no row, and no comment on something else than a quaternion."""
    return not line.startswith("#") or names_quaternion(words)


def _under_headline(words: list[str], columns: dict[str, int], rows: list[list[str]], path: Path) -> PoseTable | None:
    """Poses whose columns are named; what else stands there tells the image."""
    table = _table("headline", _numbers([[row[column] for column in columns.values()] for row in rows]))
    if table is None or len(columns) == len(words):
        return table
    label = label_column(words, columns)
    if label is None:
        raise _not_understood(words, path)
    labels = [row[label] for row in rows]
    times = _numbers([labels])
    return replace(table, names=labels) if times is None else replace(table, times=times[0])


def _not_understood(words: list[str], path: Path) -> HeadlineError:
    remedy = (
        "Name them time x y z qx qy qz qw (or name instead of time), as they stand; "
        "or move the file away if it holds no poses."
    )
    return HeadlineError(f'Poses under a headline that is not understood ("{" ".join(words)[:90]}")', path, remedy)


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
    """Lines that may be the headline, comments or the first of others; and the words of the lines that are rows."""
    if path.stat().st_size > _LARGEST_BYTES:
        return [], []
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    comments = [line for line in lines if line.startswith("#")]
    others = [line for line in lines if not line.startswith("#")]
    rows = [line.replace(",", " ").split() for line in others]
    if rows and len(rows[0]) > 1 and _numbers([rows[0][1:]]) is None:
        return [others[0]], rows[1:]
    return comments, rows


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
    if form in ("8", "headline"):
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
