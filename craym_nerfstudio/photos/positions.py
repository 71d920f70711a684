"""Where photos were taken, by GPS or survey: a table or COLMAP's database beside them, or EXIF; in metres if it can."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import ExifTags, Image

from craym_nerfstudio.console import warn
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.images import exif_of
from craym_nerfstudio.photos.files import DATABASE_NAME, POSITIONS_NAME, Photos
from craym_nerfstudio.photos.named_rows import by_photo
from craym_nerfstudio.photos.pose_priors import read_pose_priors
from craym_nerfstudio.stops import load_pycolmap

_GEODETIC, _METRIC = ("latitude", "longitude", "altitude"), ("x", "y", "z")
_ACCURACY = "accuracy"
_NOWHERE = (np.nan, np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Positions:
    """Measured positions of photos."""

    points: Float[np.ndarray, "photos 3"]
    """NaN for photos without."""
    accuracy: Float[np.ndarray, " photos"]
    """Standard deviation along an axis, in the same units; NaN where it is not said."""
    source: str
    """The file's name, or EXIF."""
    frame: str
    """What the coordinates are, in words."""


def find_positions(photos: Photos, data: Path) -> Positions | None:
    """Of `positions.csv` in the data folder or beside the photos, else of the pose priors of COLMAP's `database.db`
    there, else of EXIF; None where there are none.

    The table has a header: name, latitude, longitude, altitude (WGS 84, degrees and metres), or name, x, y, z in any
    metric system, and accuracy where it is known. Degrees become metres east, north and up of the middle.

    Raises:
        InputError: a table that cannot be used, with the line; a database that cannot be read.
    """
    for name, read in ((POSITIONS_NAME, _of_table), (DATABASE_NAME, _of_database)):
        for folder in (data, photos.folder):
            found = read(folder / name, photos.names) if (folder / name).is_file() else None
            if found is not None:
                return found
    rows = np.array([_of_exif(path) for path in photos.paths])
    if np.isnan(rows[:, 0]).all():
        return None
    return _local(rows[:, :3], rows[:, 3], "EXIF")


def _of_table(path: Path, names: Sequence[str]) -> Positions | None:
    """Of the photos that the table names; None where no receiver had a fix."""
    points, accuracy = np.full((len(names), 3), np.nan), np.full(len(names), np.nan)
    keys, rows = _rows(path)
    matched = by_photo(rows, names, path)
    for index, (line, row) in matched.items():
        points[index] = [_number(row.get(key), path, line, key) for key in keys]
        if keys == _GEODETIC:
            _check_degrees(points[index], f"in line {line}", path)
        if (row.get(_ACCURACY) or "").strip():
            accuracy[index] = _number(row[_ACCURACY], path, line, _ACCURACY)
            if accuracy[index] <= 0:
                raise InputError(f"Accuracy {row[_ACCURACY]} in line {line}", path, "Give metres above 0, or nothing.")
    if keys == _METRIC:
        return Positions(points, accuracy, path.name, "the table's own")
    # Zero degrees, zero degrees is what a receiver without a fix writes.
    lost = np.flatnonzero((points[:, :2] == 0).all(1))
    if len(lost):
        warn(
            f"Positions: {len(lost)} of {len(matched)} photos in {path.name} are at 0, 0 (no fix) and have none, "
            f"such as {names[lost[0]]}."
        )
        points[lost], accuracy[lost] = np.nan, np.nan
    return None if len(lost) == len(matched) else _local(points, accuracy, path.name)


def _check_degrees(point: Float[np.ndarray, "3"], where: str, path: Path) -> None:
    """Refuse what is no place on the globe."""
    latitude, longitude = point[:2].tolist()
    if abs(latitude) > 90:
        remedy = "Latitudes lie within 90 degrees: are latitude and longitude exchanged?"
        raise InputError(f"Latitude {latitude:g} {where}", path, remedy)
    if abs(longitude) > 360:
        raise InputError(f"Longitude {longitude:g} {where}", path, "Give degrees, or name the columns x,y,z.")


def _of_database(path: Path, names: Sequence[str]) -> Positions | None:
    """Of the photos that the database names; None where it has no positions of them."""
    priors = read_pose_priors(path)
    number = {} if priors is None else {name: row for row, name in enumerate(priors.names)}
    rows = np.array([number.get(name, number.get(f"images/{name}", -1)) for name in names])
    if priors is None or (rows < 0).all():
        return None
    points = np.where(rows[:, None] < 0, np.nan, priors.points[rows])
    accuracy = np.where(rows < 0, np.nan, priors.accuracy[rows])
    if priors.is_geodetic:
        for index in np.flatnonzero(rows >= 0).tolist():
            _check_degrees(points[index], f"of {names[index]}", path)
        return _local(points, accuracy, path.name)
    return Positions(points, accuracy, path.name, "the database's own")


def _rows(path: Path) -> tuple[tuple[str, ...], list[tuple[int, dict[str, str]]]]:
    """Which columns hold the position, and the lines by their number."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("Unreadable table of positions", path, "Write it as UTF-8.") from error
    first = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=first.count), skipinitialspace=True)
    columns = [(name or "").strip().lower() for name in reader.fieldnames or []]
    for keys in (_GEODETIC, _METRIC):
        if {"name", *keys} <= set(columns):
            reader.fieldnames = columns
            return keys, [(reader.line_num, {k: v or "" for k, v in row.items() if k}) for row in reader]
    remedy = "Begin it with a line: name,latitude,longitude,altitude,accuracy (or name,x,y,z,accuracy)."
    raise InputError(f"The table has the columns {', '.join(columns) or 'none'}", path, remedy)


def _number(text: str | None, path: Path, line: int, key: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f'"{text}" is no {key}, in line {line}', path, "Give a number with a point, or drop the line.")
    return value


def _of_exif(path: Path) -> tuple[float, float, float, float]:
    """Latitude, longitude, altitude (0 where it is not said) and accuracy of a photo; NaN for what it lacks."""
    gps = ExifTags.GPS
    with Image.open(path) as image:
        try:
            tags = exif_of(image).get_ifd(ExifTags.IFD.GPSInfo)
            angles = [_degrees(tags[key], tags.get(side)) for key, side in (
                (gps.GPSLatitude, gps.GPSLatitudeRef), (gps.GPSLongitude, gps.GPSLongitudeRef))]  # fmt: skip
            below = tags.get(gps.GPSAltitudeRef, b"\0") in (b"\1", 1)
            altitude = float(tags.get(gps.GPSAltitude, 0.0)) * (-1 if below else 1)
            accuracy = float(tags.get(gps.GPSHPositioningError, np.nan))
        except (OSError, SyntaxError, ValueError, KeyError, TypeError, ZeroDivisionError):
            return _NOWHERE
    values = (*angles, altitude)
    # Zero degrees, zero degrees is what a receiver without a fix writes.
    if not np.isfinite(values).all() or angles == [0.0, 0.0] or abs(angles[0]) > 90 or abs(angles[1]) > 180:
        return _NOWHERE
    return (angles[0], angles[1], altitude, accuracy if np.isfinite(accuracy) and accuracy > 0 else np.nan)


def _degrees(parts: Sequence[float], side: object) -> float:
    """From degrees, minutes and seconds; south and west are negative."""
    value = sum(float(part) / 60**power for power, part in enumerate(parts))
    return -value if str(side).strip("\0 ").upper() in ("S", "W") else value


def _local(geodetic: Float[np.ndarray, "photos 3"], accuracy: Float[np.ndarray, " photos"], source: str) -> Positions:
    """Metres east, north and up of the median position, whose digits are rounded so that it can be noted."""
    pycolmap = load_pycolmap()

    known = ~np.isnan(geodetic).any(1)
    middle = np.median(geodetic[known], axis=0).tolist()
    latitude, longitude, altitude = (round(value, digits) for value, digits in zip(middle, (6, 6, 1), strict=True))
    points = np.full_like(geodetic, np.nan)
    points[known] = pycolmap.GPSTransform().ellipsoid_to_enu(geodetic[known], latitude, longitude, altitude)
    return Positions(
        points, accuracy, source,
        f"metres east, north and up of latitude {latitude:.6f}, longitude {longitude:.6f}, altitude {altitude:.1f} m",
    )  # fmt: skip
