"""A camera that stage 0 could only predict: its photo waits, is sought in the field, and is trained on from there."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.harness import Run
from craym_nerfstudio import relocation
from craym_nerfstudio.cameras.search import Sought
from craym_nerfstudio.geometry.alignment import align_poses
from craym_nerfstudio.geometry.lie import rotation_angle_deg
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.pipeline import CraymPipeline
from tests.host.tiny_run import MATCHES_NAME, TinyData, tiny_config

LOST, STEPS = 5, 120
DELAY = 60


def without(matches: Matches, image: int) -> Matches:
    """All matches but those of an image."""
    kept_pair = (matches.pairs != image).all(-1)
    kept = kept_pair[matches.pair_of_match]
    numbers = np.cumsum(kept_pair) - 1
    rows = ("keypoints", "keypoint_ids", "bearings", "confidence")
    return replace(
        matches,
        **{name: getattr(matches, name)[kept_pair] for name in ("pairs", "rotation", "translation")},
        **{name: getattr(matches, name)[kept] for name in rows},
        pair_of_match=numbers[matches.pair_of_match[kept]].astype(np.int32),
    )


@pytest.fixture(scope="module")
def lost_run(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Before its first step."""
    folder = tmp_path_factory.mktemp("relocation")
    without(tiny_data.matches, LOST).save(folder / MATCHES_NAME)
    config = tiny_config(tiny_data.folder, folder, STEPS)
    config.pipeline.start.pose_init, config.pipeline.start.matches = "matched-rays", folder / MATCHES_NAME
    config.pipeline.datamanager.dataparser.pose_noise = "barf"
    config.pipeline.model.camera_optimizer.settled_delay_steps = round(DELAY / 1.5)
    return Run(config, torch.device("cpu"))


def true_pose(pipeline: CraymPipeline) -> torch.Tensor:
    """Where the lost camera is in the world, once the others are aligned."""
    assert pipeline.datamanager.reference is not None
    true = torch.from_numpy(pipeline.datamanager.reference.train_c2w).double()
    others = torch.arange(len(true)) != LOST
    return align_poses(true[others], pipeline.refined_c2w().double()[others]).poses(true[LOST]).float()


def off_deg(pipeline: CraymPipeline) -> float:
    """How far it is turned."""
    return float(rotation_angle_deg(pipeline.refined_c2w()[LOST, :, :3].T @ true_pose(pipeline)[:, :3]))


def drawn(pipeline: CraymPipeline) -> set[int]:
    """Images that rays of a few steps come from."""
    batches = [pipeline.datamanager.next_train(step)[1] for step in range(20)]
    return {int(image) for batch in batches for image in batch["indices"][: batch["layout"].plain, 0]}


def test_a_lost_camera_waits_and_is_found(
    lost_run: Run, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search itself is tested in a scene that is known; this field, of twelve small photos, is too poor for it."""
    monkeypatch.setattr(relocation, "seek", lambda *_: Sought(true_pose(lost_run.pipeline), 0.01, 0.1, 0.5))
    pipeline = lost_run.pipeline
    assert isinstance(pipeline, CraymPipeline) and pipeline.stage_zero is not None
    assert pipeline.stage_zero.state[LOST] == "predicted"
    assert drawn(pipeline) == set(range(12)) - {LOST}
    before = off_deg(pipeline)
    lost_run.advance(DELAY)
    assert pipeline.relocation is not None and pipeline.relocation.first_step == DELAY
    assert not pipeline.relocation.searched
    phase = pipeline.craym_model.phase
    assert off_deg(pipeline) == pytest.approx(before, abs=0.2)  # the others move
    lost_run.advance(1)
    assert pipeline.relocation.searched
    assert pipeline.craym_model.phase != phase
    assert "Lost cameras: " in capsys.readouterr().out
    assert off_deg(pipeline) < 0.5
    assert pipeline.stage_zero.state[LOST] == "found"
    lost_run.advance(5)
    pipeline.relocate(final=True)
    assert off_deg(pipeline) < 2.0
    assert LOST in drawn(pipeline)
    assert pipeline.craym_model.camera_optimizer.step_size[LOST] > 0


def test_a_resumed_run_knows_what_became_of_it(lost_run: Run) -> None:
    resumed = Run(lost_run.config, torch.device("cpu"))
    assert isinstance(resumed.pipeline, CraymPipeline) and isinstance(lost_run.pipeline, CraymPipeline)
    resumed.load(lost_run.state())
    resumed.pipeline.load_pipeline(lost_run.pipeline.state_dict(), lost_run.step)
    assert resumed.pipeline.relocation is not None and resumed.pipeline.relocation.searched
    assert resumed.pipeline.stage_zero is not None and lost_run.pipeline.stage_zero is not None
    assert resumed.pipeline.stage_zero.state == lost_run.pipeline.stage_zero.state
    assert drawn(resumed.pipeline) == drawn(lost_run.pipeline)
    assert off_deg(resumed.pipeline) == pytest.approx(off_deg(lost_run.pipeline))
