"""`craym eval-mesh` on a tiny run: the mesh of its data's frame is brought to the truth by cameras alone."""

import json
from pathlib import Path

import pytest
import torch
import trimesh

from craym_nerfstudio.cli.main import main
from craym_nerfstudio.evaluation.references import load_mesh
from craym_nerfstudio.export.run import load_run
from craym_nerfstudio.geometry.alignment import align_poses
from tests.host.conftest import TrainedRun


def test_mesh_is_moved_by_the_cameras_of_its_run(trained: TrainedRun, tmp_path: Path) -> None:
    run = load_run(trained.folder)
    refined = run.pipeline.data_from_model().poses(run.pipeline.refined_c2w().double())
    to_truth = align_poses(refined, torch.from_numpy(trained.data.cameras.train_c2w))
    ball = trimesh.creation.icosphere(subdivisions=4)
    ball.export(tmp_path / "true.ply")
    vertices, faces = load_mesh(tmp_path / "true.ply")
    moved = to_truth.inverse().points(torch.from_numpy(vertices)).numpy()
    trimesh.Trimesh(moved, faces, process=False).export(tmp_path / "mesh.ply")
    flags = ["--mesh", str(tmp_path / "mesh.ply"), "--reference", str(tmp_path / "true.ply"), "--samples", "5000"]
    main(["eval-mesh", *flags, "--load-config", str(trained.folder)])
    written = json.loads((tmp_path / "surface.json").read_text())
    assert written["aligned_by"] == "cameras"
    assert written["results"]["chamfer"] < 1e-4
    main(["eval-mesh", *flags])
    assert json.loads((tmp_path / "surface.json").read_text())["results"]["chamfer"] > 1e-2


def test_without_truth_it_asks_for_it(trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trimesh.creation.box().export(tmp_path / "mesh.ply")
    run = load_run(trained.folder)
    run.pipeline.datamanager.reference = None
    monkeypatch.setattr("craym_nerfstudio.export.run.load_run", lambda *_: run)
    flags = ["--mesh", str(tmp_path / "mesh.ply"), "--reference", str(tmp_path / "mesh.ply"), "--load-config", "run"]
    with pytest.raises(SystemExit):
        main(["eval-mesh", *flags])
    main(["eval-mesh", *flags, "--reference-poses", str(trained.data.folder)])
    assert (tmp_path / "surface.json").exists()
