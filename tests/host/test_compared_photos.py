"""Photos compared on the surface while a tiny run trains; what is too small is not compared, and that is said."""

from pathlib import Path

import pytest
import torch

from benchmarks.harness import Run
from craym_nerfstudio.data import grey_photos
from craym_nerfstudio.pipeline import CraymPipeline
from tests.host.tiny_run import TinyData, tiny_config


def started(data: TinyData, folder: Path) -> CraymPipeline:
    """A run that begins with stage 0 and compares photos from its first step on."""
    config = tiny_config(data.folder, folder)
    config.pipeline.start.pose_init = "matched-rays"
    config.pipeline.model.consistency_steps = (0, 1)
    config.pipeline.model.camera_optimizer.settled_delay_steps = 0
    pipeline = Run(config, torch.device("cpu")).pipeline
    assert isinstance(pipeline, CraymPipeline)
    return pipeline


def test_the_surface_is_pulled_and_no_camera(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grey_photos, "_LEAST_SIDE_PX", 1)
    pipeline = started(tiny_data, tmp_path)
    model = pipeline.craym_model
    assert model.photos is not None
    model.update_to_step(1)
    _, losses, _ = pipeline.get_train_loss_dict(1)
    assert 0.0 < float(losses["consistency"].detach()) < 2.0
    losses["consistency"].backward()
    groups = model.get_param_groups()
    moved = {name: any(p.grad is not None and bool(p.grad.any()) for p in groups[name]) for name in groups}
    assert moved == {"fields": True, "geometry": True, "variance": False, "camera_opt": False}
    model.config.consistency_loss_mult = 0.0
    assert "consistency" not in pipeline.get_train_loss_dict(1)[1]


def test_small_photos_are_not_compared(tiny_data: TinyData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert started(tiny_data, tmp_path).craym_model.photos is None
    assert "not compared patch by patch: of 48 pixels" in " ".join(capsys.readouterr().out.split())
