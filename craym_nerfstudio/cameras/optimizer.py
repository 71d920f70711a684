"""The pose residual of every training camera, as a nerfstudio camera optimizer.

There is one convention: ``c2w' = c2w_start @ motion``, with a rigid motion in the camera's own frame. Rays, viewer,
exporters and evaluation all obtain poses from `CraymCameraOptimizer.optimised_c2w`. The host's own optimizer moves rays
on the world side but shows frusta moved on the camera side; here ``forward`` returns exactly the delta that the viewer
right-multiplies.

The motion is ``exp(xi)``, ``xi = [translation, rotation]``, taken about a pivot: by default the point at the scene's
distance straight ahead, which is also the unit of the translation. Turning about the camera's centre looks almost like
shifting it sideways, and Adam, which scales each coordinate by itself, creeps along that valley. About the scene's
centre a translation shifts the image and a rotation keeps it in place. With Blender cameras, exact matches between all
of them, 15 % wrong ones and `barf` noise (12.7 deg), the epipolar loss alone ends at 0.2 deg after 1000 steps, instead
of 10. Matches of images join neighbours, and neighbours hardly tell how far they are turned: then it ends at 3 to 4 deg
(benchmarks/epipolar.py), and stage 0, which ties tracks, at 0.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.camera_optimizers import CameraOptimizer, CameraOptimizerConfig
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor, nn

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.lie import compose, inverse, rotation_angle_deg, se3_exp, so3xr3_exp


@dataclass
class CraymCameraOptimizerConfig(CameraOptimizerConfig):
    """Pose refinement of the training cameras."""

    _target: type = field(default_factory=lambda: CraymCameraOptimizer)
    mode: Literal["off", "SO3xR3", "SE3"] = "SE3"
    """Parametrisation of the pose residual; off keeps the poses that training starts from."""
    pivot: Literal["scene", "camera"] = "scene"
    """What a residual turns its camera about: the scene ahead (translations in units of its distance) or itself."""
    trans_l2_penalty: float = 0.0
    """Weight of the mean squared translation of the residuals: a prior towards the start poses."""
    rot_l2_penalty: float = 0.0
    """Weight of the mean squared rotation of the residuals (radians)."""
    fixed_cameras: tuple[str, ...] = ()
    """Names or globs of images whose input poses are exact and must not move."""
    settled_step: float = 0.03
    """Size of the optimiser's steps, relative to its rate, for poses that stage 0 has fixed best."""
    uncertain_step_per_deg: float = 0.6
    """The same per degree of stage 0's formal uncertainty: poses that few matches hold have farther to go."""
    settled_delay_steps: int = 3000
    """Training steps for which all poses wait once stage 0 has adjusted some: a field that is still a blur would only
    pull them off, most of all those that no matches hold."""


class CraymCameraOptimizer(CameraOptimizer):
    """Optimised poses of `num_cameras` training cameras; evaluation cameras are none of its business."""

    config: CraymCameraOptimizerConfig
    input_c2w: Float[Tensor, "cams 3 4"]
    """What the dataset's cameras say."""
    start_c2w: Float[Tensor, "cams 3 4"]
    """Where optimisation starts."""
    trainable: Bool[Tensor, "cams"]
    pivot_distance: Float[Tensor, "cams"]
    """How far ahead the point lies that a residual turns its camera about."""
    settled: Bool[Tensor, "cams"]
    """Cameras whose start poses were adjusted to matched rays already."""
    step_size: Float[Tensor, "cams"]
    """Size of the optimiser's steps relative to its rate; 1 for cameras that are not settled."""
    waiting: bool = False
    """Whether the cameras wait for the field; their rays need no gradient then, which is cheaper."""

    def __init__(
        self, config: CraymCameraOptimizerConfig, num_cameras: int, device: torch.device | str = "cpu", **kwargs: Any
    ) -> None:
        # Not the host's constructor: its parameter carries another convention under another name.
        nn.Module.__init__(self)
        self.config = config
        self.num_cameras = num_cameras
        identity = torch.eye(4, device=device)[:3].repeat(num_cameras, 1, 1)
        self.register_buffer("input_c2w", identity)
        self.register_buffer("start_c2w", identity.clone())
        self.register_buffer("trainable", torch.ones(num_cameras, dtype=torch.bool, device=device))
        self.register_buffer("pivot_distance", torch.ones(num_cameras, device=device))
        self.register_buffer("settled", torch.zeros(num_cameras, dtype=torch.bool, device=device))
        self.register_buffer("step_size", torch.ones(num_cameras, device=device))
        self._has_poses = False
        if config.mode != "off":
            self.residual = nn.Parameter(torch.zeros(num_cameras, 6, device=device))

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where the poses live; the viewer asks for it."""
        return self.input_c2w.device

    def set_poses(
        self,
        input_c2w: Float[Tensor, "cams 3 4"],
        start_c2w: Float[Tensor, "cams 3 4"] | None = None,
        names: Sequence[str] | None = None,
        center: Float[Tensor, "3"] | None = None,
        settled: Bool[Tensor, "cams"] | None = None,
        sigma_deg: Float[Tensor, "cams"] | None = None,
    ) -> None:
        """Tells the dataset's poses, where to start (default: there) and the names that `fixed_cameras` refers to.

        `center` is the middle of the scene (default: the origin), whose distance sets the pivots. A fixed camera
        starts, and stays, at its input pose; `settled` are those that stage 0 has adjusted (default: none), and
        `sigma_deg` how well (default: perfectly). Raises InputError when `fixed_cameras` names no image.
        """
        if len(input_c2w) != self.num_cameras:
            raise ValueError(f"{len(input_c2w)} poses for {self.num_cameras} cameras")
        fixed = fixed_camera_mask(self.config.fixed_cameras, names or []).to(self.device)
        self.input_c2w.copy_(input_c2w)
        self.start_c2w.copy_(input_c2w if start_c2w is None else start_c2w)
        if len(fixed):
            self.trainable.copy_(~fixed)
            self.start_c2w[fixed] = self.input_c2w[fixed]
        self.pivot_distance.copy_(distances_ahead(self.start_c2w, center))
        self.settled.copy_(torch.zeros_like(self.settled) if settled is None else settled)
        sigma = torch.zeros_like(self.step_size) if sigma_deg is None else sigma_deg.to(self.step_size)
        step = (self.config.uncertain_step_per_deg * sigma.nan_to_num(torch.inf)).clamp(self.config.settled_step, 1.0)
        self.step_size.copy_(torch.where(self.settled, step, 1.0))
        self._has_poses = True

    def update_to_step(self, step: int) -> None:
        """Hold poses that stage 0 has found until the field can tell something about them."""
        self.waiting = step < self.config.settled_delay_steps and bool(self.settled.any())

    def optimised_c2w(self, indices: Int[Tensor, "*b"] | None = None) -> Float[Tensor, "*b 3 4"]:
        """Camera-to-world poses as they are now, of all cameras or of the given ones; differentiable in the residual.
        """
        chosen = slice(None) if indices is None else _as_index(indices, self.device)
        start = self.start_c2w[chosen]
        if self.config.mode == "off":
            return start
        residual = self.residual.detach() if self.waiting else self.residual
        xi = (residual * (self.step_size * self.trainable)[:, None])[chosen]
        exponential = se3_exp if self.config.mode == "SE3" else so3xr3_exp
        if self.config.pivot == "camera":
            return compose(start, exponential(xi))
        distance = self.pivot_distance[chosen]
        motion = exponential(xi)
        rotation = motion[..., :3]
        ahead = torch.stack([torch.zeros_like(distance), torch.zeros_like(distance), -distance], dim=-1)[..., None]
        translation = distance[..., None, None] * motion[..., 3:] + ahead - rotation @ ahead
        return compose(start, torch.cat([rotation, translation], dim=-1))

    def forward(self, indices: Int[Tensor, "*b"]) -> Float[Tensor, "*b 3 4"]:
        """Delta in the camera's frame: ``dataset_c2w @ forward(indices) == optimised_c2w(indices)``."""
        chosen = _as_index(indices, self.device)
        return compose(inverse(self.input_c2w[chosen]), self.optimised_c2w(chosen))

    def apply_to_raybundle(
        self, raybundle: RayBundle, optimised: Float[Tensor, "cams 3 4"] | None = None
    ) -> None:
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
        """Adds the prior on the residuals, if it has a weight."""
        config = self.config
        if config.mode != "off" and (config.trans_l2_penalty > 0 or config.rot_l2_penalty > 0):
            squared = self.residual.square()
            loss_dict["camera_opt_regularizer"] = (
                config.trans_l2_penalty * squared[:, :3].sum(-1).mean()
                + config.rot_l2_penalty * squared[:, 3:].sum(-1).mean()
            )

    @torch.no_grad()
    def get_metrics_dict(self, metrics_dict: dict) -> None:
        """Adds how far the cameras have moved from the dataset's poses: field units and degrees."""
        if self.config.mode == "off":
            return
        delta = self.get_correction_matrices()
        shift, angle_deg = delta[..., 3].norm(dim=-1), rotation_angle_deg(delta[..., :3])
        metrics_dict["camera_opt_translation_mean"] = shift.mean()
        metrics_dict["camera_opt_translation_max"] = shift.max()
        metrics_dict["camera_opt_rotation_mean"] = angle_deg.mean()
        metrics_dict["camera_opt_rotation_max"] = angle_deg.max()

    def get_param_groups(self, param_groups: dict) -> None:
        """Adds the group ``camera_opt``, unless the mode is off."""
        if self.config.mode != "off":
            param_groups["camera_opt"] = [self.residual]

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Refuses a checkpoint of other input poses, whose deltas would be applied to rays they do not belong to."""
        stored = state_dict.get(f"{prefix}input_c2w")
        if self._has_poses and stored is not None and stored.shape == self.input_c2w.shape:
            difference = float((stored.to(self.input_c2w) - self.input_c2w).abs().max())
            if difference > 1e-4:
                raise InputError(
                    f"The checkpoint belongs to other input poses than the dataset gives now (off by {difference:.3g})",
                    remedy="Use the data, pose noise and seed that it was trained with, or start a new run.",
                )
        super()._load_from_state_dict(state_dict, prefix, *args)


def _as_index(indices: Tensor, device: torch.device) -> Int[Tensor, "*b"]:
    """Camera indices as the host gives them (its exporters give floats) made fit for indexing."""
    return indices.to(device=device, dtype=torch.long)


def distances_ahead(
    c2w: Float[Tensor, "cams 3 4"], point: Float[Tensor, "3"] | None = None
) -> Float[Tensor, "cams"]:
    """How far ahead of each camera, along its viewing direction, a point (default: the origin) lies; > 0.

    A camera that has the point behind it, or much nearer than the others have, takes over the others' median; when no
    camera has it ahead the distance is 1, the radius of the field.
    """
    offset = c2w[..., 3] if point is None else c2w[..., 3] - point.to(c2w)
    ahead = (c2w[..., 2] * offset).sum(-1)
    in_front = ahead[ahead > 0]
    typical = in_front.median() if len(in_front) else torch.ones_like(ahead[0])
    return torch.where(ahead > 0.25 * typical, ahead, typical)


def fixed_camera_mask(patterns: Sequence[str], names: Sequence[str]) -> Bool[Tensor, "cams"]:
    """Which images are meant by names or globs, compared with the whole name and with its last part.

    Raises InputError when a pattern fits no image.
    """
    fixed = torch.zeros(len(names), dtype=torch.bool)
    for pattern in patterns:
        hits = torch.tensor([_is_called(name, pattern) for name in names], dtype=torch.bool)
        if not hits.any():
            known = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise InputError(
                f"Fixed camera '{pattern}' is not among the {len(names)} training images",
                remedy=f"Their names are: {known}",
            )
        fixed |= hits
    return fixed


def _is_called(name: str, pattern: str) -> bool:
    """Whether an image name, or its last part, equals a pattern or is matched by it as a glob."""
    return any(part == pattern or fnmatchcase(part, pattern) for part in (name, PurePath(name).name))
