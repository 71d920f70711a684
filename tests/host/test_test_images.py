"""Test images whose poses were given as roughly as the others' are placed with them, and learned from by nobody."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from craym_nerfstudio.geometry.alignment import Similarity, pose_errors
from craym_nerfstudio.pipeline import CraymPipelineConfig
from craym_nerfstudio.sfm.result import Intrinsics
from craym_nerfstudio.start.find import Start
from tests.host.tiny_run import MATCHES_NAME, SIZE_PX, TinyData, tiny_config
from tests.sfm.synthetic import disturbed

IMAGES = 10
TEST = (3, 7)


@pytest.fixture
def config(tiny_data: TinyData, tmp_path: Path) -> CraymPipelineConfig:
    """Ten of the tiny images with poses five degrees off, two of them for testing."""
    names = [f"train/r_{number}.png" for number in range(IMAGES)]
    poses = disturbed(torch.from_numpy(tiny_data.cameras.train_c2w[:IMAGES]), 5.0, 0.1)
    frames = [
        {
            "file_path": str(tiny_data.folder / name),
            "transform_matrix": [*pose.tolist(), [0, 0, 0, 1]],
        }
        for name, pose in zip(names, poses, strict=True)
    ]
    listed = [frame["file_path"] for frame in frames]
    content = {
        **{"fl_x": tiny_data.cameras.focal_px, "fl_y": tiny_data.cameras.focal_px, "w": SIZE_PX, "h": SIZE_PX},
        **{"cx": SIZE_PX / 2, "cy": SIZE_PX / 2, "frames": frames},
        "train_filenames": [name for number, name in enumerate(listed) if number not in TEST],
        "test_filenames": [listed[number] for number in TEST],
    }
    data = tmp_path / "transforms.json"
    data.write_text(json.dumps(content))
    sizes = np.full((IMAGES, 2), SIZE_PX)
    result = tiny_config(tiny_data.folder, tmp_path).pipeline
    result.datamanager.data, result.datamanager.dataparser.pose_noise = data, "none"
    matches = tiny_data.matches.between(names, sizes)
    matches.names[:] = result.setup(device="cpu", test_mode="inference").datamanager.posed_views().names
    matches.save(tmp_path / MATCHES_NAME)
    result.start.matches, result.start.pose_init = tmp_path / MATCHES_NAME, "matched-rays"
    return result


def test_test_images_are_placed_with_the_others(tiny_data: TinyData, config: CraymPipelineConfig) -> None:
    truth = torch.from_numpy(tiny_data.cameras.train_c2w[:IMAGES])
    is_test = torch.tensor([number in TEST for number in range(IMAGES)])
    trained = config.setup(device="cpu", test_mode="val")
    assert trained.stage_zero is not None and trained.start is not None and trained.start.matches is not None
    # What training sees has no trace of them.
    assert len(trained.stage_zero.names) == IMAGES - len(TEST) == len(trained.start.matches.names)
    assert trained.stage_zero.ray_image.max() < IMAGES - len(TEST)
    # Training may move all cameras as one; test cameras follow, also in whoever loads the checkpoint.
    optimizer = trained.craym_model.camera_optimizer
    started = optimizer.start_c2w.clone()
    moved = Similarity.of(1.1, rotation_z(20.0), np.array([0.3, 0.0, 0.1])).poses(started.double()).float()
    trained.craym_model.camera_optimizer.optimised_c2w = lambda: moved  # type: ignore[method-assign]
    loaded = config.setup(device="cpu", test_mode="test")
    loaded.craym_model.camera_optimizer.optimised_c2w = lambda: moved
    loaded.load_pipeline(trained.state_dict(), 0)
    for pipeline, settled in ((trained, False), (loaded, True)):
        poses = pipeline.placed_test_c2w()
        errors = pose_errors(torch.cat([moved.double(), poses]), torch.cat([truth[~is_test], truth[is_test]]))
        assert errors.rotation_deg.max() < 0.05 and errors.translation_x100_mean < 0.5
        if settled:
            cameras = pipeline.datamanager.eval_dataset.cameras.camera_to_worlds
            torch.testing.assert_close(cameras, poses.float())


def rotation_z(angle_deg: float) -> np.ndarray:
    cosine, sine = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def test_focal_lengths_of_test_images_are_kept(tiny_data: TinyData, config: CraymPipelineConfig) -> None:
    manager = config.setup(device="cpu", test_mode="inference").datamanager
    views, test = manager.views(), manager.eval_dataset.cameras
    own = tuple(np.linspace(0.97, 1.03, len(views.names)).tolist())
    start = Start(
        views.c2w,
        np.zeros(len(views.names), dtype=bool),
        intrinsics=Intrinsics(1.25, own_focal=own),
        test_c2w=test.camera_to_worlds.numpy() + 0.1,
        test_focal=(0.9, 1.2),
    )
    trained = config.setup(device="cpu", test_mode="val", start=start)
    loaded, resumed = config.setup(device="cpu", test_mode="inference"), config.setup(device="cpu", test_mode="val")
    for pipeline in (loaded, resumed):
        pipeline.load_pipeline(trained.state_dict(), 0)
    for pipeline in (trained, loaded, resumed):
        cameras = pipeline.datamanager.eval_dataset.cameras
        torch.testing.assert_close(cameras.fx, 1.25 * torch.tensor([[0.9], [1.2]]) * test.fx, rtol=1e-3, atol=0)
        torch.testing.assert_close(cameras.camera_to_worlds, test.camera_to_worlds + 0.1, rtol=0, atol=1e-5)
    # Other test images than at that time have the poses and lenses that the data says.
    state = trained.state_dict()
    state["test_c2w"], state["test_focal"] = state["test_c2w"][:1], state["test_focal"][:1]
    again = config.setup(device="cpu", test_mode="inference")
    again.load_pipeline(state, 0)
    torch.testing.assert_close(again.datamanager.eval_dataset.cameras.fx, 1.25 * test.fx, rtol=1e-3, atol=0)


def test_test_images_whose_poses_are_exact_stay_where_they_are(
    tiny_data: TinyData, config: CraymPipelineConfig
) -> None:
    config.datamanager.dataparser.pose_noise = "real"
    manager = config.setup(device="cpu", test_mode="inference").datamanager
    assert manager.posed_views().names == manager.views().names
    config.datamanager.data = tiny_data.folder
    config.datamanager.dataparser.pose_noise = "none"
    manager = config.setup(device="cpu", test_mode="inference").datamanager
    assert manager.posed_views().names == manager.views().names


def test_copies_of_training_images_among_exact_ones_stay_too(tiny_data: TinyData, config: CraymPipelineConfig) -> None:
    """Their names are those of training images; their poses are not."""
    source = tiny_data.folder
    content = json.loads((source / "transforms_train.json").read_text())
    for frame in content["frames"]:
        frame["file_path"] = str(source / frame["file_path"])
    folder = config.datamanager.data.parent / "copies"
    folder.mkdir()
    (folder / "transforms_train.json").write_text(json.dumps(content))
    (folder / "transforms_test.json").write_text(json.dumps({**content, "frames": content["frames"][:3]}))
    config.datamanager.data, config.datamanager.dataparser.pose_noise = folder, "real"
    manager = config.setup(device="cpu", test_mode="inference").datamanager
    assert len(manager.scene.test) == 3 and manager.test_names == []
