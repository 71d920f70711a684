"""Positions of photos as COLMAP keeps them: the table `pose_priors` of its database."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from craym_nerfstudio.errors import InputError

_WGS84 = 0
"""Its number of degrees and metres; other systems are metric or not said."""


@dataclass(frozen=True)
class DatabasePositions:
    """Positions of images that have one."""

    names: list[str]
    points: Float[np.ndarray, "images 3"]
    """Latitude, longitude in degrees and altitude in metres, or in any metric system."""
    accuracy: Float[np.ndarray, " images"]
    """Standard deviation along an axis in metres; NaN where it is not said."""
    is_geodetic: bool


def read_pose_priors(path: Path) -> DatabasePositions | None:
    """What a COLMAP database of version 3.10 or later says of its images; None where it has no positions.

    The file is only read: COLMAP itself would bring an older one up to date.

    Raises:
        InputError: no database, or positions both on the globe and in a metric system.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            rows = _rows(database)
    except sqlite3.Error as error:
        raise InputError(f"Unreadable COLMAP database ({error})", path, "Write it again, or move it away.") from error
    systems = np.array([row[3] for row in rows])
    points = np.array([_numbers(row[1], 3) for row in rows]).reshape(-1, 3)
    covariance = np.array([_numbers(row[2], 9) for row in rows]).reshape(-1, 3, 3)
    kept = np.isfinite(points).all(-1) & ~_has_no_fix(points, systems)
    if not kept.any():
        return None
    if len(np.unique(systems[kept] == _WGS84)) > 1:
        remedy = "Keep either, or write positions.csv."
        raise InputError("Its pose priors are partly in degrees and partly in a metric system", path, remedy)
    variance = covariance.trace(axis1=1, axis2=2) / 3
    accuracy = np.where(variance > 0, np.abs(variance), np.nan) ** 0.5
    names = [row[0] for row, keep in zip(rows, kept.tolist(), strict=True) if keep]
    return DatabasePositions(names, points[kept], accuracy[kept], bool(systems[kept][0] == _WGS84))


def _rows(database: sqlite3.Connection) -> list[tuple[str, bytes, bytes, int]]:
    """Name, position, covariance and coordinate system of images; none where the database is older than its table."""
    columns = {row[1] for row in database.execute("PRAGMA table_info(pose_priors)")}
    if not columns:
        return []
    # Until version 3.13 a prior has its image's number, since 4.0 that of the data it goes with, which is the same.
    image = "corr_data_id" if "corr_data_id" in columns else "image_id"
    covariance = "position_covariance" if "position_covariance" in columns else "NULL"
    query = (
        f"SELECT name, position, {covariance}, coordinate_system FROM pose_priors "
        f"JOIN images ON images.image_id = pose_priors.{image} ORDER BY name"
    )
    return list(database.execute(query))


def _numbers(blob: bytes | None, count: int) -> Float[np.ndarray, " count"]:
    return np.frombuffer(blob) if blob is not None and len(blob) == 8 * count else np.full(count, np.nan)


def _has_no_fix(points: Float[np.ndarray, "images 3"], systems: np.ndarray) -> Bool[np.ndarray, " images"]:
    """Zero degrees, zero degrees is what a receiver without a fix writes."""
    return (systems == _WGS84) & (points[:, :2] == 0).all(-1)
