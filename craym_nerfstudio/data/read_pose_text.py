"""Reads images whose poses lie beside them as text: a trajectory, a table by names, or a matrix for each image."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from craym_nerfstudio.console import console, warn
from craym_nerfstudio.data.config import MissingImages
from craym_nerfstudio.data.files import clean_name, find_images, photos_in, without_file
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.data.intrinsics_text import TextIntrinsics, find_intrinsics
from craym_nerfstudio.data.masks import masks_beside
from craym_nerfstudio.data.pose_text import HeadlineError, PoseTable, read_pose_matrix, read_pose_table
from craym_nerfstudio.data.pose_times import rows_of
from craym_nerfstudio.data.validate import checked_poses
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.images import read_header
from craym_nerfstudio.photos.files import POSITIONS_NAME, image_folder, listed, natural

_TABLE_SUFFIXES = (".txt", ".csv", ".tum", ".log")
POSE_FOLDERS = ("pose", "poses")
_USUAL_FOLDERS = ("rgb", "color", "image", "image_0", "image_2")
_SHARED_NO_MORE = re.compile(r"[._]?(pose|color|colour|rgb)$", re.IGNORECASE)
"""Ends of names that images and their poses do not share: frame-000000.color.png and frame-000000.pose.txt."""
_NUMBER_AT_END = re.compile(r"\d+$")


@dataclass(frozen=True)
class PoseFiles:
    """Poses that were found as text."""

    source: Path
    """A table, or the folder with a file for each image."""
    table: PoseTable | None
    matrices: dict[Path, Float[np.ndarray, "3 4"]]
    """By image where there is no table, OpenGL axes, NaN where tracking was lost."""


def find_pose_text(data: Path) -> PoseFiles | None:
    """The table that `data` is or that lies in it, else its small files, one for each image; None where there are none.

    Raises:
        InputError: several tables, or one whose columns are not understood.
    """
    if data.is_file():
        table = read_pose_table(data) if data.suffix.lower() in _TABLE_SUFFIXES else None
        return None if table is None else PoseFiles(data, table, {})
    images = _image_folder(data)
    if images is None:
        return None
    folders = [folder for folder in (data, *(data / name for name in POSE_FOLDERS)) if folder.is_dir()]
    photos = photos_in(images)
    for folder in dict.fromkeys((*folders, images)):
        matrices = _matrices(folder, photos)
        if any(np.isfinite(pose).all() for pose in matrices.values()):
            return PoseFiles(folder, None, matrices)
    files = [path for folder in folders for path in sorted(folder.iterdir()) if _may_be_table(path)]
    found = [PoseFiles(path, table, {}) for path in files if (table := _table_or_none(path)) is not None]
    # A transform of the whole scene looks like a table of one row.
    found = [each for each in found if each.table is not None and len(each.table.c2w) > 1]
    if len(found) > 1:
        names = listed([each.source.relative_to(data).as_posix() for each in found])
        raise InputError(f"Poses in {names}", data, f"Give the one that is meant, such as --data {found[0].source}.")
    return found[0] if found else None


def read_pose_text(data: Path, found: PoseFiles, missing: MissingImages = "skip") -> Frames:
    """The images that have one of the poses, with intrinsics from text files beside them or from their EXIF.

    Raises:
        InputError: poses that belong to no images, images without a known focal length.
    """
    folder = data.parent if data.is_file() else data
    focal_px, form = None, "4 x 4 matrix, camera to world"
    left_out: dict[str, str] = {}
    if found.table is None:
        paths, c2w = list(found.matrices), np.array(list(found.matrices.values()))
    else:
        paths, rows, left_out = _images_of(folder, found.source, found.table, missing)
        c2w, form = found.table.c2w[rows], found.table.form
        focal_px = None if found.table.focal_px is None else found.table.focal_px[rows]
    is_known = np.isfinite(c2w).all((1, 2))
    if not is_known.any():
        raise InputError(f"No pose in it belongs to one of the {len(paths)} images", found.source, "Name both alike.")
    if lost := [path.name for path, known in zip(paths, is_known, strict=True) if not known]:
        warn(
            f"{len(lost)} of {len(paths)} images have no valid pose in {found.source.name} and are left out, "
            f"such as {lost[0]}."
        )
    left_out = left_out | dict.fromkeys(lost, f"no valid pose in {found.source.name}")
    paths = [path for path, known in zip(paths, is_known, strict=True) if known]
    sizes = [read_header(path).size_px for path in paths]
    size_px = np.array(sizes, dtype=np.int64)
    if focal_px is None:
        intrinsics = find_intrinsics(folder, paths, size_px, found.source)
    else:
        intrinsics = TextIntrinsics.of_focals(focal_px[is_known], size_px, found.source.name)
    names = [Path(os.path.relpath(path, folder)).as_posix() for path in paths]
    poses = checked_poses(list(c2w[is_known]), [f'image "{name}"' for name in names], found.source)
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


def _images_of(
    folder: Path, source: Path, table: PoseTable, missing: MissingImages
) -> tuple[list[Path], list[int], dict[str, str]]:
    """Images with their rows, and who is left out."""
    images = _image_folder(folder)
    if table.names is not None:
        # Names alone are those in the folder of images; others are relative to the data.
        are_bare = not any("/" in clean_name(name) for name in table.names)
        paths, rows = find_images(images if are_bare and images else folder, table.names, source, missing)
        if len(set(table.names)) < len(table.names):
            twice = max(table.names, key=table.names.count)
            raise InputError(f'Duplicate file name "{twice}"', source, "List every image once.")
        return paths, rows, without_file(table.names, rows)
    photos = sorted(photos_in(images), key=natural) if images is not None else []
    paired = rows_of(table, photos, folder)
    if paired is None:
        remedy = "Keep exactly the images that have poses, in the order of their names"
        remedy += ", or end their names with the times or numbers of their rows." if table.times is not None else "."
        raise InputError(f"{len(table.c2w)} poses for {len(photos)} images", source, remedy)
    return list(paired), list(paired.values()), {}


def _image_folder(data: Path) -> Path | None:
    """Where the images lie: as for photos alone, or under the usual name among several folders."""
    usual = next((data / name for name in _USUAL_FOLDERS if photos_in(data / name)), None)
    return image_folder(data) or usual


def _may_be_table(path: Path) -> bool:
    is_other = path.name.startswith(".") or path.name == POSITIONS_NAME
    return path.suffix.lower() in _TABLE_SUFFIXES and path.is_file() and not is_other


def _table_or_none(path: Path) -> PoseTable | None:
    try:
        return read_pose_table(path)
    except HeadlineError:
        raise
    except InputError:  # no text: something that lies beside the poses
        return None


def _matrices(folder: Path, images: list[Path]) -> dict[Path, Float[np.ndarray, "3 4"]]:
    """Poses in the text files of a folder that are called as images, or else have their numbers; NaN for other text."""
    files = [path for path in sorted(folder.glob("*.txt")) if path.is_file() and not path.name.startswith(".")]
    for key in (lambda path: _SHARED_NO_MORE.sub("", path.stem), _number):
        by_key = {key(path): path for path in files}
        pairs = {image: by_key[key(image)] for image in images if by_key.get(key(image)) is not None}
        if len(set(pairs.values())) == len(pairs) > 0:
            return {image: _pose_or_lost(path) for image, path in pairs.items()}
    return {}


def _number(path: Path) -> str | int:
    end = _NUMBER_AT_END.search(_SHARED_NO_MORE.sub("", path.stem))
    return int(end[0]) if end else path.name


def _pose_or_lost(path: Path) -> Float[np.ndarray, "3 4"]:
    try:
        pose = read_pose_matrix(path)
    except InputError:
        pose = None
    return np.full((3, 4), np.nan) if pose is None else pose
