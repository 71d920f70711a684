"""Trainings of cells: configs that follow the recipes, and runs that go on where they were kept."""

from pathlib import Path

import torch

from benchmarks.harness import Run
from benchmarks.scenes import prepare
from benchmarks.suite import DATA, SIZES, Cell
from benchmarks.train import Place, craym_config
from tests.host.tiny_run import tiny_config, write_tiny_data


def test_methods_follow_their_recipes(tmp_path: Path) -> None:
    scene = prepare("still_life", SIZES["tiny"], DATA, tmp_path)
    place = Place(tmp_path, tmp_path / "state", torch.device("cpu"), 0.0)
    found = {}
    for method in ("craym", "photometric", "kre", "without_keys", "held"):
        config = craym_config(Cell("ablation", "still_life", "barf", method, seed=2, size="tiny"), scene, place)
        parser, start, model = config.pipeline.datamanager.dataparser, config.pipeline.start, config.pipeline.model
        assert (parser.pose_noise, parser.pose_noise_seed, parser.data) == ("barf", 2, scene.folder)
        assert (config.max_num_iterations, model.seed, start.cache_dir) == (40, 2, tmp_path / "cache")
        moved = model.camera_optimizer.mode
        found[method] = (start.matcher, start.pose_init, model.enrichment, model.coherency, moved)
    assert found == {
        "craym": ("auto", "matched-rays", True, True, "SE3"),
        "photometric": ("none", "input", False, False, "SE3"),
        "kre": ("auto", "input", True, False, "SE3"),
        "without_keys": ("auto", "matched-rays", False, False, "SE3"),
        "held": ("auto", "matched-rays", True, True, "off"),
    }


def test_a_run_goes_on_where_another_was_kept(tmp_path: Path) -> None:
    write_tiny_data(tmp_path / "data")
    config = tiny_config(tmp_path / "data", tmp_path / "out")
    config.pipeline.start.matcher = "none"
    whole, half, rest = (Run(config, torch.device("cpu")) for _ in range(3))
    whole.advance(4)
    half.advance(2)
    torch.save(half.state(), tmp_path / "run.ckpt")
    rest.load(torch.load(tmp_path / "run.ckpt", weights_only=False))
    assert rest.step == 2 and rest.seconds == half.seconds
    rest.advance(2)
    for name, value in whole.pipeline.state_dict().items():
        assert torch.equal(value, rest.pipeline.state_dict()[name]), name
