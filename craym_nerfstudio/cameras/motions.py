"""How training moves the cameras from where it starts, in one of several parametrisations.

A motion is rigid, in the camera's own frame, and taken about a pivot: the point at the scene's distance straight ahead,
which is also the unit of the translation. Turning about the camera's centre looks almost like shifting it sideways, and
Adam, which scales each coordinate by itself, creeps along that valley. About the scene's centre a translation shifts
the image and a rotation keeps it in place. With Blender cameras, exact matches between all of them, 15 % wrong ones and
`barf` noise (12.7 deg), the epipolar loss alone ends at 0.2 deg after 1000 steps, instead of 10. Matches of images join
neighbours, and neighbours hardly tell how far they are turned: then it ends at 3 to 4 deg, and stage 0, which ties
tracks, at 0.1.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from craym_nerfstudio.cameras import MotionName
from craym_nerfstudio.geometry.lie import compose, rotation_from_6d, se3_exp, so3xr3_exp

RigidMotion = Callable[[Float[Tensor, "cams size"]], Float[Tensor, "cams 3 4"]]
"""From the parameters of a parametrisation to a motion, in units of the pivot's distance."""


class Motion(nn.Module):
    """No motion at all, and what every other one may override."""

    turns: bool = True
    """Whether cameras turn about their pivots beside being shifted."""

    def poses(
        self,
        start_c2w: Float[Tensor, "cams 3 4"],
        reach: Float[Tensor, " cams"],
        step_size: Float[Tensor, " cams"],
        waiting: bool,
    ) -> Float[Tensor, "cams 3 4"]:
        """Camera-to-world poses as they are now, differentiable in the parameters.

        Args:
            reach: how far ahead of each camera its pivot lies.
            step_size: factor on each camera's parameters, and so on the optimiser's steps; 0 keeps a camera still.
            waiting: whether the poses are held and need no gradient.
        """
        return start_c2w

    def loss(self) -> dict[str, Tensor]:
        """Terms that the motion adds to the objective, weighted."""
        return {}


class Residual(Motion):
    """A vector of parameters per camera, zero at the start pose, and the rigid motion that it stands for."""

    def __init__(self, size: int, rigid: RigidMotion, num_cameras: int, device: torch.device | str) -> None:
        super().__init__()
        self.rigid = rigid
        self.residual = nn.Parameter(torch.zeros(num_cameras, size, device=device))

    def poses(self, start_c2w: Tensor, reach: Tensor, step_size: Tensor, waiting: bool) -> Tensor:
        """See `Motion.poses`."""
        residual = self.residual.detach() if waiting else self.residual
        residual = residual * step_size[:, None]
        if not self.turns:
            residual = torch.cat([residual[:, :3], torch.zeros_like(residual[:, 3:])], dim=-1)
        return compose(start_c2w, about_pivot(self.rigid(residual), reach[:, None, None]))


def about_pivot(motion: Float[Tensor, "cams 3 4"], reach: Tensor | float) -> Float[Tensor, "cams 3 4"]:
    """A motion in units of the pivot's distance, taken about the pivot p = -reach e_z: its translation is
    ``reach t + p - R p``.
    """
    translation = reach * (motion[..., 3:] + motion[..., 2:3] - _forward(motion.dtype, motion.device))
    return torch.cat([motion[..., :3], translation], dim=-1)


@lru_cache(maxsize=4)
def _forward(dtype: torch.dtype, device: torch.device) -> Float[Tensor, "3 1"]:
    """The z axis."""
    return torch.eye(3, dtype=dtype)[:, 2:].to(device)


def translation_and_6d(parameters: Float[Tensor, "cams 9"]) -> Float[Tensor, "cams 3 4"]:
    """The paper's own: translation, and a rotation by its first two columns (Eq. 8), as offsets from the identity."""
    identity = torch.eye(3, dtype=parameters.dtype, device=parameters.device)[:2].flatten()
    return torch.cat([rotation_from_6d(identity + parameters[:, 3:]), parameters[:, :3, None]], dim=-1)


def make_motion(name: MotionName, num_cameras: int, device: torch.device | str) -> Motion:
    """The motion of a name; `off` keeps the poses that training starts from."""
    kinds: dict[str, tuple[int, RigidMotion]] = {
        "SE3": (6, se3_exp),
        "SO3xR3": (6, so3xr3_exp),
        "6D": (9, translation_and_6d),
    }
    return Motion() if name == "off" else Residual(*kinds[name], num_cameras, device)
