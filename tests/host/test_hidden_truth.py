"""The optimiser never sees reference poses or the true poses of test images: other truths, the same parameters."""

import json
from pathlib import Path

import numpy as np
import torch
from nerfstudio.engine.optimizers import Optimizers
from torch import Tensor

from craym_nerfstudio.pipeline import CraymPipeline
from tests.host.tiny_run import MATCHES_NAME, TinyData, tiny_config


def parameters_after(data: Path, output_dir: Path, reference: Path | None, steps: int = 4) -> dict[str, Tensor]:
    """All parameters and buffers after a few steps from the poses of `data`, without noise."""
    torch.manual_seed(0)
    config = tiny_config(data, output_dir)
    parser = config.pipeline.datamanager.dataparser
    parser.pose_noise, parser.reference_poses = "none", reference
    pipeline = config.pipeline.setup(device="cpu")
    assert isinstance(pipeline, CraymPipeline)
    optimizers = Optimizers(config.optimizers, pipeline.get_param_groups())
    for step in range(steps):
        pipeline.craym_model.update_to_step(step)
        optimizers.zero_grad_all()
        _, losses, _ = pipeline.get_train_loss_dict(step)
        torch.stack([value for value in losses.values()]).sum().backward()
        optimizers.optimizer_step_all()
    return {name: value.clone() for name, value in pipeline.craym_model.state_dict().items()}


def with_other_poses(source: Path, target: Path, seed: int) -> Path:
    """The same transforms file with every camera somewhere else."""
    content = json.loads(source.read_text())
    generator = np.random.default_rng(seed)
    for frame in content["frames"]:
        pose = np.array(frame["transform_matrix"])
        pose[:3, 3] += generator.normal(size=3)
        frame["transform_matrix"] = pose.tolist()
    target.write_text(json.dumps(content))
    return target


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_reference_poses_change_nothing(tiny_data: TinyData, tmp_path: Path) -> None:
    other = with_other_poses(tiny_data.folder / "transforms_train.json", tmp_path / "reference.json", seed=0)
    plain = parameters_after(tiny_data.folder, tmp_path, None)
    assert_equal(plain, parameters_after(tiny_data.folder, tmp_path, other))
    assert plain["camera_optimizer.motion.residual"].abs().max() > 0


def test_true_poses_of_test_images_change_nothing(tiny_data: TinyData, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("train", "test", "transforms_train.json", MATCHES_NAME):
        (copy / name).symlink_to(tiny_data.folder / name)
    with_other_poses(tiny_data.folder / "transforms_test.json", copy / "transforms_test.json", seed=1)
    assert_equal(parameters_after(tiny_data.folder, tmp_path, None), parameters_after(copy, tmp_path, None))
