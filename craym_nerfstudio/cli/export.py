"""The command `craym export`; what it needs is imported when it runs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from craym_nerfstudio.export.options import PARTS, ExportOptions, Part


@dataclass
class ExportCommand:
    """Hand over what a run has found, in the frame and units of its data: all parts, or those that are named.

    mesh: mesh.glb with a texture from the photos, mesh.ply with colours. cameras: the refined data set for nerfstudio
    and COLMAP. splats: splats.ply for web viewers. points: points.ply with normals. pictures: training views before and
    after. video: turntable.mp4. With all parts also report.html.
    """

    load_config: Path
    """config.yml of the run, or the folder that holds it."""
    parts: Positional[tuple[Part, ...]] = ()
    """What to export; nothing named: everything."""
    output: Path | None = None
    """Folder to write to; by default export in the folder of the run."""
    options: Annotated[ExportOptions, arg(name="")] = field(default_factory=ExportOptions)
    data: Path | None = None
    """Where the data lies, if it has moved since training."""

    def main(self) -> None:
        """Check, load, write."""
        self.options.check(self.output)
        from craym_nerfstudio.console import console
        from craym_nerfstudio.export.delivery import Delivery
        from craym_nerfstudio.export.run import load_run
        from craym_nerfstudio.export.transforms import refuse_overwriting
        from craym_nerfstudio.report.page import build_page
        from craym_nerfstudio.report.runs import read_run

        run = load_run(self.load_config, self.data)
        folder, parts = self.output or run.folder / "export", self.parts or PARTS
        if "cameras" in parts:
            refuse_overwriting(folder, run.data)
        Delivery(run, folder, self.options).write(parts)
        if not self.parts:
            build_page([read_run(run.folder, folder)]).write(folder / "report.html")
            console.print(f"{folder / 'report.html'}: the page to look at")
