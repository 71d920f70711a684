"""Finds and loads COLMAP models, binary or text, also those that were written or edited by hand."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from craym_nerfstudio.console import warn
from craym_nerfstudio.data.files import read_text
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.stops import load_pycolmap

_FOLDERS = ("sparse", "colmap/sparse", ".")
_PARTS, _SUFFIXES = ("cameras", "images"), (".bin", ".txt")
_FIELDS = 10
"""Of an image's line in images.txt, the name last."""


def find_model(folder: Path) -> Path | None:
    """The COLMAP model with most images inside a data folder, named where there are more; None where there is none."""
    places = [place for name in _FOLDERS if (place := folder / name).is_dir()]
    folders = dict.fromkeys(path for place in places for path in (*sorted(place.iterdir()), place))
    counts = {path: _image_count(path) for path in folders if _suffix(path)}
    if not counts:
        return None
    best = max(counts, key=lambda path: counts[path])
    if len(counts) > 1:
        others = ", ".join(f"{path.relative_to(folder)} ({count})" for path, count in counts.items() if path != best)
        taken = f"{best.relative_to(folder)} with {counts[best]} images"
        warn(f"{len(counts)} COLMAP models: {taken} is read, not {others}.")
    return best


def refuse_incomplete_models(folder: Path) -> None:
    """Refuse what was meant as a model and is none, where `find_model` finds none.

    Raises:
        InputError: a folder in `sparse/` holds cameras or images, and not both in one format.
    """
    places = [folder / name for name in _FOLDERS if name != "." and (folder / name).is_dir()]
    for model in (path for place in places for path in (*sorted(place.iterdir()), place)):
        there = [f"{part}{suffix}" for suffix in _SUFFIXES for part in _PARTS if (model / f"{part}{suffix}").is_file()]
        if there and _suffix(model) is None:
            # The format of the images counts: theirs are the poses.
            suffix = Path(max(there)).suffix
            missing = [name for part in _PARTS if (name := f"{part}{suffix}") not in there]
            remedy = (
                "Export the model again, all as binary or all as text; to place the photos by their matches instead, "
                "move it away."
            )
            raise InputError(f"Incomplete COLMAP model, {' and '.join(there)} without {missing[0]}", model, remedy)


def load_model(model: Path) -> Any:
    """The model in a folder as a ``pycolmap.Reconstruction``; points and tracks may be absent.

    Raises:
        InputError: pycolmap is missing, or the model is unreadable.
    """
    pycolmap = load_pycolmap(model)
    suffix = _suffix(model)
    if all((model / f"{_PARTS[1]}{other}").is_file() for other in _SUFFIXES):
        warn(f"{model} holds a binary and a text model: the newer is read, images{suffix}.")
    reconstruction = pycolmap.Reconstruction()
    try:
        with tempfile.TemporaryDirectory() as copy:
            if suffix == ".bin":
                reconstruction.read_binary(str(_with_points(model, Path(copy))))
            else:
                names = _write_plain_text(model, Path(copy))
                reconstruction.read_text(copy)
                for image in reconstruction.images.values():
                    image.name = names[int(image.name)]
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("Unreadable COLMAP model", model, "Export it again as binary or text.") from error
    return reconstruction


def _suffix(model: Path) -> str | None:
    """Of the newer model in a folder; None where there is none."""
    times = {}
    for suffix in _SUFFIXES:
        files = [model / f"{part}{suffix}" for part in _PARTS]
        if all(path.is_file() for path in files):
            times[suffix] = max(path.stat().st_mtime for path in files)
    return max(times, key=lambda suffix: times[suffix]) if times else None


def _image_count(model: Path) -> int:
    if _suffix(model) == ".bin":
        with (model / "images.bin").open("rb") as file:
            return int.from_bytes(file.read(8), "little")
    return len(_image_rows(model / "images.txt"))


def _with_points(model: Path, copy: Path) -> Path:
    """The folder of a binary model, or a copy with an empty list of points where it has none."""
    if (model / "points3D.bin").is_file():
        return model
    for path in model.glob("*.bin"):
        shutil.copyfile(path, copy / path.name)
    (copy / "points3D.bin").write_bytes(bytes(8))
    return copy


def _write_plain_text(model: Path, copy: Path) -> list[str]:
    """A copy that pycolmap reads: no tracks and points, numbers for names, which may have blanks; returns the names."""
    for part in ("cameras", "rigs", "frames"):
        if (model / f"{part}.txt").is_file():
            lines = read_text(model / f"{part}.txt").splitlines()
            (copy / f"{part}.txt").write_text("".join(f"{line.strip()}\n" for line in lines))
    rows = _image_rows(model / "images.txt")
    lines = [f"{' '.join(row[:-1])} {number}\n\n" for number, row in enumerate(rows)]
    (copy / "images.txt").write_text("".join(lines))
    (copy / "points3D.txt").write_text("")
    return [row[-1] for row in rows]


def _image_rows(path: Path) -> list[list[str]]:
    """Fields of the images in images.txt; the line of keypoints after each may be absent.

    Raises:
        InputError: a line that is neither.
    """
    rows: list[list[str]] = []
    may_be_points = False
    for line in read_text(path).splitlines():
        if line.startswith("#"):
            continue
        if may_be_points and _is_of_points(line):
            may_be_points = False
        elif line.strip():
            rows.append(line.strip().split(maxsplit=_FIELDS - 1))
            may_be_points = True
            if len(rows[-1]) < _FIELDS:
                remedy = "Give IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME."
                raise InputError(f'No image in the line "{line.strip()[:60]}"', path, remedy)
    return rows


def _is_of_points(line: str) -> bool:
    """Whether a line lists keypoints, X Y POINT3D_ID each; none of them, too."""
    fields = line.split()
    try:
        return len([float(value) for value in fields]) % 3 == 0
    except ValueError:
        return False
