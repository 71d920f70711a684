"""The refined cameras of a run, in the user's frame and units, in the formats that other programs read."""

import csv
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float

from craym_nerfstudio.data.calibration import calibrated_lens
from craym_nerfstudio.data.dataparser import detect_and_read
from craym_nerfstudio.data.frames import Frames, concatenate
from craym_nerfstudio.data.transforms_json import load_json
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.export.run import Run
from craym_nerfstudio.geometry.lie import compose, inverse, rotation_angle_deg
from craym_nerfstudio.sfm.result import Intrinsics

_FRAME_KEYS = ("applied_transform", "applied_scale")
"""What nerfstudio's own converters say about the frame of a file's poses: it stays true."""


@dataclass(frozen=True)
class RefinedCameras:
    """Training images with the (refined) intrinsics of their original size; poses in the user's frame, OpenGL axes."""

    frames: Frames
    """``c2w`` holds the refined poses."""
    given_c2w: Float[np.ndarray, "cams 3 4"]
    fixed: Bool[np.ndarray, " cams"]
    test: Frames
    """The test images, whose poses are as they were given."""


def refined_cameras(run: Run) -> RefinedCameras:
    """The cameras of a run: aligned to the user's frame as a whole, fixed cameras exactly as they were given."""
    names = run.pipeline.datamanager.train_dataset.metadata["image_names"]
    original = detect_and_read(Path(run.dataparser.config.data))
    train = original.subset(np.array([original.names.index(name) for name in names]))
    test_names = run.pipeline.datamanager.eval_dataset.metadata["image_names"]
    others = [original.names.index(name) for name in test_names if name not in set(names)]
    fixed = run.pipeline.craym_model.camera_optimizer.fixed.cpu().numpy()
    # Not the file's own poses: the run may have been started from perturbed ones.
    given = run.dataparser.scene.rough_c2w
    refined = run.pipeline.data_from_model().poses(run.pipeline.refined_c2w().double()).numpy()
    refined[fixed] = given[fixed]
    intrinsics = run.pipeline.datamanager.intrinsics
    test = _calibrated(original.subset(np.array(others, dtype=np.int64)), intrinsics)
    return RefinedCameras(replace(_calibrated(train, intrinsics), c2w=refined), given, fixed, test)


def _calibrated(frames: Frames, intrinsics: Intrinsics) -> Frames:
    """Frames with the intrinsics that stage 0 found."""
    if intrinsics == Intrinsics():
        return frames
    rows = zip(frames.intrinsics_px, frames.distortion, frames.size_px, strict=True)
    lenses = [calibrated_lens(*row, intrinsics) for row in rows]
    pinhole, distortion = (np.stack(part) for part in zip(*lenses, strict=True))
    return replace(frames, intrinsics_px=pinhole, distortion=distortion)


def write_transforms(
    cameras: RefinedCameras, path: Path, paths: Literal["absolute", "relative"] = "absolute", include_test: bool = False
) -> None:
    """Write a nerfstudio ``transforms.json`` that can be given as --data; test images keep the poses they had."""
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
    entries = [
        _entry(everything, number, root, paths) | ({} if shared else lens) for number, lens in enumerate(lenses)
    ]
    if len(everything) > len(frames):
        listed = [entry["file_path"] for entry in entries]
        held_out = listed[len(frames) :]
        content |= {"train_filenames": listed[: len(frames)], "val_filenames": held_out, "test_filenames": held_out}
    _write(path, json.dumps({**content, "frames": entries}, indent=1) + "\n")


def _lens(frames: Frames, number: int) -> dict[str, Any]:
    model = "OPENCV" if frames.camera_types[number] == "PERSPECTIVE" else "OPENCV_FISHEYE"
    pinhole = zip(("fl_x", "fl_y", "cx", "cy"), frames.intrinsics_px[number].tolist(), strict=True)
    size = zip(("w", "h"), frames.size_px[number].tolist(), strict=True)
    distortion = zip(("k1", "k2", "k3", "k4", "p1", "p2"), frames.distortion[number].tolist(), strict=True)
    return {"camera_model": model, **dict(pinhole), **dict(size), **dict(distortion)}


def _entry(frames: Frames, number: int, root: Path, paths: Literal["absolute", "relative"]) -> dict[str, Any]:
    def shown(path: Path) -> str:
        path = path.resolve()
        return path.as_posix() if paths == "absolute" else Path(os.path.relpath(path, root)).as_posix()

    matrix = [*frames.c2w[number].tolist(), [0.0, 0.0, 0.0, 1.0]]
    entry: dict[str, Any] = {"file_path": shown(frames.paths[number]), "transform_matrix": matrix}
    if frames.mask_paths is not None:
        entry["mask_path"] = shown(frames.mask_paths[number])
    return entry


def write_colmap(cameras: RefinedCameras, folder: Path) -> None:
    """Write a COLMAP text model without points; image names are those of the data folder.

    Raises:
        InputError: a lens that no COLMAP model describes.
    """
    frames = cameras.frames
    models = [_colmap_model(frames, number) for number in range(len(frames))]
    distinct = {model: number + 1 for number, model in enumerate(dict.fromkeys(models))}
    lines = [f"{number} {model}" for model, number in distinct.items()]
    _write(folder / "cameras.txt", "# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]\n" + "\n".join(lines) + "\n")
    rows = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then its points (none)"]
    opencv = frames.c2w * np.array([1.0, -1.0, -1.0, 1.0])
    world_to_camera = inverse(torch.from_numpy(opencv)).numpy()
    for number, (pose, model) in enumerate(zip(world_to_camera, models, strict=True)):
        values = " ".join(f"{value:.17g}" for value in [*_quaternion(pose[:, :3]), *pose[:, 3]])
        rows += [f"{number + 1} {values} {distinct[model]} {frames.names[number]}", ""]
    _write(folder / "images.txt", "\n".join(rows) + "\n")
    _write(folder / "points3D.txt", "# empty\n")


def _colmap_model(frames: Frames, number: int) -> str:
    """Model name, size and parameters as they stand in cameras.txt."""
    pinhole, (width, height) = frames.intrinsics_px[number].tolist(), frames.size_px[number].tolist()
    k1, k2, k3, k4, p1, p2 = frames.distortion[number].tolist()
    if frames.camera_types[number] == "FISHEYE":
        name, lens = "OPENCV_FISHEYE", [k1, k2, k3, k4]
    elif k4:
        raise InputError("COLMAP has no lens model with k4", frames.paths[number], "Use transforms.json instead.")
    elif k3:
        name, lens = "FULL_OPENCV", [k1, k2, p1, p2, k3, 0.0, 0.0, 0.0]
    elif any((k1, k2, p1, p2)):
        name, lens = "OPENCV", [k1, k2, p1, p2]
    else:
        name, lens = "PINHOLE", []
    return f"{name} {width} {height} " + " ".join(f"{value:.17g}" for value in pinhole + lens)


def _quaternion(rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "4"]:
    """Unit quaternion (w, x, y, z), w >= 0: the dominant eigenvector of Bar-Itzhack's matrix, precise at any angle."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    matrix = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, yy - xx - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, zz - xx - yy],
        ]
    )
    quaternion = np.linalg.eigh(matrix)[1][:, -1]
    return quaternion if quaternion[0] >= 0 else -quaternion


def write_corrections(cameras: RefinedCameras, path: Path) -> None:
    """Write how far every camera was moved: degrees, and units of the user's frame."""
    given, refined = torch.from_numpy(cameras.given_c2w), torch.from_numpy(cameras.frames.c2w)
    turned_deg = rotation_angle_deg(compose(inverse(given), refined)[..., :3]).tolist()
    offsets = (refined - given)[..., 3]
    path.parent.mkdir(parents=True, exist_ok=True)
    header = ["image", "fixed", "rotation_deg", "translation", "x_before", "y_before", "z_before", "x", "y", "z"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number, name in enumerate(cameras.frames.names):
            centers = [*cameras.given_c2w[number, :, 3], *cameras.frames.c2w[number, :, 3]]
            figures = [f"{turned_deg[number]:.6f}", *(f"{value:.9g}" for value in [offsets[number].norm(), *centers])]
            writer.writerow([name, int(cameras.fixed[number]), *figures])


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        remedy = "Free disk space or choose another place."
        raise InputError(f"Cannot write ({error.strerror})", path, remedy) from error
