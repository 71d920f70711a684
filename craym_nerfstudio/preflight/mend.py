"""What is usable of a transforms.json that cannot be read as it is: a copy for `--fix` to go on from."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from craym_nerfstudio.data.files import clean_name, find_files, match_key
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.data.scene import Scene
from craym_nerfstudio.data.transforms_json import MASK_KEYS, load_json
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.images import read_header

_CENTER_KEYS = ("cx", "cy")
_EXAMPLES = 3


def read_usable(path: Path, read: Callable[[Path], Scene]) -> tuple[Scene, list[str]] | None:
    """The scene without what stands in the way of reading it, and what that was; None where nothing of it helps.

    Images without a pose, unreadable ones and repeated ones are left out; a principal point that cannot be is taken
    to be the middle.
    """
    if not path.is_file():
        return None
    try:
        content = load_json(path)
        kept, left_out = _usable(path, content["frames"])
        names = [str(frame["file_path"]) for frame in content["frames"]]
    except (InputError, KeyError, TypeError):
        return None
    content = {**content, "frames": kept, **_split(path, content, kept)}
    centred = {**_without_center(content), "frames": [_without_center(frame) for frame in kept]}
    trials = [(content, left_out)] if left_out else []
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "transforms.json"
        for trial, changed in (*trials, (centred, [*left_out, "principal point: the middle"])):
            copy.write_text(json.dumps(trial))
            try:
                scene = read(copy)
            except InputError:
                continue
            return _named_as_before(path, names, scene), changed
    return None


def _usable(path: Path, frames: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Entries that can be used, with absolute names, and what was left out of the others."""
    names = [clean_name(str(frame["file_path"])) for frame in frames]
    kept: dict[str, dict[str, Any]] = {}
    reasons: dict[str, list[str]] = {}
    for frame, name, file in zip(frames, names, find_files(path.parent, names), strict=True):
        if not _has_pose(frame):
            reasons.setdefault("without a pose", []).append(name)
        elif file is not None and not _is_image(file):
            reasons.setdefault("not readable", []).append(name)
        elif (key := match_key(name if file is None else str(file.absolute()))) in kept:
            reasons.setdefault("listed before", []).append(name)
        else:
            masks = {kind: _absolute(path, str(frame[kind])) for kind in MASK_KEYS if frame.get(kind)}
            kept[key] = {**frame, **masks, "file_path": _absolute(path, name)}
    words = [f"left out: {len(those)} {why} ({', '.join(those[:_EXAMPLES])}, ...)" for why, those in reasons.items()]
    return list(kept.values()), words


def _absolute(path: Path, name: str) -> str:
    """The name of a file that the one at `path` names, for a copy that lies elsewhere."""
    return str(path.parent.absolute() / clean_name(name))


def _split(path: Path, content: dict[str, Any], kept: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The lists of training and test images, of those that were kept."""
    known = {match_key(frame["file_path"]) for frame in kept}
    lists = {key: value for key, value in content.items() if key.endswith("_filenames") and isinstance(value, list)}
    named = {key: [_absolute(path, str(name)) for name in names] for key, names in lists.items()}
    return {key: [name for name in names if match_key(name) in known] for key, names in named.items()}


def _named_as_before(path: Path, names: list[str], scene: Scene) -> Scene:
    """The scene of a copy, with the names that its images have in the file at `path` itself."""
    own = {match_key(_absolute(path, name)): match_key(clean_name(name)) for name in names}

    def renamed(frames: Frames) -> Frames:
        return replace(frames, names=[own[match_key(name)] + Path(name).suffix for name in frames.names])

    return replace(scene, original=replace(renamed(scene.original), source=path), frames=renamed(scene.frames))


def _has_pose(frame: dict[str, Any]) -> bool:
    try:
        matrix = np.asarray(frame["transform_matrix"], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        return False
    return matrix.shape in ((3, 4), (4, 4)) and bool(np.isfinite(matrix).all())


def _is_image(file: Path) -> bool:
    try:
        read_header(file)
    except InputError:
        return False
    return True


def _without_center(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in _CENTER_KEYS}
