"""Refined cameras: the frame they are written in, and the files."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from craym_nerfstudio.data.dataparser import CraymDataParserConfig
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.data.read_colmap import read_poses
from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.export.cameras import describe, write_cameras, write_points, write_table
from craym_nerfstudio.export.refined import RefinedCameras, rays_of_best_pair
from craym_nerfstudio.export.transforms import refuse_overwriting, write_transforms
from craym_nerfstudio.geometry.alignment import Similarity, undrift
from craym_nerfstudio.geometry.lie import compose, se3_exp
from craym_nerfstudio.geometry.pinhole import Pinhole
from craym_nerfstudio.sfm.result import Decision, StageZero
from tests.data.tiny_data import ring_poses, write_blender, write_nerfstudio
from tests.data.tiny_data import write_colmap as write_colmap_data

NONE_FIXED = torch.zeros(8, dtype=torch.bool)


def poses() -> torch.Tensor:
    return torch.from_numpy(ring_poses(8))


def drift() -> Similarity:
    """What a run may do to its whole frame."""
    turn = se3_exp(torch.tensor([0.0, 0, 0, 0.1, -0.2, 0.05], dtype=torch.float64))[:, :3]
    return Similarity(torch.tensor(1.2).double(), turn, torch.tensor([0.3, -0.1, 0.2]).double())


def test_drift_is_undone_despite_cameras_that_were_really_wrong() -> None:
    given, moved = poses(), drift().poses(poses())
    moved[:2] = compose(moved[:2], se3_exp(torch.tensor([0.5, 0.2, 0.1, 0.3, 0.0, 0.1], dtype=torch.float64)))
    back = undrift(moved, given, NONE_FIXED)
    torch.testing.assert_close(back.poses(moved)[2:], given[2:], rtol=0, atol=1e-6)
    assert (back.poses(moved)[0] - given[0]).abs().max() > 0.1


def test_two_fixed_cameras_leave_no_freedom() -> None:
    fixed = NONE_FIXED.clone()
    fixed[:2] = True
    moved = drift().poses(poses())
    moved[:2] = poses()[:2]
    torch.testing.assert_close(undrift(moved, poses(), fixed).poses(moved), moved)


def test_one_fixed_camera_leaves_the_scale() -> None:
    fixed = NONE_FIXED.clone()
    fixed[3] = True
    given = poses()
    moved = given.clone()
    moved[:, :, 3] = given[3, :, 3] + 1.25 * (given[:, :, 3] - given[3, :, 3])
    torch.testing.assert_close(undrift(moved, given, fixed).poses(moved), given)


def cameras_of(frames: Frames, test: Frames | None = None) -> RefinedCameras:
    """Cameras that were all moved by a known motion in their own frame, but the first, which is fixed."""
    motion = se3_exp(torch.tensor([0.03, 0.0, 0.04, 0.0, np.deg2rad(2.0), 0.0], dtype=torch.float64))
    refined = compose(torch.from_numpy(frames.c2w), motion).numpy()
    fixed = np.zeros(len(frames), dtype=bool)
    fixed[0], refined[0] = True, frames.c2w[0]
    return RefinedCameras(replace(frames, c2w=refined), frames.c2w, fixed, test or frames.subset(np.arange(0)))


@pytest.mark.parametrize("paths", ["absolute", "relative"])
def test_transforms_are_data_again(tmp_path: Path, paths: str) -> None:
    lens = {"k1": 0.1, "k2": -0.02, "p1": 0.003, "p2": -0.004, "camera_model": "OPENCV", "applied_scale": 0.5}
    frames = detect_and_read(write_nerfstudio(tmp_path / "data", **lens))
    cameras = cameras_of(frames)
    target = tmp_path / "out" / "transforms.json"
    write_transforms(cameras, target, paths)
    content = json.loads(target.read_text())
    assert content["applied_scale"] == 0.5 and content["camera_model"] == "OPENCV" and content["k1"] == 0.1
    assert (content["frames"][0]["file_path"][:3] == "../") == (paths == "relative")
    again = detect_and_read(target)
    np.testing.assert_allclose(again.c2w, cameras.frames.c2w, atol=1e-12)
    np.testing.assert_array_equal(again.intrinsics_px, frames.intrinsics_px)
    np.testing.assert_array_equal(again.distortion, frames.distortion)
    assert [path.resolve() for path in again.paths] == [path.resolve() for path in frames.paths]


def test_nerfstudios_own_parser_reads_them(tmp_path: Path) -> None:
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    frames = detect_and_read(write_nerfstudio(tmp_path / "data"))
    write_transforms(cameras_of(frames), tmp_path / "out" / "transforms.json")
    config = NerfstudioDataParserConfig(
        data=tmp_path / "out", eval_mode="all", center_method="none", orientation_method="none", auto_scale_poses=False
    )
    outputs = config.setup().get_dataparser_outputs("train")
    assert [path.resolve() for path in outputs.image_filenames] == [path.resolve() for path in frames.paths]
    np.testing.assert_allclose(outputs.cameras.camera_to_worlds, cameras_of(frames).frames.c2w, atol=1e-6)


def test_the_own_split_of_images_that_are_all_refined_stays(tmp_path: Path) -> None:
    data = write_nerfstudio(tmp_path / "data")
    content = json.loads((data / "transforms.json").read_text())
    listed = sorted(frame["file_path"] for frame in content["frames"])
    content |= {"train_filenames": listed[2:], "test_filenames": listed[:2]}
    (data / "transforms.json").write_text(json.dumps(content))
    frames = detect_and_read(data)
    write_cameras(cameras_of(frames.subset(np.arange(len(frames)))), tmp_path / "out", include_test=True)
    again = detect_and_read(tmp_path / "out")
    assert again.train is not None and again.test is not None
    assert again.train.tolist() == list(range(2, len(listed))) and again.test.tolist() == [0, 1]


def test_a_lens_that_colmap_lacks_costs_the_model_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    frames = detect_and_read(write_nerfstudio(tmp_path / "data", k4=0.001))
    figures = write_cameras(cameras_of(frames), tmp_path / "out")
    assert figures["cameras"] == len(frames) and not (tmp_path / "out" / "colmap").exists()
    assert detect_and_read(tmp_path / "out").distortion[0, 3] == 0.001
    assert "No COLMAP model is written: COLMAP has no lens model with k4" in capsys.readouterr().out
    assert "colmap" not in describe(tmp_path / "out", figures).removeprefix(str(tmp_path))


def test_linked_images_keep_their_names(tmp_path: Path) -> None:
    """As git-annex and DVC keep them: the file that a link leads to is called after its content."""
    data = write_nerfstudio(tmp_path / "data")
    names = sorted(path.name for path in (data / "images").iterdir())
    for number, name in enumerate(names):
        (data / "images" / name).rename(tmp_path / f"blob{9 - number}")
        (data / "images" / name).symlink_to(tmp_path / f"blob{9 - number}")
    write_transforms(cameras_of(detect_and_read(data)), tmp_path / "out" / "transforms.json")
    frames = json.loads((tmp_path / "out" / "transforms.json").read_text())["frames"]
    assert [Path(frame["file_path"]).name for frame in frames] == names


def test_given_poses_are_never_written_over(tmp_path: Path) -> None:
    data = write_nerfstudio(tmp_path / "data")
    with pytest.raises(InputError, match="folder of the data"):
        refuse_overwriting(tmp_path / "out" / ".." / "data", data)
    with pytest.raises(InputError, match="not of craym's"):
        refuse_overwriting(data, data / "transforms_colmap.json")
    out = tmp_path / "out"
    write_cameras(cameras_of(detect_and_read(data)), out)
    refuse_overwriting(out, data)
    (out / "cameras.csv").unlink()
    with pytest.raises(InputError, match="out"):
        refuse_overwriting(out, data)


def test_test_images_keep_their_poses_and_their_part(tmp_path: Path) -> None:
    write_blender(tmp_path / "data")
    frames = detect_and_read(tmp_path / "data")
    train, test = frames.subset(frames.train), frames.subset(frames.test)
    write_transforms(cameras_of(train, test), tmp_path / "transforms.json", include_test=True)
    outputs = CraymDataParserConfig(data=tmp_path / "transforms.json").setup().get_dataparser_outputs("test")
    assert len(outputs.image_filenames) == 3
    again = detect_and_read(tmp_path / "transforms.json")
    np.testing.assert_allclose(again.subset(again.test).c2w, test.c2w, atol=1e-12)
    for include_test, also in ((True, " (beside 3 test images)"), (False, "")):
        figures = write_cameras(cameras_of(train, test), tmp_path / "all", include_test=include_test)
        assert f"{len(train)} cameras in transforms.json{also}, colmap" in describe(tmp_path / "all", figures)


def stage_of(cameras: RefinedCameras, points: np.ndarray, size_px: tuple[int, int]) -> StageZero:
    """What stage 0 would say of points that every camera sees, with keypoints in images of another size."""
    frames = cameras.frames
    count = len(frames)
    pixels = []
    for number, c2w in enumerate(frames.c2w):
        focal, center = np.split(frames.intrinsics_px[number], 2)
        camera = Pinhole(c2w, focal, center, tuple(frames.size_px[number].tolist()))
        pixels.append(camera.project(points)[0] * size_px / frames.size_px[number])
    bearings = [(points - c2w[:, 3]) @ c2w[:, :3] for c2w in frames.c2w]
    nothing = np.zeros(count)
    return StageZero(
        names=frames.names,
        c2w=frames.c2w,
        state=["adjusted"] * (count - 1) + ["predicted"],
        component=np.zeros(count, dtype=int),
        rotation_sigma_deg=np.array([0.0] + [0.02] * (count - 2) + [np.nan]),
        translation_sigma=nothing,
        num_rays=np.full(count, len(points)),
        epipolar_before_px=nothing + 2,
        epipolar_after_px=nothing + 0.5,
        points=points,
        point_sigma=np.zeros(len(points)),
        track_length=np.full(len(points), count),
        ray_point=np.tile(np.arange(len(points)), count),
        ray_image=np.repeat(np.arange(count), len(points)),
        ray_keypoint_px=np.concatenate(pixels),
        ray_bearing=np.concatenate([rays / np.linalg.norm(rays, axis=-1, keepdims=True) for rays in bearings]),
        match_weight=np.zeros(0),
        keypoint_sigma_px=0.3,
        decision=Decision("solution", "", 0, 1.0, 1.0),
    )


def with_points(frames: Frames) -> RefinedCameras:
    """Cameras with five points around the origin, seen in images of half the size."""
    cameras = cameras_of(frames)
    points = np.array([[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1], [0.05, -0.1, 0.05]])
    half = frames.size_px // 2
    return replace(cameras, stage=stage_of(cameras, points, tuple(half[0].tolist())), size_px=half)


def test_rays_to_look_at_are_those_of_the_pair_with_most(tmp_path: Path) -> None:
    stage = with_points(detect_and_read(write_nerfstudio(tmp_path / "data"))).stage
    assert stage is not None
    mine = (stage.ray_image == 1) | (stage.ray_image == 4) | (stage.ray_point == 2)
    kept = {name: getattr(stage, name)[mine] for name in ("ray_image", "ray_point", "ray_bearing")}
    rays = rays_of_best_pair(replace(stage, **kept))
    np.testing.assert_allclose(rays[:, 0], np.tile(stage.c2w[[1, 4], :, 3], (len(stage.points), 1)))
    np.testing.assert_allclose(rays[:, 1], np.repeat(stage.points, 2, axis=0))
    assert len(rays_of_best_pair(stage, most=2)) == 4


@pytest.mark.parametrize(
    ("model", "expected"), [("OPENCV", "OPENCV"), ("SIMPLE_RADIAL", "OPENCV"), ("OPENCV_FISHEYE", "OPENCV_FISHEYE")]
)
def test_colmap_model_is_read_back(tmp_path: Path, model: str, expected: str) -> None:
    frames = detect_and_read(write_colmap_data(tmp_path / "data", model=model))
    cameras = cameras_of(frames)
    write_cameras(cameras, tmp_path / "out")
    sparse = tmp_path / "out" / "colmap" / "sparse" / "0"
    names, c2w = read_poses(sparse)
    assert names == frames.names
    np.testing.assert_allclose(c2w, cameras.frames.c2w, atol=1e-12)
    (camera,) = pycolmap.Reconstruction(str(sparse)).cameras.values()
    assert camera.model_name == expected
    (tmp_path / "out" / "images").symlink_to(tmp_path / "data" / "images")
    (tmp_path / "out" / "transforms.json").unlink()
    again = detect_and_read(tmp_path / "out")
    np.testing.assert_allclose(again.intrinsics_px, frames.intrinsics_px)
    np.testing.assert_allclose(again.distortion, frames.distortion)


def test_colmap_model_has_points_that_project_to_their_keypoints(tmp_path: Path) -> None:
    cameras = with_points(detect_and_read(write_nerfstudio(tmp_path / "data")))
    figures = write_cameras(cameras, tmp_path / "out")
    read = pycolmap.Reconstruction(str(tmp_path / "out" / "colmap" / "sparse" / "0"))
    assert read.num_points3D() == figures["points"] == 5
    assert read.compute_mean_track_length() == len(cameras.frames)
    # The file keeps the errors of the points, too.
    assert read.compute_mean_reprojection_error() == pytest.approx(figures["mean_reprojection_px"])
    assert figures["mean_reprojection_px"] < 1e-6


def test_points_start_splatting_in_nerfstudios_own_parser(tmp_path: Path) -> None:
    pytest.importorskip("open3d")
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    cameras = with_points(detect_and_read(write_nerfstudio(tmp_path / "data")))
    write_cameras(cameras, tmp_path / "out")
    config = NerfstudioDataParserConfig(
        data=tmp_path / "out", eval_mode="all", center_method="none", orientation_method="none",
        auto_scale_poses=False, load_3D_points=True,
    )  # fmt: skip
    metadata = config.setup().get_dataparser_outputs("train").metadata
    assert cameras.stage is not None
    np.testing.assert_allclose(metadata["points3D_xyz"], cameras.stage.points, atol=1e-6)
    assert metadata["points3D_rgb"].shape == (5, 3)


def test_nerfstudios_colmap_parser_reads_the_model(tmp_path: Path) -> None:
    pytest.importorskip("open3d")
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig

    cameras = with_points(detect_and_read(write_nerfstudio(tmp_path / "data")))
    write_cameras(cameras, tmp_path / "out")
    config = ColmapDataParserConfig(
        data=tmp_path / "out", images_path=tmp_path / "data", eval_mode="all", downscale_factor=1,
        center_method="none", orientation_method="none", auto_scale_poses=False,
        assume_colmap_world_coordinate_convention=False,
    )  # fmt: skip
    outputs = config.setup().get_dataparser_outputs("train")
    assert [path.resolve() for path in outputs.image_filenames] == [path.resolve() for path in cameras.frames.paths]
    np.testing.assert_allclose(outputs.cameras.camera_to_worlds, cameras.frames.c2w, atol=1e-5)
    assert cameras.stage is not None
    found, expected = np.asarray(outputs.metadata["points3D_xyz"]), cameras.stage.points
    nearest = np.linalg.norm(found[:, None] - expected, axis=-1).argmin(0)
    np.testing.assert_allclose(found[nearest], expected, atol=1e-5)


def test_trajectory_is_in_opencv_axes(tmp_path: Path) -> None:
    cameras = with_points(detect_and_read(write_nerfstudio(tmp_path / "data")))
    write_cameras(cameras, tmp_path / "out")
    rows = np.loadtxt(tmp_path / "out" / "trajectory_tum.txt")
    np.testing.assert_array_equal(rows[:, 0], np.arange(len(cameras.frames)))
    np.testing.assert_allclose(rows[:, 1:4], cameras.frames.c2w[:, :, 3], atol=1e-9)
    ahead = Rotation.from_quat(rows[:, 4:]).apply([0.0, 0.0, 1.0])
    np.testing.assert_allclose(ahead, -cameras.frames.c2w[:, :, 2], atol=1e-9)


def test_table_by_hand(tmp_path: Path) -> None:
    write_table(with_points(detect_and_read(write_nerfstudio(tmp_path / "data"))), tmp_path / "cameras.csv")
    with (tmp_path / "cameras.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["fixed", *["adjusted"] * (len(rows) - 2), "predicted"]
    assert float(rows[0]["rotation_deg"]) == 0 and float(rows[0]["translation"]) == 0
    assert float(rows[1]["rotation_deg"]) == pytest.approx(2.0, abs=1e-5)
    # exp() bends the translation a little: its length is that of the chord.
    assert float(rows[1]["translation"]) == pytest.approx(0.05, rel=1e-3)
    assert [rows[1]["rotation_sigma_deg"], rows[-1]["rotation_sigma_deg"]] == ["0.02", ""]
    assert [rows[1][f"epipolar_{when}_px"] for when in ("before", "after")] == ["2", "0.5"]
    before, after = ([float(rows[1][f"{axis}{suffix}"]) for axis in "xyz"] for suffix in ("_before", ""))
    assert np.linalg.norm(np.subtract(after, before)) == pytest.approx(float(rows[1]["translation"]), rel=1e-6)


def test_keys_that_are_not_used_are_kept(tmp_path: Path) -> None:
    """Depth, ids and points that a file carries; names of files are those seen from the new place."""
    folder = write_nerfstudio(tmp_path / "data", depth_unit_scale_factor=0.001, ply_file_path="points.ply", cx=4.0)
    content = json.loads((folder / "transforms.json").read_text())
    for number, frame in enumerate(content["frames"]):
        frame |= {"depth_file_path": f"depth/{number}.png", "colmap_im_id": number + 1}
    (folder / "transforms.json").write_text(json.dumps(content))
    frames = detect_and_read(folder)
    cameras = RefinedCameras(frames, frames.c2w, NONE_FIXED.numpy(), frames.subset(np.array([], int)))
    write_transforms(cameras, tmp_path / "out" / "transforms.json", "relative")
    written = json.loads((tmp_path / "out" / "transforms.json").read_text())
    assert written["depth_unit_scale_factor"] == 0.001 and written["ply_file_path"] == "../data/points.ply"
    assert [frame["colmap_im_id"] for frame in written["frames"]] == list(range(1, 9))
    assert written["frames"][3]["depth_file_path"] == "../data/depth/3.png"
    assert written["frames"][3]["file_path"] == "../data/images/003.png"


def test_points_in_map_coordinates_are_exact(tmp_path: Path) -> None:
    points = np.random.RandomState(0).uniform(-20, 20, (50, 3))
    points += np.array([512345.678, 5412345.123, 210.5])
    write_points(points, np.full((50, 3), 9, np.uint8), tmp_path / "points.ply")
    read = trimesh.load(tmp_path / "points.ply")
    np.testing.assert_allclose(read.vertices, points, rtol=0, atol=1e-6)
    assert (read.colors[:, :3] == 9).all()
