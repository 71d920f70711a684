"""The command `craym report`; what it needs is imported when it runs."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass
class ReportCommand:
    """Write one self-contained HTML page about runs, side by side: cameras, pictures, curves, times, matches."""

    runs: Positional[tuple[Path, ...]]
    """Folders of runs (those with config.yml)."""
    output: Path | None = None
    """File to write; by default report.html in the folder of the first run."""

    def main(self) -> None:
        """Read, draw, write."""
        from craym_nerfstudio.console import console
        from craym_nerfstudio.errors import InputError
        from craym_nerfstudio.report.page import build_page
        from craym_nerfstudio.report.runs import read_run

        if not self.runs:
            raise InputError("No run is named", remedy="Give the folders of one or more runs.")
        runs = [read_run(folder) for folder in self.runs]
        target = self.output or runs[0].folder / "report.html"
        build_page(runs).write(target)
        console.print(f"Written: {target}")
