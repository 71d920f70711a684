"""The command `craym preflight`; what it needs is imported when it runs."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from craym_nerfstudio.cli.match import ImagesCommand

if TYPE_CHECKING:
    from craym_nerfstudio.matching.views import Views


@dataclass
class PreflightCommand(ImagesCommand):
    """Check given poses against the images before training: report.html, summary.json, and an exit status.

    Names the usual mistakes (OpenCV axes, w2c, focal length, rotated images, wrong order) and says what to change.
    Exit status: 0 good; 1 repairable, by stage 0 or by what the report says; 2 unusable input; 3 hopeless.
    """

    max_image_size_px: int = 1000
    """Larger images are shrunk to this; figures in px refer to the shrunk images."""
    pictures: int = 2
    """Pairs drawn of the best and of the worst each."""

    def main(self) -> None:
        """Check, write, report; the process ends with the exit status."""
        from craym_nerfstudio.preflight.check import check
        from craym_nerfstudio.preflight.report import page, print_summary, summary
        from craym_nerfstudio.storage import write_json

        views = load_views(self.data, self.max_image_size_px)
        checked = check(views, self.matcher, self.output / "cache")
        page(checked, self.pictures).write(self.output / "report.html")
        write_json(self.output / "summary.json", summary(checked))
        print_summary(checked, self.output / "report.html")
        sys.exit(checked.verdict.exit_status)


def load_views(data: Path, max_image_size_px: int) -> "Views":
    """All training images of a dataset with their poses in the frame of the data, which w2c matrices give away."""
    from craym_nerfstudio.data.config import SceneConfig
    from craym_nerfstudio.data.scene import read_scene

    return read_scene(SceneConfig(data, eval_interval=0, max_image_size_px=max_image_size_px)).views
