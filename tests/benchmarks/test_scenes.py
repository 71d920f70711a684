"""Scenes at the size of a measurement, and the gate of the training step."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.scenes import prepare
from benchmarks.suite import DATA, MISSING, SIZES, NoResult
from benchmarks.train_step import BASELINE, fallen


def test_a_scene_is_written_once_at_its_size(tmp_path: Path) -> None:
    scene = prepare("still_life", SIZES["tiny"], DATA, tmp_path)
    image = next((scene.folder / "train").glob("*.png"))
    with Image.open(image) as small:
        assert max(small.size) == SIZES["tiny"].image_px
    content = json.loads((scene.folder / "transforms_test.json").read_text())
    assert len(content["frames"]) == SIZES["tiny"].test_views
    written = image.stat().st_mtime_ns
    assert prepare("still_life", SIZES["tiny"], DATA, tmp_path) == scene and image.stat().st_mtime_ns == written


def test_few_views_are_neighbours_that_lie_apart(tmp_path: Path) -> None:
    scene = prepare("still_life", SIZES["tiny"], DATA, tmp_path, views=3)
    content = json.loads((scene.folder / "transforms_train.json").read_text())
    directions = torch.tensor([frame["transform_matrix"] for frame in content["frames"]])[:, :3, 2]
    angles = torch.rad2deg((directions @ directions.T)[*torch.triu_indices(3, 3, 1)].clamp(-1, 1).acos())
    assert len(directions) == 3 and angles.min() > 15 and angles.max() < 60


def test_few_views_of_a_published_split_are_those_of_others(tmp_path: Path) -> None:
    source = tmp_path / "data" / "dtu_scan24"
    (source / "images").mkdir(parents=True)
    frames = [{"file_path": f"images/{k:03d}.png", "transform_matrix": torch.eye(4).tolist()} for k in range(49)]
    for frame in frames:
        Image.new("RGB", (8, 6)).save(source / frame["file_path"])
    (source / "transforms.json").write_text(json.dumps({"frames": frames, "w": 8, "h": 6}))
    written = prepare("dtu_scan24", SIZES["tiny"], tmp_path / "data", tmp_path, views=6)
    content = json.loads((written.folder / "transforms.json").read_text())
    numbers = [int(Path(name).stem) for name in content["train_filenames"]]
    assert numbers == [25, 22, 28, 40, 44, 48]
    assert [int(Path(name).stem) for name in content["test_filenames"]] == [1]


def test_a_scene_that_is_not_there_gives_no_result(tmp_path: Path) -> None:
    with pytest.raises(NoResult) as found:
        prepare("atlantis", SIZES["tiny"], tmp_path, tmp_path)
    assert found.value.args[0] == MISSING


def test_the_gate_shuts_below_the_share_that_may_be_lost() -> None:
    baseline = json.loads(BASELINE.read_text())
    usual = baseline["train_step"]["cpu"]["ratio_vs_torch_backend"]
    least = usual * (1 - baseline["allowed_fall"])
    assert fallen({"backend": "cpu", "ratio_vs_torch_backend": least + 0.01}, baseline) == ""
    assert "are wanted" in fallen({"backend": "cpu", "ratio_vs_torch_backend": least - 0.01}, baseline)
    assert fallen({"backend": "tcnn"}, baseline) == "no baseline for tcnn"
