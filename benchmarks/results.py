"""What the benchmarks have measured, and entries of tables made of it: means, spreads, and gaps that show."""

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.suite import TABLES, Cell

NOT_RUN, FAILED, NOTHING = "not run", "failed", "-"
Figures = tuple[tuple[str, int], ...]
"""Names of figures with the digits that they are shown with."""
Groups = dict[str, dict[str, list[Cell]]]
"""Cells by row and column."""


@dataclass
class Results:
    """Every result of a folder, by the path of its cell."""

    folder: Path
    records: dict[str, dict] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """All cells that are there."""
        paths = [path for table in TABLES for path in sorted((folder / table).glob("*.json"))]
        return cls(folder, {path.relative_to(folder).as_posix(): json.loads(path.read_text()) for path in paths})

    def of(self, cells: Iterable[Cell]) -> list[dict | None]:
        """Records of cells; None where one has not been run."""
        return [self.records.get(cell.path.as_posix()) for cell in cells]

    def files(self, pattern: str) -> list[dict]:
        """Contents of the JSON files of a benchmark that has a script of its own."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob(pattern))]


def finished(records: Iterable[dict | None], name: str) -> list[float]:
    """A figure of those records that have it, by its path ("surface.chamfer"); of several ("a|b") the first found."""
    done = [record["result"] for record in records if record is not None and record["status"] == "finished"]
    return [value for value in (_first(result, name.split("|")) for result in done) if value is not None]


def _first(result: dict, names: list[str]) -> float | None:
    for name in names:
        found: Any = result
        for part in name.split(".", 1):
            found = found.get(part) if isinstance(found, dict) else None
        if found is not None:
            return found
    return None


def mean_and_spread(values: list[float]) -> tuple[float, float | None]:
    """Mean, and the standard deviation of a sample where there are two or more."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def entry(records: list[dict | None], name: str, digits: int = 2) -> str:
    """One figure in a table: mean ± spread, how many seeds where some lack, or why there is nothing."""
    values = finished(records, name)
    if not values:
        there = [record for record in records if record is not None]
        if records and not there:
            return NOT_RUN
        return FAILED if there and all(record["status"] == "failed" for record in there) else NOTHING
    mean, spread = mean_and_spread(values)
    text = f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")
    return text if len(values) == len(records) else f"{text} ({len(values)} of {len(records)})"


def entries(records: list[dict | None], figures: Figures) -> str:
    """All figures of one place in a table; said once where all are missing for the same reason."""
    found = [entry(records, name, digits) for name, digits in figures]
    if len(set(found)) == 1:
        return found[0]
    registered, images = finished(records, "registered"), finished(records, "images")
    suffix = f" ({registered[0]} of {images[0]} images)" if registered != images else ""
    return " / ".join(each for each in found if each != NOTHING) + suffix


def grouped(chosen: Iterable[Cell], row: Callable[[Cell], str], column: Callable[[Cell], str]) -> Groups:
    """Cells by row and column, both in the order in which they first occur."""
    groups: Groups = {}
    for cell in chosen:
        groups.setdefault(row(cell), {}).setdefault(column(cell), []).append(cell)
    return groups


def grid(results: Results, *parts: tuple[Groups, Figures]) -> str:
    """A table with the figures of every group, part below part; seeds share an entry."""
    columns = list(dict.fromkeys(column for groups, _ in parts for row in groups.values() for column in row))
    rows = [
        [name, *(entries(results.of(row.get(column, [])), figures) for column in columns)]
        for groups, figures in parts
        for name, row in groups.items()
    ]
    return markdown_table(["", *columns], rows)


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table; rows in which nothing was run are named in one line below it."""
    shown = [row for row in rows if set(row[1:]) - {NOT_RUN, NOTHING}]
    absent = [row[0] for row in rows if row not in shown and NOT_RUN in row[1:]]
    lines = ["| " + " | ".join(row) + " |" for row in shown]
    text = "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines]) if shown else ""
    below = f"{NOT_RUN}: {', '.join(absent)}." if absent else ""
    return "\n\n".join(part for part in (text, below) if part)


def provenance(results: Results, table: str, size: str = "shipped") -> str:
    """What the cells of a table ran on, how to repeat them, and which of them failed, with the reason."""
    told = f"`python -m benchmarks.run {table}{' --size ' + size if size != 'shipped' else ''}`"
    found = [r for r in results.records.values() if (r["table"], r["size"]) == (table, size)]
    if not found:
        return told
    machines = sorted({f"{r['machine']['device']}, {r['machine']['cpu']}" for r in found if "machine" in r})
    commits = sorted({r["commit"][:7] + ("" if len(r["commit"]) <= 40 else " (changed)") for r in found})
    hours, memory = sum(r["seconds"] for r in found) / 3600, max(r.get("peak_memory_mb", 0) for r in found)
    told += f": {len(found)} cells, {hours:.1f} h in all, at most {memory} MiB. {'; '.join(machines)}. "
    told += f"Commits {', '.join(commits)}."
    failed = [(path, r["reason"]) for path, r in results.records.items() if r in found and r["status"] == "failed"]
    lines = [f"- `{Path(path).stem}`: {reason}" for path, reason in failed]
    return told + ("\n\nFailed:\n\n" + "\n".join(lines) if lines else "")
