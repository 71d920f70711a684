"""Pose noise of the published protocols, for experiments that start from poses known to be wrong.

The shifts in brackets are in world units of the Blender scenes, whose cameras are about 4 units from the object:

* ``barf`` (13.7 deg / 0.24): a twist with sigma 0.15 moves the *world* before the camera sees it,
  ``w2c' = w2c o exp(xi)``, so that cameras swing around the pivot; 0.24 is the shift of the w2c translation vector
  (the camera centres move by about 0.8).
* ``l2g`` (6.4 deg / 0.80), the "high" noise of CRAYM: ``x_cam' = exp(r) x_cam + t`` with sigma 0.07 and 0.5; 0.80 is
  the shift of the camera centre.
* ``l2g-low`` (3.2 deg / 0.40): half of it.
* ``real`` (0.9 deg / 0.016): as ``barf`` with sigma 0.01, for real captures.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.cameras import PoseNoise
from craym_nerfstudio.geometry.lie import compose, inverse, se3_exp, so3xr3_exp

_TWIST_SIGMA = {"barf": 0.15, "real": 0.01}
_CAMERA_SIGMA = {"l2g": (0.5, 0.07), "l2g-low": (0.25, 0.035)}


def perturb_poses(
    c2w: Float[Tensor, "cams 3 4"],
    protocol: PoseNoise,
    seed: int,
    pivot: Sequence[float] = (0.0, 0.0, 0.0),
    unit: float = 1.0,
) -> Float[Tensor, "cams 3 4"]:
    """Poses with the noise of a protocol: the same on every machine, camera k's from the seed and k alone.

    `pivot` is the world point around which world-side noise turns (the object) and `unit` the world units that stand
    for one unit of a Blender scene (a quarter of the cameras' distance to the object).
    """
    if protocol == "none":
        return c2w.clone()
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
