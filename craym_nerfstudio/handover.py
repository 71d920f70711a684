"""What was found before training, handed to those who train: poses, matches, exposure, landmarks, photos to compare."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.console import console
from craym_nerfstudio.data.datamanager import CraymDataManager
from craym_nerfstudio.data.grey_photos import GreyPhotos
from craym_nerfstudio.data.outlines import Outlines
from craym_nerfstudio.fields.encoding import choose_backend
from craym_nerfstudio.kernels.threads import reserved_threads
from craym_nerfstudio.model import CraymModel
from craym_nerfstudio.sfm.result import StageZero
from craym_nerfstudio.start.exposure import find_exposure
from craym_nerfstudio.start.find import Start
from craym_nerfstudio.start.landmarks import Landmarks
from craym_nerfstudio.start.neighbours import neighbours_of
from craym_nerfstudio.start.silhouettes import Silhouettes

_UNTOLD_SIGMA_DEG = 0.3
"""Uncertainty of poses of which nothing tells, or with which silhouettes agree: it sets the size of their steps."""


def own_threads(model: CraymModel) -> AbstractContextManager:
    """How a training step shares the cores of a CPU: with the hash grid's kernels, they get all threads."""
    backend, _ = choose_backend(model.device, model.config.sdf_field.encoding)
    return reserved_threads() if backend == "cpu" else nullcontext()


def hand_over(
    start: Start | None, manager: CraymDataManager, model: CraymModel, *, ask_exposure: bool
) -> Float[Tensor, "cams 3"] | None:
    """Hand a start to data and model; without one a checkpoint will say more.

    Returns:
        Logarithm of what tells each training image's exposure from the mean, if photos are trained as if taken alike.
    """
    known: dict[str, Any] = {}
    log_gain = None
    if start is not None:
        known = {"start_c2w": torch.from_numpy(start.c2w), "fixed": torch.from_numpy(start.fixed)}
        if start.intrinsics:
            manager.calibrate(start.intrinsics, start.test_focal)
        if start.test_c2w is not None:
            manager.place_tests(torch.from_numpy(start.test_c2w))
        if start.matches:
            manager.draw_matches(start.matches)
            model.camera_optimizer.let_guard(start.matches, manager.views().focal_px)
            if ask_exposure and not model.has_alpha:
                log_gain = _even_exposure(manager, start)
        if start.world_from_unit:
            model.set_region(start.world_from_unit)
        if start.stage_zero is not None:
            known |= start.stage_zero.known_poses()
        if start.matches is None:
            known |= _without_matches(manager, model)
    given = manager.train_dataset.cameras.camera_to_worlds
    model.camera_optimizer.set_poses(given, center=model.center, **known)
    if start is not None and start.stage_zero is not None:
        stage = start.stage_zero.without_rays(start.stage_zero.lost)
        if model.config.landmark_loss_mult:
            _learn_landmarks(manager, model, stage)
        if model.config.consistency_loss_mult:
            _compare_photos(manager, model, stage)
    model.fill_grid()
    return log_gain


def _even_exposure(manager: CraymDataManager, start: Start) -> Float[Tensor, "cams 3"] | None:
    """Train photos that differ in exposure as if they had been taken alike."""
    assert start.matches is not None
    exposure = find_exposure(manager.train_images(), start.matches)
    if not exposure.needed:
        return None
    console.print(f"Exposure: {exposure.in_words}")
    log_gain = torch.from_numpy(exposure.log_gain).float()
    manager.train_images().gain = log_gain.exp().to(manager.device)
    return log_gain


def _without_matches(manager: CraymDataManager, model: CraymModel) -> dict[str, Tensor]:
    """What the camera optimizer is told of poses that no matches tell of: that they are about right, or nothing.

    Silhouettes that disagree let it move them at once, by themselves or by colours. All others wait for the field: as
    long as that is a blur, colours take photos with a background from 0.3 degrees to 2, and exact poses to 1.6.
    """
    config = model.config
    if config.camera_optimizer.mode == "off":
        return {}
    if model.has_alpha:
        if not config.silhouette_loss_mult:
            return {}
        found = Silhouettes.of(Outlines(manager.train_images()), manager.views())
        if found is not None:
            console.print(f"Silhouettes: {found.in_words}")
            if found.far_off:
                manager.outlines = found.outlines
                model.camera_optimizer.centering_steps = config.silhouette_steps[0]
            if not found.agree:
                return {}
    else:
        console.print("Poses: no matches tell of them; they wait for the field")
    count = len(manager.train_dataset)
    return {"settled": torch.ones(count, dtype=torch.bool), "sigma_deg": torch.full((count,), _UNTOLD_SIGMA_DEG)}


def _learn_landmarks(manager: CraymDataManager, model: CraymModel, stage: StageZero) -> None:
    """Start from the surface that stage 0's points tell of, where they do."""
    with console.status("Warm start: the surface between stage 0's points"):
        landmarks = Landmarks.of(stage, model.world_from_unit, model.device)
        if landmarks is not None:
            with own_threads(model):
                model.learn_landmarks(landmarks)
            if model.has_alpha:
                manager.train_images().draw_near_objects()
    none = "none, stage 0's points in the region are too few to tell of a surface"
    told = f"the field begins with the surface between {len(landmarks)} points of stage 0" if landmarks else none
    console.print(f"Warm start: {told}")


def _compare_photos(manager: CraymDataManager, model: CraymModel, stage: StageZero) -> None:
    """Let photos be compared on the surface, with the lenses as they are corrected by now."""
    cameras = manager.train_dataset.cameras
    if hindrance := GreyPhotos.hindrance(cameras):
        console.print(f"Photos are not compared patch by patch: {hindrance}")
    else:
        model.photos = GreyPhotos(manager.train_images(), cameras, neighbours_of(stage))
