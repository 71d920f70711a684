"""Pictures of matches, and the command that writes them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from craym_nerfstudio.cli import main as cli
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.matching.find import find_matches
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.pictures import draw_overview, draw_pair, pair_ranking, save_picture
from tests.matching import corner_scene


def write_dataset(folder: Path) -> Path:
    """The corner as a nerfstudio dataset of nine images, one of which will be a test image."""
    views = corner_scene.write_views(folder / "images", count=5)
    last = np.array([[0.0, 0.0, 0.0, 1.0]])
    frames = [
        {"file_path": f"images/{name}", "transform_matrix": np.concatenate([pose, last]).tolist()}
        for name, pose in zip(views.names, views.c2w, strict=True)
    ]
    width, height = corner_scene.SIZE_PX
    focal = corner_scene.FOCAL_PX
    intrinsics = {"fl_x": focal, "fl_y": focal, "cx": width / 2, "cy": height / 2, "w": width, "h": height}
    (folder / "transforms.json").write_text(json.dumps({**intrinsics, "frames": frames}))
    return folder


def test_command_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, output = write_dataset(tmp_path / "scene"), tmp_path / "out"
    cli.main(["match", "--data", str(data), "--output", str(output), "--matcher", "sift", "--pictures", "1"])
    shown = capsys.readouterr().out
    assert "verified pairs" in shown and str(output) in shown
    written = {path.name for path in output.iterdir()}
    assert written == {
        *("matches.npz", "summary.json", "overview.png", "cache"),
        *("best_1.png", "middle_1.png", "worst_1.png"),
    }
    matches = Matches.load(output / "matches.npz")
    summary = json.loads((output / "summary.json").read_text())
    assert summary["matches"] == len(matches) == sum(summary["matches_of_image"].values()) // 2
    assert summary["connected_groups"] == [summary["images"]]
    assert summary["images_without_matches"] == []
    cli.main(["match", "--data", str(data), "--output", str(output), "--matcher", "sift", "--pictures", "1"])
    assert "cached" in capsys.readouterr().out


def test_command_compares_matchers_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, output = write_dataset(tmp_path / "scene"), tmp_path / "out"
    options = ["match", "--data", str(data), "--output", str(output), "--pictures", "0"]
    cli.main([*options, "--matchers", "sift,xfeat-lighterglue"])
    shown = capsys.readouterr().out
    assert "verified pairs" in shown and "CPU seconds" in shown
    for name in ("sift", "xfeat-lighterglue"):
        summary = json.loads((output / name / "summary.json").read_text())
        assert summary["detector"] == name
        assert 10 < summary["matched_keypoints_per_image"] < 2000
        assert {path.name for path in (output / name).iterdir()} == {"matches.npz", "summary.json", "overview.png"}


def test_command_reports_bad_input_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["match", "--data", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")])
    assert end.value.code == 2
    assert "nowhere" in capsys.readouterr().err


def test_pictures_show_images_and_lines(tmp_path: Path) -> None:
    views = corner_scene.write_views(tmp_path, count=3)
    matches = find_matches(views, "sift", tmp_path / "cache")
    ranking = pair_ranking(matches)
    assert sorted(ranking.tolist()) == list(range(len(matches.pairs)))
    picture = np.asarray(draw_pair(views, matches, int(ranking[0])))
    assert picture.shape == (24 + 480, 2 * 640, 3)
    enlarged = Image.fromarray(corner_scene.render(views.c2w[matches.pairs[ranking[0], 0]])).resize((640, 480))
    changed = (picture[24:, :640] != np.asarray(enlarged)).any(-1).mean()
    assert 0.01 < changed < 0.8
    overview = draw_overview(views, matches)
    assert overview.size[0] > 1200
    assert len(np.unique(np.asarray(overview).reshape(-1, 3), axis=0)) > 10


def test_unwritable_picture_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        save_picture(Image.new("RGB", (4, 4)), tmp_path / "file" / "a.png")
