"""The parts of a report that need no trained run: figures per camera, curves, sections without data."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from craym_nerfstudio.geometry.lie import compose, se3_exp
from craym_nerfstudio.model import CraymModelConfig
from craym_nerfstudio.pipeline import CraymPipelineConfig
from craym_nerfstudio.report.page import build_page
from craym_nerfstudio.report.plots import camera_errors, camera_figure, loss_curves, per_camera
from craym_nerfstudio.report.record import RunRecord
from craym_nerfstudio.report.runs import Curve, RunFolder, read_curves
from samples.analytic_scene import dome_cameras

CAMS = 10


def turned(c2w: np.ndarray, camera: int, angle_deg: float) -> np.ndarray:
    """Poses of which one is turned about its own centre."""
    moved = torch.from_numpy(c2w).clone()
    xi = torch.tensor([0, 0, 0, 0, np.deg2rad(angle_deg), 0], dtype=torch.float64)
    moved[camera] = compose(moved[camera], se3_exp(xi))
    return moved.numpy()


def record(**changes: Any) -> RunRecord:
    names = np.array([f"r_{number}.png" for number in range(CAMS)])
    truth = dome_cameras(CAMS)
    return RunRecord(names, turned(truth, 3, 5.0), turned(truth, 3, 0.5), **{"reference_c2w": truth, **changes})


def run(folder: Path, **changes: Any) -> RunFolder:
    pipeline = CraymPipelineConfig(model=CraymModelConfig(coherency=False))
    config = SimpleNamespace(pipeline=pipeline, data=folder, method_name="craym-lite", timestamp="named")
    given = {"step": None, "results": {}, "surface": {}, "curves": {}, "record": record(), "problem": "", **changes}
    return RunFolder(folder, config, **given)


def test_errors_of_every_camera_with_truth() -> None:
    columns = per_camera(record())
    expected = np.zeros(CAMS)
    expected[3] = 5.0
    np.testing.assert_allclose(columns["rotation error before [deg]"], expected, atol=1e-6)
    np.testing.assert_allclose(columns["rotation error after [deg]"], expected / 10, atol=1e-6)
    assert columns["translation error after [x100]"][3] > 1.0
    assert len(camera_errors(columns).axes) == 2


def test_cameras_are_drawn_along_the_axes_that_are_named() -> None:
    shown = record()
    plots = camera_figure(shown.given_c2w, shown.refined_c2w, shown.reference_c2w).axes
    assert [plot.get_title() for plot in plots] == ["given", "given", "refined", "refined"]
    for plot in plots:
        axes = ["xyz".index(name) for name in (plot.get_xlabel(), plot.get_ylabel())]
        np.testing.assert_allclose(plot.collections[0].get_offsets(), shown.reference_c2w[:, axes, 3], atol=1e-12)


def test_without_truth_corrections_and_epipolar_residuals() -> None:
    residual = np.linspace(1, 2, CAMS)
    stage: Any = SimpleNamespace(epipolar_before_px=10 * residual, epipolar_after_px=residual)
    columns = per_camera(record(reference_c2w=None), stage)
    assert columns["turned by [deg]"][3] == pytest.approx(4.5, abs=1e-6)
    assert columns["moved by [x100, field units]"].max() < 1e-9
    np.testing.assert_array_equal(columns["epipolar residual stage 0 [px]"], residual)
    assert len(camera_errors(columns).axes) == 3


def test_records_survive_the_disk(tmp_path: Path) -> None:
    record(reference_c2w=None, matchability=np.array([0.25, 1.0])).save(tmp_path / "record.npz")
    loaded = RunRecord.load(tmp_path / "record.npz")
    assert loaded.names.tolist()[:2] == ["r_0.png", "r_1.png"] and loaded.reference_c2w is None
    np.testing.assert_array_equal(loaded.matchability, [0.25, 1.0])


def test_curves_of_a_resumed_run_are_one(tmp_path: Path) -> None:
    from torch.utils.tensorboard.writer import SummaryWriter

    for first, last in ((0, 5), (5, 9)):
        with SummaryWriter(str(tmp_path), filename_suffix=f".{first}") as writer:
            for step in range(first, last):
                writer.add_scalar("Train Loss Dict/photometric", 1.0 / (1 + step), step)
    curves = read_curves(tmp_path)
    np.testing.assert_array_equal(curves["Train Loss Dict/photometric"].steps, np.arange(9))
    figure = loss_curves(curves)
    assert figure is not None
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), 1.0 / np.arange(1, 10), rtol=1e-6)


def test_a_page_says_what_is_missing(tmp_path: Path) -> None:
    text = build_page([run(tmp_path, record=None, problem="No checkpoint")]).html()
    for sentence in ("No checkpoint", "No losses are recorded", "No test views", "craym export", "not finished"):
        assert sentence in text


def test_times_from_the_files_of_a_run(tmp_path: Path) -> None:
    steps = np.arange(3)
    curves = {"Train Loss": Curve(steps, 1.0 / (1 + steps), 1e9 + 10.0 * steps)}
    assert run(tmp_path, curves=curves).durations_s() == {"training": 20.0}
    (tmp_path / "metrics.json").write_text("{}")
    assert run(tmp_path, curves=curves).durations_s()["test views"] > 0


def test_several_runs_stand_in_columns(tmp_path: Path) -> None:
    whole = run(tmp_path, record=record(matchability=np.linspace(0, 1, 50)), step=99, results={"psnr": 28.125})
    text = build_page([whole, run(tmp_path)]).html()
    assert text.count("repeat(2, 1fr)") == text.count("<h2") and "28.12 dB" in text
    assert "one half" in text and "Not recorded" in text


def test_mesh_and_its_distances_are_shown(tmp_path: Path) -> None:
    Image.new("RGB", (8, 4), "red").save(tmp_path / "mesh.png")
    surface = {"kind": "exact mesh", "clipping": "Left out: nothing.", "results": {"chamfer": 0.0125}}
    text = build_page([run(tmp_path, surface=surface)]).html()
    section = text.split("Mesh and cameras</h2>")[1].split("<h2")[0]
    assert section.count("data:image/png") == 1 and "0.0125" in section and "Left out: nothing." in section
