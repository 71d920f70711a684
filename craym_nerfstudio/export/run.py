"""A finished run, loaded from its folder, and where its model lies in the user's world."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from jaxtyping import Bool, Float
from nerfstudio.engine.trainer import TrainerConfig
from torch import Tensor

from craym_nerfstudio.data.dataparser import CraymDataParser
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.alignment import Similarity, align_poses
from craym_nerfstudio.pipeline import CraymPipeline


@dataclass(frozen=True)
class Run:
    """A trained pipeline, ready for inference."""

    folder: Path
    pipeline: CraymPipeline
    step: int

    @property
    def dataparser(self) -> CraymDataParser:
        """The parser that read the run's data."""
        dataparser = self.pipeline.datamanager.dataparser
        assert isinstance(dataparser, CraymDataParser)
        return dataparser


def load_run(path: Path, data: Path | None = None) -> Run:
    """The run of a ``config.yml`` (or of the folder that holds it) at its last checkpoint.

    Unlike the host's loader it finds the checkpoint beside the config, wherever it is called from. `data` says where
    the images lie, if they have moved.

    Raises:
        InputError: no run lies there, it is no CRAYM run, or it has no readable checkpoint.
    """
    path = path / "config.yml" if path.is_dir() else path
    config = load_config(path)
    if data is not None:
        config.pipeline.datamanager.data = data
    checkpoint = _last_checkpoint(path.parent / config.relative_model_dir)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = config.pipeline.setup(device=device, test_mode="inference")
    if not isinstance(pipeline, CraymPipeline):
        raise InputError(f"A run of method {config.method_name}", path, "Give a run of craym or craym-lite.")
    pipeline.eval()
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError("Damaged checkpoint", checkpoint, "Delete it and go on with an older one.") from error
    pipeline.load_pipeline(state["pipeline"], state["step"])
    return Run(path.parent, pipeline, state["step"])


def load_config(path: Path) -> TrainerConfig:
    """The config of a run, as ns-train wrote it.

    Raises:
        InputError: it is missing or no such file.
    """
    remedy = "Give the config.yml that ns-train wrote, or the folder that holds it."
    if not path.is_file():
        raise InputError("No such run", path, remedy)
    try:
        # The host's format: it names the classes of this package and of others.
        config = yaml.load(path.read_text(), Loader=yaml.Loader)
    except yaml.YAMLError as error:
        raise InputError("Not a config of ns-train", path, remedy) from error
    if not isinstance(config, TrainerConfig):
        raise InputError("Not a config of ns-train", path, remedy)
    return config


def _last_checkpoint(folder: Path) -> Path:
    checkpoints = sorted(folder.glob("step-*.ckpt"))
    if not checkpoints:
        raise InputError("No checkpoint", folder, "Train until the first one is written (--steps-per-save).")
    return checkpoints[-1]


def model_to_given(
    refined_c2w: Float[Tensor, "cams 3 4"], given_c2w: Float[Tensor, "cams 3 4"], fixed: Bool[Tensor, "cams"]
) -> Similarity:
    """Undoes the drift of a run: the similarity that takes its refined cameras back to the given ones.

    Nothing ties the frame of refined cameras to their input but the cameras themselves. Fixed cameras do: two leave no
    freedom, one leaves the scale, and without any the similarity is fitted robustly to all cameras.
    """
    refined, given = refined_c2w.double(), given_c2w.double()
    count = int(fixed.sum())
    if count == 0:
        return align_poses(refined, given, robust=True)
    anchor, scale = given[fixed][0, :, 3], torch.ones((), dtype=torch.float64)
    if count == 1:
        reach = [(poses[~fixed][..., 3] - anchor).norm(dim=-1).median() for poses in (given, refined)]
        scale = reach[0] / reach[1]
    return Similarity(scale, torch.eye(3, dtype=torch.float64), (1.0 - scale) * anchor)


def given_to_user(run: Run) -> Similarity:
    """The map from the host's normalised frame back to the world of the user's files, in its units."""
    frame = run.dataparser.field_frame
    rotation = torch.from_numpy(frame.rotation).T
    return Similarity(torch.tensor(1.0 / frame.scale, dtype=torch.float64), rotation, torch.from_numpy(frame.center))


def model_to_user(run: Run) -> Similarity:
    """The map from the model's frame to the world of the user's files, in its units."""
    fixed = ~run.pipeline.craym_model.camera_optimizer.trainable.cpu()
    drift = model_to_given(run.pipeline.refined_c2w(), run.pipeline.given_c2w(), fixed)
    user = given_to_user(run)
    return Similarity(user.scale * drift.scale, user.rotation @ drift.rotation, user.points(drift.translation))
