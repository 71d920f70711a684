"""What feed-forward networks write: a camera for each image, in the pixels of another size; and noise like theirs."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from craym_nerfstudio.cameras.noise import focal_noise
from craym_nerfstudio.data.config import SceneConfig
from craym_nerfstudio.data.scene import detect_and_read, read_scene
from craym_nerfstudio.errors import InputError
from tests.data.tiny_data import (
    FOCAL_PX,
    edit_json,
    frame_entries,
    ring_poses,
    save_image,
    write_blender,
    write_json,
    write_nerfstudio,
)


def test_intrinsics_of_each_frame_in_the_pixels_of_another_size(tmp_path: Path) -> None:
    """A network that shrank each image by its own factor: 2 and 4 times the size of the files, and theirs."""
    folder = write_nerfstudio(tmp_path, 3)
    frames = frame_entries(ring_poses(3))
    for frame, factor in zip(frames, (2, 4, 1), strict=True):
        focal = (10 + factor) * factor
        frame.update(fl_x=focal, fl_y=focal, cx=4 * factor, cy=3 * factor, w=8 * factor, h=6 * factor)
    write_json(folder / "transforms.json", {"frames": frames})
    read = detect_and_read(folder)
    np.testing.assert_allclose(read.intrinsics_px, [[10 + f, 10 + f, 4, 3] for f in (2, 4, 1)])
    assert read.size_px.tolist() == [[8, 6]] * 3


def test_test_images_of_which_no_errors_are_said(tmp_path: Path) -> None:
    """Of a scene in two files the second often says nothing of poses, which are exact there."""
    folder = write_blender(tmp_path)
    edit_json(folder / "transforms_train.json", pose_sigma_deg=1.5)
    frames = detect_and_read(folder)
    sigma, train = frames.pose_sigma_deg, frames.train
    assert sigma is not None and train is not None and frames.pose_sigma is None
    assert (sigma[train] == 1.5).all() and np.isnan(sigma[frames.test]).all()


@pytest.mark.parametrize("text", [False, True])
def test_one_camera_per_image_in_the_pixels_of_another_size(
    tmp_path: Path, text: bool, capsys: pytest.CaptureFixture
) -> None:
    """As networks write it, which shrink images first: focals of 20, 21... px for 16 x 12 px, files of 8 x 6 px."""
    reconstruction = pycolmap.Reconstruction()
    kinds = [
        ("PINHOLE", [20.0, 20.5, 8.0, 6.0]),
        ("SIMPLE_PINHOLE", [21.0, 8.0, 6.0]),
        ("PINHOLE", [22.0] * 2 + [8.0, 6.0]),
    ]
    for number, (pose, (model, parameters)) in enumerate(zip(ring_poses(3), kinds, strict=True)):
        camera = pycolmap.Camera(model=model, width=16, height=12, params=parameters, camera_id=number + 1)
        reconstruction.add_camera_with_trivial_rig(camera)
        opencv = pose * np.array([1.0, -1.0, -1.0, 1.0])
        world_to_camera = np.concatenate([opencv[:, :3].T, -opencv[:, :3].T @ opencv[:, 3:]], axis=1)
        image = pycolmap.Image(name=f"{number}.png", camera_id=number + 1, image_id=number + 1)
        reconstruction.add_image_with_trivial_frame(image, pycolmap.Rigid3d(world_to_camera))
        save_image(tmp_path / f"images/{number}.png", seed=number)
    model = tmp_path / "sparse/0"
    model.mkdir(parents=True)
    (reconstruction.write_text if text else reconstruction.write_binary)(str(model))
    frames = detect_and_read(tmp_path)
    expected = [[10.0, 10.25, 4.0, 3.0], [10.5, 10.5, 4.0, 3.0], [11.0, 11.0, 4.0, 3.0]]
    np.testing.assert_allclose(frames.intrinsics_px, expected)
    np.testing.assert_allclose(frames.c2w, ring_poses(3), atol=1e-12)
    assert frames.size_px.tolist() == [[8, 6]] * 3 and not frames.distortion.any()
    assert "3 of 3 images have another size" in capsys.readouterr().out


def test_network_noise_reaches_the_lenses_of_training_alone(tmp_path: Path) -> None:
    config = SceneConfig(write_nerfstudio(tmp_path, 16), pose_noise="network", pose_noise_seed=3, downscale_factor=2.0)
    scene = read_scene(config)
    factors = focal_noise(14, "network", 3)
    assert factors is not None and scene.reference is not None
    np.testing.assert_allclose(scene.views.focal_px, (FOCAL_PX + 0.5) / 2 * factors)
    np.testing.assert_allclose(scene.original.intrinsics_px[scene.train, 0], FOCAL_PX * factors)
    np.testing.assert_allclose(scene.frames.intrinsics_px[scene.train, 2:], [[2.0, 1.5]] * 14)
    np.testing.assert_allclose(scene.frames.intrinsics_px[scene.test], [[5.0, 5.5, 4.25 / 2, 2.75 / 2]] * 2)
    np.testing.assert_allclose(scene.reference.train_focal_px, (FOCAL_PX + 0.5) / 2)


def test_errors_of_poses_are_read_per_frame_and_for_all(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path, 4, pose_sigma_deg=1.5)
    content = edit_json(folder / "transforms.json")
    content["frames"][2] |= {"pose_sigma_deg": 0.1, "pose_sigma": 0.25}
    edit_json(folder / "transforms.json", frames=content["frames"])
    frames = detect_and_read(folder)
    assert frames.pose_sigma_deg is not None and frames.pose_sigma is not None
    assert frames.pose_sigma_deg.tolist() == [1.5, 1.5, 0.1, 1.5]
    assert np.isnan(frames.pose_sigma[[0, 1, 3]]).all() and frames.pose_sigma[2] == 0.25
    priors = read_scene(SceneConfig(folder, eval_interval=0)).views.priors
    assert priors is not None and priors.rotation_sigma_deg.tolist() == [1.5, 1.5, 0.1, 1.5]
    edit_json(folder / "transforms.json", pose_sigma_deg=0)
    with pytest.raises(InputError, match="pose_sigma_deg"):
        detect_and_read(folder)
