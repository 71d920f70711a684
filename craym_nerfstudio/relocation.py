"""Cameras that stage 0 has lost, found again by their photos in the field that the other photos have taught.

They were only predicted, or adjusted to matches that they do not fit. Their photos wait until then: at poses that are
off they would only teach the field what is not there.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from craym_nerfstudio.cameras.photometric import frozen
from craym_nerfstudio.cameras.search import FINE_SIDE, Photo, errors, seek, spread_of_predictions
from craym_nerfstudio.console import console, track
from craym_nerfstudio.data.datamanager import CraymDataManager
from craym_nerfstudio.geometry.lie import rotation_angle_deg
from craym_nerfstudio.model import CraymModel
from craym_nerfstudio.pictures import traced
from craym_nerfstudio.sfm.absolute_pose import predict
from craym_nerfstudio.start.find import Start

_NEAR_TURN, _NEAR_SHIFT = math.radians(2.0), 0.03
"""Predictions that are off by less than this, in turns and in shares of the distance to the scene, are near."""
_SEARCH_FROM = 1.5
"""When the field is searched first, in times for which poses wait."""
_BETTER = 0.75
"""A pose is taken whose error is at most this share of the guess's."""
_SURE_DEG, _SHARP = 2.0, 1.3
"""A photo is trained on where no pose as good is turned from it by more than this, and where its error is at most so
many times the largest of known cameras that are looked at: others are blurred, or show what is not there."""
_LOOKED_AT = 12
"""Known cameras."""
_MOST = 40
"""Cameras that are looked for at a time, on a CPU ten seconds each."""


class Fate(IntEnum):
    """What became of a camera that was lost."""

    NOT_LOST = 0
    NOT_FOUND = 1
    ROUGH = 2
    """At a pose from its photo, which is not trained on."""
    FOUND = 3
    """The same, and its photo is trained on."""
    STAYS = 4
    """Its photo fits where it was, and is trained on."""


_IN_WORDS = {
    Fate.FOUND: "found by their photos",
    Fate.STAYS: "recognised where they were",
    Fate.ROUGH: "roughly placed, photos left out",
    Fate.NOT_FOUND: "not found, photos left out",
}


class Relocation:
    """The lost cameras of a training, and what becomes of them."""

    def __init__(
        self,
        model: CraymModel,
        manager: CraymDataManager,
        lost: Bool[np.ndarray, " cams"],
        spread: Float[Tensor, "6 6"],
    ) -> None:
        """Leave the photos of the lost cameras out, and their matches; where those are, is known up to a `spread`."""
        self.model, self.manager, self.lost, self.spread = model, manager, lost, spread
        self.fate: Int[np.ndarray, " cams"] = np.zeros(len(lost), dtype=int)
        """A `Fate` each."""
        manager.train_images().leave_out(torch.from_numpy(lost))

    @classmethod
    def of(cls, model: CraymModel, manager: CraymDataManager, start: Start | None) -> "Relocation | None":
        """None where no camera is lost; those that are predicted well are not: training mends them by itself."""
        optimizer, stage = model.camera_optimizer, None if start is None else start.stage_zero
        if start is None or stage is None or not stage.lost.any() or optimizer.config.mode == "off":
            return None
        lost, poses = stage.lost, optimizer.optimised_c2w().detach()
        spread = spread_of_predictions(optimizer.input_c2w, poses, lost, optimizer.pivot_distance)
        if spread[:3].norm() < _NEAR_TURN and spread[3:].norm() < _NEAR_SHIFT:
            lost = lost & stage.registered
        if not lost.any():
            return None
        if start.matches is not None:
            manager.draw_matches(start.matches.subset(~lost[start.matches.images].any(-1)))
        found = cls(model, manager, lost, spread)
        when = f"until the field is good enough to be searched (step {found.first_step})"
        console.print(f"Lost cameras: {lost.sum()} photos wait {when}")
        return found

    @property
    def first_step(self) -> int:
        """When the field is searched first."""
        return round(_SEARCH_FROM * self.model.config.camera_optimizer.settled_delay_steps)

    @property
    def searched(self) -> bool:
        """Whether it is known what became of them."""
        return bool(self.fate.any())

    @property
    def found(self) -> Bool[np.ndarray, " cams"]:
        """Cameras that go on from where their photos placed them."""
        return self.fate == Fate.FOUND

    def take(self, fate: Int[np.ndarray, " cams"]) -> None:
        """From now on draw the photos that fates let, of a search or of a checkpoint."""
        self.fate = np.where(self.lost, fate, Fate.NOT_LOST)
        trained = np.isin(self.fate, (Fate.FOUND, Fate.STAYS))
        self.manager.train_images().leave_out(torch.from_numpy(self.lost & ~trained))
        self.model.camera_optimizer.searches += 1

    def search(self, *, final: bool = False) -> None:
        """Look for cameras in the field as it is, and say what was found.

        Those that are sure are to be trained on (`take`). In the `final` search, after the last step, the others
        get poses once more: the field is sharper.
        """
        optimizer, before = self.model.camera_optimizer, self.fate.copy()
        numbers = np.flatnonzero(self.lost & ~np.isin(before, (Fate.FOUND, Fate.STAYS)))[:_MOST].tolist()
        self.fate = np.where(self.lost, np.maximum(before, Fate.NOT_FOUND), Fate.NOT_LOST)
        if not numbers:
            return
        poses, reach = optimizer.optimised_c2w().detach(), optimizer.pivot_distance
        likely = predict(poses.cpu().double(), optimizer.input_c2w.cpu().double(), ~self.lost).to(poses)
        generator, sought = torch.Generator().manual_seed(self.model.config.seed), {}
        with self._looking():
            usual = self._usual_error(poses)
            for number in track(numbers, "Lost cameras"):
                photo, far, guesses = self._photo(number), float(reach[number]), torch.stack([poses, likely])[:, number]
                sought[number] = seek(self._draw, self._render, photo, guesses, far, self.spread, generator)
        turned = {}
        for number, result in sought.items():
            is_better = result.error < (1.0 if before[number] == Fate.ROUGH else _BETTER) * result.error_before
            fits = (result.error if is_better else result.error_before) <= _SHARP * usual and not final
            if is_better:
                is_sure = fits and result.uncertain_deg <= _SURE_DEG
                self.fate[number] = Fate.FOUND if is_sure else Fate.ROUGH
                optimizer.place(number, result.c2w, trained=is_sure)
                turned[number] = float(rotation_angle_deg(poses[number, :, :3].T @ result.c2w[:, :3]))
            elif fits and before[number] != Fate.ROUGH:
                self.fate[number] = Fate.STAYS
        if self.manager.local_rank == 0:
            console.print(self._in_words(turned))

    def _in_words(self, turned: dict[int, float]) -> str:
        """What became of each, and by how many degrees those were turned that were moved just now."""
        names, parts = self.manager.train_dataset.metadata["image_names"], []
        for fate, what in _IN_WORDS.items():
            which = np.flatnonzero(self.fate == fate).tolist()
            listed = [names[k] + (f" (turned by {turned[k]:.1f} degrees)" if k in turned else "") for k in which]
            parts += [f"{what}: {', '.join(listed)}"] if listed else []
        return f"Lost cameras: {'; '.join(parts)}"

    def _usual_error(self, poses: Float[Tensor, "cams 3 4"]) -> float:
        """The largest error of some of the known cameras."""
        known = np.flatnonzero(~self.lost)
        some = np.unique(known[np.linspace(0, len(known) - 1, _LOOKED_AT).round().astype(int)])
        return max(float(errors(self._draw, self._photo(k), poses[k][None], FINE_SIDE, 1)) for k in some.tolist())

    def _photo(self, number: int) -> Photo:
        rgba, visible = self.manager.train_images().whole(number)
        rgb = torch.lerp(self.model.background_rgb.to(rgba), rgba[..., :3], rgba[..., 3:])
        return Photo(self.manager.train_cameras[number : number + 1], rgb, visible)

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Inside, the field is not trained, and seen with all its levels, whatever the viewer shows."""
        model, shown = self.model, self.model.shown_levels
        model.eval()
        model.shown_levels = model.config.sdf_field.num_levels
        try:
            with frozen(model):
                yield
        finally:
            model.shown_levels = shown
            model.train()

    @torch.no_grad()
    def _draw(self, rays: RayBundle) -> Float[Tensor, "rays 3"]:
        return traced(self.model, rays)["rgb"]

    def _render(self, rays: RayBundle) -> Float[Tensor, "rays 3"]:
        return self.model(rays)["rgb"]
