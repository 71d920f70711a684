"""Where a photo was taken, sought in a scene that can be drawn: many poses at a glance, the best of them by gradients.

Poses are tried about a guess, each turned and shifted about the point of the scene that it looks at; its small picture,
averaged over blocks, is compared with the photo's. What is best is followed by Adam, first in small pictures, whose
valleys are wide, then in the photo itself, and judged by finer pictures, pixel by pixel.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from craym_nerfstudio.cameras.motions import about_pivot
from craym_nerfstudio.cameras.photometric import with_poses
from craym_nerfstudio.geometry.lie import compose, inverse, rotation_angle_deg, so3_exp, so3_log
from craym_nerfstudio.sfm.absolute_pose import predict

Render = Callable[[RayBundle], Float[Tensor, "rays 3"]]

_SIDE, FINE_SIDE = 32, 64
"""Of the small pictures that are drawn, in pixels: those of many poses, and those that decide."""
_ROUNDS = ((768, 1.2, 4, 24), (384, 0.5, 4, 12), (192, 0.25, 2, 12))
"""Poses tried, their spread in standard deviations of the guess, side of the blocks compared, and poses kept."""
_FOLLOWED = ((8, 0.02, (48, 96)), (3, 0.006, (96, 100_000)))
"""Poses followed by Adam, its rate, and the sides of the pictures one after the other; a photo is not enlarged."""
_STEPS, _RAYS = 60, 256
"""Of Adam, for each side of the pictures, and rays of a step and pose."""
_LEAST_SPREAD = (0.01, 0.005)
"""Of a guess: radians, and shares of the distance to the scene."""
_CAP = 0.3
"""A pixel whose colour is off by more than this counts no more: something that is not in the scene."""
_AS_GOOD = 1.1
"""Poses whose errors are at most so many times the least answer the question as well as the best one."""


@dataclass(frozen=True)
class Sought:
    """The pose found for a photo, and errors of small pictures: mean differences of colours, in [0, 1]."""

    c2w: Float[Tensor, "3 4"]
    error: float
    error_before: float
    """Of the first guess."""
    uncertain_deg: float
    """How far other poses are turned from it that are about as good."""


class Photo:
    """A photo that is compared with pictures of the scene, and its camera."""

    def __init__(self, camera: Cameras, rgb: Float[Tensor, "h w 3"], visible: Float[Tensor, "h w"]) -> None:
        """Of one camera; what of the photo is not visible, 0, is not compared."""
        self.size_px = (rgb.shape[1], rgb.shape[0])
        self._content = torch.cat([rgb * visible[..., None], visible[..., None]], dim=-1).movedim(-1, 0)[None]
        self._pose = torch.eye(4, device=rgb.device)[None, :3]
        self._local = with_poses(camera, self._pose)

    def at_side(self, side: int) -> tuple[Float[Tensor, "h w 3"], Float[Tensor, "h w"]]:
        """Colours and visibility of the photo with `side` pixels along the longer side, or as it is."""
        share = min(1.0, side / max(self.size_px))
        height, width = (max(1, round(share * pixels)) for pixels in self.size_px[::-1])
        small = F.adaptive_avg_pool2d(self._content, (height, width))[0].movedim(0, -1)
        return small[..., :3] / small[..., 3:].clamp_min(1e-6), small[..., 3]

    def bearings(self, height: int, width: int) -> Float[Tensor, "n 3"]:
        """Directions, in the camera's frame, of the pixels of a picture of this height and width."""
        number = torch.arange(height * width, device=self._pose.device)
        x = (number % width + 0.5) * (self.size_px[0] / width)
        y = (torch.div(number, width, rounding_mode="floor") + 0.5) * (self.size_px[1] / height)
        index = torch.zeros((len(number), 1), dtype=torch.long, device=number.device)
        return self._local.generate_rays(camera_indices=index, coords=torch.stack([y, x], dim=-1)).directions


def spread_of_predictions(
    rough: Float[Tensor, "cams 3 4"], known: Float[Tensor, "cams 3 4"], lost: np.ndarray, reach: Float[Tensor, " cams"]
) -> Float[Tensor, "6 6"]:
    """Root of the covariance of `motion` vectors from poses predicted by their neighbours to the known ones.

    Cameras that are known are left out one by one and predicted by the others: about so far off the `lost` ones are.
    """
    rough, known = rough.cpu().double(), known.cpu().double()
    known_only = torch.from_numpy(~lost)
    rough, known, reach_known = rough[known_only], known[known_only], reach.cpu().double()[known_only]
    vectors = []
    for number in range(len(known)):
        without = np.arange(len(known)) != number
        guess = predict(known, rough, without)[number]
        between = compose(inverse(guess), known[number])
        shift = between[:, 3] / reach_known[number] - between[:, 2] + between.new_tensor([0.0, 0.0, 1.0])
        vectors.append(torch.cat([so3_log(between[:, :3]), shift]))
    stacked = torch.stack(vectors)
    least = torch.tensor(_LEAST_SPREAD, dtype=stacked.dtype).repeat_interleave(3).square()
    covariance = stacked.T @ stacked / len(stacked) + torch.diag(least)
    return torch.linalg.cholesky(covariance).float().to(reach.device)


def motion(vector: Float[Tensor, "n 6"], reach: float) -> Float[Tensor, "n 3 4"]:
    """Turns by rotation vectors about the point straight ahead, then shifts of it by shares of its distance."""
    return about_pivot(torch.cat([so3_exp(vector[:, :3]), vector[:, 3:, None]], dim=-1), reach)


def seek(
    draw: Render,
    render: Render,
    photo: Photo,
    guesses: Float[Tensor, "guesses 3 4"],
    reach: float,
    spread: Float[Tensor, "6 6"],
    generator: torch.Generator,
) -> Sought:
    """The pose whose picture is most like the photo.

    Args:
        draw: colours of rays, fast.
        render: colours of rays, differentiable by them.
        guesses: the first of them is where the camera would stay.
        reach: how far ahead of them the scene lies.
        spread: of a guess, as `spread_of_predictions` gives it.
        generator: on the CPU.
    """
    poses = guesses
    for count, share, block, kept in _ROUNDS:
        drawn = share * torch.randn((count, 6), generator=generator).to(spread) @ spread.T
        tried = compose(poses[torch.arange(count) % len(poses)], motion(drawn, reach))
        poses = torch.cat([poses, tried])
        poses = poses[errors(draw, photo, poses, _SIDE, block).argsort()[:kept]]
    for kept, rate, sides in _FOLLOWED:
        followed = _followed(render, photo, poses[:kept], reach, rate, sides, generator)
        poses = torch.cat([followed, poses])
        error, order = errors(draw, photo, poses, FINE_SIDE, 1).sort()
        poses = poses[order]
    before, least = float(errors(draw, photo, guesses[:1], FINE_SIDE, 1)), float(error[0])
    as_good = poses[error <= _AS_GOOD * least]
    uncertain_deg = rotation_angle_deg(as_good[:, :, :3].mT @ poses[0, :, :3]).max()
    return Sought(poses[0], least, before, float(uncertain_deg))


@torch.no_grad()
def errors(draw: Render, photo: Photo, poses: Float[Tensor, "n 3 4"], side: int, block: int) -> Float[Tensor, " n"]:
    """How far small pictures from poses are from that of the photo: colours of blocks, in the mean."""
    rgb, visible = photo.at_side(side)
    bundle = _rays(photo.bearings(*visible.shape), poses)
    drawn = draw(bundle).view(len(poses), *visible.shape, 3)
    off = ((drawn - rgb) * visible[..., None]).movedim(-1, 1)
    weight = F.avg_pool2d(visible[None, None], block, block, ceil_mode=True)
    off = F.avg_pool2d(off, block, block, ceil_mode=True) / weight.clamp_min(1e-6)
    return (off.abs().mean(1).clamp(max=_CAP) * weight[:, 0]).sum((1, 2)) / weight.sum().clamp_min(1e-6)


def _rays(bearings: Float[Tensor, "k 3"], poses: Float[Tensor, "n 3 4"]) -> RayBundle:
    """Rays of all bearings from each pose."""
    directions = (bearings @ poses[:, :, :3].mT).flatten(0, 1)
    origins = poses[:, None, :, 3].expand(-1, len(bearings), 3).flatten(0, 1)
    return RayBundle(origins, directions, torch.ones_like(origins[:, :1]))


def _followed(
    render: Render,
    photo: Photo,
    poses: Float[Tensor, "n 3 4"],
    reach: float,
    rate: float,
    sides: tuple[int, ...],
    generator: torch.Generator,
) -> Float[Tensor, "n 3 4"]:
    """Poses after Adam's steps down the differences of colours, in pictures of one side after the other."""
    vector = torch.zeros((len(poses), 6), device=poses.device, requires_grad=True)
    optimizer = torch.optim.Adam([vector], lr=rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.02 ** (1.0 / (_STEPS * len(sides))))
    for side in sides:
        rgb, visible = photo.at_side(side)
        flat, weight, bearings = rgb.reshape(-1, 3), visible.reshape(-1), photo.bearings(*visible.shape)
        for _ in range(_STEPS):
            pixel = torch.randint(len(flat), (_RAYS,), generator=generator).to(flat.device)
            moved = compose(poses, motion(vector, reach))
            colors = render(_rays(bearings[pixel], moved)).view(len(poses), _RAYS, 3)
            off = ((colors - flat[pixel]).square() + 1e-4).sqrt().mean(-1)
            optimizer.zero_grad()
            (off * weight[pixel]).mean(-1).sum().backward()
            optimizer.step()
            schedule.step()
    return compose(poses, motion(vector, reach)).detach()
