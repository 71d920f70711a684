"""The epipolar loss alone: poses follow it, and residuals are sorted by the errors of relative rotations."""

from pathlib import Path

import pytest
import torch

from benchmarks.epipolar import blindness, follow
from benchmarks.harness import Run
from craym_nerfstudio.matching import find
from tests.host.tiny_run import tiny_config, write_tiny_data


def test_poses_follow_the_epipolar_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_tiny_data(tmp_path / "data")
    monkeypatch.setattr(find, "find_matches", lambda *_: data.matches)
    config = tiny_config(tmp_path / "data", tmp_path / "out")
    manager = config.pipeline.datamanager
    manager.matcher, manager.pose_init, manager.pose_noise = "sift", "input", "real"
    run = Run(config, torch.device("cpu"))
    before = blindness(run)
    follow(run, 100)
    after = blindness(run)
    for rows in (before, after):
        assert sum(row["share"] for row in rows) == pytest.approx(1.0, abs=0.01)

    def mean_px(rows: list[dict]) -> float:
        return sum(row["share"] * row["px"] for row in rows)

    assert mean_px(after) < 0.5 * mean_px(before)
