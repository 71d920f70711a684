"""How training moves the cameras from where it starts: one class per parametrisation.

A motion is rigid, in the camera's own frame, and taken about a pivot: the point at the scene's distance straight ahead,
which is also the unit of the translation. Turning about the camera's centre looks almost like shifting it sideways, and
Adam, which scales each coordinate by itself, creeps along that valley. About the scene's centre a translation shifts
the image and a rotation keeps it in place. With Blender cameras, exact matches between all of them, 15 % wrong ones and
`barf` noise (12.7 deg), the epipolar loss alone ends at 0.2 deg after 1000 steps, instead of 10. Matches of images join
neighbours, and neighbours hardly tell how far they are turned: then it ends at 3 to 4 deg, and stage 0, which ties
tracks, at 0.1.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from craym_nerfstudio.cameras import MotionName
from craym_nerfstudio.geometry.lie import compose, rotation_from_6d, se3_exp, so3xr3_exp


class Motion(nn.Module):
    """No motion at all, and what every other one may override."""

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


class _Residual(Motion):
    """A vector of parameters per camera, zero at the start pose."""

    size = 6

    def __init__(self, num_cameras: int, device: torch.device | str) -> None:
        super().__init__()
        self.residual = nn.Parameter(torch.zeros(num_cameras, self.size, device=device))

    def motion(self, parameters: Float[Tensor, "cams size"]) -> Float[Tensor, "cams 3 4"]:
        """The rigid motion of scaled parameters, in units of the pivot's distance."""
        raise NotImplementedError

    def poses(self, start_c2w: Tensor, reach: Tensor, step_size: Tensor, waiting: bool) -> Tensor:
        """See `Motion.poses`."""
        residual = self.residual.detach() if waiting else self.residual
        motion = self.motion(residual * step_size[:, None])
        rotation = motion[..., :3]
        ahead = torch.stack([torch.zeros_like(reach), torch.zeros_like(reach), -reach], dim=-1)[..., None]
        translation = reach[..., None, None] * motion[..., 3:] + ahead - rotation @ ahead
        return compose(start_c2w, torch.cat([rotation, translation], dim=-1))


class SE3(_Residual):
    """``exp(xi)``, ``xi = [translation, rotation]``: the exponential map of rigid motions."""

    def motion(self, parameters: Float[Tensor, "cams 6"]) -> Float[Tensor, "cams 3 4"]:
        """See `_Residual.motion`."""
        return se3_exp(parameters)


class SO3xR3(_Residual):
    """``[exp(rotation) | translation]``, the two independent of each other."""

    def motion(self, parameters: Float[Tensor, "cams 6"]) -> Float[Tensor, "cams 3 4"]:
        """See `_Residual.motion`."""
        return so3xr3_exp(parameters)


class SixD(_Residual):
    """The paper's own: translation, and a rotation by its first two columns (Eq. 8), as offsets from the identity."""

    size = 9
    identity: Tensor

    def __init__(self, num_cameras: int, device: torch.device | str) -> None:
        super().__init__(num_cameras, device)
        columns = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], device=device)
        self.register_buffer("identity", columns, persistent=False)

    def motion(self, parameters: Float[Tensor, "cams 9"]) -> Float[Tensor, "cams 3 4"]:
        """See `_Residual.motion`."""
        return torch.cat([rotation_from_6d(self.identity + parameters[:, 3:]), parameters[:, :3, None]], dim=-1)


def make_motion(name: MotionName, num_cameras: int, device: torch.device | str) -> Motion:
    """The motion of a name; `off` keeps the poses that training starts from."""
    if name == "off":
        return Motion()
    kinds: dict[str, type[_Residual]] = {"SE3": SE3, "SO3xR3": SO3xR3, "6D": SixD}
    return kinds[name](num_cameras, device)
