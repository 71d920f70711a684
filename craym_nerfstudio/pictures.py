"""Pictures for eyes, as the viewer and ns-render ask for them: traced surfaces, and a depth that can be coloured."""

from typing import TYPE_CHECKING

import torch
from nerfstudio.cameras.cameras import Cameras
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
    rays = camera.generate_rays(camera_indices=0, keep_shape=True, obb_box=obb_box)
    if model.training or model.config.draw == "volume":
        outputs = model.get_outputs_for_camera_ray_bundle(rays)
    else:
        flat = rays.flatten().to(model.device)
        parts = [_traced(model, flat[start : start + _RAYS]) for start in range(0, len(flat), _RAYS)]
        outputs = {name: torch.cat([part[name] for part in parts]).view(*rays.shape, -1) for name in parts[0]}
    origin = camera.camera_to_worlds.reshape(3, 4)[:, 3].to(model.device)
    cameras = (model.camera_optimizer.optimised_c2w()[..., 3] - origin).norm(dim=-1)
    backdrop = torch.maximum(cameras.max(), (model.center - origin).norm() + model.radius)
    outputs["depth"] = torch.minimum(outputs["depth"], backdrop.to(outputs["depth"]))
    return outputs


def _traced(model: "CraymModel", rays: RayBundle) -> dict[str, Tensor]:
    """What the model's `get_outputs` gives to be looked at, by sphere tracing.

    That it is looked at is known here: another thread may end an evaluation meanwhile and let the model train.
    """
    origins, directions = model.unit_rays(rays)
    background = model.background_rgb.expand(len(origins), 3)
    with model.full_precision():
        found = model.tracer.render(origins, directions, background)
        return ray_outputs(found, model.world_from_unit.single().lengths(found.depth), final=True)
