"""The command `craym preflight`; what it needs is imported when it runs."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from craym_nerfstudio.cli.match import ImagesCommand

if TYPE_CHECKING:
    from craym_nerfstudio.data.scene import Scene


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
    fix: Path | None = None
    """Also write a corrected copy of the cameras (transforms.json) to this folder; the original stays as it is."""

    def main(self) -> None:
        """Check, write, report; the process ends with the exit status."""
        from craym_nerfstudio.console import console, typed, warn
        from craym_nerfstudio.preflight.check import check
        from craym_nerfstudio.preflight.fix import check_folder, write_fixed
        from craym_nerfstudio.preflight.region import region_of
        from craym_nerfstudio.preflight.report import page, print_summary, summary
        from craym_nerfstudio.storage import write_json

        copy = None if self.fix is None else check_folder(self.fix)
        scene, left_out = self._read()
        checked = check(scene.views, self.matcher, self.output / "cache")
        region = region_of(scene, checked)
        page(checked, self.pictures, region).write(self.output / "report.html")
        write_json(self.output / "summary.json", summary(checked, region))
        print_summary(checked, self.output / "report.html", region)
        if copy is not None:
            changed = ", ".join([*left_out, *write_fixed(scene, checked, copy)]) or "nothing but what reading repairs"
            warn(f"Corrected copy: {copy} ({changed}); {scene.original.source} is as it was.")
            console.print(f"  craym preflight --data {typed(copy.parent)} --output {typed(f'{self.output}_fixed')}")
        sys.exit(checked.verdict.exit_status)

    def _read(self) -> tuple["Scene", list[str]]:
        """The scene, and what had to be left out; only a copy that is asked for may leave anything out."""
        from craym_nerfstudio.console import warn
        from craym_nerfstudio.errors import InputError
        from craym_nerfstudio.preflight.mend import read_usable

        try:
            return load_scene(self.data, self.max_image_size_px), []
        except InputError as error:
            path = self.data / "transforms.json" if self.data.is_dir() else self.data
            usable = None
            if self.fix is not None:
                usable = read_usable(path, lambda file: load_scene(file, self.max_image_size_px))
            if usable is None:
                raise
            warn(f"It cannot be read as it is, and the rest is checked: {error}")
            return usable


def load_scene(data: Path, max_image_size_px: int) -> "Scene":
    """A dataset whose images are all for training; its poses stay in the frame of the data: w2c shows there."""
    from craym_nerfstudio.data.config import SceneConfig
    from craym_nerfstudio.data.scene import read_scene

    return read_scene(SceneConfig(data, eval_interval=0, max_image_size_px=max_image_size_px))
