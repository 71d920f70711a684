"""The poses of the training cameras, as a nerfstudio camera optimizer.

There is one convention: ``c2w' = c2w_start @ motion``, with a rigid motion in the camera's own frame (`motions`). Rays,
viewer, exporters and evaluation all obtain poses from `CraymCameraOptimizer.optimised_c2w`. The host's own optimizer
moves rays on the world side but shows frusta moved on the camera side; here ``forward`` returns exactly the delta that
the viewer right-multiplies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.camera_optimizers import CameraOptimizer, CameraOptimizerConfig
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor, nn

from craym_nerfstudio.cameras import MotionName
from craym_nerfstudio.cameras.guard import PoseGuard, PoseVerdict
from craym_nerfstudio.cameras.motions import make_motion
from craym_nerfstudio.console import warn
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.alignment import Similarity, undrift
from craym_nerfstudio.geometry.lie import compose, inverse, rotation_angle_deg
from craym_nerfstudio.matching.matches import Matches

_SETTLED_STEP = 0.015
"""Size of the optimiser's steps, relative to its rate, for poses that stage 0 has fixed best."""
_FIXED_DEG, _STEP_PER_DEG = 0.05, 2.5
"""Up to which formal uncertainty of stage 0 that holds, and how the size grows beyond: poses that few matches hold have
farther to go (a third leaves `spot` at 0.27 degrees instead of 0.22, three times as much leaps before it settles)."""

_PLACED_STEP = 1.0
"""Size of the steps of cameras that were found by their photos."""

_LOOK_FROM, _LOOK_EVERY = 2.0, 100
"""When the guard looks: from so many times the waiting time on, every so many steps; what is left of the training then
fits the field to the poses that stay."""


@dataclass
class CraymCameraOptimizerConfig(CameraOptimizerConfig):
    """Pose refinement of the training cameras."""

    _target: type = field(default_factory=lambda: CraymCameraOptimizer)
    mode: MotionName = "SE3"  # type: ignore[assignment]
    """Parametrisation of the poses; off keeps those that training starts from."""
    trans_l2_penalty: Annotated[float, tyro.conf.Suppress] = 0.0
    rot_l2_penalty: Annotated[float, tyro.conf.Suppress] = 0.0
    """The host's, both without use here."""
    settled_delay_steps: int = 6000
    """Training steps for which all poses wait once stage 0 has adjusted some, or where silhouettes agree with them: a
    field that is still a blur would only pull them off, most of all those that no matches hold."""


class CraymCameraOptimizer(CameraOptimizer):
    """Optimised poses of `num_cameras` training cameras; those of test views are not kept here."""

    config: CraymCameraOptimizerConfig
    input_c2w: Float[Tensor, "cams 3 4"]
    """What the dataset's cameras say."""
    start_c2w: Float[Tensor, "cams 3 4"]
    """Where optimisation starts."""
    fixed: Bool[Tensor, "cams"]
    """Cameras whose input poses are exact."""
    pivot_distance: Float[Tensor, "cams"]
    """How far ahead the point lies that a motion turns its camera about."""
    settled: Bool[Tensor, "cams"]
    """Cameras whose start poses are about right: adjusted to matched rays already, or confirmed by silhouettes."""
    step_size: Float[Tensor, "cams"]
    """Size of the optimiser's steps relative to its rate: 1 for cameras that are not settled, 0 for those that stay."""
    waiting: bool = False
    """Whether the cameras wait for the field; their rays need no gradient then, which is cheaper."""
    centering_steps: int = 0
    """Training steps in which cameras are shifted and not turned: until what they see is where it should be, how it is
    turned cannot be told."""
    all_settled: bool = False
    any_settled: bool = False
    searches: int = 0
    """How often lost cameras were sought: then other photos may be drawn from."""
    is_held: bool = False
    """Whether all cameras stay at their start poses to the end."""
    verdict: PoseVerdict | None = None
    """What the matches said of the poses last, if they were asked."""
    _guard: PoseGuard | None = None

    def __init__(
        self, config: CraymCameraOptimizerConfig, num_cameras: int, device: torch.device | str = "cpu", **kwargs: Any
    ) -> None:
        # Not the host's constructor: its parameter carries another convention under another name.
        nn.Module.__init__(self)
        self.config = config
        self.num_cameras = num_cameras
        for name in ("input_c2w", "start_c2w"):
            self.register_buffer(name, torch.eye(4, device=device)[:3].repeat(num_cameras, 1, 1))
        for name in ("fixed", "settled"):
            self.register_buffer(name, torch.zeros(num_cameras, dtype=torch.bool, device=device))
        for name in ("pivot_distance", "step_size"):
            self.register_buffer(name, torch.ones(num_cameras, device=device))
        self._has_poses = False
        self.motion = make_motion(config.mode, num_cameras, device)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where the poses live; the viewer asks for it."""
        return self.input_c2w.device

    def set_poses(
        self,
        input_c2w: Float[Tensor, "cams 3 4"],
        start_c2w: Float[Tensor, "cams 3 4"] | None = None,
        *,
        fixed: Bool[Tensor, "cams"] | None = None,
        center: Float[Tensor, "3"] | None = None,
        settled: Bool[Tensor, "cams"] | None = None,
        sigma_deg: Float[Tensor, "cams"] | None = None,
        held: Bool[Tensor, "cams"] | None = None,
    ) -> None:
        """Tells the dataset's poses and where to start (default: there).

        Args:
            fixed: cameras that start, and stay, at their input poses (default: none).
            center: middle of the scene, whose distance sets the pivots (default: the origin).
            settled: cameras that stage 0 has adjusted (default: none).
            sigma_deg: how well it knows their rotations (default: perfectly).
            held: cameras that stay where they start, though that is not exact (default: none).
        """
        if len(input_c2w) != self.num_cameras:
            raise ValueError(f"{len(input_c2w)} poses for {self.num_cameras} cameras")
        self.input_c2w.copy_(input_c2w)
        self.start_c2w.copy_(input_c2w if start_c2w is None else start_c2w)
        if fixed is not None:
            self.fixed.copy_(fixed)
            self.start_c2w[self.fixed] = self.input_c2w[self.fixed]
        self.pivot_distance.copy_(distances_ahead(self.start_c2w, center))
        self.settled.copy_(torch.zeros_like(self.settled) if settled is None else settled)
        sigma = torch.zeros_like(self.step_size) if sigma_deg is None else sigma_deg.to(self.step_size)
        step = (_SETTLED_STEP + _STEP_PER_DEG * (sigma.nan_to_num(torch.inf) - _FIXED_DEG)).clamp(_SETTLED_STEP, 1.0)
        self.step_size.copy_(torch.where(self.settled, step, 1.0) * ~self.fixed)
        if held is not None:
            self.step_size *= ~held.to(self.device)
        self._has_poses = True
        self._note_settled()

    @torch.no_grad()
    def place(self, camera: int, c2w: Float[Tensor, "3 4"], trained: bool) -> None:
        """Go on with a camera from another pose, which photos have told of; `trained` from there, or left to stay."""
        self.start_c2w[camera] = c2w
        for parameter in self.motion.parameters():
            parameter[camera] = 0.0
        self.settled[camera] = True
        self.step_size[camera] = _PLACED_STEP if trained else 0.0
        self._note_settled()

    def _note_settled(self) -> None:
        """Keep as Python booleans what every step asks: to ask the device would wait for it."""
        self.all_settled, self.any_settled = bool(self.settled.all()), bool(self.settled.any())
        self.is_held = not bool(self.step_size.any())

    def update_to_step(self, step: int) -> None:
        """Hold poses that stage 0 has found until the field can tell something about them; late, ask the guard."""
        if step >= _LOOK_FROM * self.config.settled_delay_steps and step % _LOOK_EVERY == 0:
            self._look(step)
        self.waiting = self.is_held or (step < self.config.settled_delay_steps and self.any_settled)
        self.motion.turns = step >= self.centering_steps

    def let_guard(self, matches: Matches, focal_px: Float[np.ndarray, " cams"]) -> None:
        """Late in training, let these matches say whether its poses are as good as those that it began with."""
        self._guard = PoseGuard(matches, focal_px)

    def _look(self, step: int) -> None:
        """Put all cameras back to where they started, for good, where the matches find that better."""
        if self._guard is None or self.is_held:
            return
        self.verdict = verdict = self._guard.judge(self.start_c2w, self.optimised_c2w())
        if verdict is not None and verdict.is_worse:
            self.step_size.zero_()
            self.is_held = True
            warn(f"Poses: back to those that training began with (step {step}): {verdict.in_words}")

    @property
    def in_words(self) -> str:
        """What became of the poses."""
        if self.config.mode == "off" or bool(self.fixed.all()):
            return "not trained"
        if not self.is_held:
            return "trained" if self.verdict is None else f"trained; {self.verdict.in_words}"
        if self.verdict is not None:
            return f"back to those that training began with: {self.verdict.in_words}"
        return "those that training began with"

    def optimised_c2w(self, indices: Int[Tensor, "*b"] | None = None) -> Float[Tensor, "*b 3 4"]:
        """Camera-to-world poses as they are now, of all cameras or of the given ones; differentiable."""
        poses = self.motion.poses(self.start_c2w, self.pivot_distance, self.step_size, self.waiting)
        return poses if indices is None else poses[_as_index(indices, self.device)]

    def drift_undone(self) -> Similarity:
        """The similarity of the world that takes the cameras as a whole back to where they started: see `undrift`.

        That is the frame of the input, in which stage 0 leaves its poses. The input's own centres would turn few
        cameras, which are rough, by any angle.
        """
        return undrift(self.optimised_c2w().detach().cpu(), self.start_c2w.cpu(), self.fixed.cpu())

    def forward(self, indices: Int[Tensor, "*b"]) -> Float[Tensor, "*b 3 4"]:
        """Delta in the camera's frame: ``dataset_c2w @ forward(indices) == optimised_c2w(indices)``."""
        chosen = _as_index(indices, self.device)
        return compose(inverse(self.input_c2w[chosen]), self.optimised_c2w(chosen))

    def apply_to_raybundle(self, raybundle: RayBundle, optimised: Float[Tensor, "cams 3 4"] | None = None) -> None:
        """Turns rays generated from the dataset's poses into rays of the optimised poses, in place.

        Directions keep their length. A bundle without camera indices (a free viewpoint) is left alone. A caller that
        has `optimised_c2w` of all cameras at hand gives it.
        """
        if raybundle.camera_indices is None:
            return
        # Poses are few and rays many: correct per camera first, then gather.
        optimised = self.optimised_c2w() if optimised is None else optimised
        rotations = optimised[..., :3] @ self.input_c2w[..., :3].transpose(-1, -2)
        chosen = _as_index(raybundle.camera_indices[..., 0], self.device)
        per_camera = torch.cat([rotations, optimised[..., 3:], self.input_c2w[..., 3:]], dim=-1).flatten(1)
        # `index_select` is differentiated much faster than indexing by brackets.
        per_ray = per_camera.index_select(0, chosen.reshape(-1)).view(*chosen.shape, 3, 5)
        rotation, center, old_center = per_ray.split([3, 1, 1], dim=-1)
        offsets = torch.stack([raybundle.origins - old_center[..., 0], raybundle.directions], dim=-1)
        turned = (rotation[..., None] * offsets[..., None, :, :]).sum(-2)
        raybundle.origins, raybundle.directions = turned[..., 0] + center[..., 0], turned[..., 1]

    def apply_to_camera(self, camera: Cameras) -> Float[Tensor, "*b 3 4"]:
        """Optimised pose of a dataset camera that carries its index in ``metadata["cam_idx"]``; any other camera's
        own pose.
        """
        if camera.metadata is None or "cam_idx" not in camera.metadata:
            return camera.camera_to_worlds
        index = torch.as_tensor(camera.metadata["cam_idx"], device=self.device).reshape(-1)
        return self.optimised_c2w(index).reshape(camera.camera_to_worlds.shape).to(camera.device)

    def get_correction_matrices(self) -> Float[Tensor, "cams 3 4"]:
        """`forward` of all cameras."""
        return self(torch.arange(self.num_cameras, device=self.device))

    def get_loss_dict(self, loss_dict: dict) -> None:
        """Adds what the motion asks for."""
        loss_dict |= self.motion.loss()

    @torch.no_grad()
    def get_metrics_dict(self, metrics_dict: dict) -> None:
        """Adds how far the cameras have moved from the dataset's poses: world units and degrees."""
        if self.config.mode == "off":
            return
        delta = self.get_correction_matrices()
        moved = {"translation": delta[..., 3].norm(dim=-1), "rotation": rotation_angle_deg(delta[..., :3])}
        for name, values in moved.items():
            metrics_dict |= {f"camera_opt_{name}_mean": values.mean(), f"camera_opt_{name}_max": values.max()}

    def get_param_groups(self, param_groups: dict) -> None:
        """Adds the group ``camera_opt`` where the motion has parameters."""
        if parameters := list(self.motion.parameters()):
            param_groups["camera_opt"] = parameters

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Refuses a checkpoint of other input poses, whose deltas would be applied to rays they do not belong to."""
        stored = state_dict.get(f"{prefix}input_c2w")
        if self._has_poses and stored is not None:
            if stored.shape != self.input_c2w.shape:
                counts = f"{len(stored)} training images, and the data has {len(self.input_c2w)} now"
                remedy = "Bring back what was taken out of it, take out what was added, or start a new run."
                raise InputError(f"The checkpoint is of {counts}", remedy=remedy)
            difference = float((stored.to(self.input_c2w) - self.input_c2w).abs().max())
            if difference > 1e-4:
                raise InputError(
                    f"The checkpoint belongs to other input poses than the dataset gives now (off by {difference:.3g})",
                    remedy="Use the data, pose noise and seed that it was trained with, or start a new run.",
                )
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._note_settled()


def _as_index(indices: Tensor, device: torch.device) -> Int[Tensor, "*b"]:
    """Camera indices as the host gives them (its exporters give floats) made fit for indexing."""
    return indices.to(device=device, dtype=torch.long)


def distances_ahead(c2w: Float[Tensor, "cams 3 4"], point: Float[Tensor, "3"] | None = None) -> Float[Tensor, "cams"]:
    """How far ahead of each camera, along its viewing direction, a point (default: the origin) lies; > 0.

    A camera that has the point behind it, or much nearer than the others have, takes over the others' median; when no
    camera has it ahead the distance is 1, the radius of the field.
    """
    offset = c2w[..., 3] if point is None else c2w[..., 3] - point.to(c2w)
    ahead = (c2w[..., 2] * offset).sum(-1)
    in_front = ahead[ahead > 0]
    typical = in_front.median() if len(in_front) else torch.ones_like(ahead[0])
    return torch.where(ahead > 0.25 * typical, ahead, typical)
