"""Pose noise of the published protocols, for experiments that start from poses known to be wrong.

The shifts in brackets are in world units of the Blender scenes, whose cameras are about 4 units from the object:

* ``barf`` (13.7 deg / 0.24): a twist with sigma 0.15 moves the *world* before the camera sees it,
  ``w2c' = w2c o exp(xi)``, so that cameras swing around the pivot; 0.24 is the shift of the w2c translation vector
  (the camera centres move by about 0.8).
* ``l2g`` (6.4 deg / 0.80), the "high" noise of CRAYM: ``x_cam' = exp(r) x_cam + t`` with sigma 0.07 and 0.5; 0.80 is
  the shift of the camera centre.
* ``l2g-low`` (3.2 deg / 0.40): half of it.
* ``real`` (0.9 deg / 0.016): as ``barf`` with sigma 0.01, for real captures.
* ``network`` (1.5 deg / 2 % of the distance to the pivot), as feed-forward networks err: poses turn and move along the
  world's axes by a smooth random function of where the camera stands and looks, so that neighbours err alike; a tenth
  of the cameras by four times as much. Every image has a focal length of its own, log-normally off with sigma 3 %, and
  its principal point in the middle (`focal_noise`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.cameras import PoseNoise
from craym_nerfstudio.geometry.lie import compose, inverse, se3_exp, so3_exp, so3xr3_exp

BLENDER_CAMERA_DISTANCE = 4.0311
"""Distance of the cameras from the object in the Blender scenes, whose units the protocols are stated in."""

_TWIST_SIGMA = {"barf": 0.15, "real": 0.01}
_CAMERA_SIGMA = {"l2g": (0.5, 0.07), "l2g-low": (0.25, 0.035)}
_MEAN_LENGTH = 1.596
"""Of a 3-vector with unit normal components."""
_NETWORK_DEG, _NETWORK_SHARE = 1.5, 0.02
"""Mean rotation, and mean shift in parts of the distance."""
_FAR_OFF, _FAR_OFF_TIMES = 0.1, 4.0
_FOCAL_SIGMA = 0.03
_WAVES, _CORRELATION = 256, 0.7
"""Of the smooth function, and how far it is alike: over distances to the pivot and viewing directions together. Cameras
that are 30 degrees apart round the pivot err with a correlation of 0.6."""


def perturb_poses(
    c2w: Float[Tensor, "cams 3 4"],
    protocol: PoseNoise,
    seed: int,
    pivot: Sequence[float] = (0.0, 0.0, 0.0),
    unit: float = 1.0,
) -> Float[Tensor, "cams 3 4"]:
    """Poses with the noise of a protocol: the same on every machine, camera k's from the seed and k alone.

    With ``network`` it also follows from the pose, and from how many cameras there are. `pivot` is the world point
    around which world-side noise turns (the object) and `unit` the world units that stand for one unit of a Blender
    scene (a quarter of the cameras' distance to the object).
    """
    if protocol == "none":
        return c2w.clone()
    if protocol == "network":
        return _as_networks_err(c2w.detach().cpu().double(), seed, pivot, unit).to(c2w)
    # numpy freezes the stream of RandomState for good; those of default_rng and torch may change between releases.
    draws = torch.from_numpy(np.random.RandomState(seed).standard_normal((len(c2w), 6)))
    poses = c2w.detach().cpu().double()
    if protocol in _TWIST_SIGMA:
        sigma = _TWIST_SIGMA[protocol]
        center = torch.tensor(pivot, dtype=torch.float64)
        motion = se3_exp(draws * sigma * torch.tensor([unit] * 3 + [1.0] * 3, dtype=torch.float64))
        moved = poses.clone()
        moved[..., 3] -= center
        moved = compose(inverse(motion), moved)
        moved[..., 3] += center
    else:
        translation_sigma, rotation_sigma = _CAMERA_SIGMA[protocol]
        scales = torch.tensor([translation_sigma * unit] * 3 + [rotation_sigma] * 3, dtype=torch.float64)
        moved = compose(poses, inverse(so3xr3_exp(draws * scales)))
    return moved.to(c2w)


def _as_networks_err(
    c2w: Float[Tensor, "cams 3 4"], seed: int, pivot: Sequence[float], unit: float
) -> Float[Tensor, "cams 3 4"]:
    distance, random = BLENDER_CAMERA_DISTANCE * unit, np.random.RandomState(seed)
    place = torch.cat([(c2w[..., 3] - torch.tensor(pivot, dtype=torch.float64)) / distance, -c2w[..., 2]], dim=-1)
    # A sum of waves of random direction and phase is as smooth as a Gaussian process, without its matrix.
    frequencies = random.standard_normal((_WAVES, 6)) / _CORRELATION
    phases, heights = random.uniform(0, 2 * np.pi, _WAVES), random.standard_normal((_WAVES, 6))
    errors = np.cos(place.numpy() @ frequencies.T + phases) @ heights * (2 / _WAVES) ** 0.5
    errors[random.permutation(len(c2w))[: round(_FAR_OFF * len(c2w))]] *= _FAR_OFF_TIMES
    sigmas = [_NETWORK_SHARE * distance / _MEAN_LENGTH] * 3 + [np.radians(_NETWORK_DEG) / _MEAN_LENGTH] * 3
    shift, turn = torch.from_numpy(errors * sigmas).split(3, dim=-1)
    return torch.cat([so3_exp(turn) @ c2w[..., :3], c2w[..., 3:] + shift[..., None]], dim=-1)


def focal_noise(count: int, protocol: PoseNoise, seed: int) -> Float[np.ndarray, " cams"] | None:
    """Factors on the focal lengths of images, whose principal points the protocol puts in the middle; else None."""
    if protocol != "network":
        return None
    # A stream of its own: image k's factor follows from the seed and k.
    return np.exp(_FOCAL_SIGMA * np.random.RandomState([seed, 1]).standard_normal(count))
