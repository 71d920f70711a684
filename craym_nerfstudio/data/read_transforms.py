"""Reads transforms.json files: nerfstudio's, instant-ngp's and the Blender scenes' dialects of one format."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from craym_nerfstudio.console import warn
from craym_nerfstudio.data.config import MissingImages
from craym_nerfstudio.data.files import clean_name, find_images, match_key, without_file
from craym_nerfstudio.data.frames import Frames, Layout, concatenate
from craym_nerfstudio.data.masks import masks_beside, named_masks
from craym_nerfstudio.data.transforms_json import MASK_KEYS, FrameTable, file_list, frame_tables, load_json
from craym_nerfstudio.data.validate import checked_poses, checked_sizes
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.images import read_header

_CAMERA_TYPES = {
    **dict.fromkeys(("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV"), "PERSPECTIVE"),
    **dict.fromkeys(("SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "OPENCV_FISHEYE"), "FISHEYE"),
}
_DISTORTION_KEYS = ("k1", "k2", "k3", "k4", "p1", "p2")
_UNSUPPORTED_KEYS = ("k5", "k6", "s1", "s2", "s3", "s4")
_IGNORED_KEYS = ("fisheye_crop_radius", "depth_file_path", "depth_path", "normal_path")
"""What one might expect an effect of."""
_FOCAL_KEYS = ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y")
BLENDER_TRAIN, BLENDER_TEST = "transforms_train.json", "transforms_test.json"


def read_poses(path: Path) -> tuple[list[str], Float[np.ndarray, "cams 3 4"]]:
    """Image names and checked poses of a transforms.json; the images themselves need not exist."""
    tables = frame_tables(path, load_json(path))
    return [_clean_name(table) for table in tables], _poses(tables)


def read_nerfstudio(path: Path, missing: MissingImages = "skip") -> Frames:
    """A nerfstudio (or instant-ngp) JSON with its images, sorted by file name as nerfstudio does.

    Raises:
        InputError: anything in the file or its images that cannot be used.
    """
    frames, content = _read(path, "nerfstudio", True, missing)
    listed = {key: file_list(content, f"{key}_filenames", path) for key in ("train", "test", "val")}
    test = listed["test"] if listed["test"] is not None else listed["val"]
    if listed["train"] is None and test is None:
        return frames
    known = {match_key(frame["file_path"]) for frame in content["frames"]}
    chosen_test = _indices(frames, test or [], known, path)
    others = np.setdiff1d(np.arange(len(frames)), chosen_test)
    chosen_train = others if listed["train"] is None else _indices(frames, listed["train"], known, path)
    return replace(frames, train=chosen_train, test=chosen_test)


def read_blender(folder: Path, missing: MissingImages = "skip") -> Frames:
    """A Blender scene: `transforms_train.json`, and `transforms_test.json` where it exists, in file order."""
    train, _ = _read(folder / BLENDER_TRAIN, "blender", False, missing)
    if not (folder / BLENDER_TEST).is_file():
        return train
    return concatenate(train, _read(folder / BLENDER_TEST, "blender", False, missing)[0])


def _read(path: Path, layout: Layout, sort: bool, missing: MissingImages) -> tuple[Frames, dict]:
    content = load_json(path)
    tables = frame_tables(path, content)
    if sort:
        tables.sort(key=_clean_name)
    listed = [_clean_name(table) for table in tables]
    images, kept = find_images(path.parent, listed, path, missing)
    _check_repeated(images, [listed[number] for number in kept], path)
    tables = [tables[number] for number in kept]
    c2w = _poses(tables)
    headers = [read_header(image) for image in images]
    declared = [_declared_size(table) or header.size_px for table, header in zip(tables, headers, strict=True)]
    sizes = checked_sizes(declared, headers, images, path)
    _check_shared_size(tables, declared, images)
    ignored = [key for key in _IGNORED_KEYS if any(table.get(key) is not None for table in tables)]
    if ignored:
        hint = "; mask what lies beyond that radius" if "fisheye_crop_radius" in ignored else ""
        warn(f"Not used of {path}: {', '.join(ignored)}{hint}.")
    frames = Frames(
        layout=layout,
        source=path,
        names=[match_key(_clean_name(table)) + image.suffix for table, image in zip(tables, images, strict=True)],
        paths=images,
        mask_paths=_masks(tables, images, sizes, path),
        c2w=c2w,
        intrinsics_px=np.array([_intrinsics(table, size) for table, size in zip(tables, declared, strict=True)]),
        size_px=np.array(declared, dtype=np.int64),
        distortion=np.array([_distortion(table) for table in tables]),
        camera_types=[_camera_type(table) for table in tables],
        pose_sigma_deg=_sigmas(tables, "pose_sigma_deg"),
        pose_sigma=_sigmas(tables, "pose_sigma"),
        left_out=without_file(listed, kept),
    )
    return frames.scaled_to(np.array(sizes, dtype=np.int64)), content


def _check_repeated(images: list[Path], names: list[str], source: Path) -> None:
    """One file under two names (an absolute and a relative one) would be two cameras that see the very same."""
    first: dict[Path, str] = {}
    for image, name in zip(images, names, strict=True):
        if (other := first.setdefault(image.absolute(), name)) != name:
            raise InputError(f'"{other}" and "{name}" are one image', source, "List every image once.")


def _clean_name(table: FrameTable) -> str:
    return clean_name(str(table.own["file_path"]))


def _poses(tables: list[FrameTable]) -> Float[np.ndarray, "cams 3 4"]:
    matrices = [table.matrix("transform_matrix") for table in tables]
    return checked_poses(matrices, [table.where for table in tables], tables[0].path)


def _sigmas(tables: list[FrameTable], key: str) -> Float[np.ndarray, " cams"] | None:
    """How far poses are off, NaN where it is not said; None where it is said of no image."""
    values = [table.number(key, positive=True) for table in tables]
    return None if all(value is None for value in values) else np.array(values, dtype=np.float64)


def _declared_size(table: FrameTable) -> tuple[int, int] | None:
    width, height = table.number("w", positive=True), table.number("h", positive=True)
    if width is None or height is None:
        return None
    for key, value in (("w", width), ("h", height)):
        if value != int(value):
            raise table.fail(key, "a whole number of pixels")
    return int(width), int(height)


def _check_shared_size(tables: list[FrameTable], sizes: list[tuple[int, int]], images: list[Path]) -> None:
    """Images that share one set of intrinsics must have one size: it is unknown how the others were cut or scaled."""
    shared = [number for number, table in enumerate(tables) if table.nearest(*_FOCAL_KEYS).shared]
    for number in shared:
        if sizes[number] != sizes[shared[0]]:
            raise InputError(
                "Image of {} x {} px while {} has {} x {}, under one set of intrinsics".format(
                    *sizes[number], images[shared[0]].name, *sizes[shared[0]]
                ),
                images[number],
                "Give all images one size, or each frame its own fl_x, fl_y, cx, cy, w and h.",
            )


def _intrinsics(table: FrameTable, size_px: tuple[int, int]) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy for images of a size, with a centred principal point if none is given."""
    center_x, center_y = table.number("cx"), table.number("cy")
    return (
        *_focal_lengths(table, size_px),
        size_px[0] / 2 if center_x is None else center_x,
        size_px[1] / 2 if center_y is None else center_y,
    )


def _focal_lengths(table: FrameTable, size_px: tuple[int, int]) -> tuple[float, float]:
    """fx and fy: the frame's own before shared ones; one that lacks follows from the shape of the pixels."""
    x, y = _stated_focals(table.nearest(*_FOCAL_KEYS), size_px)
    shared_x, shared_y = _stated_focals(table.nearest(), size_px)
    height_to_width = shared_x / shared_y if shared_x and shared_y else 1.0
    if x is not None:
        return x, x / height_to_width if y is None else y
    if y is not None:
        return y * height_to_width, y
    raise InputError(
        f"No focal length for {table.where}",
        table.path,
        'Give "fl_x" (and "fl_y") in pixels or "camera_angle_x" in radians, in the frame or at the top level.',
    )


def _stated_focals(table: FrameTable, size_px: tuple[int, int]) -> list[float | None]:
    """Focal lengths in px along x and y, from the field of view where that is given; None where nothing is."""
    focals = []
    for axis, extent_px in zip("xy", size_px, strict=True):
        focal, key = table.number(f"fl_{axis}", positive=True), f"camera_angle_{axis}"
        angle_rad = table.number(key, positive=True)
        if focal is None and angle_rad is not None:
            if angle_rad >= math.pi:
                raise table.fail(key, "an angle in radians below pi")
            focal = 0.5 * extent_px / math.tan(0.5 * angle_rad)
        focals.append(focal)
    return focals


def _distortion(table: FrameTable) -> list[float]:
    """nerfstudio's six coefficients.

    Raises:
        InputError: others than zero that nerfstudio's rays cannot follow.
    """
    is_rational = table.get("camera_model") == "FULL_OPENCV" or table.get("k5") or table.get("k6")
    for key in ("k4", *_UNSUPPORTED_KEYS) if is_rational else _UNSUPPORTED_KEYS:
        if table.number(key):
            raise InputError(
                f'Distortion coefficient "{key}" of {table.where} is not supported',
                table.path,
                f"Undistort the images, or calibrate with {', '.join(_DISTORTION_KEYS)} alone (no rational model).",
            )
    listed = table.nearest("distortion_params", *_DISTORTION_KEYS).numbers("distortion_params", len(_DISTORTION_KEYS))
    return listed or [table.number(key) or 0.0 for key in _DISTORTION_KEYS]


def _camera_type(table: FrameTable) -> str:
    near = table.nearest("camera_model", "is_fisheye")
    model = near.get("camera_model")
    if model is None:
        return "FISHEYE" if near.get("is_fisheye") is True else "PERSPECTIVE"
    if model == "EQUIRECTANGULAR":
        remedy = "Cut them into perspective images: ns-process-data images --camera-type equirectangular."
        raise InputError(f"The images are panoramas (EQUIRECTANGULAR), in {table.where}", table.path, remedy)
    if not isinstance(model, str) or model not in _CAMERA_TYPES:
        raise near.fail("camera_model", f"one of {', '.join(_CAMERA_TYPES)}")
    return _CAMERA_TYPES[model]


def _masks(
    tables: list[FrameTable], images: list[Path], sizes: list[tuple[int, int]], path: Path
) -> list[Path | None] | None:
    names = [next((name for key in MASK_KEYS if (name := table.text(key)) is not None), None) for table in tables]
    if all(name is None for name in names):
        return masks_beside(path.parent, images, sizes)
    return named_masks(path.parent, names, sizes, path)


def _indices(frames: Frames, names: list[str], known: set[str], path: Path) -> np.ndarray:
    """Numbers of named images; those that are listed and were left out are skipped."""
    position = {match_key(name): index for index, name in enumerate(frames.names)}
    unknown = [name for name in names if match_key(name) not in known]
    if unknown:
        raise InputError(f'The split names "{unknown[0]}", which is no frame', path, "Correct the list of file names.")
    keys = map(match_key, names)
    return np.array(sorted({position[key] for key in keys if key in position}), dtype=np.int64)
