"""What the model puts behind rays, and its outputs by their names: for the host, and of some rays for the losses."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from craym_nerfstudio.layout import RayLayout, SurfaceRays
from craym_nerfstudio.rendering.key_rays import fuse_matched, matchability
from craym_nerfstudio.rendering.neus import Crossing
from craym_nerfstudio.rendering.renderer import Rendered


def background_colors(
    chosen: Float[Tensor, "3"], layout: RayLayout, generator: torch.Generator | None
) -> Float[Tensor, "rays 3"]:
    """One colour per ray: the chosen one, or where a generator is given a random one for plain rays."""
    if generator is None:
        return chosen.expand(layout.plain + layout.grouped, 3)
    drawn = torch.rand((layout.plain, 3), generator=generator, device=chosen.device)
    return torch.cat([drawn, chosen.expand(layout.grouped, 3)])


def held(values: Float[Tensor, "rays 3"], first: int) -> Float[Tensor, "rays 3"]:
    """Origins or directions of which the first get no gradient: those rays move the surface, not the cameras."""
    return torch.cat([values[:first].detach(), values[first:]]) if first else values


def ray_outputs(rendered: Rendered, depth: Float[Tensor, " rays"], final: bool) -> dict[str, Tensor]:
    """Colour, opacity and depth, as the host's viewer and exporters expect them; for these also normals in [0, 1].

    Args:
        depth: in the units of the world.
        final: whether somebody will look at them. Rays that hit nothing then end far away: their mean depth means
            nothing, and exporters must not take it for a surface.
    """
    accumulation, depth = rendered.accumulation[:, None], depth[:, None]
    if not final:
        return {"rgb": rendered.rgb, "accumulation": accumulation, "depth": depth}
    depth = torch.where(accumulation < 0.5, torch.full_like(depth, 1e3), depth)
    unit = torch.nn.functional.normalize(rendered.normal, dim=-1) * (accumulation >= 0.5)
    return {"rgb": rendered.rgb, "accumulation": accumulation, "depth": depth, "normals": 0.5 * unit + 0.5}


def key_outputs(rendered: Rendered, points: Float[Tensor, "rays 3"], layout: RayLayout) -> dict[str, Tensor]:
    """Matchability, fused colours and surface points (of the unit frame) of the matched key rays."""
    assert rendered.ray_feature is not None
    w = matchability(rendered.ray_feature.unflatten(0, (-1, 2)))
    return {
        "matchability": w,
        "key_fused_rgb": fuse_matched(rendered.rgb[layout.heads].unflatten(0, (-1, 2)), w),
        "key_points": points[layout.heads].unflatten(0, (-1, 2)),
        "key_accumulation": rendered.accumulation[layout.heads].unflatten(0, (-1, 2)),
    }


def surface_rays(
    crossing: Crossing | None, image: Int[Tensor, "rays 1"] | None, directions: Float[Tensor, "rays 3"]
) -> SurfaceRays | None:
    """The first rays of a batch, of which it is known where they meet the surface; held as they were rendered."""
    if crossing is None or image is None:
        return None
    first = slice(len(crossing.distance))
    return SurfaceRays(image[first, 0], directions[first].detach(), crossing.distance, crossing.normal)
