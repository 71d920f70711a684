"""The command `craym adjust`; what it needs is imported when it runs."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table
from tyro.conf import Fixed, Suppress, arg

from craym_nerfstudio.data.config import Orientation, SceneConfig
from craym_nerfstudio.export.options import PathStyle
from craym_nerfstudio.start.config import StartConfig

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float

    from craym_nerfstudio.data.scene import Scene
    from craym_nerfstudio.sfm.result import StageZero

_STATES = ("adjusted", "predicted", "kept", "fixed")


@dataclass
class AdjustedScene(SceneConfig):
    """Images with rough poses, without what concerns training alone: results lie in the frame of the data."""

    orientation: Suppress[Fixed[Orientation]] = "auto"
    auto_scale: Suppress[Fixed[bool]] = True
    region_center: Suppress[Fixed[tuple[float, float, float] | None]] = None
    region_radius: Suppress[Fixed[float | None]] = None
    region_scale: Suppress[Fixed[float]] = 1.0


_KEEP_ALL = AdjustedScene(eval_interval=0)
"""Whoever wants better poses wants those of all images."""


@dataclass
class AdjustCommand:
    """Adjust rough poses to the matches between the images (stage 0), without training.

    Writes, in the frame and units of the data: transforms.json with sparse_pc.ply (for nerfstudio), a COLMAP model with
    points and tracks, cameras.csv (how far each camera moved, how certain it is), cameras.png and summary.json.
    """

    output: Path
    """Folder to write to."""
    scene: Annotated[AdjustedScene, arg(name="")] = field(default_factory=lambda: _KEEP_ALL)
    start: Annotated[StartConfig, arg(name="")] = field(default_factory=StartConfig)
    paths: PathStyle = "absolute"
    """How transforms.json names the images: by absolute paths, or by paths relative to itself."""

    def main(self) -> None:
        """Match, adjust, write, report."""
        from craym_nerfstudio.cameras.selection import select_cameras
        from craym_nerfstudio.console import console
        from craym_nerfstudio.data.scene import read_scene
        from craym_nerfstudio.errors import InputError
        from craym_nerfstudio.export.cameras import describe, write_cameras
        from craym_nerfstudio.export.refined import cameras_of_stage_zero
        from craym_nerfstudio.export.transforms import refuse_overwriting
        from craym_nerfstudio.report.plots import draw_cameras
        from craym_nerfstudio.start.find import adjusted, found_matches, report_stage_zero, with_prior_sigma
        from craym_nerfstudio.storage import write_json

        if not self.start.adjusts:
            raise InputError("Without matches nothing is adjusted", remedy="Drop --pose-init input and --matcher none.")
        refuse_overwriting(self.output, self.scene.data)
        scene = read_scene(self.scene)
        views = with_prior_sigma(scene.views, self.start.prior_sigma)
        fixed = select_cameras(self.start.fixed_cameras, views.names)
        matches = found_matches(views, self.start)
        matches, stage = adjusted(views, matches, self.start.cache_dir, fixed, self.start.refine_intrinsics)
        report_stage_zero(stage, views.left_out)
        cameras = cameras_of_stage_zero(scene, stage, fixed)
        written = write_cameras(cameras, self.output, self.paths, include_test=True)
        draw_cameras(cameras.given_c2w, cameras.frames.c2w, scene.reference, self.output / "cameras.png")
        summary = {**written, "matches": len(matches), **_figures(scene, stage, fixed)}
        write_json(self.output / "summary.json", summary)
        console.print(_table(summary))
        console.print(describe(self.output, written))
        for line in _next_steps(self.output):
            console.print(f"  {line}")


def _figures(scene: "Scene", stage: "StageZero", fixed: "Bool[np.ndarray, ' cams']") -> dict[str, object]:
    """What stage 0 decided and found, and errors where the truth is known."""
    import numpy as np
    import torch

    from craym_nerfstudio.geometry.alignment import pose_errors
    from craym_nerfstudio.start.not_adjusted import not_adjusted

    before, after = stage.median_epipolar_px
    states = Counter("fixed" if held else state for state, held in zip(stage.state, fixed, strict=True))
    figures: dict[str, object] = {
        **states,
        "epipolar_px_before": before,
        "epipolar_px": after,
        "decision": stage.decision.reason,
        "notes": stage.notes,
        "not_adjusted": [row._asdict() for row in not_adjusted(stage, scene.views.left_out)],
    }
    if scene.reference is not None:
        truth = torch.from_numpy(scene.reference.train_c2w)
        for suffix, c2w in (("_before", scene.rough_c2w), ("", stage.c2w)):
            errors = pose_errors(torch.from_numpy(c2w), truth)
            figures[f"pose_rotation_deg{suffix}"] = errors.rotation_deg_mean
            figures[f"pose_translation_x100{suffix}"] = errors.translation_x100_mean
        if (true_px := scene.reference.train_focal_px) is not None:
            given_px = scene.views.focal_px
            for suffix, focal_px in (("_before", given_px), ("", given_px * _focal_factors(stage, len(given_px)))):
                figures[f"focal_error_percent{suffix}"] = float(100 * np.abs(focal_px / true_px - 1).mean())
    return figures


def _focal_factors(stage: "StageZero", cameras: int) -> "Float[np.ndarray, ' cams']":
    """By what stage 0 multiplied each focal length."""
    import numpy as np

    lens = stage.intrinsics
    return np.ones(cameras) if lens is None else lens.focal_factor * np.array(lens.own_focal or [1.0] * cameras)


def _table(summary: dict) -> Table:
    table = Table(title="Adjusted poses", show_header=False)
    states = [f"{summary[name]} {name}" for name in _STATES if name in summary]
    table.add_row("cameras", ", ".join(states))
    table.add_row("matches", str(summary["matches"]))
    table.add_row("epipolar distance", f"{summary['epipolar_px_before']:.2f} -> {summary['epipolar_px']:.2f} px")
    if "pose_rotation_deg" in summary:
        for name, label, unit in (
            ("pose_rotation_deg", "rotation error", "deg"),
            ("pose_translation_x100", "translation error x100", ""),
            ("focal_error_percent", "focal length error", "%"),
        ):
            if name in summary:
                table.add_row(label, f"{summary[f'{name}_before']:.3f} -> {summary[name]:.3f} {unit}".rstrip())
    return table


def _next_steps(folder: Path) -> list[str]:
    """Commands that go on from here."""
    from craym_nerfstudio.console import typed

    data, report = typed(folder), typed(folder / "preflight")
    return [
        f"ns-train craym-lite --data {data}    # surface and novel views, poses refined further",
        f"ns-train splatfacto --data {data}    # splats, on a CUDA device",
        f"craym preflight --data {data} --output {report}    # the new poses against the images",
    ]
