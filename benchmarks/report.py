"""Generates docs/results.md and its plots from the JSON files of benchmarks/results, and from nothing else.

    git add benchmarks/results && python -m benchmarks.report --staged

README.md gets the first table and plot, between two marks. Figures are means over seeds, ± the standard deviation of a
seed where there are several. Cells without a result appear as `not run`, failed ones with their reason below the table.
`benchmarks/notes.md` is what people have to say about the figures; it stands at the top of the page.
"""

import argparse
import json
import statistics
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.tables import METHODS, ROOT, SIZES, TABLES, Cell

NOT_RUN, FAILED, NOTHING = "not run", "failed", "-"


@dataclass
class Results:
    """Every result of a folder, by the path of its cell."""

    folder: Path
    records: dict[str, dict] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """All cells that are there."""
        found = cls(folder)
        for table in TABLES:
            for path in sorted((folder / table).glob("*.json")):
                found.records[f"{table}/{path.name}"] = json.loads(path.read_text())
        return found

    def of(self, cells: Iterable[Cell]) -> list[dict | None]:
        """Records of cells; None where one has not been run."""
        return [self.records.get(cell.path.as_posix()) for cell in cells]

    def sizes(self, table: str) -> list[str]:
        """Sizes of which a table has any result; the usual one when there is none at all."""
        there = {record["size"] for record in self.records.values() if record["table"] == table}
        return [size for size in SIZES if size in there and size != "tiny"] or ["cpu"]

    def other(self, name: str) -> Any:
        """Content of a JSON file that a benchmark of its own wrote; None where it is not there."""
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else None


def value(record: dict, name: str) -> float | None:
    """A figure of a finished record, by a name that may lead into a part of the result ("surface.chamfer")."""
    found: Any = record.get("result", {})
    for part in name.split(".", 1):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def finished(records: Iterable[dict | None], name: str) -> list[float]:
    """The figures of those records that have it."""
    found = (value(record, name) for record in records if record is not None and record["status"] == "finished")
    return [each for each in found if each is not None]


def mean_and_spread(values: list[float]) -> tuple[float, float | None]:
    """Mean, and the standard deviation of a sample where there are two or more."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def entry(records: list[dict | None], name: str, digits: int = 2) -> str:
    """One entry of a table: mean ± spread, how many seeds where some lack, or why there is nothing."""
    values = finished(records, name)
    if not values:
        there = [record for record in records if record is not None]
        if records and not there:
            return NOT_RUN
        return FAILED if there and all(record["status"] == "failed" for record in there) else NOTHING
    mean, spread = mean_and_spread(values)
    text = f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")
    return text if len(values) == len(records) else f"{text} ({len(values)} of {len(records)})"


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table; rows in which nothing was run are named in one line below it."""
    shown = [row for row in rows if set(row[1:]) - {NOT_RUN, NOTHING}]
    absent = [row[0] for row in rows if row not in shown and NOT_RUN in row[1:]]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in shown]
    text = "\n".join(lines) if shown else ""
    below = f"{NOT_RUN}: {', '.join(absent)}." if absent else ""
    return "\n\n".join(part for part in (text, below) if part)


def failures(results: Results, table: str) -> str:
    """Failed cells with their reasons."""
    found = [r for r in results.records.values() if r["table"] == table and r["status"] == "failed"]
    lines = [f"- `{Cell(**{n: r[n] for n in Cell.__dataclass_fields__}).name}`: {r['reason']}" for r in found]
    return "Failed:\n\n" + "\n".join(lines) if lines else ""


def provenance(results: Results, table: str, size: str) -> str:
    """What the cells of a table ran on, and how to repeat them."""
    found = [r for r in results.records.values() if (r["table"], r["size"]) == (table, size)]
    if not found:
        return f"`python -m benchmarks.run {table} --size {size}`"
    machines = sorted({f"{r['machine']['device']}, {r['machine']['cpu']}" for r in found if "machine" in r})
    commits = sorted({r["commit"][:7] + ("" if len(r["commit"]) <= 40 else " (changed)") for r in found})
    hours = sum(r["seconds"] for r in found) / 3600
    memory = max(r["peak_memory_mb"] for r in found)
    return (
        f"`python -m benchmarks.run {table} --size {size}`: {len(found)} cells, {hours:.1f} h in all, at most "
        f"{memory} MiB. {'; '.join(machines)}. Commits {', '.join(commits)}."
    )


def losses(results: Results, groups: Iterable[tuple[str, list[tuple[str, list[Cell]]]]], name: str, sign: int) -> str:
    """Where another method is better than craym by more than the spread of both, one line per place.

    `groups` gives, per place, methods with their cells; `sign` is +1 where more is better.
    """
    lines = []
    for place, methods in groups:
        found = {method: finished(results.of(cells), name) for method, cells in methods}
        ours = found.pop("craym", [])
        if not ours:
            continue
        mean, spread = mean_and_spread(ours)
        for method, values in found.items():
            if values:
                other, width = mean_and_spread(values)
                if sign * (other - mean) > max(spread or 0.0, width or 0.0):
                    lines.append(f"- {place}: {METHODS[method].label} {other:.3f}, craym {mean:.3f}")
    return "\n".join(lines)


def page(results: Results, notes: str, sections: list[Callable[[Results], str]]) -> str:
    """The whole page."""
    head = (
        "# Results\n\nGenerated by `python -m benchmarks.report` from the JSON files in `benchmarks/results`. Means "
        "over seeds ± standard deviation. Rotation in degrees, translation (w2c vectors) x100, both after alignment "
        "of the camera centres; test views after 100 steps of test-time pose refinement."
    )
    parts = [head, notes.strip(), *(section(results) for section in sections)]
    return "\n\n".join(part for part in parts if part) + "\n"


def generate(folder: Path, notes: Path) -> str:
    """The content of docs/results.md for a folder of results."""
    from benchmarks.report_others import OTHERS
    from benchmarks.report_plots import available
    from benchmarks.report_tables import SECTIONS

    results = Results.read(folder)
    pictures = "\n\n".join(f"![{name}](images/results_{name}.png)" for name in available(results))
    text = notes.read_text() if notes.exists() else ""
    return page(results, f"{text}\n\n{pictures}", [*SECTIONS, *OTHERS])


MARKS = ("<!-- results: written by python -m benchmarks.report -->", "<!-- end of results -->")


def with_results(readme: str, results: Results) -> str:
    """README.md with the plot and the table of pose errors from `barf` noise between its marks."""
    from benchmarks.report_tables import grid

    before, rest = readme.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    size = results.sizes("poses")[0]
    table = grid(results, size, "barf", ("pose_rotation_deg", "pose_translation_x100"), (3, 2))
    plot = f"![Pose errors and PSNR from barf noise](docs/images/results_poses_barf_{size}.png)"
    return "\n\n".join([before + MARKS[0], plot, table, MARKS[1] + after])


def staged(target: Path) -> Path:
    """Copies the results, the notes and the page as git has them staged; returns the folder of the repository there.

    What a benchmark that is still running has written does not count.
    """
    wanted = ["benchmarks/results", "benchmarks/notes.md", "docs/results.md"]
    names = subprocess.run(["git", "ls-files", "-z", "--", *wanted], cwd=ROOT, capture_output=True, check=True)
    command = ["git", "checkout-index", "-z", "--stdin", f"--prefix={target}/"]
    subprocess.run(command, cwd=ROOT, input=names.stdout, check=True)
    return target


def main() -> None:
    """Write page, plots and the table of the README."""
    from benchmarks.report_plots import draw

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--staged", action="store_true", help="only the results that git knows, as they are staged")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    args.docs.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        root = staged(Path(scratch)) if args.staged else ROOT
        results = root / "benchmarks" / "results"
        (args.docs / "results.md").write_text(generate(results, root / "benchmarks" / "notes.md"))
        readme = ROOT / "README.md"
        readme.write_text(with_results(readme.read_text(), Results.read(results)))
        for path in draw(Results.read(results), args.docs / "images"):
            print(path)


if __name__ == "__main__":
    main()
