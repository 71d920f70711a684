"""The command `craym demo`; what it needs is imported when it runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from craym_nerfstudio.export.options import ExportOptions, Part

if TYPE_CHECKING:
    from craym_nerfstudio.trainer import CraymTrainerConfig

SCENE = Path(__file__).parents[2] / "samples" / "still_life"
_PARTS: tuple[Part, ...] = ("mesh", "cameras", "splats", "pictures")
_OPTIONS = ExportOptions(resolution=320, faces=30_000)
_POSE_STEPS = 30
"""Of test-time refinement: a look, not a measurement."""


@dataclass
class DemoCommand:
    """Train the bundled scene for about two minutes from poses 12.7 degrees off, export it and open the report."""

    output: Path = Path("outputs/demo")
    """Folder for the run and its export."""
    steps: int = 1500
    """Steps of training; all schedules shrink with them."""
    open_report: bool = True
    """Open the report in a browser."""

    def main(self) -> None:
        """Train, export, show."""
        import webbrowser

        from craym_nerfstudio.console import console
        from craym_nerfstudio.errors import InputError
        from craym_nerfstudio.export.delivery import Delivery
        from craym_nerfstudio.export.run import load_run
        from craym_nerfstudio.report.page import build_page
        from craym_nerfstudio.report.runs import read_run

        if self.steps < 100:
            raise InputError(f"steps is {self.steps}", remedy="Give 100 or more; 1500 take about two minutes.")
        if not SCENE.is_dir():
            raise InputError("The bundled scene is missing", SCENE, "Run from a clone of the repository.")
        folder = trained(self.output, self.steps)
        Delivery(load_run(folder), folder / "export", _OPTIONS).write(_PARTS)
        page = folder / "export" / "report.html"
        build_page([read_run(folder)]).write(page)
        console.print(f"{page}: the page to look at")
        if self.open_report:
            webbrowser.open(page.resolve().as_uri())


def trained(output: Path, steps: int) -> Path:
    """Folder of a run of the bundled scene that has just been trained."""
    from nerfstudio.scripts import train

    config = demo_config(output, steps)
    train.main(config)
    return config.get_base_dir()


def demo_config(output: Path, steps: int) -> "CraymTrainerConfig":
    """`craym-lite` on the bundled scene from rough poses; its schedules shrink with the steps."""
    from copy import deepcopy

    from craym_nerfstudio.methods import craym_lite
    from craym_nerfstudio.trainer import CraymTrainerConfig

    config = deepcopy(craym_lite.config)
    assert isinstance(config, CraymTrainerConfig)
    config.data, config.output_dir, config.max_num_iterations, config.vis = SCENE, output, steps, "tensorboard"
    config.set_timestamp()
    pipeline: Any = config.pipeline
    pipeline.datamanager.data, pipeline.datamanager.dataparser.pose_noise = SCENE, "barf"
    pipeline.test_pose_steps = _POSE_STEPS
    return config
