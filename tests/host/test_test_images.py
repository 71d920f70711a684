"""Test images whose poses were given as roughly as the others' are placed with them, and learned from by nobody."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from craym_nerfstudio.geometry.alignment import align_poses, pose_errors
from craym_nerfstudio.pipeline import CraymPipelineConfig
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
    loaded = config.setup(device="cpu", test_mode="test")
    loaded.load_pipeline(trained.state_dict(), 0)
    for pipeline in (trained, loaded):
        cameras = pipeline.datamanager.eval_dataset.cameras.camera_to_worlds
        for poses in (pipeline.reference_to_model().poses(pipeline.given_test_c2w()), cameras):
            refined = pipeline.refined_c2w().double()
            aligned = align_poses(refined, truth[~is_test])
            errors = pose_errors(aligned.poses(refined), truth[~is_test])
            assert errors.rotation_deg.max() < 0.05
            turned = aligned.poses(poses.double())[..., :3] @ truth[is_test][..., :3].mT
            angles = torch.arccos(((turned.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(max=1.0)).rad2deg()
            assert angles.max() < 0.05


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
