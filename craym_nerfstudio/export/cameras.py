"""Refined cameras, with stage 0's points, in the formats that other programs read."""

import csv
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from craym_nerfstudio.console import track, warn
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.export.far_origin import exact_points, far_origin
from craym_nerfstudio.export.options import PathStyle
from craym_nerfstudio.export.refined import RefinedCameras
from craym_nerfstudio.export.transforms import POINTS_NAME, TABLE_NAME, TRANSFORMS_NAME, write_transforms
from craym_nerfstudio.geometry.axes import flip_pose_axes
from craym_nerfstudio.geometry.lie import compose, inverse, rotation_angle_deg
from craym_nerfstudio.images import load_image
from craym_nerfstudio.sfm.reconstruction import make_reconstruction, write_model
from craym_nerfstudio.stops import load_pycolmap, load_trimesh
from craym_nerfstudio.storage import write_atomically, write_text


class NoColmapLens(InputError):
    """A lens that no COLMAP model describes."""


def write_cameras(
    cameras: RefinedCameras, folder: Path | str, paths: PathStyle = "absolute", include_test: bool = False
) -> dict[str, float]:
    """Write transforms.json, cameras.csv, a COLMAP model and, where stage 0 ran, its points; returns their figures.

    Raises:
        InputError: an image cannot be read, or a folder that cannot be written.
    """
    folder = Path(folder)
    # First: by it the next run knows what a run that was stopped has left.
    write_table(cameras, folder / TABLE_NAME)
    colors = None if cameras.stage is None else point_colors(cameras)
    try:
        reconstruction = reconstruction_of(cameras, colors)
    except NoColmapLens as error:
        warn(f"No COLMAP model is written: {error.problem} ({cameras.frames.names[0]}).")
        reconstruction = None
    else:
        write_colmap(reconstruction, folder / "colmap" / "sparse" / "0")
    if colors is not None and cameras.stage is not None:
        write_points(cameras.stage.points, colors, folder / POINTS_NAME)
    points_name = None if colors is None else POINTS_NAME
    write_transforms(cameras, folder / TRANSFORMS_NAME, paths, include_test, points_name)
    write_trajectory(cameras, folder / "trajectory_tum.txt")
    points = 0 if cameras.stage is None else len(cameras.stage.points)
    figures: dict[str, float] = {"cameras": len(cameras.frames), "points": points}
    if include_test and len(cameras.test):
        figures["test_images"] = len(cameras.test)
    if reconstruction is not None and reconstruction.num_points3D():
        figures["mean_reprojection_px"] = reconstruction.compute_mean_reprojection_error()
        figures["mean_track_length"] = reconstruction.compute_mean_track_length()
    return figures


def reconstruction_of(cameras: RefinedCameras, colors: UInt8[np.ndarray, "points 3"] | None = None) -> Any:
    """The cameras, with stage 0's points and tracks where it ran, as a ``pycolmap.Reconstruction``."""
    frames = cameras.frames
    lenses = [_colmap_camera(frames, number) for number in range(len(frames))]
    return make_reconstruction(frames.names, frames.c2w, lenses, cameras.stage, cameras.size_px, colors)


def _colmap_camera(frames: Frames, number: int) -> Any:
    """One image's lens as a ``pycolmap.Camera``.

    Raises:
        NoColmapLens: a lens that no COLMAP model describes.
    """
    pycolmap = load_pycolmap()

    pinhole, (width, height) = frames.intrinsics_px[number].tolist(), frames.size_px[number].tolist()
    k1, k2, k3, k4, p1, p2 = frames.distortion[number].tolist()
    if frames.camera_types[number] == "FISHEYE":
        name, lens = "OPENCV_FISHEYE", [k1, k2, k3, k4]
    elif k4:
        raise NoColmapLens("COLMAP has no lens model with k4", frames.paths[number], "Use transforms.json instead.")
    elif k3:
        name, lens = "FULL_OPENCV", [k1, k2, p1, p2, k3, 0.0, 0.0, 0.0]
    elif any((k1, k2, p1, p2)):
        name, lens = "OPENCV", [k1, k2, p1, p2]
    else:
        name, lens = "PINHOLE", []
    return pycolmap.Camera(model=name, width=width, height=height, params=pinhole + lens)


def write_colmap(reconstruction: Any, folder: Path) -> None:
    """Write a COLMAP model (binary); its files appear when all of them are complete.

    Raises:
        InputError: the folder cannot be written.
    """
    with tempfile.TemporaryDirectory() as partial:
        write_model(reconstruction, Path(partial))
        for path in Path(partial).iterdir():
            content = path.read_bytes()
            write_atomically(folder / path.name, lambda file, content=content: file.write(content))


def point_colors(cameras: RefinedCameras) -> UInt8[np.ndarray, "points 3"]:
    """Mean colour of the pixels that show each point.

    Raises:
        InputError: an image cannot be read.
    """
    stage, frames = cameras.stage, cameras.frames
    assert stage is not None and cameras.size_px is not None
    total = np.zeros((len(stage.points), 3))
    for number in track(range(len(frames)), "Colours of points"):
        mine = stage.ray_image == number
        if not mine.any():
            continue
        width, height = cameras.size_px[number].tolist()
        image = load_image(frames.paths[number], (width, height))
        column, row = np.floor(stage.ray_keypoint_px[mine]).astype(np.int64).T
        seen = image[row.clip(0, height - 1), column.clip(0, width - 1), :3]
        np.add.at(total, stage.ray_point[mine], seen.astype(np.float64))
    return np.round(total / stage.track_length.clip(1)[:, None]).astype(np.uint8)


def write_points(points: np.ndarray, colors: UInt8[np.ndarray, "points 3"], path: Path) -> None:
    """Write points with colours as PLY.

    Raises:
        InputError: the file cannot be written.
    """
    trimesh = load_trimesh()

    is_far = far_origin(points).any()
    exported: Any = (
        exact_points(points, colors) if is_far else trimesh.PointCloud(points, colors).export(file_type="ply")
    )
    write_atomically(path, lambda file: file.write(exported))


def describe(folder: Path, figures: dict[str, float]) -> str:
    """One sentence about what `write_cameras` has written."""
    also = f" (beside {figures['test_images']:.0f} test images)" if "test_images" in figures else ""
    model = ", colmap/sparse/0" if (folder / "colmap").is_dir() else ""
    files = f"transforms.json{also}{model}, trajectory_tum.txt and cameras.csv"
    text = f"{folder}: {figures['cameras']:.0f} cameras in {files}"
    if "mean_reprojection_px" in figures:
        text += (
            f"; {figures['points']:.0f} points in sparse_pc.ply and the COLMAP model, "
            f"{figures['mean_reprojection_px']:.2f} px off in the mean"
        )
    return text


def write_trajectory(cameras: RefinedCameras, path: Path) -> None:
    """Write the camera centres and orientations as TUM's tools read them: ``number x y z qx qy qz qw`` per image.

    Numbers stand for time stamps; the quaternion turns OpenCV's camera axes (x right, y down, z ahead) into the data.
    """
    from scipy.spatial.transform import Rotation

    c2w = flip_pose_axes(cameras.frames.c2w)
    turned = Rotation.from_matrix(c2w[:, :, :3]).as_quat()
    rows = [
        f"{number} " + " ".join(f"{value:.12g}" for value in (*center, *quaternion))
        for number, (center, quaternion) in enumerate(zip(c2w[:, :, 3], turned, strict=True))
    ]
    write_text(path, "\n".join(rows) + "\n")


def write_table(cameras: RefinedCameras, path: Path) -> None:
    """Write a CSV row per camera: how far it was moved, and what stage 0 says of it.

    Rotations are in degrees, lengths in units of the data. The sigmas are formal: they know keypoint noise alone.
    """
    given, refined = torch.from_numpy(cameras.given_c2w), torch.from_numpy(cameras.frames.c2w)
    turned_deg = rotation_angle_deg(compose(inverse(given), refined)[..., :3]).tolist()
    shift = (refined - given)[..., 3].norm(dim=-1).tolist()
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    position = ["x_before", "y_before", "z_before", "x", "y", "z"]
    moved = ["rotation_deg", "translation"]
    writer.writerow(["image", "state", *moved, *_STAGE_COLUMNS, *position])
    for number, name in enumerate(cameras.frames.names):
        centers = [*cameras.given_c2w[number, :, 3], *cameras.frames.c2w[number, :, 3]]
        figures = [f"{turned_deg[number]:.6f}", f"{shift[number]:.9g}"]
        row = [name, _state(cameras, number), *figures, *_of_stage(cameras, number)]
        # Map coordinates have seven digits before the point.
        writer.writerow([*row, *(f"{value:.12g}" for value in centers)])
    write_text(path, buffer.getvalue())


_STAGE_COLUMNS = {
    "rays": "num_rays",
    "rotation_sigma_deg": "rotation_sigma_deg",
    "translation_sigma": "translation_sigma",
    "epipolar_before_px": "epipolar_before_px",
    "epipolar_after_px": "epipolar_after_px",
}


def _state(cameras: RefinedCameras, number: int) -> str:
    if cameras.fixed[number]:
        return "fixed"
    return "" if cameras.stage is None else cameras.stage.state[number]


def _of_stage(cameras: RefinedCameras, number: int) -> list[str]:
    """What stage 0 says of a camera; empty where it did not run or does not know."""
    if cameras.stage is None:
        return [""] * len(_STAGE_COLUMNS)
    values = [float(getattr(cameras.stage, name)[number]) for name in _STAGE_COLUMNS.values()]
    return [f"{value:.6g}" if np.isfinite(value) else "" for value in values]
