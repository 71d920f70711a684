"""A finished run, loaded from its folder."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch

from craym_nerfstudio.data.scene import Scene
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.export.config_file import load_config
from craym_nerfstudio.pipeline import CraymPipeline, CraymPipelineConfig
from craym_nerfstudio.sfm.result import STAGE_ZERO_NAME, StageZero


@dataclass(frozen=True)
class Run:
    """A trained pipeline, ready for inference."""

    folder: Path
    pipeline: CraymPipeline
    step: int

    @property
    def scene(self) -> Scene:
        """The data of the run."""
        return self.pipeline.datamanager.scene

    @property
    def data(self) -> Path:
        """Where the data lies."""
        return _data_of(self.pipeline.config)


def load_run(path: Path, data: Path | None = None) -> Run:
    """The run of a ``config.yml`` (or of the folder that holds it) at its last checkpoint.

    Unlike the host's loader it finds the checkpoint beside the config, wherever it is called from. `data` says where
    the images lie, if they have moved.

    Raises:
        InputError: no run lies there, it is no CRAYM run, or it has no readable checkpoint.
    """
    path = path / "config.yml" if path.is_dir() else path
    config = load_config(path)
    if not isinstance(config.pipeline, CraymPipelineConfig):
        raise InputError(f"A run of method {config.method_name}", path, "Give a run of craym, craym-lite or craym-cpu.")
    if data is not None:
        config.pipeline.datamanager.data = data
    if not (expected := _data_of(config.pipeline)).exists():
        raise InputError("The data of this run is no longer there", expected.absolute(), "Give --data where it is now.")
    checkpoint = _last_checkpoint(path.parent / config.relative_model_dir)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = CraymPipeline(config.pipeline, device, "inference")
    pipeline.eval()
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError("Damaged checkpoint", checkpoint, "Delete it and go on with an older one.") from error
    try:
        pipeline.load_pipeline(state["pipeline"], state["step"])
    except InputError as error:
        raise InputError(error.problem, checkpoint, error.remedy) from error
    return Run(path.parent, pipeline, state["step"])


def _data_of(config: CraymPipelineConfig) -> Path:
    return config.datamanager.data or config.datamanager.dataparser.data


def stage_zero(folder: Path) -> StageZero | None:
    """What stage 0 found in the run of a folder, in the world frame; None where it did not run."""
    path = folder / STAGE_ZERO_NAME
    return StageZero.load(path) if path.is_file() else None


def _last_checkpoint(folder: Path) -> Path:
    checkpoints = sorted(folder.glob("step-*.ckpt"))
    if not checkpoints:
        raise InputError("No checkpoint", folder, "Train until the first one is written (--steps-per-save).")
    return checkpoints[-1]
