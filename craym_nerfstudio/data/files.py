"""Files that a dataset names: one cleaning for every name, one search where a file is not where it should be."""

import codecs
import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from craym_nerfstudio.console import warn
from craym_nerfstudio.data.config import MissingImages
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES, has_image_name
from craym_nerfstudio.photos.files import OTHER_FOLDER

_MOST_MISSING = 0.2
"""Share of images up to which missing ones are left out; more is a mistake."""
_NO_PHOTO = re.compile(r"mask|depth|normal|alpha", re.IGNORECASE)
"""In the names of files beside images that are none."""
_SCALED_FOLDER = re.compile(r"_\d+$")
"""End of the name of a folder with shrunk copies: images_2, images_4."""


def read_text(path: Path) -> str:
    """Text as UTF-8, or as UTF-16 where a byte order mark says so.

    Raises:
        InputError: the file cannot be read, or is no text.
    """
    try:
        raw = path.read_bytes()
        is_utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return raw.decode("utf-16" if is_utf16 else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("Unreadable text file", path, "It must exist and be saved as UTF-8.") from error


def clean_name(name: str) -> str:
    """A file name with forward slashes, without blanks around it and a leading ./ before it."""
    name = name.strip().replace("\\", "/")
    while name.startswith("./"):
        name = name[2:]
    return name


def match_key(name: str) -> str:
    """File name by which images are matched between files: clean, and without image suffix."""
    name = clean_name(name)
    suffix = Path(name).suffix
    return name[: -len(suffix)] if suffix.lower() in (*IMAGE_SUFFIXES, *UNREAD_SUFFIXES) else name


def find_images(
    root: Path, names: Sequence[str], source: Path, if_missing: MissingImages = "skip"
) -> tuple[list[Path], list[int]]:
    """Files of the names below `root` and the numbers of the names that have one; what is left out is said.

    Raises:
        InputError: too many images are missing, or any where that is asked for (the first is named, with their number).
    """
    found = find_files(root, names)
    expected = [_expected(root, name) for name in names]
    kept = [number for number, path in enumerate(found) if path is not None]
    missing = [expected[number] for number, path in enumerate(found) if path is None]
    paths = [path for path in found if path is not None]
    if len(missing) > (_MOST_MISSING if if_missing == "skip" else 0) * len(names):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        near = _near_miss(missing[0], paths)
        hint = f"Is it {near}? " if near else ""
        remedy = f"{hint}Put the files there, or remove them from the list."
        raise InputError(f"Missing image{more} of {len(names)}, listed in {source}", missing[0], remedy)
    if missing:
        warn(f"{len(missing)} of {len(names)} images in {source} are missing and left out, such as {missing[0]}.")
    # Names without suffix are usual.
    moved = [
        number
        for number, path in zip(kept, paths, strict=True)
        if path not in (expected[number], root / f"{clean_name(names[number])}{path.suffix}")
    ]
    if moved:
        warn(
            f"{len(moved)} of {len(names)} images in {source} were found under another name: "
            f"{found[moved[0]]} for {names[moved[0]]}."
        )
    return paths, kept


def without_file(names: Sequence[str], kept: Sequence[int]) -> dict[str, str]:
    """The names that `find_images` left out, and why."""
    found = set(kept)
    return {name: "its file is missing" for number, name in enumerate(names) if number not in found}


def _expected(root: Path, name: str) -> Path:
    path = root / clean_name(name)
    return path if match_key(path.name) != path.name else path.with_name(f"{path.name}.png")


def _near_miss(missing: Path, taken: Iterable[Path]) -> Path | None:
    """A file in the same folder with a similar name that no other image claims."""
    free = {path.name: path for path in images_in(missing.parent)}
    for path in taken:
        free.pop(path.name, None)
    close = difflib.get_close_matches(missing.name, free, n=1)
    return free[close[0]] if close else None


def find_files(root: Path, names: Sequence[str]) -> list[Path | None]:
    """The image file of each name, None where there is none.

    A name counts as written; else whatever the case, the Unicode form and the suffix in the folder it names; where
    that folder does not exist, whatever the leading folders too, if only one file fits best. No file serves two names.
    """
    paths: list[Path | None] = [root / clean_name(name) for name in names]
    taken = {path for path in paths if path is not None and path.is_file()}
    indices: dict[Path, dict[str, list[Path]]] = {}
    for number, path in enumerate(paths):
        if path is None or path in taken:
            continue
        is_moved = not path.parent.is_dir()
        place = root if is_moved else path.parent
        if place not in indices:
            files = _images_below(root, names) if is_moved else images_in(place)
            indices[place] = _by_last_part(file for file in files if file not in taken)
        paths[number] = _best(path, indices[place])
    return paths


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder by name; none where there is no folder."""
    return [path for path in sorted(folder.iterdir()) if has_image_name(path)] if folder.is_dir() else []


def photos_in(folder: Path) -> list[Path]:
    """Image files of a folder by name, but for what other programs put beside photos: masks, depth, normals."""
    files = images_in(folder)
    return [path for path in files if not _NO_PHOTO.search(path.stem)] or files


def _images_below(root: Path, names: Sequence[str]) -> list[Path]:
    """All images in a tree, but for those in folders of masks and the like that no name mentions."""
    mentioned = {part for name in names for part in _parts(Path(clean_name(name)))[:-1]}
    return [
        path
        for path in sorted(root.rglob("*"))
        if has_image_name(path)
        and not any(OTHER_FOLDER.match(part) and part not in mentioned for part in _parts(path.relative_to(root))[:-1])
    ]


def _parts(path: Path) -> list[str]:
    """Parts of a path in one case and Unicode form, the last without image suffix."""
    return unicodedata.normalize("NFC", match_key(path.as_posix())).casefold().split("/")


def _by_last_part(files: Iterable[Path]) -> dict[str, list[Path]]:
    index: dict[str, list[Path]] = {}
    for path in files:
        index.setdefault(_parts(path)[-1], []).append(path)
    return index


def _best(wanted: Path, index: dict[str, list[Path]]) -> Path | None:
    """The file that shares most parts with a path, from its end; None where several folders have such a file."""
    parts = _parts(wanted)
    candidates = index.get(parts[-1], [])
    if not candidates:
        return None

    def shared(path: Path) -> int:
        equal = [one == other for one, other in zip(reversed(parts), reversed(_parts(path)), strict=False)]
        return (*equal, False).index(False)

    most = max(map(shared, candidates))
    best = [path for path in candidates if shared(path) == most]
    if len({_SCALED_FOLDER.sub("", str(path.parent)) for path in best}) > 1:
        return None
    # The largest copies come first by name, and suffixes in the usual order.
    return min(best, key=lambda path: (str(path.parent), IMAGE_SUFFIXES.index(path.suffix.lower())))
