"""`craym export-mesh` and `craym export-cameras` on a tiny run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from craym_nerfstudio.cli.main import main
from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.export.run import Run, load_run
from craym_nerfstudio.geometry.alignment import pose_errors
from tests.host.conftest import TrainedRun
from tests.host.tiny_run import TRAIN


@pytest.fixture(scope="module")
def run(trained: TrainedRun) -> Run:
    return load_run(trained.folder)


def test_a_run_is_found_from_anywhere(trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(trained.folder, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert load_run(Path("moved")).step == load_run(trained.config_path).step == 59


def test_the_frame_of_the_data_is_that_of_the_files(run: Run) -> None:
    given = run.scene.world_from_data.inverse().poses(run.pipeline.given_c2w().double())
    errors = pose_errors(given, torch.from_numpy(run.pipeline.datamanager.reference.train_c2w))
    # Barely any similarity is left between the noisy poses and the true ones of the files.
    assert float(errors.similarity.scale) == pytest.approx(1.0, abs=0.2)
    torch.testing.assert_close(errors.similarity.rotation, torch.eye(3).double(), rtol=0, atol=0.2)


def test_from_data_to_world_to_unit_and_back(run: Run) -> None:
    """The three frames: the region's sphere holds what the cameras look at, and the circle ends where it began."""
    world_from_data, world_from_unit = run.scene.world_from_data, run.pipeline.craym_model.world_from_unit
    unit_from_data = world_from_unit.inverse() @ world_from_data
    points = np.random.default_rng(0).normal(size=(50, 3))
    world = world_from_data.points(points)
    unit = world_from_unit.inverse().points(world)
    np.testing.assert_allclose(unit_from_data.points(points), unit, atol=1e-12)
    np.testing.assert_allclose(world_from_data.inverse().points(world_from_unit.points(unit)), points, atol=1e-12)
    c2w = run.scene.rough_c2w
    assert np.linalg.norm(unit_from_data.points(np.zeros((1, 3)))) < 0.3
    np.testing.assert_allclose(world_from_data.poses(c2w), run.pipeline.datamanager.views().c2w, atol=1e-12)
    np.testing.assert_allclose(world_from_data.poses(c2w), run.pipeline.given_c2w(), atol=1e-6)
    np.testing.assert_allclose(world_from_data.inverse().poses(world_from_data.poses(c2w)), c2w, atol=1e-12)


@pytest.mark.parametrize("suffix", [".ply", ".glb"])
def test_mesh_in_the_frame_of_the_data(trained: TrainedRun, run: Run, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"mesh{suffix}"
    flags = ["--load-config", str(trained.config_path), "--output", str(target), "--resolution", "48"]
    main(["export-mesh", *flags, "--keep-components", "1"])
    mesh = trimesh.load(target, process=False, force="mesh")
    assert len(mesh.faces) > 500 and mesh.visual.kind == "vertex"
    points = run.pipeline.data_from_model().inverse().points(np.array(mesh.vertices))
    distance = run.pipeline.craym_model.sdf(torch.from_numpy(points).float())
    assert distance.abs().max() < 0.02
    # The solids of the scene lie within 1.35 units of its origin; after 60 steps the shape is a rough one.
    assert np.linalg.norm(mesh.vertices, axis=-1).max() < 2.0
    assert np.linalg.norm(mesh.vertices.mean(0)) < 0.5
    picture = np.asarray(Image.open(target.with_suffix(".png")))
    assert picture.shape == (720, 1440, 3)
    tiles = picture.reshape(2, 360, 4, 360, 3).transpose(0, 2, 1, 3, 4)
    assert ((tiles != 255).any(-1).mean((2, 3)) > 0.1).all()


def test_mesh_in_the_world_of_what_cameras_see(trained: TrainedRun, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "mesh.obj"
    flags = ["--output", str(target), "--resolution", "32", "--frame", "world", "--no-preview", "--visible-only"]
    main(["export-mesh", "--load-config", str(trained.folder), *flags])
    mesh = trimesh.load(target, process=False, force="mesh")
    distance = run.pipeline.craym_model.sdf(torch.from_numpy(np.array(mesh.vertices)).float())
    assert distance.abs().max() < 0.05
    assert not target.with_suffix(".png").exists()


def test_cameras_for_other_programs(trained: TrainedRun, run: Run, tmp_path: Path) -> None:
    main(["export-cameras", "--load-config", str(trained.folder), "--output", str(tmp_path)])
    frames = detect_and_read(tmp_path)
    assert len(frames) == TRAIN and all(path.is_file() for path in frames.paths)
    order = [frames.paths.index(path.resolve()) for path in run.pipeline.datamanager.train_dataset.image_filenames]
    written = torch.from_numpy(frames.c2w[order])
    truth = torch.from_numpy(trained.data.cameras.train_c2w)
    errors, reported = pose_errors(written, truth), json.loads((trained.folder / "metrics.json").read_text())["results"]
    assert errors.rotation_deg_mean == pytest.approx(reported["pose_rotation_deg"], abs=1e-3)
    assert errors.translation_x100_mean == pytest.approx(reported["pose_translation_x100"], abs=0.05)
    np.testing.assert_allclose(frames.intrinsics_px[0, 0], trained.data.cameras.focal_px, rtol=1e-9)
    assert (tmp_path / "colmap" / "sparse" / "0" / "images.bin").is_file()
    assert len((tmp_path / "cameras.csv").read_text().splitlines()) == TRAIN + 1


def test_no_run_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["export-mesh", "--load-config", str(tmp_path / "nothing" / "config.yml")])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: No such run") and "nothing/config.yml" in line and "ns-train" in line


def test_a_run_without_readable_checkpoint_is_one_clear_line(
    trained: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nerfstudio_models").mkdir()
    shutil.copy(trained.config_path, tmp_path)
    for remedy in ("Train until", "Damaged checkpoint"):
        with pytest.raises(SystemExit):
            main(["export-cameras", "--load-config", str(tmp_path)])
        line = capsys.readouterr().err.splitlines()[-1]
        assert remedy in line and str(tmp_path) in line
        (tmp_path / "nerfstudio_models" / "step-000000009.ckpt").write_bytes(b"PK half a checkpoint")
