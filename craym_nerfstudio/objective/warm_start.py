"""What the SDF learns before the first image is rendered."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.fields.encoding import LevelWeights
from craym_nerfstudio.fields.sdf_field import SDFField
from craym_nerfstudio.objective.losses import eikonal_loss

_STEPS, _POINTS, _RATE, _TABLE_RATE = 300, 4096, 5e-3, 1.5e-2
"""The table's rate is three times that of the net, which sees its features at three tenths."""
_EIKONAL_WEIGHT = 0.02
"""Small: the distances that are learned have slopes of length 1 themselves."""


def learn_distances(
    field: SDFField,
    level_weights: LevelWeights,
    draw: Callable[[int], tuple[Float[Tensor, "n 3"], Float[Tensor, " n"]]],
) -> None:
    """Train the field on points whose signed distances are known; `draw` gives so many of them."""
    rates = ((field.encoding, _TABLE_RATE), (field.geometry, _RATE))
    optimizer = torch.optim.Adam([{"params": part.parameters(), "lr": rate} for part, rate in rates], eps=1e-15)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, _STEPS)
    with torch.enable_grad():
        for _ in range(_STEPS):
            points, distance = draw(_POINTS)
            surface = field.surface(points, *field.encode(points, level_weights))
            loss = (surface.sdf - distance).abs().mean() + _EIKONAL_WEIGHT * eikonal_loss(surface.gradient)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
