"""Refined cameras as a nerfstudio ``transforms.json``."""

import math
import os
from pathlib import Path
from typing import Any

from craym_nerfstudio.data.files import clean_name, match_key
from craym_nerfstudio.data.frames import Frames, concatenate
from craym_nerfstudio.data.transforms_json import FRAME_KEYS, PRIOR_KEYS, SCENE_KEYS, load_json
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.export.options import PathStyle
from craym_nerfstudio.export.refined import RefinedCameras
from craym_nerfstudio.storage import write_json

_REPLACED_KEYS = {*SCENE_KEYS, *FRAME_KEYS}
"""What is written anew; whatever else a file says (frame of the poses, depth, ids, points) is kept."""
TRANSFORMS_NAME, POINTS_NAME, TABLE_NAME = "transforms.json", "sparse_pc.ply", "cameras.csv"
"""What is written beside each other; nerfstudio's own converters call the points so, too."""


def refuse_overwriting(folder: Path, data: Path) -> None:
    """Poses that were given are never written over: there may be no other copy of them.

    Raises:
        InputError: the folder is that of the data, or holds such files that somebody else wrote.
    """
    remedy = "Give --output a folder of its own."
    if folder.resolve() == data.resolve():
        raise InputError("Refined cameras are not written into the folder of the data", folder, remedy)
    others = [folder / name for name in (TRANSFORMS_NAME, POINTS_NAME) if (folder / name).exists()]
    if others and not (folder / TABLE_NAME).exists():
        raise InputError("This file is not of craym's and is not written over", others[0], remedy)


def write_transforms(
    cameras: RefinedCameras,
    path: Path,
    paths: PathStyle = "absolute",
    include_test: bool = False,
    points_name: str | None = None,
) -> None:
    """Write a nerfstudio ``transforms.json`` that can be given as --data; test images are held out again.

    `points_name` is the PLY file beside it that splatting starts from.
    """
    frames = cameras.frames
    content: dict[str, Any] = {}
    if frames.layout == "nerfstudio":
        source = load_json(frames.source)
        content |= _kept(source, frames.source.parent, path.parent.resolve(), paths)
    everything = concatenate(frames, cameras.test) if include_test and len(cameras.test) else frames
    lenses = [_lens(everything, number) for number in range(len(everything))]
    shared = lenses[0] if all(lens == lenses[0] for lens in lenses) else {}
    # nerfstudio looks for the camera model at the top level alone.
    content |= shared or {"camera_model": lenses[0]["camera_model"]}
    root = path.parent.resolve()
    carried = _carried(everything, root, paths)
    entries = [
        carried[number] | _entry(everything, number, root, paths) | ({} if shared else lens)
        for number, lens in enumerate(lenses)
    ]
    parts = () if everything.train is None or everything.test is None else (everything.train, everything.test)
    lists = [[entries[number]["file_path"] for number in part] for part in parts]
    if lists and all(lists):
        train, test = lists
        content |= {"train_filenames": train, "val_filenames": test, "test_filenames": test}
    if points_name is not None:
        content["ply_file_path"] = points_name
    write_json(path, {**content, "frames": entries})


def _kept(entry: dict[str, Any], source: Path, root: Path, paths: PathStyle) -> dict[str, Any]:
    """Keys that are not written anew; names of files are those of the same files seen from `root`."""

    def seen(key: str, value: Any) -> Any:
        is_file = key.endswith("_path") and isinstance(value, str)
        return _shown(source / clean_name(value), root, paths) if is_file else value

    return {key: seen(key, value) for key, value in entry.items() if key not in _REPLACED_KEYS}


def _carried(frames: Frames, root: Path, paths: PathStyle) -> list[dict[str, Any]]:
    """What the file that was read says of each frame beyond camera, image and mask."""
    if frames.layout != "nerfstudio":
        return [{}] * len(frames)
    entries = {match_key(entry["file_path"]): entry for entry in load_json(frames.source)["frames"]}
    source = frames.source.parent
    return [_kept(entries.get(match_key(name), {}), source, root, paths) for name in frames.names]


def _shown(path: Path, root: Path, paths: PathStyle) -> str:
    # The name of a link stays: what it leads to may be called anything (git-annex, DVC).
    path = path.parent.resolve() / path.name
    return path.as_posix() if paths == "absolute" else Path(os.path.relpath(path, root)).as_posix()


def _lens(frames: Frames, number: int) -> dict[str, Any]:
    model = "OPENCV" if frames.camera_types[number] == "PERSPECTIVE" else "OPENCV_FISHEYE"
    pinhole = zip(("fl_x", "fl_y", "cx", "cy"), frames.intrinsics_px[number].tolist(), strict=True)
    size = zip(("w", "h"), frames.size_px[number].tolist(), strict=True)
    distortion = zip(("k1", "k2", "k3", "k4", "p1", "p2"), frames.distortion[number].tolist(), strict=True)
    return {"camera_model": model, **dict(pinhole), **dict(size), **dict(distortion)}


def _entry(frames: Frames, number: int, root: Path, paths: PathStyle) -> dict[str, Any]:
    matrix = [*frames.c2w[number].tolist(), [0.0, 0.0, 0.0, 1.0]]
    entry: dict[str, Any] = {"file_path": _shown(frames.paths[number], root, paths), "transform_matrix": matrix}
    mask = None if frames.mask_paths is None else frames.mask_paths[number]
    if mask is not None:
        entry["mask_path"] = _shown(mask, root, paths)
    for key in sorted(PRIOR_KEYS):
        said = getattr(frames, key)
        if said is not None and not math.isnan(said[number]):
            entry[key] = float(said[number])
    return entry
