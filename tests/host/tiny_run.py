"""Tiny runs of the real method for the host tests: data with exact matches, a small config, commands in a process."""

import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nerfstudio.engine.trainer import TrainerConfig

from craym_nerfstudio.fields.sdf_field import SDFFieldConfig
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.methods import craym_lite
from samples.analytic_scene import (
    Scene,
    WrittenScene,
    extract_mesh,
    project_to_surface,
    sample_mesh,
    tiny_scene,
    trace,
    write_blender_scene,
)

SIZE_PX, TRAIN, TEST = 48, 12, 3
STEPS = 60
MATCHES_NAME = "matches.npz"
"""Images of 48 px hold too little to find any: training starts from the input poses with exact matches."""
SAVED_STEP = 29
"""Training stops here once and goes on from the checkpoint: 30 steps, then 30 more."""

TINY_FIELD = SDFFieldConfig(num_levels=4, log2_table_size=12, base_resolution=8, cells_per_pixel=0.8, hidden_width=32)
TINY_FLAGS = [
    *("--pipeline.model.sdf-field.num-levels", "4", "--pipeline.model.sdf-field.log2-table-size", "12"),
    *("--pipeline.model.grid-resolution", "16", "--pipeline.model.fine-samples", "8"),
    *("--pipeline.datamanager.train-num-rays-per-batch", "256"),
    *("--pipeline.start.matcher", "none", "--pipeline.test-pose-steps", "0"),
    *("--optimizers.fields.scheduler.warmup-steps", "10"),
]
"""The same for the command line."""


@dataclass(frozen=True)
class TinyData:
    """A Blender dataset of the tiny scene, with the matches that perfect eyes would find in it."""

    folder: Path
    scene: Scene
    cameras: WrittenScene
    matches: Matches


def write_tiny_data(folder: Path) -> TinyData:
    """12 training and 3 test images of 48 x 48 px."""
    scene = tiny_scene()
    cameras = write_blender_scene(folder, scene, TRAIN, TEST, SIZE_PX, samples_per_axis=1)
    matches = exact_matches(scene, cameras)
    matches.save(folder / MATCHES_NAME)
    return TinyData(folder, scene, cameras, matches)


def exact_matches(scene: Scene, cameras: WrittenScene, count: int = 150) -> Matches:
    """Matches of `count` points of the surface between all training cameras that see them."""
    points = project_to_surface(scene, sample_mesh(*extract_mesh(scene, 24), count))
    seen, bearings = [], []
    for c2w in cameras.train_c2w:
        offset = points - c2w[:, 3]
        distance = np.linalg.norm(offset, axis=-1)
        directions = offset / distance[:, None]
        hits = trace(scene, np.broadcast_to(c2w[:, 3], directions.shape), directions)
        seen.append(np.abs(hits.depth - distance) < 0.02)
        bearings.append(directions @ c2w[:, :3])
    local = np.stack(bearings)
    keypoints = 0.5 * SIZE_PX + cameras.focal_px * local[..., :2] / -local[..., 2:] * [1.0, -1.0]
    chosen = [(i, j) for i in range(TRAIN) for j in range(i + 1, TRAIN) if (seen[i] & seen[j]).sum() >= 8]
    common = [np.flatnonzero(seen[i] & seen[j]) for i, j in chosen]
    pairs, ids = np.array(chosen, dtype=np.int32), np.concatenate(common).astype(np.int32)
    pair_of_match = np.repeat(np.arange(len(pairs), dtype=np.int32), [len(found) for found in common])
    views = pairs[pair_of_match].T
    first, second = cameras.train_c2w[pairs[:, 0]], cameras.train_c2w[pairs[:, 1]]
    translation = ((first[..., 3] - second[..., 3])[:, None] @ second[..., :3])[:, 0]
    return Matches(
        names=[f"train/r_{number}.png" for number in range(TRAIN)],
        size_px=np.full((TRAIN, 2), SIZE_PX),
        pairs=pairs,
        rotation=second[..., :3].transpose(0, 2, 1) @ first[..., :3],
        translation=translation / np.linalg.norm(translation, axis=-1, keepdims=True),
        pair_of_match=pair_of_match,
        keypoints=np.stack([keypoints[view, ids] for view in views], axis=1).astype(np.float32),
        keypoint_ids=np.stack([ids, ids], axis=1),
        bearings=np.stack([local[view, ids] for view in views], axis=1).astype(np.float32),
        confidence=np.ones(len(ids), dtype=np.float32),
        detector="exact",
    )


def tiny_config(data: Path, output_dir: Path, steps: int = STEPS, **changes: Any) -> TrainerConfig:
    """`craym-lite`, as small as it gets, on tiny data; it keeps all its checkpoints and opens no viewer."""
    config = deepcopy(craym_lite.config)
    config = replace(config, data=data, output_dir=output_dir, max_num_iterations=steps, vis="tensorboard", **changes)
    config.timestamp, config.save_only_latest_checkpoint = "tiny", False
    config.steps_per_save, config.steps_per_eval_image = SAVED_STEP, 10_000
    config.viewer.quit_on_train_completion = True
    config.logging.local_writer.enable = False
    config.pipeline.test_pose_steps, config.pipeline.test_pose_rays = 5, 64
    manager, model = config.pipeline.datamanager, config.pipeline.model
    manager.data, manager.dataparser.pose_noise, manager.train_num_rays_per_batch = data, "l2g-low", 256
    manager.num_patches, manager.num_key_pairs, manager.num_epipolar_pairs = 1, 8, 64
    start = config.pipeline.start
    start.cache_dir, start.matches, start.pose_init = output_dir / "cache", data / MATCHES_NAME, "input"
    model.sdf_field, model.grid_resolution = deepcopy(TINY_FIELD), 16
    model.fine_samples, model.steps_per_level = 8, 15
    model.point_alignment_steps = (20, 40)
    config.optimizers["fields"]["scheduler"].warmup_steps = 10
    return config


def command(*arguments: str) -> list[str]:
    """The command line of ``ns-train craym-lite`` of this Python."""
    return [sys.executable, "-m", "nerfstudio.scripts.train", "craym-lite", *arguments]


def start(arguments: list[str], log: Path) -> subprocess.Popen:
    """Start a process on one core whose output goes to a file."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}
    with log.open("w") as stream:
        return subprocess.Popen(arguments, stdout=stream, stderr=subprocess.STDOUT, env=environment, cwd=log.parent)
