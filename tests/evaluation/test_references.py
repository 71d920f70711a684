"""Reference surfaces of every kind, read from the files that people have."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from craym_nerfstudio.cli.main import main
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.evaluation.references import load_mesh, load_reference
from craym_nerfstudio.evaluation.surfaces import compare_surfaces, sample_mesh
from samples.analytic_scene import dome_cameras

STILL_LIFE = Path(__file__).parents[2] / "samples" / "still_life"
SIZE_PX, ANGLE_RAD, RADIUS = 100, 0.69, 0.8


@pytest.fixture(scope="module")
def depth_maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ball of radius 0.8, as 8-bit ray depths from a dome of cameras."""
    folder = tmp_path_factory.mktemp("ball")
    (folder / "train").mkdir()
    focal = 0.5 * SIZE_PX / np.tan(0.5 * ANGLE_RAD)
    column, row = np.meshgrid(np.arange(SIZE_PX) + 0.5, np.arange(SIZE_PX) + 0.5)
    local = np.stack([(column - 50) / focal, (50 - row) / focal, -np.ones_like(row)], -1)
    local /= np.linalg.norm(local, axis=-1, keepdims=True)
    frames = []
    for number, c2w in enumerate(dome_cameras(16)):
        along = -((local @ c2w[:, :3].T) @ c2w[:, 3])
        half = RADIUS**2 - (c2w[:, 3] @ c2w[:, 3] - along**2)
        depth = along - np.sqrt(np.maximum(half, 0))
        coded = np.where(half > 0, np.round(255 * (1 - depth / 8)), 0).astype(np.uint8)
        Image.fromarray(coded).save(folder / "train" / f"r_{number}_depth_0000.png")
        Image.fromarray(np.where(coded > 0, 255, 0).astype(np.uint8)).save(folder / "train" / f"r_{number}.png")
        pose = [*c2w.tolist(), [0, 0, 0, 1]]
        frames.append({"file_path": f"./train/r_{number}", "transform_matrix": pose})
    (folder / "transforms_train.json").write_text(json.dumps({"camera_angle_x": ANGLE_RAD, "frames": frames}))
    return folder


def test_depth_maps_fuse_to_more_than_their_steps(depth_maps: Path) -> None:
    reference = load_reference(depth_maps)
    assert reference.kind == "ray depths" and reference.visible.normals is not None
    radius = np.linalg.norm(reference.visible.points, axis=-1)
    # A step is 0.031: single pixels are off by 0.008 in the mean.
    assert np.abs(radius - RADIUS).mean() < 0.003
    outward = (reference.visible.normals * reference.visible.points).sum(-1) / radius
    assert np.median(outward) > 0.98 and (outward > 0).mean() > 0.99
    ball = trimesh.creation.icosphere(subdivisions=4, radius=RADIUS)
    metrics = compare_surfaces(sample_mesh(ball.vertices, ball.faces, 20_000), reference).metrics()
    assert metrics["completeness"] < 0.003 and metrics["recall_0.01"] > 0.97


def test_depth_maps_judge_what_they_see_and_see_through(depth_maps: Path) -> None:
    observed = load_reference(depth_maps).observed
    top, inside, floating = [0, 0, RADIUS], [0, 0, 0], [0, 0, 1.2]
    slightly_inside, beside_every_image = [0, 0, RADIUS - 0.05], [0, 0, 30.0]
    points = np.array([top, inside, floating, slightly_inside, beside_every_image], dtype=float)
    assert observed(points).tolist() == [True, False, True, True, False]


def test_the_bundled_scene_knows_what_its_cameras_see() -> None:
    reference = load_reference(STILL_LIFE)
    assert reference.kind == "exact mesh"
    mesh = sample_mesh(*load_mesh(STILL_LIFE / "mesh.ply"), 20_000)
    found = compare_surfaces(mesh, reference).metrics()
    assert found["f_score_0.01"] > 0.995 and found["accuracy"] < 1e-4 and found["normal_consistency"] > 0.98
    # No camera looks at the board from below: a quarter of the whole area.
    kept = reference.observed(mesh.points)
    below = mesh.normals[:, 2] < -0.99
    assert 0.2 < found["left_out_share"] < 0.3
    assert kept[below & (mesh.points[:, 2] < -0.51)].mean() < 0.1


def test_sparse_points_are_one_way(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=4)
    np.savez(tmp_path / "gt_sparse_points.npz", xyz_unit=np.array([[0, 0, 1.5], [0, 0, 1.0]]), xyz_mm=np.zeros((2, 3)))
    reference = load_reference(tmp_path)
    found = compare_surfaces(sample_mesh(ball.vertices, ball.faces, 20_000), reference).metrics()
    assert found["completeness"] == pytest.approx(0.25, abs=1e-3)
    assert found["recall_0.01"] == 0.5 and found["distance_max"] == pytest.approx(0.5, abs=1e-3)
    assert not {"accuracy", "chamfer", "f_score_0.01", "hausdorff"} & found.keys()


def test_points_and_meshes_alone(tmp_path: Path) -> None:
    trimesh.creation.box().export(tmp_path / "box.ply")
    assert "Nothing is left out" in load_reference(tmp_path / "box.ply").left_out
    np.savez(tmp_path / "some.npz", points=np.eye(3), normals=2 * np.eye(3))
    reference = load_reference(tmp_path / "some.npz")
    assert reference.kind == "visible points"
    np.testing.assert_allclose(reference.visible.normals, np.eye(3))


@pytest.mark.parametrize("name", ["nothing", "empty_folder", "bad.npz", "keys.npz", "shape.npz", "points.ply"])
def test_bad_references_name_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.npz").write_text("no archive")
    np.savez(tmp_path / "keys.npz", other=np.zeros(3))
    np.savez(tmp_path / "shape.npz", points=np.zeros((3, 2)))
    trimesh.PointCloud(np.eye(3)).export(tmp_path / "points.ply")
    (tmp_path / "empty_folder").mkdir()
    with pytest.raises(InputError, match=name.split(".")[0]):
        load_reference(tmp_path / name)


def test_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    mesh = trimesh.load(STILL_LIFE / "mesh.ply")
    mesh.apply_translation((0, 0, 0.005))
    mesh.export(tmp_path / "mesh.ply")
    flags = ["--mesh", str(tmp_path / "mesh.ply"), "--reference", str(STILL_LIFE), "--samples", "20000"]
    main(["eval-mesh", *flags])
    written = json.loads((tmp_path / "surface.json").read_text())
    shown = capsys.readouterr().out
    assert f"{written['results']['chamfer']:.4f}" in shown and "not clipped" in shown
    assert 0 < written["results"]["chamfer"] < 0.005
    assert written["aligned_by"] == "as given" and written["seed"] == 0
    main(["eval-mesh", *flags, "--output", str(tmp_path / "again.json")])
    assert json.loads((tmp_path / "again.json").read_text())["results"] == written["results"]
