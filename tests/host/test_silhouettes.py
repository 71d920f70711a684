"""Without matches, silhouettes move the cameras first."""

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from benchmarks.harness import Run
from craym_nerfstudio.cameras import PoseNoise
from craym_nerfstudio.geometry.alignment import pose_errors
from craym_nerfstudio.pipeline import CraymPipeline
from tests.host.tiny_run import TinyData, tiny_config

STEPS = 60


def run_without_matches(
    data: TinyData, folder: Path, mode: str = "SE3", noise: PoseNoise = "l2g"
) -> tuple[Run, CraymPipeline]:
    """A run whose first part, in which silhouettes are alone, is all that is taken."""
    config = tiny_config(data.folder, folder, steps=STEPS)
    start, model = config.pipeline.start, config.pipeline.model
    start.matches, start.matcher = None, "none"
    model.silhouette_steps, model.camera_optimizer.mode = (STEPS, 2 * STEPS), mode
    config.pipeline.datamanager.dataparser.pose_noise = noise
    config.pipeline.datamanager.dataparser.data = data.folder
    run = Run(replace(config, data=None), torch.device("cpu"))
    assert isinstance(run.pipeline, CraymPipeline)
    return run, run.pipeline


def test_cameras_are_shifted_until_outlines_agree(tiny_data: TinyData, tmp_path: Path) -> None:
    run, pipeline = run_without_matches(tiny_data, tmp_path)
    reference = pipeline.datamanager.reference
    assert reference is not None
    true = torch.from_numpy(reference.train_c2w)
    before, given = pose_errors(pipeline.refined_c2w(), true), pipeline.given_c2w()
    run.advance(STEPS)
    after = pose_errors(pipeline.refined_c2w(), true)
    assert after.translation_x100_mean < 0.85 * before.translation_x100_mean
    torch.testing.assert_close(pipeline.refined_c2w()[..., :3], given[..., :3], rtol=0, atol=1e-5)


def test_cameras_that_stay_need_no_outlines(tiny_data: TinyData, tmp_path: Path) -> None:
    assert run_without_matches(tiny_data, tmp_path, "off")[1].datamanager.outlines is None


def test_poses_wait_for_the_field_where_silhouettes_agree_or_there_are_none(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    opaque = tmp_path / "opaque"
    shutil.copytree(tiny_data.folder, opaque)
    for path in opaque.rglob("*.png"):
        image = Image.open(path).convert("RGBA")
        Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB").save(path)
    far = run_without_matches(tiny_data, tmp_path / "far")[1].model.camera_optimizer
    near = run_without_matches(tiny_data, tmp_path / "near", noise="none")[1].model.camera_optimizer
    unknown = run_without_matches(replace(tiny_data, folder=opaque), tmp_path / "unknown")[1].model.camera_optimizer
    for optimizer, waits in ((far, False), (near, True), (unknown, True)):
        optimizer.update_to_step(0)
        assert optimizer.waiting == waits
        optimizer.update_to_step(optimizer.config.settled_delay_steps)
        assert not optimizer.waiting and bool((optimizer.step_size > 0.5).all())
