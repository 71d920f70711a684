"""Which line of a table belongs to which photo, by their names."""

from collections.abc import Sequence
from pathlib import Path

from craym_nerfstudio.console import warn
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.photos.files import listed

Row = tuple[int, dict[str, str]]
"""Its line in the file, and its values by column."""
_Fit = tuple[bool, int, bool]
"""How well two names fit: whether they are the same, how many folders they share, whether their suffix."""


def by_photo(rows: Sequence[Row], names: Sequence[str], path: Path) -> dict[int, Row]:
    """The row of each photo that has one, suffix or folders missing or not; rows that fit no photo are said.

    Raises:
        InputError: a row that fits several photos, several rows that fit one, or none that fits any.
    """
    by_stem: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        by_stem.setdefault(Path(name).stem, []).append(index)
    claims: dict[int, list[tuple[_Fit, int]]] = {}
    for number, (line, row) in enumerate(rows):
        found = [(_fit(row["name"], names[index]), index) for index in by_stem.get(_path(row["name"]).stem, [])]
        best = [index for fit, index in found if fit == max(found)[0]]
        if len(best) > 1:
            problem = f"{row['name']} in line {line} fits {len(best)} photos ({listed([names[k] for k in best])})"
            raise InputError(problem, path, f"Write the names with their folders, such as {names[best[0]]}.")
        for index in best:
            claims.setdefault(index, []).append((max(found)[0], number))
    chosen = {index: rows[_best_claim(found, names[index], rows, path)] for index, found in claims.items()}
    unknown = [row["name"] for line, row in rows if line not in {line for line, _ in chosen.values()}]
    if not chosen:
        shown = f"{unknown[0]}, not {names[0]}" if unknown else "no line"
        raise InputError(f"The table names none of the photos ({shown})", path, "Write the photos' file names.")
    if unknown:
        warn(f"Positions: {len(unknown)} of {len(rows)} rows in {path.name} fit no photo, such as {unknown[0]}.")
    return chosen


def _best_claim(claims: Sequence[tuple[_Fit, int]], name: str, rows: Sequence[Row], path: Path) -> int:
    """The number of the row that fits a photo best: beside DJI_0001.JPG a table may list DJI_0001.DNG."""
    best = [number for fit, number in claims if fit == max(claims)[0]]
    if len(best) > 1:
        lines = " and ".join(str(rows[number][0]) for number in best[:2])
        remedy = "Keep one of them, or write the names with their folders."
        raise InputError(f"{len(best)} rows fit {name}, such as lines {lines}", path, remedy)
    return best[0]


def _fit(wanted: str, name: str) -> _Fit:
    one, other = _path(wanted), Path(name)
    equal = [a == b for a, b in zip(one.parts[-2::-1], other.parts[-2::-1], strict=False)]
    return one == other, (*equal, False).index(False), one.suffix.lower() == other.suffix.lower()


def _path(name: str) -> Path:
    return Path(name.strip().replace("\\", "/"))
