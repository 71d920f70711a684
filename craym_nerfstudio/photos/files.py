"""The photos of a folder, each with its lens; what else lies there is left alone."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from craym_nerfstudio.console import console, track, warn
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.images import UNREAD_SUFFIXES, has_image_name, read_header, said_of_unread
from craym_nerfstudio.photos.lens import Lens, read_lens
from craym_nerfstudio.storage import file_key

POSITIONS_NAME, DATABASE_NAME = "positions.csv", "database.db"
"""Table, or COLMAP's database, beside the photos that says where they were taken."""
_LONGEST_PX = 1600
"""Keypoints are sought in images of at most this size, as training reads them: both share the cached ones."""
OTHER_FOLDER = re.compile(r"mask|depth|normal|semantic|segment", re.IGNORECASE)
"""Begins the names of folders whose files have the names of images and are none."""
_OWN_FILES = ("config.yml", "summary.json", "matches.npz", "cameras.csv", "transforms.json", "cache")
"""Lie in folders that results were written to, whose pictures are no photos."""
_NAMED = 5
"""Files named in a message."""


@dataclass(frozen=True)
class Photos:
    """Photos without poses, in the natural order of their names."""

    folder: Path
    """What the names are relative to."""
    names: list[str]
    paths: list[Path]
    lenses: list[Lens]
    keys: list[str]
    """Digests of the files."""

    @property
    def size_px(self) -> Int[np.ndarray, "photos 2"]:
        """Width and height of the images that are matched."""
        full = np.array([lens.size_px for lens in self.lenses])
        factor = max(1.0, full.max() / _LONGEST_PX)
        return np.maximum(np.round(full / factor).astype(np.int64), 1)


def image_folder(data: Path) -> Path | None:
    """Where the photos of a data folder lie: in itself, in its `images/`, or in the only folder in it with some."""
    if not data.is_dir():
        return None
    usual = data / "images"
    if _has_images(data):
        return data
    if _has_images(usual) or (usual.is_dir() and folders_of_images(usual)):
        return usual
    others = folders_of_images(data)
    return others[0] if len(others) == 1 else None


def folders_of_images(data: Path) -> list[Path]:
    """Folders in a data folder that hold images, but for masks and the like."""
    folders = [path for path in sorted(data.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    return [folder for folder in folders if not OTHER_FOLDER.match(folder.name) and _has_images(folder)]


def _has_images(folder: Path) -> bool:
    return folder.is_dir() and any(has_image_name(path) and path.is_file() for path in folder.iterdir())


def read_photos(folder: Path) -> Photos:
    """All photos of a folder and of those inside it, in which "photo9" comes before "photo10".

    Raises:
        InputError: a file that is no image, fewer than two photos, or nothing but copies of one.
    """
    inside = _files_below(folder)
    paths = sorted(filter(has_image_name, inside), key=lambda path: natural(path.relative_to(folder)))
    known = (POSITIONS_NAME, DATABASE_NAME)
    others = [path.name for path in inside if not has_image_name(path) and path.name not in known]
    # A camera writes raw files beside its JPEG: these are no other photos.
    read = {path.with_suffix("") for path in paths}
    if unread := said_of_unread(path for path in inside if path.with_suffix("") not in read):
        warn(f"Photos: {unread}.")
    others = [name for name in others if Path(name).suffix.lower() not in UNREAD_SUFFIXES]
    if others:
        console.print(f"Photos: {listed(others)} ignored: no image{'s' if len(others) > 1 else ''}")
    for path in paths:
        read_header(path)
    keys = [file_key(path) for path in track(paths, "Known photos?")]
    if len(paths) < 2:
        remedy = "Add photos of the same scene from other viewpoints; 20 are a start."
        raise InputError("Only one photo" if paths else "No photo", paths[0] if paths else folder, remedy)
    if len(set(keys)) == 1:
        raise InputError(f"{len(keys)} copies of one photo", folder, "Add photos from other viewpoints.")
    paths, keys = _without_copies(paths, keys)
    names = [path.relative_to(folder).as_posix() for path in paths]
    return Photos(folder, names, paths, [read_lens(path) for path in paths], keys)


def _files_below(folder: Path) -> list[Path]:
    """Files of a folder and of those in it, links to folders too, but for masks and the like and what craym wrote."""
    found: list[Path] = []
    entered = {folder.resolve()}  # a link may lead back
    passed: list[str] = []
    for place, folders, names in os.walk(folder, followlinks=True):
        inside = []
        for name in sorted(folders):
            path = Path(place, name)
            is_other, real = OTHER_FOLDER.match(name) is not None, path.resolve()
            if is_other or any((path / own).exists() for own in _OWN_FILES):
                passed.append(path.relative_to(folder).as_posix())
            elif real not in entered and not name.startswith("."):
                entered.add(real)
                inside.append(name)
        folders[:] = inside
        found += [path for name in names if (path := Path(place, name)).is_file() and not name.startswith(".")]
    if others := [name for name in passed if not name.lower().startswith("mask")]:
        console.print(f"Photos: {listed(others)} passed over: no folder of photos")
    return sorted(found)


def _without_copies(paths: list[Path], keys: list[str]) -> tuple[list[Path], list[str]]:
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    copies = [path.name for index, path in enumerate(paths) if first[keys[index]] != index]
    if copies:
        warn(f"Photos: {listed(copies)} left out: copies of other photos")
    kept = sorted(first.values())
    return [paths[index] for index in kept], [keys[index] for index in kept]


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Key by which "photo9" comes before "photo10"."""
    parts = re.split(r"(\d+)", path.as_posix().lower())
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]


def listed(names: list[str]) -> str:
    """Some names in words: the first few, and how many more."""
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
