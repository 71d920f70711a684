"""Pictures for eyes, as the viewer and ns-render ask for them: traced surfaces, and a depth that can be coloured."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from torch import Tensor

from craym_nerfstudio.rendering.outputs import ray_outputs

if TYPE_CHECKING:
    from craym_nerfstudio.model import CraymModel

_RAYS = 1 << 16
"""Traced at a time."""


def draw_picture(model: "CraymModel", camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Tensor]:
    """Outputs [h, w, ...] of a camera, drawn as the model's `draw` says.

    Where nothing is seen, exporters need a depth that cannot be taken for a surface; in a picture it would leave no
    colours for the rest. Here it is that of a backdrop behind the region and all training cameras.
    """
    if model.training or model.config.draw == "volume":
        rays = camera.generate_rays(camera_indices=0, keep_shape=True, obb_box=obb_box)
        outputs = model.get_outputs_for_camera_ray_bundle(rays)
    else:
        rays = pinhole_rays(camera) or camera.generate_rays(camera_indices=0, keep_shape=True)
        found = traced(model, rays.flatten().to(model.device))
        outputs = {name: values.view(*rays.shape, -1) for name, values in found.items()}
    origin = camera.camera_to_worlds.reshape(3, 4)[:, 3].to(model.device)
    cameras = (model.camera_optimizer.optimised_c2w()[..., 3] - origin).norm(dim=-1)
    backdrop = torch.maximum(cameras.max(), (model.center - origin).norm() + model.radius)
    outputs["depth"] = torch.minimum(outputs["depth"], backdrop.to(outputs["depth"]))
    return outputs


def pinhole_rays(camera: Cameras) -> RayBundle | None:
    """Rays [h, w] of a camera without lens distortion, else None; the host's take a sixth of the time of a picture."""
    distortion = camera.distortion_params
    is_bent = distortion is not None and bool((distortion != 0.0).any())
    if is_bent or int(camera.camera_type.flatten()[0]) != CameraType.PERSPECTIVE.value:
        return None
    fx, fy, cx, cy = (float(value) for value in (camera.fx, camera.fy, camera.cx, camera.cy))
    c2w = camera.camera_to_worlds.reshape(3, 4)
    x = (torch.arange(int(camera.width), device=c2w.device) + 0.5 - cx) / fx
    y = (cy - 0.5 - torch.arange(int(camera.height), device=c2w.device)) / fy
    # R (x, y, -1), column by column of the rotation.
    towards = x[None, :, None] * c2w[:, 0] + (y[:, None, None] * c2w[:, 1] - c2w[:, 2])
    directions = F.normalize(towards, dim=-1)
    area = directions.new_zeros(1).expand(*directions.shape[:2], 1)
    return RayBundle(origins=c2w[:, 3].expand_as(directions), directions=directions, pixel_area=area)


def traced(model: "CraymModel", rays: RayBundle) -> dict[str, Tensor]:
    """Outputs of rays that are looked at, some of them at a time."""
    parts = [_traced(model, rays[start : start + _RAYS]) for start in range(0, len(rays), _RAYS)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _traced(model: "CraymModel", rays: RayBundle) -> dict[str, Tensor]:
    """What the model's `get_outputs` gives to be looked at, by sphere tracing.

    That it is looked at is known here: another thread may end an evaluation meanwhile and let the model train.
    """
    origins, directions = model.unit_rays(rays)
    background = model.background_rgb.expand(len(origins), 3)
    with model.full_precision():
        found = model.tracer.render(origins, directions, background)
        return ray_outputs(found, model.world_from_unit.single().lengths(found.depth), final=True)
