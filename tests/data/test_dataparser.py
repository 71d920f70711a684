"""The dataparser: layouts, split, sizes, the map to the world frame, noise, reference poses, bearings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs, transform_poses_to_original_space
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image

from craym_nerfstudio.cameras.noise import perturb_poses
from craym_nerfstudio.data.config import SceneConfig
from craym_nerfstudio.data.dataparser import CraymDataParserConfig
from craym_nerfstudio.data.reference import ReferencePoses
from craym_nerfstudio.data.scene import detect_and_read, read_scene
from craym_nerfstudio.data.world import find_target, upright_rotation
from craym_nerfstudio.matching.views import Views
from tests.data.tiny_data import (
    FOCAL_PX,
    SIZE_PX,
    edit_json,
    frame_entries,
    ring_poses,
    save_image,
    write_blender,
    write_colmap,
    write_json,
    write_nerfstudio,
)


def parse(data: Path, split: str = "train", **options: Any) -> DataparserOutputs:
    return CraymDataParserConfig(data=data, **options).setup().get_dataparser_outputs(split)


def views_in(data: Path, **options: Any) -> Views:
    return read_scene(SceneConfig(data, **options)).views


def user_poses(outputs: DataparserOutputs) -> np.ndarray:
    return outputs.transform_poses_to_original_space(outputs.cameras.camera_to_worlds, "opengl").numpy()


@pytest.mark.parametrize("write", [write_nerfstudio, write_blender, write_colmap])
def test_layouts_give_poses_names_and_sizes(tmp_path: Path, write: Any) -> None:
    outputs = parse(write(tmp_path))
    layout = write.__name__.removeprefix("write_")
    assert outputs.metadata["layout"] == layout
    assert outputs.metadata["has_alpha"] == (layout == "blender")
    assert outputs.metadata["image_size_px"].tolist() == [list(SIZE_PX)] * len(outputs.image_filenames)
    assert len(set(outputs.metadata["image_names"])) == len(outputs.cameras)
    assert all(path.is_file() for path in outputs.image_filenames)
    assert outputs.cameras.metadata == {}
    assert outputs.scene_box.aabb.tolist() == [[-1.0] * 3, [1.0] * 3]


@pytest.mark.parametrize("text", [False, True])
def test_colmap_text_and_binary_give_opengl_poses(tmp_path: Path, text: bool) -> None:
    frames = detect_and_read(write_colmap(tmp_path, count=4, text=text))
    np.testing.assert_allclose(frames.c2w, ring_poses(4), atol=1e-12)
    assert frames.intrinsics_px[0].tolist() == [FOCAL_PX, FOCAL_PX + 1, 4.25, 2.75]
    assert frames.distortion[0].tolist() == [0.1, -0.02, 0.0, 0.0, 0.003, -0.004]


def test_json_of_any_name_is_read_with_files_beside_it(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path)
    (folder / "transforms.json").rename(folder / "rough.json")
    assert len(parse(folder / "rough.json").image_filenames) == 7


def test_field_of_view_replaces_missing_intrinsics(tmp_path: Path) -> None:
    frames = detect_and_read(write_blender(tmp_path))
    focal = 0.5 * SIZE_PX[0] / np.tan(0.4)
    np.testing.assert_allclose(frames.intrinsics_px[0], [focal, focal, SIZE_PX[0] / 2, SIZE_PX[1] / 2])


def test_per_image_intrinsics_come_before_shared_ones(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path, 3)
    frames = frame_entries(ring_poses(3))
    save_image(folder / "images/001.png", (12, 10))
    frames[1].update(fl_x=20.0, fl_y=21.0, cx=6.0, cy=5.0, w=12, h=10, k1=0.25)
    edit_json(folder / "transforms.json", frames=frames)
    read = detect_and_read(folder)
    assert read.intrinsics_px[1].tolist() == [20.0, 21.0, 6.0, 5.0]
    assert read.size_px.tolist() == [[8, 6], [12, 10], [8, 6]]
    assert read.distortion[:, 0].tolist() == [0.0, 0.25, 0.0]


def test_every_eighth_image_is_for_testing(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path, 17)
    assert parse(folder, "test").metadata["image_names"] == [f"images/{number:03d}.png" for number in (0, 8, 16)]
    assert len(parse(folder).image_filenames) == 14
    assert parse(folder, "val").image_filenames == parse(folder, "test").image_filenames


def test_few_images_serve_for_training_and_testing(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path, 2)
    assert parse(folder).image_filenames == parse(folder, "test").image_filenames
    assert len(parse(folder).image_filenames) == 2


def test_listed_split_is_obeyed_and_the_rest_ignored(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path, 6, train_filenames=["./images/004.png", "images/001.png"])
    edit_json(folder / "transforms.json", test_filenames=["images/000.png"])
    assert parse(folder).metadata["image_names"] == ["images/001.png", "images/004.png"]
    assert parse(folder, "test").metadata["image_names"] == ["images/000.png"]


def test_empty_test_list_tests_on_the_training_images(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path, 4, test_filenames=[])
    assert len(parse(folder, "test").image_filenames) == 4


def test_blender_files_are_the_split(tmp_path: Path) -> None:
    folder = write_blender(tmp_path, train=5, test=3)
    assert parse(folder).metadata["image_names"] == [f"train/r_{number}.png" for number in range(5)]
    assert parse(folder, "test").metadata["image_names"] == [f"test/r_{number}.png" for number in range(3)]


def test_transform_leads_back_to_the_users_frame(tmp_path: Path) -> None:
    shift = np.array([5.0, -3.0, 2.0])
    poses = ring_poses(9)
    poses[:, :, 3] = 2.5 * poses[:, :, 3] + shift
    folder = write_nerfstudio(tmp_path, 9, frames=frame_entries(poses))
    outputs = parse(folder)
    np.testing.assert_allclose(user_poses(outputs), poses[1:8], atol=1e-5)
    # x_field = scale * (transform @ x_user), which puts what the cameras look at into the middle.
    transform = outputs.dataparser_transform.numpy()
    np.testing.assert_allclose(outputs.dataparser_scale * (transform[:, :3] @ shift + transform[:, 3]), 0, atol=1e-5)
    rotations = outputs.cameras.camera_to_worlds[:, :, :3].double()
    assert (rotations.mT @ rotations - torch.eye(3)).abs().max() < 1e-6


def test_sphere_fills_the_median_frame(tmp_path: Path) -> None:
    outputs = parse(write_nerfstudio(tmp_path, 9))
    distance = np.linalg.norm(ring_poses(9)[0, :, 3])
    tangent = np.hypot(SIZE_PX[0] / 2 / FOCAL_PX, SIZE_PX[1] / 2 / (FOCAL_PX + 1))
    assert outputs.dataparser_scale == pytest.approx(1 / (1.1 * distance * np.sin(np.arctan(tangent))), rel=1e-6)


def test_whole_objects_before_nothing_get_a_closer_sphere(tmp_path: Path) -> None:
    folder = write_blender(tmp_path, train=8)
    cut = parse(folder)
    pixels = np.zeros((SIZE_PX[1], SIZE_PX[0], 4), dtype=np.uint8)
    pixels[2:4, 2:6] = 255
    for number, path in enumerate(cut.image_filenames):
        pixels[2, 2, 0] = number
        Image.fromarray(pixels).save(path)
    whole = parse(folder)
    distance = np.linalg.norm(ring_poses(1, height=1.0)[0, :, 3])
    assert whole.dataparser_scale == pytest.approx(1 / (1.1 * distance * np.sin(0.4)), rel=1e-6)
    assert cut.dataparser_scale < whole.dataparser_scale


def test_scale_as_it_is(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path)
    assert parse(folder).dataparser_scale != 1.0
    untouched = parse(folder, auto_scale=False)
    np.testing.assert_allclose(untouched.cameras.camera_to_worlds, ring_poses(8)[1:], atol=1e-6)


def test_cameras_turned_on_their_side_are_set_upright(tmp_path: Path) -> None:
    y_up = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    folder = write_nerfstudio(tmp_path, frames=frame_entries(y_up @ ring_poses(8)))
    up = parse(folder).cameras.camera_to_worlds[:, :, 1].mean(0)
    assert up[2] / up.norm() > 0.99
    kept = parse(folder, orientation="none")
    assert torch.equal(kept.dataparser_transform[:, :3], torch.eye(3))
    assert np.allclose(upright_rotation(ring_poses(4), "auto"), np.eye(3))
    flipped = np.diag([1.0, -1.0, -1.0]) @ ring_poses(4)
    assert (upright_rotation(flipped, "up") @ flipped)[:, 2, 1].min() > 0


def test_what_cameras_look_at() -> None:
    ring = ring_poses(8)
    assert find_target(ring).is_outside_in and np.allclose(find_target(ring).center, 0, atol=1e-5)
    around = ring.copy()
    around[:, :, [0, 2]] *= -1  # the same cameras, looking outwards
    inside = find_target(around)
    assert not inside.is_outside_in and np.allclose(inside.center, ring[:, :, 3].mean(0))
    forward = np.tile(np.eye(3, 4), (9, 1, 1))
    forward[:, :2, 3] = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2)
    ahead = find_target(forward)
    assert ahead.center[2] < -5 and np.allclose(ahead.center[:2], 0, atol=1e-9)


def test_downscaling_scales_the_intrinsics(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path)
    half = parse(folder, downscale_factor=2.0)
    assert half.metadata["image_size_px"].tolist() == [[4, 3]] * 7
    cameras = half.cameras
    assert (cameras.width[0].item(), cameras.height[0].item()) == (4, 3)
    actual = [x[0].item() for x in (cameras.fx, cameras.fy, cameras.cx, cameras.cy)]
    assert actual == pytest.approx([FOCAL_PX / 2, (FOCAL_PX + 1) / 2, 4.25 / 2, 2.75 / 2])
    assert parse(folder, max_image_size_px=4).metadata["image_size_px"][0].tolist() == [4, 3]
    full = views_in(folder).bearings(0, np.array([[3.0, 5.0]]))
    halved = views_in(folder, downscale_factor=2.0).bearings(0, np.array([[1.5, 2.5]]))
    np.testing.assert_allclose(halved, full, atol=1e-6)


def test_noise_moves_training_poses_alone_and_repeats(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path, 16)
    noisy = parse(folder, pose_noise="l2g", pose_noise_seed=3)
    again = parse(folder, pose_noise="l2g", pose_noise_seed=3)
    other = parse(folder, pose_noise="l2g", pose_noise_seed=4)
    assert torch.equal(noisy.cameras.camera_to_worlds, again.cameras.camera_to_worlds)
    assert not torch.allclose(noisy.cameras.camera_to_worlds, other.cameras.camera_to_worlds, atol=1e-3)
    train = np.setdiff1d(np.arange(16), [0, 8])
    true = ring_poses(16)
    unit = np.linalg.norm(true[0, :, 3]) / 4.0311
    expected = perturb_poses(torch.from_numpy(true[train]), "l2g", 3, pivot=(0.0, 0.0, 0.0), unit=unit)
    np.testing.assert_allclose(user_poses(noisy), expected.numpy(), atol=1e-5)
    test = parse(folder, "test", pose_noise="l2g", pose_noise_seed=3)
    np.testing.assert_allclose(user_poses(test), true[[0, 8]], atol=1e-5)
    # Both splits live in one frame, which the noisy poses alone decide.
    assert torch.equal(test.dataparser_transform, noisy.dataparser_transform)
    reference = noisy.metadata["reference"]
    np.testing.assert_allclose(reference.train_c2w, true[train], atol=1e-12)
    np.testing.assert_allclose(reference.test_c2w, true[[0, 8]], atol=1e-12)


def test_true_poses_do_not_shape_what_training_sees(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path / "a", 16)
    truth = write_json(tmp_path / "truth.json", {"frames": frame_entries(ring_poses(16, radius=9.0, height=-2.0))})
    plain, with_truth = parse(folder), parse(folder, reference_poses=truth)
    assert torch.equal(plain.cameras.camera_to_worlds, with_truth.cameras.camera_to_worlds)
    assert torch.equal(plain.dataparser_transform, with_truth.dataparser_transform)
    assert plain.metadata["reference"] is None
    extra = with_truth.metadata.pop("reference")
    assert isinstance(extra, ReferencePoses)
    plain.metadata.pop("reference")
    assert with_truth.metadata.keys() == plain.metadata.keys()


def test_reference_poses_are_matched_by_name(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path / "a", 16)
    true = ring_poses(16, radius=7.0)
    shuffled = frame_entries(true, "elsewhere/{:03d}.jpg")[::-1]
    truth = write_json(tmp_path / "truth.json", {"frames": shuffled})
    reference = parse(folder, reference_poses=truth).metadata["reference"]
    np.testing.assert_allclose(reference.test_c2w, true[[0, 8]], atol=1e-12)
    np.testing.assert_allclose(reference.train_c2w, true[np.setdiff1d(np.arange(16), [0, 8])], atol=1e-12)
    edit_json(truth, frames=[entry for entry in shuffled if "000" not in entry["file_path"]])
    assert parse(folder, reference_poses=truth).metadata["reference"].test_c2w is None


def test_reference_from_folders_of_other_layouts(tmp_path: Path) -> None:
    blender = write_blender(tmp_path / "blender")
    given = parse(blender).metadata["reference"]
    read = parse(blender, reference_poses=blender).metadata["reference"]
    np.testing.assert_array_equal(read.train_c2w, given.train_c2w)
    np.testing.assert_array_equal(read.test_c2w, given.test_c2w)
    colmap = write_colmap(tmp_path / "colmap", 4)
    reference = parse(colmap, reference_poses=colmap).metadata["reference"]
    np.testing.assert_allclose(reference.train_c2w, ring_poses(4), atol=1e-12)


@pytest.mark.parametrize("model", ["OPENCV", "OPENCV_FISHEYE"])
def test_bearings_undistort_as_opencv_does(tmp_path: Path, model: str) -> None:
    import cv2

    size, distortion = (400, 300), [0.06, -0.03, 0.001, -0.002]
    folder = write_nerfstudio(tmp_path, 2, frames=frame_entries(ring_poses(2)))
    for number in range(2):
        save_image(folder / f"images/{number:03d}.png", size)
    names = ["k1", "k2", "k3", "k4"] if model == "OPENCV_FISHEYE" else ["k1", "k2", "p1", "p2"]
    camera = {"fl_x": 350.0, "fl_y": 340.0, "cx": 205.0, "cy": 148.0, "w": 400, "h": 300, "camera_model": model}
    edit_json(folder / "transforms.json", **camera, **dict(zip(names, distortion, strict=True)))
    keypoints = np.random.RandomState(0).uniform([0, 0], size, (50, 2))
    keypoints[0] = [205.0, 148.0]
    intrinsics = np.array([[350.0, 0, 205.0], [0, 340.0, 148.0], [0, 0, 1]])
    undistort = cv2.fisheye.undistortPoints if model == "OPENCV_FISHEYE" else cv2.undistortPoints
    plane = undistort(keypoints[:, None], intrinsics, np.array(distortion))[:, 0]
    expected = np.concatenate([plane * [1, -1], -np.ones((50, 1))], axis=1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    views = views_in(folder)
    np.testing.assert_allclose(views.bearings(1, keypoints), expected, atol=2e-5)
    assert views.focal_px.tolist() == [345.0, 345.0] and views.size_px.tolist() == [[400, 300]] * 2
    assert views.c2w.dtype == np.float64 and views.names == ["images/000.png", "images/001.png"]


def test_host_composites_alpha_over_the_chosen_colour(tmp_path: Path) -> None:
    folder = write_blender(tmp_path)
    for colour, value in (("white", 1.0), ("black", 0.0)):
        image = InputDataset(parse(folder, background_color=colour)).get_image_float32(0)
        assert image.shape[-1] == 3
        assert (image[:, : SIZE_PX[0] // 2] == value).all()


def test_masks_are_carried(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path, 3)
    entries = frame_entries(ring_poses(3))
    for number, entry in enumerate(entries):
        save_image(folder / f"masks/{number}.png")
        entry["mask_path"] = f"masks/{number}.png"
    edit_json(folder / "transforms.json", frames=entries)
    assert parse(folder).mask_filenames == [folder / f"masks/{number}.png" for number in range(3)]
    colmap = write_colmap(tmp_path / "colmap", 3)
    for number in range(3):
        save_image(colmap / f"masks/view_{number}.png.png")
    assert parse(colmap).mask_filenames[2].name == "view_2.png.png"


def test_rounded_rotations_are_made_orthonormal(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path, frames=frame_entries(ring_poses(8).round(4)))
    rotations = detect_and_read(folder).c2w[:, :, :3]
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (8, 1, 1)), atol=1e-12)


def test_host_function_inverts_our_transform(tmp_path: Path) -> None:
    outputs = parse(write_colmap(tmp_path, 9))
    back = transform_poses_to_original_space(
        outputs.cameras.camera_to_worlds, outputs.dataparser_transform, outputs.dataparser_scale, "opengl"
    )
    np.testing.assert_allclose(back, ring_poses(9)[1:8], atol=1e-5)


def test_a_file_names_test_images_unless_all_are_wanted(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path, 9)
    edit_json(folder / "transforms.json", test_filenames=["images/002.png", "images/005.png"])
    assert len(parse(folder).image_filenames) == 7
    assert len(parse(folder, eval_interval=0).image_filenames) == 9
    blender = write_blender(tmp_path / "blender", train=5, test=3)
    assert len(parse(blender, eval_interval=0).image_filenames) == 5
