"""The dataparser: finds out what lies in --data and brings it into the world frame."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from craym_nerfstudio.cameras.noise import PoseNoise, perturb_poses
from craym_nerfstudio.console import console
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.data.read_colmap import find_model, read_colmap
from craym_nerfstudio.data.read_transforms import BLENDER_TRAIN, read_blender, read_nerfstudio
from craym_nerfstudio.data.reference import ReferencePoses, read_reference
from craym_nerfstudio.data.world import BLENDER_CAMERA_DISTANCE, Orientation, find_target, find_world
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.images import alpha_use

_ACCEPTED = (
    "Accepted: a folder with transforms.json (nerfstudio), a path to such a JSON file, a folder with "
    "transforms_train.json (Blender), or a folder with images/ and sparse/0 (COLMAP)."
)
_FEWEST_TO_SPLIT = 8


@dataclass
class CraymDataParserConfig(DataParserConfig):
    """Images with rough poses: nerfstudio, Blender or COLMAP data, whichever lies in --data."""

    _target: type = field(default_factory=lambda: CraymDataParser)
    """Target class to instantiate."""
    data: Path = Path()
    """Folder with transforms.json, transforms_train.json or sparse/0, or a path to a transforms JSON file."""
    background_color: Literal["white", "black"] = "white"
    """Colour behind transparent pixels."""
    downscale_factor: float | None = None
    """Divide image width and height by this; by default just enough that they keep to max-image-size-px."""
    max_image_size_px: int = 1600
    """Longest image side when downscale-factor is not given."""
    eval_interval: int = 8
    """Every n-th image is a test image where the data names none; 0 trains on all images and tests on the same."""
    orientation: Orientation = "auto"
    """Turn the cameras' mean up direction to +z: always (up), never (none), or where it is far off (auto)."""
    auto_scale: bool = True
    """Centre and scale the poses so that what the cameras look at lies in the unit sphere."""
    pose_noise: PoseNoise = "none"
    """Perturb the training poses, to measure how well they are recovered."""
    pose_noise_seed: int = 0
    """Seed of the perturbation."""
    reference_poses: Path | None = None
    """True poses of the same images (matched by file name), for metrics alone."""


@dataclass(frozen=True)
class Scene:
    """A dataset as it was read: what all its splits share."""

    frames: Frames
    """All images at their target size, with the poses of the files."""
    train: Int[np.ndarray, " train"]
    test: Int[np.ndarray, " test"]
    rough_c2w: Float[np.ndarray, "train 3 4"]
    """Training poses with noise, in the data's frame."""
    world_from_data: Similarity
    has_alpha: bool


def detect_and_read(data: Path) -> Frames:
    """All images of a dataset, whichever layout it has.

    Raises:
        InputError: nothing that is accepted lies there, or what lies there cannot be used.
    """
    if data.is_file() and data.suffix.lower() == ".json":
        return read_blender(data.parent) if data.name == BLENDER_TRAIN else read_nerfstudio(data)
    if (data / "transforms.json").is_file():
        return read_nerfstudio(data / "transforms.json")
    if (data / BLENDER_TRAIN).is_file():
        return read_blender(data)
    model = find_model(data)
    if model is not None:
        return read_colmap(data, model)
    raise InputError("No dataset found" if data.exists() else "No such file or folder", data, _ACCEPTED)


class CraymDataParser(DataParser):
    """Reads a dataset once and serves its splits; training poses may carry noise, test poses never do."""

    config: CraymDataParserConfig
    _scene: Scene | None = None

    @property
    def scene(self) -> Scene:
        """The dataset, read at first use; the outputs carry its frames in single precision."""
        if self._scene is None:
            self._scene = _load_scene(self.config)
        return self._scene

    def _generate_dataparser_outputs(self, split: str = "train", **_: dict | None) -> DataparserOutputs:
        scene, world = self.scene, self.scene.world_from_data
        is_train = split == "train"
        indices = scene.train if is_train else scene.test
        frames = scene.frames.subset(indices)
        poses = world.poses(scene.rough_c2w if is_train else frames.c2w)
        metadata: dict[str, Any] = {
            "has_alpha": scene.has_alpha,
            "layout": frames.layout,
            "image_names": frames.names,
            "image_size_px": torch.from_numpy(frames.size_px),
            # The host's cameras carry them in single precision.
            "c2w": poses,
        }
        if is_train:
            metadata["reference"] = _reference(self.config, scene)
        return DataparserOutputs(
            image_filenames=frames.paths,
            cameras=_cameras(frames, poses),
            alpha_color=torch.full((3,), 1.0 if self.config.background_color == "white" else 0.0),
            scene_box=SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3])),
            mask_filenames=frames.mask_paths,
            metadata=metadata,
            # The host applies the scale last.
            dataparser_transform=torch.cat(
                [world.rotation, (world.translation / world.scale)[:, None]], dim=1
            ).float(),
            dataparser_scale=float(world.scale),
        )


def _load_scene(config: CraymDataParserConfig) -> Scene:
    frames = detect_and_read(config.data)
    frames = frames.scaled_to(_target_sizes(frames.size_px, config))
    train, test = _split(frames, config.eval_interval)
    alpha = alpha_use([frames.paths[index] for index in train])
    rough = _with_noise(frames.c2w[train], frames.layout, config)
    # From here on only the poses that training starts from decide: the true ones must not leak through the frame.
    # Blender scenes are upright by construction.
    orientation = "none" if config.orientation == "auto" and frames.layout == "blender" else config.orientation
    world = find_world(frames.subset(train), rough, alpha.is_isolated, orientation, config.auto_scale)
    return Scene(frames, train, test, rough, world, alpha.has_alpha)


def _target_sizes(size_px: Int[np.ndarray, "cams 2"], config: CraymDataParserConfig) -> Int[np.ndarray, "cams 2"]:
    factor = config.downscale_factor
    if factor is None:
        factor = max(1.0, size_px.max() / config.max_image_size_px)
    if not (math.isfinite(factor) and factor >= 1):
        raise InputError(f"downscale-factor is {factor}", None, "Give 1 or more; 2 halves width and height.")
    return np.maximum(np.round(size_px / factor).astype(np.int64), 1)


def _split(frames: Frames, interval: int) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """The files' own split, else every n-th image for testing; too few images serve for both."""
    everything = np.arange(len(frames))
    train, test = frames.train, frames.test
    if train is None or test is None:
        is_split = interval > 1 and len(frames) >= _FEWEST_TO_SPLIT
        train = everything[everything % interval != 0] if is_split else everything
        test = everything[everything % interval == 0] if is_split else everything[:0]
    if len(train) < 2:
        raise InputError(
            f"{len(train)} training image{'' if len(train) == 1 else 's'}; at least 2 are needed",
            frames.source,
            "Add images of the same scene.",
        )
    if len(test) == 0:
        console.print(f"[yellow]No test images: evaluation uses the {len(train)} training images.")
        test = train
    return train, test


def _with_noise(c2w: np.ndarray, layout: str, config: CraymDataParserConfig) -> Float[np.ndarray, "cams 3 4"]:
    if config.pose_noise == "none":
        return c2w
    pivot, unit = np.zeros(3), 1.0
    if layout != "blender":
        target = find_target(c2w)
        pivot, unit = target.center, target.distance / BLENDER_CAMERA_DISTANCE
    poses = torch.from_numpy(c2w)
    return perturb_poses(poses, config.pose_noise, config.pose_noise_seed, pivot=pivot.tolist(), unit=unit).numpy()


def _reference(config: CraymDataParserConfig, scene: Scene) -> ReferencePoses | None:
    frames, train, test = scene.frames, scene.train, scene.test
    if config.reference_poses is not None:
        names = [[frames.names[index] for index in indices] for indices in (train, test)]
        return read_reference(config.reference_poses, *names)
    if config.pose_noise != "none" or frames.layout == "blender":
        return ReferencePoses(frames.c2w[train], frames.c2w[test], str(frames.source))
    return None


def _cameras(frames: Frames, c2w: Float[np.ndarray, "cams 3 4"]) -> Cameras:
    intrinsics = torch.from_numpy(frames.intrinsics_px).float()
    size = torch.from_numpy(frames.size_px)
    return Cameras(
        camera_to_worlds=torch.from_numpy(c2w).float(),
        fx=intrinsics[:, 0:1],
        fy=intrinsics[:, 1:2],
        cx=intrinsics[:, 2:3],
        cy=intrinsics[:, 3:4],
        width=size[:, 0:1],
        height=size[:, 1:2],
        distortion_params=torch.from_numpy(frames.distortion).float(),
        camera_type=torch.tensor([[CameraType[kind].value] for kind in frames.camera_types]),
        metadata={},
    )


craym_data = DataParserSpecification(
    config=CraymDataParserConfig(), description="nerfstudio, Blender or COLMAP data, whichever lies in --data"
)
