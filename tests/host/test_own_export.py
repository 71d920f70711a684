"""`craym export` on a tiny run, read back by other programs."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
import trimesh
from PIL import Image
from plyfile import PlyData

from craym_nerfstudio.cli.main import main
from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.evaluation.references import load_mesh
from craym_nerfstudio.export.pictures import Ball, write_turntable
from craym_nerfstudio.export.refined import cameras_of_run
from craym_nerfstudio.export.run import Run, load_run
from craym_nerfstudio.geometry.alignment import pose_errors
from tests.host.conftest import TrainedRun
from tests.host.tiny_run import TEST, TRAIN


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


@pytest.fixture(scope="module")
def exported(trained: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything but the video, small."""
    folder = tmp_path_factory.mktemp("export")
    flags = ["--resolution", "64", "--faces", "1000", "--formats", "glb", "ply", "stl", "--keep-components", "1"]
    parts = ["mesh", "cameras", "splats", "points", "pictures"]
    main(
        ["export", *parts, "--load-config", str(trained.config_path), "--output", str(folder), *flags, "--include-test"]
    )
    return folder


def test_meshes_in_the_frame_of_the_data(run: Run, exported: Path) -> None:
    mesh = trimesh.load(exported / "mesh.ply", process=False, force="mesh")
    assert len(mesh.faces) > 500 and mesh.visual.kind == "vertex" and mesh.is_watertight
    points = run.pipeline.data_from_model().inverse().points(np.array(mesh.vertices))
    world = torch.from_numpy(points).float()
    distance = run.pipeline.craym_model.sdf(world)
    model = run.pipeline.craym_model
    inner = (world - model.center).norm(dim=-1) < 0.9 * model.radius
    assert distance[inner].abs().max() < 0.03
    # The solids of the scene lie within 1.35 units of its origin; after 60 steps the shape is a rough one.
    assert np.linalg.norm(mesh.vertices, axis=-1).max() < 2.5
    assert trimesh.load(exported / "mesh.stl", force="mesh").volume == pytest.approx(mesh.volume, rel=1e-4)
    vertices, faces = load_mesh(exported / "mesh.glb")
    assert 500 < len(faces) < 1500
    # Simplified, and moved by half a pixel at most to where photos agree.
    assert trimesh.proximity.closest_point(mesh, vertices)[1].max() < 0.1


def test_glb_stands_upright(exported: Path) -> None:
    """Blender data is z-up, glTF y-up: what a glTF loader shows has the heights of the data along y."""
    shown = trimesh.load(exported / "mesh.glb", process=False).to_mesh()
    data = load_mesh(exported / "mesh.glb")[0]
    np.testing.assert_array_equal(load_mesh(exported / "mesh_and_cameras.glb")[0], data)
    np.testing.assert_allclose(shown.bounds[:, 1], [data[:, 2].min(), data[:, 2].max()], atol=1e-5)
    texture = np.asarray(shown.visual.material.baseColorTexture)
    assert texture.shape[0] == texture.shape[1] and texture[..., :3].std() > 10


def test_pictures_are_of_something(exported: Path) -> None:
    picture = np.asarray(Image.open(exported / "mesh.png"))
    tiles = picture.reshape(2, 320, 5, 320, 3).transpose(0, 2, 1, 3, 4)
    assert ((tiles != 255).any(-1).mean((2, 3)) > 0.1).all()
    photos = sorted((exported / "before_after").glob("*_photo.png"))
    assert len(photos) == 3
    for photo in photos:
        for kind in ("before", "after"):
            other = photo.with_name(photo.name.replace("photo", kind))
            assert Image.open(other).size == Image.open(photo).size


def test_video_is_read_by_ffprobe(run: Run, tmp_path: Path) -> None:
    if shutil.which("ffprobe") is None:
        pytest.skip("ffprobe is not installed (apt-get install ffmpeg)")
    write_turntable(run.pipeline.craym_model.tracer, Ball(np.zeros(3), 1.0), tmp_path / "t.mp4", size_px=48, frames=5)
    command = ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name,width,nb_frames", "-of", "csv=p=0"]
    shown = subprocess.run([*command, str(tmp_path / "t.mp4")], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "h264,48,5"


def test_splats_and_points_lie_on_the_surface(run: Run, exported: Path) -> None:
    for name in ("splats.ply", "points.ply"):
        rows = PlyData.read(exported / name)["vertex"].data
        points = np.stack([rows[axis] for axis in "xyz"], axis=-1).astype(np.float64)
        world = torch.from_numpy(run.pipeline.data_from_model().inverse().points(points)).float()
        # Splats lie a little inside; after 60 steps the field is no exact distance.
        distance = run.pipeline.craym_model.sdf(world)
        assert len(rows) > 100 and distance.abs().quantile(0.95) < 0.2 and -0.08 < distance.median() < 0.01
    assert (exported / "splats.ply").stat().st_size < 15_000_000


def test_cameras_for_other_programs(trained: TrainedRun, run: Run, exported: Path) -> None:
    frames = detect_and_read(exported)
    assert len(frames) == TRAIN + TEST and all(path.is_file() for path in frames.paths)
    order = [frames.paths.index(path.resolve()) for path in run.pipeline.datamanager.train_dataset.image_filenames]
    written = torch.from_numpy(frames.c2w[order])
    truth = torch.from_numpy(trained.data.cameras.train_c2w)
    errors, reported = pose_errors(written, truth), json.loads((trained.folder / "metrics.json").read_text())["results"]
    assert errors.rotation_deg_mean == pytest.approx(reported["pose_rotation_deg"], abs=1e-3)
    assert errors.translation_x100_mean == pytest.approx(reported["pose_translation_x100"], abs=0.05)
    np.testing.assert_allclose(frames.intrinsics_px[0, 0], trained.data.cameras.focal_px, rtol=1e-9)
    sparse = pycolmap.Reconstruction(str(exported / "colmap" / "sparse" / "0"))
    assert sparse.num_images() == TRAIN
    assert len((exported / "cameras.csv").read_text().splitlines()) == TRAIN + 1


def test_test_cameras_are_in_the_frame_of_the_refined_ones(trained: TrainedRun, run: Run, exported: Path) -> None:
    """Aligned as evaluation aligns them, then refined against the field: near the truth once training cameras are."""
    frames = detect_and_read(exported)
    names = [path.resolve() for path in run.pipeline.datamanager.eval_dataset.image_filenames]
    written = torch.from_numpy(frames.c2w[[frames.paths.index(name) for name in names]])
    expected = run.pipeline.data_from_model().poses(run.pipeline.refined_test_c2w().double())
    torch.testing.assert_close(written, expected, rtol=0, atol=1e-6)
    moved = run.pipeline.refined_test_c2w().double() - run.pipeline.placed_test_c2w()
    assert 1e-5 < moved.abs().max() < 0.1


def test_fixed_test_cameras_are_written_as_they_were_given(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    given = cameras_of_run(run).test
    monkeypatch.setattr(run.pipeline.config.start, "fixed_cameras", (given.names[1],))
    refined = cameras_of_run(run, refine_test=True).test
    np.testing.assert_array_equal(refined.c2w[1], given.c2w[1])
    assert np.abs(refined.c2w[0] - given.c2w[0]).max() > 1e-5


def test_data_that_has_moved_is_asked_for(
    trained: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.folder, tmp_path / "run")
    config = tmp_path / "run" / "config.yml"
    config.write_text(config.read_text().replace(trained.data.folder.name, "nowhere"))
    with pytest.raises(SystemExit):
        main(["export", "cameras", "--load-config", str(config)])
    line = capsys.readouterr().err
    assert "data of this run is no longer there" in line and "nowhere" in line and "--data" in line


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--output", "x.stl"], "no folder"),
        (["--resolution", "4"], "resolution is 4"),
        (["--resolution", "5000"], "resolution is 5000"),
        (["--faces", "-5"], "faces is -5"),
        (["--keep-components", "-1"], "keep-components is -1"),
        (["--sh-degree", "7"], "sh-degree is 7"),
    ],
)
def test_flags_are_checked_before_any_work(
    flags: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("craym_nerfstudio.export.run.load_run", lambda *_: pytest.fail("was loaded"))
    with pytest.raises(SystemExit):
        main(["export", "mesh", "--load-config", "nowhere", *flags])
    assert complaint in capsys.readouterr().err


def test_no_run_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["export", "--load-config", str(tmp_path / "nothing" / "config.yml")])
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
            main(["export", "cameras", "--load-config", str(tmp_path)])
        line = capsys.readouterr().err.splitlines()[-1]
        assert remedy in line and str(tmp_path) in line
        (tmp_path / "nerfstudio_models" / "step-000000009.ckpt").write_bytes(b"PK half a checkpoint")


def test_a_run_of_another_version_is_one_clear_line(
    trained: TrainedRun, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What its checkpoint lacks is not made up, as the host would; the host's own commands load by the pipeline."""
    shutil.copy(trained.config_path, tmp_path)
    (tmp_path / "nerfstudio_models").mkdir()
    checkpoint = next((trained.config_path.parent / "nerfstudio_models").glob("*.ckpt"))
    state = torch.load(checkpoint, weights_only=True)
    del state["pipeline"]["_model.scene.field.geometry.input_scale"]
    torch.save(state, tmp_path / "nerfstudio_models" / checkpoint.name)
    with pytest.raises(InputError, match=r"another version of this package.*Train again"):
        # Without the poses, by which a run that is loaded already would refuse it first.
        run.pipeline.load_state_dict({key: value for key, value in state["pipeline"].items() if "_c2w" not in key})
    with pytest.raises(SystemExit):
        main(["export", "cameras", "--load-config", str(tmp_path)])
    line = capsys.readouterr().err.splitlines()[-1]
    assert "another version" in line and "Train again" in line and checkpoint.name in line
