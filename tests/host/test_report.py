"""`craym report` on a tiny trained run."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from craym_nerfstudio.cli.main import main
from craym_nerfstudio.export.run import load_run
from craym_nerfstudio.report.record import RunRecord
from craym_nerfstudio.report.summary import announce_training, report_training
from tests.host.conftest import TrainedRun
from tests.host.tiny_run import STEPS, TRAIN

SECTIONS = (
    *("Summary", "Views before and after", "Mesh and cameras", "Cameras before and after", "Per camera"),
    *("What was rejected", "Photo and rendering", "Differences", "Depth", "Normals", "Losses", "Times", "Matchability"),
)


def images(text: str) -> list[int]:
    """How many images each section holds."""
    return [part.count("data:image/") for part in text.split("<h2")[1:]]


def test_training_leaves_a_record(trained: TrainedRun) -> None:
    record = RunRecord.load(trained.folder / "record.npz")
    assert len(record.names) == TRAIN and record.reference_c2w is not None
    np.testing.assert_allclose(record.reference_c2w, trained.data.cameras.train_c2w, atol=1e-6)
    assert record.matchability is not None and len(record.matchability) >= 1000
    poses = json.loads((trained.folder / "metrics.json").read_text())["poses"]
    assert poses.startswith("trained; matches are") or poses == "trained"
    assert (record.matchability >= 0).all() and (record.matchability <= 1).all() and record.matchability.std() > 0


@pytest.mark.parametrize(
    ("host", "told"), [("127.0.0.1", "on this machine alone"), ("0.0.0.0", "listens on 0.0.0.0"), (None, None)]
)
def test_before_training_it_says_who_reaches_the_viewer(
    host: str | None, told: str | None, trained: TrainedRun, capsys: pytest.CaptureFixture
) -> None:
    announce_training(load_run(trained.folder).pipeline, 0, STEPS, host)
    shown = capsys.readouterr().out
    assert f"{TRAIN} to train on" in shown and ("viewer" in shown) is (told is not None) and (told or "") in shown


def test_the_end_tells_figures_with_units_and_where_things_lie(
    trained: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / (30 * "long_")
    report_training(load_run(trained.folder).pipeline, folder, STEPS - 1)
    shown = capsys.readouterr().out
    assert "test PSNR [dB]" in shown and "rotation error after [deg]" in shown
    assert f"\n{folder}: figures in metrics.json" in shown
    for command in (f"craym report {folder} ", f"craym export --load-config {folder} ", "ns-viewer --load-config"):
        assert f"\n  {command}" in shown
    for name in ("metrics.json", "test_views", "before_after", "cameras.png"):
        assert (folder / name).exists()


def test_page_of_a_finished_run(trained: TrainedRun, tmp_path: Path) -> None:
    main(["report", str(trained.folder), "--output", str(tmp_path / "report.html")])
    text = (tmp_path / "report.html").read_text()
    assert tuple(re.findall(r"<h2[^>]*>([^<]+)</h2>", text)) == SECTIONS
    assert all(each.startswith(("data:image/", "#")) for each in re.findall(r'(?:src|href)="([^"]*)', text))
    without_pictures = re.sub(r"base64,[^\"]*", "", text)
    assert "<script" not in without_pictures and "http" not in without_pictures
    assert "poses end" in text and "trained" in text
    # A photo, and two pictures under a slider, of three training views.
    assert images(text)[1] == 9 and text.count('type="range"') == 3
    count = dict(zip(SECTIONS, images(text), strict=True))
    assert count["Photo and rendering"] == count["Differences"] == count["Depth"] == count["Normals"] == 3
    for section in ("Cameras before and after", "Per camera", "Losses", "Matchability"):
        assert count[section] == 1
    assert "l2g-low" in text and "train/r_" in text


def test_run_without_its_record_is_loaded(trained: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(trained.folder, tmp_path / "old")
    (tmp_path / "old" / "record.npz").unlink()
    main(["report", str(trained.folder), str(tmp_path / "old"), "--output", str(tmp_path / "two.html")])
    text = (tmp_path / "two.html").read_text()
    assert images(text)[3] == 2 and "Not recorded" in text
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path)])
    assert "config.yml" in capsys.readouterr().err
