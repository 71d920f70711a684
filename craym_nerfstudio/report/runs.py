"""What the folder of a run holds that a report can show."""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from craym_nerfstudio.data.transforms_json import load_json
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.export.config_file import load_config
from craym_nerfstudio.export.run import load_run, stage_zero
from craym_nerfstudio.report.record import METRICS_NAME, RECORD_NAME, RunRecord, record_run
from craym_nerfstudio.sfm.result import StageZero


@dataclass(frozen=True)
class Curve:
    """A scalar over the steps of training."""

    steps: Int[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]
    seconds: Float[np.ndarray, " n"]
    """Unix time of each value."""


@dataclass(frozen=True)
class RunFolder:
    """A run as its files describe it."""

    folder: Path
    config: Any
    """The trainer's config."""
    step: int | None
    """Of the figures; None while a run has not ended."""
    results: dict[str, float]
    surface: dict[str, Any]
    """What `craym eval-mesh` left; empty without."""
    curves: dict[str, Curve]
    """The scalars of the event files by their tags."""
    record: RunRecord | None
    problem: str
    """Why there is no record."""
    stage: StageZero | None = None
    """Where it ran."""
    poses: str = ""
    """What training has made of them, in words; empty where that was not recorded."""
    exported: Path | None = None
    """Folder that `craym export` wrote to, where it is not in that of the run."""

    @property
    def name(self) -> str:
        """Data, method and time: the last three folders."""
        return "/".join(self.folder.resolve().parts[-3:])

    def delivered(self, name: str) -> Path | None:
        """A file or folder that an export, or training, has left."""
        places = (self.exported or self.folder / "export", self.folder)
        return next((place / name for place in places if (place / name).exists()), None)

    def view_numbers(self) -> list[int]:
        """Test views of which there are pictures."""
        return sorted(int(path.stem.rsplit("_", 1)[1]) for path in (self.folder / "test_views").glob("eval_img_*.png"))

    def picture(self, kind: str, number: int) -> Path:
        """Picture of a test view: img (photo beside rendering), difference, depth, normals or accumulation."""
        return self.folder / "test_views" / f"eval_{kind}_{number:04d}.png"

    def durations_s(self) -> dict[str, float]:
        """Seconds of the parts of a run, as far as its files tell."""
        loss = self.curves.get("Train Loss")
        if loss is None or not len(loss.seconds):
            return {}
        result = {}
        try:
            started = datetime.datetime.strptime(self.config.timestamp, "%Y-%m-%d_%H%M%S").timestamp()
            result["reading, matching and stage 0"] = max(loss.seconds[0] - started, 0.0)
        except ValueError:
            # The timestamp is a name that the user chose.
            started = loss.seconds[0]
        result["training"] = loss.seconds[-1] - loss.seconds[0]
        metrics = self.folder / METRICS_NAME
        if metrics.is_file():
            result["test views"] = max(metrics.stat().st_mtime - loss.seconds[-1], 0.0)
        return result


def read_run(folder: Path, exported: Path | None = None) -> RunFolder:
    """Read the folder of a run, and what was exported elsewhere.

    One without a record is loaded at its last checkpoint for its cameras.

    Raises:
        InputError: no run of ours lies there, or its files are damaged.
    """
    folder = folder.parent if folder.is_file() else folder
    config = load_config(folder / "config.yml")
    record, problem = None, ""
    try:
        if (folder / RECORD_NAME).is_file():
            record = RunRecord.load(folder / RECORD_NAME)
        else:
            record = record_run(load_run(folder).pipeline)
    except InputError as error:
        problem = str(error)
    metrics = _json(folder / METRICS_NAME)
    return RunFolder(
        folder=folder,
        config=config,
        step=metrics.get("step"),
        results=metrics.get("results", {}),
        surface=_json((exported or folder / "export") / "surface.json") or _json(folder / "surface.json"),
        curves=read_curves(folder),
        record=record,
        problem=problem,
        stage=stage_zero(folder),
        poses=metrics.get("poses", ""),
        exported=exported,
    )


def _json(path: Path) -> dict[str, Any]:
    return load_json(path) if path.is_file() else {}


def read_curves(folder: Path) -> dict[str, Curve]:
    """All scalars of the tensorboard event files of a folder; a run that was resumed has several of them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not any(folder.glob("events.out.tfevents.*")):
        return {}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 5000, "images": 1})
    events.Reload()
    curves = {}
    for tag in events.Tags()["scalars"]:
        scalars = sorted(events.Scalars(tag), key=lambda scalar: scalar.step)
        columns = [[getattr(scalar, name) for scalar in scalars] for name in ("step", "value", "wall_time")]
        curves[tag] = Curve(np.array(columns[0], dtype=np.int64), np.array(columns[1]), np.array(columns[2]))
    return curves
