"""`craym demo`: its config, and what it shows of a run."""

import shutil
import webbrowser
from pathlib import Path

import pytest

from craym_nerfstudio.cli import demo
from craym_nerfstudio.cli.main import main
from craym_nerfstudio.export.options import ExportOptions
from craym_nerfstudio.methods import craym_lite
from tests.host.conftest import TrainedRun


def test_it_trains_the_bundled_scene_from_rough_poses() -> None:
    config = demo.demo_config(Path("somewhere"), 1500)
    assert (config.data / "transforms_train.json").is_file() and config.output_dir == Path("somewhere")
    assert config.pipeline.datamanager.dataparser.pose_noise == "barf"
    assert config.max_num_iterations == 1500 and craym_lite.config.max_num_iterations > 1500
    assert config.method_name == "craym-lite" and craym_lite.config.data is None


def test_the_report_opens(trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    folder = Path(shutil.copytree(trained.folder, tmp_path / "run"))
    monkeypatch.setattr(demo, "trained", lambda *_: folder)
    monkeypatch.setattr(demo, "_PARTS", ("mesh", "pictures"))
    monkeypatch.setattr(demo, "_OPTIONS", ExportOptions(resolution=32, faces=300))
    main(["demo"])
    page = folder / "export" / "report.html"
    assert opened == [page.resolve().as_uri()]
    text = page.read_text()
    assert text.count("<model-viewer ") == 1 and "model/gltf-binary;base64," in text


def test_few_steps_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--steps", "5"])
    assert "steps is 5" in capsys.readouterr().err
