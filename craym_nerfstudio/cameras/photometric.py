"""Poses refined by what is rendered from them."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from craym_nerfstudio.geometry.lie import compose, se3_exp

_RATE = 1e-3
"""Of Adam: a test pose mapped through the alignment is off by a tenth of a degree."""


def refine_camera(
    render: Callable[[RayBundle], Float[Tensor, "rays 3"]],
    camera: Cameras,
    image: Float[Tensor, "h w 3"],
    mask: Bool[Tensor, "h w 1"] | None,
    steps: int,
    rays: int,
) -> Cameras:
    """Pose of one camera after `steps` Adam steps on the photometric error of random pixels.

    The protocol of BARF and CRAYM: a test pose mapped through the alignment is off by the alignment's own error, which
    must not count against the rendering. Colours that `render` gives are differentiable by its rays; only this camera's
    six numbers change.
    """
    height, width = image.shape[:2]
    start = camera.camera_to_worlds[0]
    generator = torch.Generator().manual_seed(0)
    allowed = torch.arange(height * width) if mask is None else mask.cpu().flatten().nonzero()[:, 0]
    residual = torch.zeros(6, device=start.device, requires_grad=True)
    optimizer = torch.optim.Adam([residual], lr=_RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.1 ** (1.0 / max(steps, 1)))
    flat = image.reshape(-1, 3).to(start.device)
    for _ in range(steps):
        pixel = allowed[torch.randint(len(allowed), (rays,), generator=generator)]
        coords = torch.stack([pixel // width, pixel % width], dim=-1).float() + 0.5
        bundle = camera.generate_rays(camera_indices=torch.zeros(rays, 1, dtype=torch.long), coords=coords)
        bundle = bundle.to(start.device)
        pose = compose(start, se3_exp(residual))
        bundle.directions = bundle.directions @ start[:, :3] @ pose[:, :3].T
        bundle.origins = pose[:, 3].expand_as(bundle.origins)
        loss = (render(bundle) - flat[pixel.to(start.device)]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return with_pose(camera, compose(start, se3_exp(residual)).detach())


def with_pose(camera: Cameras, c2w: Float[Tensor, "3 4"]) -> Cameras:
    """The same camera at another pose."""
    moved = camera[...]
    moved.camera_to_worlds = c2w.to(camera.camera_to_worlds)[None]
    return moved
