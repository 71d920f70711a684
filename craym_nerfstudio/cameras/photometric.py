"""Poses refined by what is rendered from them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from craym_nerfstudio.cameras.rays import PinholeRays
from craym_nerfstudio.geometry.lie import compose, se3_exp

_RATE = 1e-3
"""Of Adam: a test pose mapped through the alignment is off by a tenth of a degree."""


@contextmanager
def frozen(module: torch.nn.Module) -> Iterator[None]:
    """Inside, no parameter of the module asks for a gradient."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def refine_cameras(
    render: Callable[[RayBundle], Float[Tensor, "rays 3"]],
    cameras: Cameras,
    images: Sequence[Float[Tensor, "h w 3"]],
    masks: Sequence[Bool[Tensor, "h w 1"] | None],
    steps: int,
    rays: int,
) -> Float[Tensor, "cams 3 4"]:
    """Poses of all cameras after `steps` Adam steps on the photometric errors of `rays` random pixels each.

    The protocol of BARF and CRAYM: a test pose mapped through the alignment is off by the alignment's own error, which
    must not count against the rendering. Colours that `render` gives are differentiable by its rays; only the cameras'
    six numbers change, and no camera's depend on another's.
    """
    start, views = cameras.camera_to_worlds, len(images)
    drawn = [_draw(image, mask, steps, rays) for image, mask in zip(images, masks, strict=True)]
    # [steps, views * rays]: moved to the device once, so that no step waits for it.
    xy = torch.stack([each for each, _ in drawn], dim=1).flatten(1, 2).to(start.device)
    target = torch.stack([each for _, each in drawn], dim=1).flatten(1, 2).to(start.device)
    view = torch.arange(views, device=start.device).repeat_interleave(rays)
    generate = PinholeRays(cameras) if PinholeRays.fit(cameras) else _host_rays(cameras)
    residual = torch.zeros(views, 6, device=start.device, requires_grad=True)
    optimizer = torch.optim.Adam([residual], lr=_RATE, fused=start.is_cuda)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.1 ** (1.0 / max(steps, 1)))
    for step in range(steps):
        bundle = generate(view, xy[step])
        pose = compose(start, se3_exp(residual))
        turn = pose[:, :, :3] @ start[:, :, :3].transpose(-1, -2)
        bundle.directions = (bundle.directions.view(views, rays, 3) @ turn.transpose(-1, -2)).flatten(0, 1)
        bundle.origins = pose[:, None, :, 3].expand(views, rays, 3).flatten(0, 1)
        # The mean of each view, so that a view's gradient does not depend on how many there are.
        loss = (render(bundle) - target[step]).square().view(views, -1).mean(-1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return compose(start, se3_exp(residual)).detach()


def _draw(
    image: Tensor, mask: Tensor | None, steps: int, rays: int
) -> tuple[Float[Tensor, "steps rays 2"], Float[Tensor, "steps rays 3"]]:
    """Centres (x, y) of random pixels that are not masked, and their colours, on the CPU."""
    height, width = image.shape[:2]
    allowed = torch.arange(height * width) if mask is None else mask.cpu().flatten().nonzero()[:, 0]
    generator = torch.Generator().manual_seed(0)
    pixel = allowed[torch.randint(len(allowed), (steps, rays), generator=generator)]
    xy = torch.stack([pixel % width, pixel // width], dim=-1).float() + 0.5
    return xy, image.reshape(-1, 3).cpu()[pixel]


def _host_rays(cameras: Cameras) -> Callable[[Int[Tensor, " n"], Float[Tensor, "n 2"]], RayBundle]:
    """The host's generator, which knows every lens, called as `PinholeRays` is."""
    return lambda view, xy: cameras.generate_rays(camera_indices=view[:, None], coords=xy.flip(-1))


def with_poses(cameras: Cameras, c2w: Float[Tensor, "cams 3 4"]) -> Cameras:
    """The same cameras at other poses."""
    moved = cameras[...]
    moved.camera_to_worlds = c2w.to(cameras.camera_to_worlds)
    return moved
