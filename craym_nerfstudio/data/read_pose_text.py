"""Reads images whose poses lie beside them as text: a trajectory, a table by names, or a matrix for each image."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from craym_nerfstudio.console import console, warn
from craym_nerfstudio.data.config import MissingImages
from craym_nerfstudio.data.files import clean_name, find_images, photos_in, read_text, without_file
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.data.intrinsics_text import TextIntrinsics, find_intrinsics
from craym_nerfstudio.data.masks import masks_beside
from craym_nerfstudio.data.pose_text import PoseTable, read_pose_matrix, read_pose_table
from craym_nerfstudio.data.validate import checked_poses
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.images import read_header
from craym_nerfstudio.photos.files import POSITIONS_NAME, image_folder, listed

_TABLE_SUFFIXES = (".txt", ".csv", ".tum", ".log")
_MATRIX_FOLDERS = ("pose", "poses", "extrinsics", "extrinsic")
_MATRIX_NAME = re.compile(r"[._]?(pose|extrinsics?|color|colour|rgb)$", re.IGNORECASE)
"""Ends of names that images and their poses do not share: frame-000000.color.png and frame-000000.pose.txt."""
_NUMBER_AT_END = re.compile(r"\d+(\.\d+)?$")
_SURELY_NANOSECONDS = 1e6
"""Times of images over those of poses in seconds, beyond which the former are in nanoseconds."""
_LEAST_IN_TIME = 0.8
"""Share of the images, or of the poses, that has a partner."""


@dataclass(frozen=True)
class PoseFiles:
    """Poses that were found as text."""

    source: Path
    """A table, or the folder with a file for each image."""
    table: PoseTable | None = None
    """None for a file for each image."""


def find_pose_text(data: Path) -> PoseFiles | None:
    """The table that `data` is or that lies in it, else its small files, one for each image; None where there are none.

    Raises:
        InputError: several tables.
    """
    if data.is_file():
        table = read_pose_table(data) if data.suffix.lower() in _TABLE_SUFFIXES else None
        return None if table is None else PoseFiles(data, table)
    images = _image_folder(data)
    if images is None:
        return None
    files = sorted(path for path in data.iterdir() if path.suffix.lower() in _TABLE_SUFFIXES and path.is_file())
    matrices = [path for path in files if _MATRIX_NAME.search(path.stem)]
    singles = {path.name for path in matrices} if len(matrices) > 1 else set()
    tables = {path: read_pose_table(path) for path in files if path.name not in {POSITIONS_NAME, *singles}}
    found = [PoseFiles(path, table) for path, table in tables.items() if table is not None]
    if len(found) > 1:
        names = listed([each.source.name for each in found])
        raise InputError(f"Poses in {names}", data, f"Give the one that is meant: --data {found[0].source}.")
    if found:
        return found[0]
    for folder in (*(data / name for name in _MATRIX_FOLDERS), images):
        if any(read_pose_matrix(path) is not None for path in _matrix_files(folder, photos_in(images)).values()):
            return PoseFiles(folder)
    return None


def read_pose_text(data: Path, found: PoseFiles, missing: MissingImages = "skip") -> Frames:
    """The images that have one of the poses, with intrinsics from text files beside them or from their EXIF.

    Raises:
        InputError: poses that belong to no images, images without a known focal length.
    """
    folder = data.parent if data.is_file() else data
    if found.table is None:
        paths, c2w, focal_px, left_out = _by_files(folder, found.source)
        form = "4 x 4 matrix"
    else:
        paths, c2w, focal_px, left_out = _by_table(folder, found.source, found.table, missing)
        form = found.table.form
    sizes = [read_header(path).size_px for path in paths]
    size_px = np.array(sizes, dtype=np.int64)
    if focal_px is None:
        intrinsics = find_intrinsics(folder, paths, size_px, found.source)
    else:
        pinhole = np.concatenate([np.tile(focal_px[:, None], (1, 2)), size_px / 2], axis=1)
        intrinsics = TextIntrinsics(pinhole, np.zeros((len(paths), 6)), found.source.name)
    names = [Path(os.path.relpath(path, folder)).as_posix() for path in paths]
    poses = checked_poses(list(c2w), [f'image "{name}"' for name in names], found.source)
    console.print(f"Poses of {len(paths)} images from {found.source.name}: {form}; intrinsics from {intrinsics.source}")
    return Frames(
        layout="text",
        source=found.source,
        names=names,
        paths=paths,
        mask_paths=masks_beside(folder, paths, sizes),
        c2w=poses,
        intrinsics_px=intrinsics.pinhole_px,
        size_px=size_px,
        distortion=intrinsics.distortion,
        camera_types=["PERSPECTIVE"] * len(paths),
        left_out=left_out,
    )


_Read = tuple[list[Path], Float[np.ndarray, "images 3 4"], Float[np.ndarray, " images"] | None, dict[str, str]]
"""Images in the order of their names with their poses, focal lengths where the poses have them, and who is left out."""


def _by_files(folder: Path, source: Path) -> _Read:
    images = _image_folder(folder)
    assert images is not None, "call find_pose_text first"
    files = _matrix_files(source, photos_in(images))
    c2w = [_lost_or(read_pose_matrix(path)) for path in files.values()]
    return _known(list(files), np.array(c2w), None, source)


def _by_table(folder: Path, source: Path, table: PoseTable, missing: MissingImages) -> _Read:
    images = _image_folder(folder)
    if table.names is not None:
        # Names alone are those in the folder of images; others are relative to the data.
        are_bare = not any("/" in clean_name(name) for name in table.names)
        paths, rows = find_images(images if are_bare and images else folder, table.names, source, missing)
        left_out = without_file(table.names, rows)
    else:
        photos = photos_in(images) if images is not None else []
        paths, rows = _in_time(folder, photos, table.times) if table.times is not None else ([], [])
        left_out = {}
        if not paths:
            if len(photos) != len(table.c2w):
                remedy = "Keep exactly the images that have poses, in the order of their names"
                remedy += ", or call them by their times." if table.times is not None else "."
                raise InputError(f"{len(table.c2w)} poses for {len(photos)} images", source, remedy)
            paths, rows = photos, list(range(len(photos)))
    chosen = np.array(rows, dtype=np.int64)
    focal_px = None if table.focal_px is None else table.focal_px[chosen]
    paths, c2w, focal_px, lost = _known(paths, table.c2w[chosen], focal_px, source)
    return paths, c2w, focal_px, left_out | lost


def _known(paths: list[Path], c2w: Float[np.ndarray, "images 3 4"], focal_px: np.ndarray | None, source: Path) -> _Read:
    """Without images whose tracking was lost, which are named."""
    is_known = np.isfinite(c2w).all((1, 2)) if len(c2w) else np.zeros(0, dtype=bool)
    lost = [path.name for path, known in zip(paths, is_known, strict=True) if not known]
    if not is_known.any():
        raise InputError(f"No pose in it belongs to one of the {len(paths)} images", source, "Name both alike.")
    if lost:
        warn(f"{len(lost)} of {len(paths)} images have no valid pose in {source.name}, such as {lost[0]}: left out.")
    kept = [path for path, known in zip(paths, is_known, strict=True) if known]
    reasons = dict.fromkeys(lost, f"no valid pose in {source.name}")
    return kept, c2w[is_known], None if focal_px is None else focal_px[is_known], reasons


def _in_time(folder: Path, photos: Sequence[Path], times: Float[np.ndarray, " rows"]) -> tuple[list[Path], list[int]]:
    """Images with the row nearest in time, by a TUM sequence's rgb.txt or by the numbers that their names end with.

    Nothing where these are no times of the rows.
    """
    taken = _listed_times(folder) or {
        path: float(end[0]) for path in photos if (end := _NUMBER_AT_END.search(path.stem))
    }
    if len(times) < 2 or len(photos) < 2 or not set(photos) <= set(taken):
        return [], []
    at = np.array([taken[path] for path in photos])
    if np.median(at) > _SURELY_NANOSECONDS * max(1.0, float(np.median(times))):
        at = at * 1e-9
    near: Int[np.ndarray, " images"] = np.abs(at[:, None] - times[None]).argmin(1)
    # Half the time between two images: a pose further off belongs to another.
    is_near = np.abs(at - times[near]) <= 0.5 * float(np.median(np.diff(np.sort(at))))
    # Keyframes alone have poses, or poses are measured more often than images are taken.
    if max(is_near.mean(), len(np.unique(near[is_near])) / len(times)) < _LEAST_IN_TIME:
        return [], []
    return [path for path, close in zip(photos, is_near, strict=True) if close], near[is_near].tolist()


def _listed_times(folder: Path) -> dict[Path, float]:
    path = folder / "rgb.txt"
    if not path.is_file():
        return {}
    rows = [line.split() for line in read_text(path).splitlines() if line.strip() and not line.startswith("#")]
    return {folder / row[1]: float(row[0]) for row in rows if len(row) == 2 and _NUMBER_AT_END.fullmatch(row[0])}


def _image_folder(data: Path) -> Path | None:
    """Where the images lie: as for photos alone, or under the usual name among several folders."""
    usual = next((data / name for name in ("rgb", "color", "image") if photos_in(data / name)), None)
    return image_folder(data) or usual


def _matrix_files(folder: Path, images: Sequence[Path]) -> dict[Path, Path]:
    """The text file of each image that has one of its name in a folder."""
    files = {_key(path): path for path in sorted(folder.glob("*.txt"))} if folder.is_dir() else {}
    return {image: files[_key(image)] for image in images if _key(image) in files}


def _key(path: Path) -> str:
    return _MATRIX_NAME.sub("", path.stem)


def _lost_or(pose: Float[np.ndarray, "3 4"] | None) -> Float[np.ndarray, "3 4"]:
    return np.full((3, 4), np.nan) if pose is None else pose
