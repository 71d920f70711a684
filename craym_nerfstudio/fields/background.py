"""What lies outside the unit sphere: a radiance field over contracted space (mip-NeRF 360, Eq. 10)."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from craym_nerfstudio.fields.color_field import spherical_harmonics
from craym_nerfstudio.fields.encoding import BackendChoice, GridSpec, HashEncoding

_BEYOND = 0.1
"""By how far the numbers that colours are cut from may leave [0, 1], so that finite ones reach black and white.

Towards them a sigmoid leaves no gradient, while Adam goes on in steps of the same size: on photos that are black but
for a stand (temple_ring) it went to logits of -30, and the stand was lost. A softsign falls off slowly."""


def contract(points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Map all of space into the ball of radius 2; the unit ball stays as it is."""
    norm = points.norm(dim=-1, keepdim=True).clamp_min(1.0)
    return (2.0 - 1.0 / norm) * (points / norm)


class _Cut(torch.autograd.Function):
    """Numbers cut to [0, 1], with the gradient of those outside that leads back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clamp(0.0, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        leads_on = ((values < 0.0) & (gradient > 0.0)) | ((values > 1.0) & (gradient < 0.0))
        return gradient.masked_fill(leads_on, 0.0)


class BackgroundField(nn.Module):
    """Density and colour outside the unit sphere, in a few sections of a ray equally spaced in inverse distance."""

    def __init__(self, encoding: BackendChoice, log2_table_size: int = 15, samples: int = 16) -> None:
        super().__init__()
        spec = GridSpec(
            levels=8, log2_table_size=log2_table_size, base_resolution=16, growth=1.5, interpolation="smoothstep"
        )
        self.samples = samples
        self.encoding = HashEncoding(spec, backend=encoding)
        self.density = nn.Sequential(nn.Linear(spec.n_features, 32), nn.ReLU(inplace=True), nn.Linear(32, 16))
        self.colors = nn.Sequential(nn.Linear(15 + 16, 32), nn.ReLU(inplace=True), nn.Linear(32, 3), nn.Softsign())

    def forward(
        self,
        origins: Float[Tensor, "rays 3"],
        directions: Float[Tensor, "rays 3"],
        start: Float[Tensor, " rays"],
        jitter: Float[Tensor, "rays 1"] | None,
    ) -> Float[Tensor, "rays samples 4"]:
        """Opacity and colour of sections beyond the distance `start` of each ray; the last of them is opaque."""
        rays = origins.shape[0]
        steps = torch.arange(self.samples, device=origins.device) + (0.5 if jitter is None else jitter)
        inverse = 1.0 - (steps / self.samples).expand(rays, -1)
        # Sections are equal in inverse distance from the unit sphere outwards.
        distance = start[:, None] + 1.0 / inverse.clamp_min(0.01) - 1.0
        points = origins[:, None] + directions[:, None] * distance[..., None]
        features = self.encoding(contract(points).reshape(-1, 3) * 0.25 + 0.5)
        raw = self.density(features)
        # Densities are per unit of contracted length, in which the sections are equally long.
        density = F.softplus(raw[:, 0] - 1.0).view(rays, self.samples)
        # All light comes from somewhere: what passes all sections but the last comes from that.
        alpha = F.pad(-torch.expm1(density[:, :-1] * (-8.0 / self.samples)), (0, 1), value=1.0)
        harmonics = spherical_harmonics(directions)[:, None].expand(-1, self.samples, -1).reshape(-1, 16)
        colors = self.colors(torch.cat([raw[:, 1:], harmonics], dim=-1)).view(rays, self.samples, 3)
        colors = _Cut.apply(0.5 + (0.5 + _BEYOND) * colors)
        return torch.cat([alpha[..., None], colors], dim=-1)
