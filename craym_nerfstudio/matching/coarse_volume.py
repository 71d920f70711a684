"""Poses and a coarse coloured volume fitted together to images with masks: no matches needed, 15 degrees bridged.

Outlines and areas of colour tell where a camera is even where no corner does. As bundle-adjusting radiance fields do
(BARF, Lin et al. 2021), pictures begin blurred and the volume coarse; both are far smaller here, a voxel grid and
pictures of 30 to 60 pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, softplus

from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.geometry.lie import so3_exp
from craym_nerfstudio.matching.glances import Glance, GlanceRays, glance_rays
from craym_nerfstudio.matching.views import Views

_LEAST_RAYS, _MOST_RAYS = 2048, 16384
"""Of a step."""
_DENSITY = 12.0
"""Per unit of length in the ball, where the grid's value is 1."""
_EMPTY = -3.0
_WARM_STEPS = 40
"""Steps of the volume alone: from nothing it would pull at the poses at random."""
_VOLUME_RATES = (0.3, 0.1)
_POSE_RATE = 0.01
"""Radians and ball radii of a step of Adam, at first."""


@dataclass(frozen=True)
class Level:
    """One stage of the fit, from coarse to fine."""

    grid: int
    blur_px: float
    samples: int
    """Of a ray."""
    rays: int
    """Of a camera in a step."""
    steps: int
    rate: float
    """Pose steps, in parts of the first level's."""


@dataclass(frozen=True)
class Ball:
    """The part of the world that the volume fills."""

    center: Float[np.ndarray, "3"]
    radius: float


class CoarseVolume:
    """Density and colour on a grid in a ball, and the rigid motions of the cameras about its centre."""

    def __init__(self, c2w: Float[np.ndarray, "cams 3 4"], ball: Ball, seed: int = 0) -> None:
        self._rotation = torch.from_numpy(c2w[:, :, :3]).float()
        self._world_from_ball = Similarity.of(ball.radius, translation=ball.center)
        self._arm = torch.from_numpy(self._world_from_ball.inverse().points(c2w[:, :, 3])).float()
        self._motion = torch.zeros(len(c2w), 6, requires_grad=True)
        self._values = torch.zeros(1, 4, 2, 2, 2)
        self._values[:, 0] = _EMPTY
        self._random = torch.Generator().manual_seed(seed)
        self._is_new = True

    def c2w(self) -> Float[np.ndarray, "cams 3 4"]:
        """Poses as they are now, float64."""
        with torch.no_grad():
            turn = so3_exp(self._motion[:, :3].double())
            rotation = turn @ self._rotation.double()
            arm = (turn @ self._arm.double()[..., None]).squeeze(-1) + self._motion[:, 3:].double()
        center = self._world_from_ball.points(arm.numpy())
        return np.concatenate([rotation.numpy(), center[..., None]], axis=-1)

    def fit(self, rays: GlanceRays, level: Level) -> float:
        """Adjust volume and poses together; the mean squared difference of colours and alpha at the end."""
        grown = interpolate(self._values.detach(), size=(level.grid,) * 3, mode="trilinear", align_corners=True)
        self._values = grown.requires_grad_(True)
        volume = {"params": [self._values], "lr": _VOLUME_RATES[1]}
        poses = {"params": [self._motion], "lr": 0.0}
        optimizer = torch.optim.Adam([volume, poses], betas=(0.9, 0.99))
        count = int(np.clip(level.rays * len(self._arm), _LEAST_RAYS, _MOST_RAYS))
        error = torch.tensor(0.0)
        for step in range(level.steps):
            warm = self._is_new and step < _WARM_STEPS
            optimizer.param_groups[0]["lr"] = _VOLUME_RATES[0 if warm else 1]
            rate = 0.0 if warm else level.rate * _POSE_RATE * 0.1 ** (step / level.steps)
            optimizer.param_groups[1]["lr"] = rate
            chosen = torch.randint(len(rays.camera), (count,), generator=self._random)
            loss = (self._seen(rays, chosen, level.samples) - rays.rgba[chosen]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            error = error + (loss.detach() - error) / min(step + 1, 50)
        self._is_new = False
        return float(error)

    def _seen(self, rays: GlanceRays, chosen: Tensor, samples: int) -> Float[Tensor, "rays 4"]:
        """Premultiplied colour and alpha that the volume shows along some rays."""
        turn = so3_exp(self._motion[:, :3])
        camera = rays.camera[chosen]
        origin = ((turn @ self._arm[..., None]).squeeze(-1) + self._motion[:, 3:])[camera]
        direction = ((turn @ self._rotation)[camera] @ rays.bearing[chosen][..., None]).squeeze(-1)
        middle = -(origin * direction).sum(-1)
        # The chord only says where to sample.
        half = (middle.square() - origin.square().sum(-1) + 1).clamp_min(1e-4).sqrt().detach()
        jitter = torch.rand(len(chosen), samples, generator=self._random)
        along = middle[:, None] + half[:, None] * (2 * (torch.arange(samples) + jitter) / samples - 1)
        points = origin[:, None] + along[..., None] * direction[:, None]
        values = grid_sample(self._values, points.view(1, 1, 1, -1, 3), padding_mode="border", align_corners=True)
        values = values.view(4, len(chosen), samples)
        depth = _DENSITY * softplus(values[0]) * (2 * half / samples)[:, None]
        passed = torch.exp(-(torch.cumsum(depth, dim=1) - depth))
        weight = passed * (1 - torch.exp(-depth))
        colour = (weight * torch.sigmoid(values[1:])).sum(-1)
        return torch.cat([colour, weight.sum(-1)[None]]).T


def fitted(
    views: Views, c2w: Float[np.ndarray, "cams 3 4"], ball: Ball, levels: Sequence[tuple[list[Glance], Level]]
) -> tuple[Float[np.ndarray, "cams 3 4"], float]:
    """Poses after all levels, and the difference that is left."""
    volume, error = CoarseVolume(c2w, ball), float("nan")
    for images, level in levels:
        error = volume.fit(glance_rays(views, images, level.blur_px), level)
    return volume.c2w(), error
