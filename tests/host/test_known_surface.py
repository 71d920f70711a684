"""A surface that stage 0's points have taught is not lost while colours are still unknown."""

from pathlib import Path

import torch

from benchmarks.harness import Run
from craym_nerfstudio.pipeline import CraymPipeline
from tests.host.tiny_run import TinyData, tiny_config


def test_a_known_surface_outlives_the_first_steps(tiny_data: TinyData, tmp_path: Path) -> None:
    config = tiny_config(tiny_data.folder, tmp_path)
    config.pipeline.start.pose_init = "matched-rays"
    run = Run(config, torch.device("cpu"))
    assert isinstance(run.pipeline, CraymPipeline)
    stage, model = run.pipeline.stage_zero, run.pipeline.craym_model
    assert stage is not None and model.landmarks is not None
    seen = torch.from_numpy(stage.points[stage.track_length >= 3]).float()

    def off() -> float:
        unit = model.world_from_unit.inverse().single().points(seen)
        with torch.no_grad():
            return float(model.scene.field.sdf(unit, model.level_weights).abs().median())

    before, later = off(), []
    for _ in range(5):
        run.advance(8)
        later.append(off())
    # 2.3 times as far; with 0.01 as the rate of all that is geometry 7.6 times.
    assert max(later) < 4.0 * before
