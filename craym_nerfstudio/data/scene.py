"""A dataset as it was read: images, rough poses and split, and where its world lies."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from craym_nerfstudio.cameras.noise import BLENDER_CAMERA_DISTANCE, focal_noise, perturb_poses
from craym_nerfstudio.console import warn
from craym_nerfstudio.data.colmap_model import find_model
from craym_nerfstudio.data.config import AskedRegion, MissingImages, SceneConfig
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.data.read_colmap import read_colmap
from craym_nerfstudio.data.read_llff import LLFF_POSES, read_llff
from craym_nerfstudio.data.read_neus import find_neus, read_neus
from craym_nerfstudio.data.read_photos import is_photos, read_unposed
from craym_nerfstudio.data.read_pose_text import find_pose_text, read_pose_text
from craym_nerfstudio.data.read_transforms import BLENDER_TRAIN, read_blender, read_nerfstudio
from craym_nerfstudio.data.reference import ReferencePoses, read_reference
from craym_nerfstudio.data.remarks import (
    check_focals,
    remark_centers,
    remark_equal_poses,
    remark_trained_tests,
    remark_unused_images,
    without_copies,
)
from craym_nerfstudio.data.unread import refuse_captures, refuse_unread_poses, what_is_there
from craym_nerfstudio.data.views import views_of
from craym_nerfstudio.data.world import find_target, find_world
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.images import alpha_use
from craym_nerfstudio.matching.views import Views

_ACCEPTED = (
    "Accepted: a folder with transforms.json (nerfstudio), a path to such a JSON file, a folder with "
    "transforms_train.json (Blender), a folder with images/ and sparse/0 (COLMAP), one with poses_bounds.npy (LLFF) or "
    "cameras_sphere.npz (NeuS), images with their poses as text, a folder of photos, or a video."
)
_FEWEST_TO_SPLIT = 8
_MATCHED_PX = 800
"""Longest side of images as they are matched, at least: keypoints of larger ones lie closer, however small those are
that the field learns from (temple_ring, ten degrees: stage 0 ends at 0.109 degrees from 400 px, at 0.079 from 640)."""


@dataclass(frozen=True)
class Scene:
    """What all splits of a dataset share; poses are in the data's frame."""

    original: Frames
    """All images as the files describe them, but for noise on focal lengths where it was asked for."""
    frames: Frames
    """The same at the size they are trained at."""
    train: Int[np.ndarray, " train"]
    test: Int[np.ndarray, " test"]
    rough_c2w: Float[np.ndarray, "train 3 4"]
    """Training poses, with noise where it was asked for."""
    world_from_data: Similarity
    has_alpha: bool
    reference: ReferencePoses | None
    """True poses, for metrics alone."""
    tests_are_rough: bool = False
    """Whether the given poses of the test images are as rough as the others', so that matches must find them too."""
    asked_region: AskedRegion = field(default_factory=AskedRegion)

    @property
    def views(self) -> Views:
        """The training images as matching sees them, in the data's frame."""
        return views_of(self.frames.subset(self.train), self.rough_c2w)

    def posed_views(self, with_tests: bool = True) -> Views:
        """The images whose poses are to be found, in the data's frame, at the size at which keypoints are sought.

        In the order of the files: the training images and, where theirs are as rough, the test images, if asked for.
        """
        c2w = self.original.c2w.copy()
        c2w[self.train] = self.rough_c2w
        posed = np.union1d(self.train, self.test) if self.tests_are_rough and with_tests else self.train
        longest_px = max(_MATCHED_PX, int(self.frames.size_px.max()))
        frames = self.original.scaled_to(_shrunk(self.original.size_px, longest_px))
        return replace(views_of(frames.subset(posed), c2w[posed]), is_test=~np.isin(posed, self.train))


def detect_and_read(data: Path, missing: MissingImages = "skip") -> Frames:
    """All images of a dataset, whichever layout it has; what is odd about it is said.

    Raises:
        InputError: nothing that is accepted lies there, or what lies there cannot be used.
    """
    frames = _read(data, missing)
    frames = remark_unused_images(frames)
    frames = without_copies(frames)
    remark_trained_tests(frames)
    remark_equal_poses(frames)
    check_focals(frames)
    remark_centers(frames)
    return frames


def _read(data: Path, missing: MissingImages) -> Frames:
    if data.is_file() and data.suffix.lower() == ".json":
        return read_blender(data.parent, missing) if data.name == BLENDER_TRAIN else read_nerfstudio(data, missing)
    if (data / "transforms.json").is_file():
        return read_nerfstudio(data / "transforms.json", missing)
    if (data / BLENDER_TRAIN).is_file():
        return read_blender(data, missing)
    model = find_model(data)
    if model is not None:
        return read_colmap(data, model, missing=missing)
    if (data / LLFF_POSES).is_file():
        return read_llff(data)
    matrices = find_neus(data)
    if matrices is not None:
        return read_neus(data, matrices)
    poses = find_pose_text(data)
    if poses is not None:
        return read_pose_text(data, poses, missing)
    refuse_captures(data)
    if is_photos(data):
        refuse_unread_poses(data)
        return read_unposed(data)
    problem = "No dataset found" if data.exists() else "No such file or folder"
    raise InputError(problem, data, _ACCEPTED + what_is_there(data))


def read_scene(config: SceneConfig) -> Scene:
    """Read a dataset, choose its split and find its world frame.

    Raises:
        InputError: anything in it that cannot be used.
    """
    _check_numbers(config)
    asked = AskedRegion(config.region_center, config.region_radius, config.region_scale)
    original = detect_and_read(config.data, config.missing_images)
    frames = original.scaled_to(_target_sizes(original.size_px, config))
    train, test = _split(frames, config.eval_interval)
    has_alpha, is_isolated = alpha_use([frames.paths[index] for index in train])
    rough = _with_noise(frames.c2w[train], frames.layout, config)
    true_frames = frames
    original, frames = (_with_focal_noise(each, train, config) for each in (original, frames))
    # From here on only the poses that training starts from decide: the true ones must not leak through the frame.
    # Blender scenes are upright by construction.
    orientation = "none" if config.orientation == "auto" and frames.layout == "blender" else config.orientation
    world = find_world(frames.subset(train), rough, is_isolated, orientation, config.auto_scale)
    reference = _reference(config, true_frames, train, test)
    # Blender's test views come from a file of their own, and noise is for training alone: both are exact.
    are_rough = frames.layout != "blender" and config.pose_noise == "none"
    return Scene(original, frames, train, test, rough, world, has_alpha, reference, are_rough, asked)


def _check_numbers(config: SceneConfig) -> None:
    """Before anything is read, which takes minutes where photos have to be placed."""
    factor = config.downscale_factor
    if factor is not None and not (math.isfinite(factor) and factor >= 1):
        raise InputError(f"downscale-factor is {factor}", None, "Give 1 or more; 2 halves width and height.")
    for name, number, least in (
        ("max-image-size-px", config.max_image_size_px, 1),
        ("eval-interval", config.eval_interval, 0),
    ):
        if number < least:
            raise InputError(f"{name} is {number}", None, f"Give {least} or more.")
    for name, value in (("region-radius", config.region_radius), ("region-scale", config.region_scale)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} is {value}", None, "Give a number above 0.")


def _target_sizes(size_px: Int[np.ndarray, "cams 2"], config: SceneConfig) -> Int[np.ndarray, "cams 2"]:
    factor = config.downscale_factor
    if factor is None:
        return _shrunk(size_px, config.max_image_size_px)
    return _divided(size_px, factor)


def _shrunk(size_px: Int[np.ndarray, "cams 2"], longest_px: int) -> Int[np.ndarray, "cams 2"]:
    """Sizes divided alike, so that no side is longer; as they are where none is."""
    return _divided(size_px, max(1.0, size_px.max() / longest_px))


def _divided(size_px: Int[np.ndarray, "cams 2"], factor: float) -> Int[np.ndarray, "cams 2"]:
    return np.maximum(np.round(size_px / factor).astype(np.int64), 1)


def _split(frames: Frames, interval: int) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """The files' own split, else every n-th image for testing; too few images serve for both.

    An interval of 0 trains on all images, but for the test file of Blender scenes, whose poses are exact.
    """
    everything = np.arange(len(frames))
    train, test = frames.train, frames.test
    if train is None or test is None or (interval == 0 and frames.layout != "blender"):
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
        if interval > 0:
            warn(f"No test images: evaluation uses the {len(train)} training images.")
        test = train
    return train, test


def _with_noise(c2w: np.ndarray, layout: str, config: SceneConfig) -> Float[np.ndarray, "cams 3 4"]:
    if config.pose_noise == "none":
        return c2w
    pivot, unit = np.zeros(3), 1.0
    if layout != "blender":
        target = find_target(c2w)
        pivot, unit = target.center, target.distance / BLENDER_CAMERA_DISTANCE
    poses = torch.from_numpy(c2w)
    return perturb_poses(poses, config.pose_noise, config.pose_noise_seed, pivot=pivot.tolist(), unit=unit).numpy()


def _with_focal_noise(frames: Frames, train: Int[np.ndarray, " train"], config: SceneConfig) -> Frames:
    """With focal lengths and principal points of the training images as the noise protocol has them."""
    factors = focal_noise(len(train), config.pose_noise, config.pose_noise_seed)
    if factors is None:
        return frames
    intrinsics_px = frames.intrinsics_px.copy()
    intrinsics_px[train, :2] *= factors[:, None]
    intrinsics_px[train, 2:] = frames.size_px[train] / 2
    return replace(frames, intrinsics_px=intrinsics_px)


def _reference(
    config: SceneConfig, frames: Frames, train: Int[np.ndarray, " train"], test: Int[np.ndarray, " test"]
) -> ReferencePoses | None:
    """True poses: those of a file, or the data's own where noise was added or a scene is rendered."""
    has_focal_noise = focal_noise(1, config.pose_noise, config.pose_noise_seed) is not None
    focal_px = frames.intrinsics_px[train, :2].mean(-1) if has_focal_noise else None
    if config.reference_poses is not None:
        names = [[frames.names[index] for index in indices] for indices in (train, test)]
        return replace(read_reference(config.reference_poses, *names), train_focal_px=focal_px)
    if config.pose_noise != "none" or frames.layout == "blender":
        return ReferencePoses(frames.c2w[train], frames.c2w[test], str(frames.source), focal_px)
    return None
