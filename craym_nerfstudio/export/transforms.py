"""Refined cameras as a nerfstudio ``transforms.json``."""

import os
from pathlib import Path
from typing import Any, Literal

from craym_nerfstudio.data.frames import Frames, concatenate
from craym_nerfstudio.data.transforms_json import load_json
from craym_nerfstudio.export.refined import RefinedCameras
from craym_nerfstudio.storage import write_json

PathStyle = Literal["absolute", "relative"]
"""How images are named: by absolute paths, or by paths relative to the file that names them."""

_FRAME_KEYS = ("applied_transform", "applied_scale")
"""What nerfstudio's own converters say about the frame of a file's poses: it stays true."""


def write_transforms(
    cameras: RefinedCameras,
    path: Path,
    paths: PathStyle = "absolute",
    include_test: bool = False,
    points_name: str | None = None,
) -> None:
    """Write a nerfstudio ``transforms.json`` that can be given as --data; test images keep the poses they had.

    `points_name` is the PLY file beside it that splatting starts from.
    """
    frames = cameras.frames
    content: dict[str, Any] = {}
    if frames.layout == "nerfstudio":
        source = load_json(frames.source)
        content |= {key: source[key] for key in _FRAME_KEYS if key in source}
    everything = concatenate(frames, cameras.test) if include_test and len(cameras.test) else frames
    lenses = [_lens(everything, number) for number in range(len(everything))]
    shared = lenses[0] if all(lens == lenses[0] for lens in lenses) else {}
    # nerfstudio looks for the camera model at the top level alone.
    content |= shared or {"camera_model": lenses[0]["camera_model"]}
    root = path.parent.resolve()
    entries = [_entry(everything, number, root, paths) | ({} if shared else lens) for number, lens in enumerate(lenses)]
    if len(everything) > len(frames):
        listed = [entry["file_path"] for entry in entries]
        held_out = listed[len(frames) :]
        content |= {"train_filenames": listed[: len(frames)], "val_filenames": held_out, "test_filenames": held_out}
    if points_name is not None:
        content["ply_file_path"] = points_name
    write_json(path, {**content, "frames": entries})


def _lens(frames: Frames, number: int) -> dict[str, Any]:
    model = "OPENCV" if frames.camera_types[number] == "PERSPECTIVE" else "OPENCV_FISHEYE"
    pinhole = zip(("fl_x", "fl_y", "cx", "cy"), frames.intrinsics_px[number].tolist(), strict=True)
    size = zip(("w", "h"), frames.size_px[number].tolist(), strict=True)
    distortion = zip(("k1", "k2", "k3", "k4", "p1", "p2"), frames.distortion[number].tolist(), strict=True)
    return {"camera_model": model, **dict(pinhole), **dict(size), **dict(distortion)}


def _entry(frames: Frames, number: int, root: Path, paths: PathStyle) -> dict[str, Any]:
    def shown(path: Path) -> str:
        path = path.resolve()
        return path.as_posix() if paths == "absolute" else Path(os.path.relpath(path, root)).as_posix()

    matrix = [*frames.c2w[number].tolist(), [0.0, 0.0, 0.0, 1.0]]
    entry: dict[str, Any] = {"file_path": shown(frames.paths[number]), "transform_matrix": matrix}
    mask = None if frames.mask_paths is None else frames.mask_paths[number]
    if mask is not None:
        entry["mask_path"] = shown(mask)
    return entry
