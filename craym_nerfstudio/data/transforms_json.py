"""Typed access to a transforms.json: every wrong type, misspelt key or malformed line is one error that says where."""

import difflib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from craym_nerfstudio.data.files import match_key, read_text
from craym_nerfstudio.errors import InputError

_INTRINSIC_KEYS = {
    *("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_angle_y", "camera_model", "is_fisheye"),
    *("k1", "k2", "k3", "k4", "k5", "k6", "s1", "s2", "s3", "s4", "p1", "p2", "distortion_params"),
}
PRIOR_KEYS = {"pose_sigma_deg", "pose_sigma"}
"""Ours: how far the poses are off, in degrees and in units of the data."""
SCENE_KEYS = _INTRINSIC_KEYS | PRIOR_KEYS | {"frames", "train_filenames", "test_filenames", "val_filenames"}
MASK_KEYS = ("mask_path", "mask_file_path", "mask")
"""The first is nerfstudio's, others are in use."""
FRAME_KEYS = _INTRINSIC_KEYS | PRIOR_KEYS | {"file_path", "transform_matrix", *MASK_KEYS}
_OTHER_KEYS = {
    *("applied_transform", "applied_scale", "aabb_scale", "scale", "offset", "rotation", "sharpness", "time", "note"),
    *("depth_file_path", "depth_unit_scale_factor", "ply_file_path", "orientation_override", "fisheye_crop_radius"),
    *("colmap_im_id", "near", "far", "depth_path", "normal_path"),
}
"""Keys that other programs write into these files and that say nothing this parser needs."""

_LONGEST_NAME = 255
"""Bytes."""


def load_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: the file is missing or unreadable, is malformed (with the line), or holds no object.
    """
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        problem = f"Malformed JSON ({error.msg}, line {error.lineno}, column {error.colno})"
        raise InputError(problem, path, "Correct that line.") from error
    if not isinstance(content, dict):
        raise InputError("The JSON file holds no object", path, 'It must look like {"fl_x": ..., "frames": [...]}.')
    return content


@dataclass(frozen=True)
class FrameTable:
    """One entry of `frames` with the file's top level behind it: per-image values come before shared ones."""

    path: Path
    shared: dict[str, Any]
    own: dict[str, Any]
    where: str
    """What error messages call this entry."""

    def get(self, key: str) -> Any:
        """The value of the entry, else of the file; None where neither has it."""
        value = self.own.get(key)
        return self.shared.get(key) if value is None else value

    def nearest(self, *keys: str) -> "FrameTable":
        """The entry alone where it has one of the keys, else the top level alone: half of each would fit neither."""
        is_own = any(self.own.get(key) is not None for key in keys)
        return replace(self, shared={}) if is_own else replace(self, own={})

    def fail(self, key: str, expected: str) -> InputError:
        """The error for a value of the wrong type."""
        shown = repr(self.get(key))
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return InputError(
            f'"{key}" must be {expected} but is {shown}, in {self.where}', self.path, "Correct the value."
        )

    def number(self, key: str, positive: bool = False) -> float | None:
        """A finite number, None where the key is absent or null."""
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.fail(key, "a finite number")
        if positive and value <= 0:
            raise self.fail(key, "a number above zero")
        return float(value)

    def text(self, key: str) -> str | None:
        """A string of the entry itself, None where the key is absent or null."""
        value = self.own.get(key)
        if value is not None and not (isinstance(value, str) and value.strip() and _can_be_name(value)):
            raise self.fail(key, "a file name")
        return value

    def numbers(self, key: str, count: int) -> list[float] | None:
        """A list of finite numbers of known length, None where the key is absent."""
        value = self.get(key)
        if value is None:
            return None
        array = _numeric_array(value)
        if array is None or array.shape != (count,) or not np.isfinite(array).all():
            raise self.fail(key, f"a list of {count} finite numbers")
        return array.tolist()

    def matrix(self, key: str) -> Float[np.ndarray, "rows 4"]:
        """A 3x4 or 4x4 matrix of numbers of the entry itself; its values are not judged here."""
        if key not in self.own:
            raise InputError(f'No "{key}" in {self.where}', self.path, "Every image needs its camera-to-world matrix.")
        array = _numeric_array(self.own[key])
        if array is None or array.shape not in ((3, 4), (4, 4)):
            raise self.fail(key, "a 4x4 (or 3x4) matrix of numbers")
        return array


def _can_be_name(text: str) -> bool:
    """Whether no part is longer than file systems take."""
    return max(len(part.encode()) for part in text.replace("\\", "/").split("/")) <= _LONGEST_NAME


def _numeric_array(value: Any) -> np.ndarray | None:
    try:
        array = np.array(value)
    except ValueError:
        return None
    return array.astype(np.float64) if array.dtype.kind in "fiu" else None


def frame_tables(path: Path, content: dict[str, Any]) -> list[FrameTable]:
    """The entries of `frames` in file order, keys and types checked.

    Raises:
        InputError: `frames` is absent, empty or of a wrong type, a key is misspelt, or two entries name one file.
    """
    _reject_misspelt(content, SCENE_KEYS, set(content), path, "the file's top level")
    frames = content.get("frames")
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise InputError('"frames" is not a list of objects', path, "It must list one object for each image.")
    if not frames:
        raise InputError("The JSON file lists zero images", path, 'Add the images to "frames".')
    tables, seen = [], set()
    for number, frame in enumerate(frames):
        where = f'frame {number} ("{frame.get("file_path", "no file_path")}")'
        _reject_misspelt(frame, FRAME_KEYS, set(frame) | set(content), path, where)
        table = FrameTable(path, content, frame, where)
        name = table.text("file_path")
        if name is None:
            raise InputError(f'No "file_path" in {where}', path, "Every frame must name its image.")
        if match_key(name) in seen:
            raise InputError(f'Duplicate file name "{name}"', path, "List every image once.")
        seen.add(match_key(name))
        tables.append(table)
    return tables


def _reject_misspelt(entry: dict, known: set[str], present: set[str], path: Path, where: str) -> None:
    """An unknown key that resembles an absent known one is a slip that would drop data silently; others do no harm."""
    missing = {key.lower(): key for key in known - present}
    for key in entry:
        if key in known or key in _OTHER_KEYS:
            continue
        close = difflib.get_close_matches(key.lower(), missing, n=1, cutoff=0.85)
        if close:
            meant = missing[close[0]]
            raise InputError(
                f'Unknown key "{key}" in {where}: did you mean "{meant}"?', path, "Rename the key or remove it."
            )


def file_list(content: dict[str, Any], key: str, path: Path) -> list[str] | None:
    """A list of file names at the top level, None where the key is absent."""
    value = content.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(f'"{key}" is not a list of file names', path, "Correct the value or remove the key.")
    return value
