"""Cameras that stage 0 has lost, found again by their photos in the field that the other photos have taught.

They were only predicted, or adjusted to matches that they do not fit. Their photos wait until then: at poses that are
off they would only teach the field what is not there.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from craym_nerfstudio.cameras.photometric import frozen
from craym_nerfstudio.cameras.search import Photo, Sought, errors, seek, spread_of_predictions
from craym_nerfstudio.console import console, track
from craym_nerfstudio.data.datamanager import CraymDataManager
from craym_nerfstudio.geometry.lie import rotation_angle_deg
from craym_nerfstudio.model import CraymModel
from craym_nerfstudio.pictures import traced
from craym_nerfstudio.sfm.absolute_pose import predict
from craym_nerfstudio.sfm.result import StageZero

_NEAR_TURN, _NEAR_SHIFT = math.radians(2.0), 0.03
"""Predictions that are off by less than this, in turns and in shares of the distance to the scene, are near."""
_BETTER = 0.75
"""A pose is taken whose error is at most this share of the guess's."""
_SURE_DEG, _SHARP = 2.0, 1.3
"""A photo is trained on where no pose as good is turned from it by more than this, and where its error is at most so
many times the largest of known cameras that are looked at: others are blurred, or show what is not there."""
_LOOKED_AT, _SIDE = 12, 64
"""Known cameras, by pictures of this side."""
_RAYS = 1 << 16
"""Traced at a time."""


class Relocation:
    """The lost cameras of a training, and what becomes of them."""

    def __init__(
        self,
        model: CraymModel,
        manager: CraymDataManager,
        lost: Bool[np.ndarray, " cams"],
        spread: Float[Tensor, "6 6"],
    ) -> None:
        """Leave the photos of the lost cameras out; where those are, is known up to a `spread`."""
        self.model, self.manager, self.lost, self.spread = model, manager, lost, spread
        self.found, self.trained = np.zeros_like(lost), np.zeros_like(lost)
        """Cameras whose poses came from their photos, and those whose photos are trained on."""
        self.searched = False
        manager.train_images().leave_out(torch.from_numpy(lost))

    @classmethod
    def of(cls, model: CraymModel, manager: CraymDataManager, stage: StageZero) -> "Relocation | None":
        """None where no camera is lost; those that are predicted well are not: training mends them by itself."""
        optimizer, lost = model.camera_optimizer, stage.lost
        if not lost.any() or optimizer.config.mode == "off":
            return None
        poses = optimizer.optimised_c2w().detach()
        spread = spread_of_predictions(optimizer.input_c2w, poses, lost, optimizer.pivot_distance)
        if spread[:3].norm() < _NEAR_TURN and spread[3:].norm() < _NEAR_SHIFT:
            lost = lost & stage.registered
        if not lost.any():
            return None
        step = optimizer.config.settled_delay_steps
        console.print(f"Lost cameras: {lost.sum()} photos are left out until step {step}, when the field is searched")
        return cls(model, manager, lost, spread)

    def search(self, *, final: bool = False) -> None:
        """Look for cameras in the field as it is, and say what was found.

        Photos of those that are sure are trained on from now on. In the `final` search, after the last step, those that
        are not get poses once more: the field is sharper.
        """
        optimizer = self.model.camera_optimizer
        numbers = np.flatnonzero(self.lost & ~self.trained).tolist()
        poses, reach = optimizer.optimised_c2w().detach(), optimizer.pivot_distance
        likely = predict(poses.cpu().double(), optimizer.input_c2w.cpu().double(), ~self.lost).to(poses)
        generator, sought = torch.Generator().manual_seed(self.model.config.seed), {}
        with self._looking():
            usual = self._usual_error(poses)
            for number in track(numbers, "Lost cameras"):
                photo, far, guesses = self._photo(number), float(reach[number]), torch.stack([poses, likely])[:, number]
                sought[number] = seek(self._draw, self._render, photo, guesses, far, self.spread, generator)
        moved = np.zeros_like(self.lost)
        for number, result in sought.items():
            moved[number] = result.error <= (1.0 if self.found[number] else _BETTER) * result.error_before
            sees_the_scene = (result.error if moved[number] else result.error_before) <= _SHARP * usual
            is_sure = sees_the_scene and (result.uncertain_deg <= _SURE_DEG or not moved[number])
            self.trained[number] = is_sure and not final
            if moved[number]:
                optimizer.place(number, result.c2w, trained=bool(self.trained[number]))
        self.found |= moved
        self.searched = True
        self.manager.train_images().leave_out(torch.from_numpy(self.lost & ~self.trained))
        console.print(self._in_words(sought, poses, moved))

    def _in_words(
        self, sought: dict[int, Sought], before: Float[Tensor, "cams 3 4"], moved: Bool[np.ndarray, " cams"]
    ) -> str:
        names = [path.name for path in self.manager.train_dataset.image_filenames]
        turned = {k: float(rotation_angle_deg(before[k, :, :3].T @ each.c2w[:, :3])) for k, each in sought.items()}
        kinds = {
            "found by their photos": moved & self.trained,
            "roughly placed, photos left out": moved & ~self.trained,
            "stay where they are": ~moved & (self.trained | self.found),
            "not found, photos left out": ~self.found & ~self.trained,
        }
        parts = []
        for what, which in kinds.items():
            listed = [
                names[k] + (f" (turned by {turned[k]:.1f} degrees)" if moved[k] else "") for k in sought if which[k]
            ]
            parts += [f"{what}: {', '.join(listed)}"] if listed else []
        return f"Lost cameras: {'; '.join(parts)}"

    def _usual_error(self, poses: Float[Tensor, "cams 3 4"]) -> float:
        """The largest error of some of the known cameras."""
        known = np.flatnonzero(~self.lost)
        some = np.unique(known[np.linspace(0, len(known) - 1, _LOOKED_AT).round().astype(int)])
        return max(float(errors(self._draw, self._photo(k), poses[k][None], _SIDE, 1)) for k in some.tolist())

    def _photo(self, number: int) -> Photo:
        rgba, visible = self.manager.train_images().whole(number)
        rgb = torch.lerp(self.model.background_rgb.to(rgba), rgba[..., :3], rgba[..., 3:])
        return Photo(self.manager.train_cameras[number : number + 1], rgb, visible)

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Inside, the field is not trained."""
        self.model.eval()
        try:
            with frozen(self.model):
                yield
        finally:
            self.model.train()

    @torch.no_grad()
    def _draw(self, rays: RayBundle) -> Float[Tensor, "rays 3"]:
        parts = [traced(self.model, rays[start : start + _RAYS]) for start in range(0, len(rays), _RAYS)]
        return torch.cat([part["rgb"] for part in parts])

    def _render(self, rays: RayBundle) -> Float[Tensor, "rays 3"]:
        return self.model(rays)["rgb"]
