"""How rays are rendered at each step of training."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.fields.encoding import LevelWeights, ScheduledWeights
from craym_nerfstudio.rendering.renderer import RenderState
from craym_nerfstudio.schedules import Scalar, at_most, exponential_decay, level_weights, ramp

_KNOWN_INTERVAL = 0.12
"""Distance from the cached surface within which rays are sampled, at most, where training begins with a known one."""

_FINER = 2
"""Sections per ray of what nothing is learned from, relative to training, whose jitter evens out what few sections
miss: thin things, and rims."""


@dataclass
class RenderingConfig:
    """Settings of rendering. Steps count from the start of training."""

    enrichment: bool = True
    """Key Rays Enrichment (Eq. 2): a key ray's features attend to those of its auxiliary rays."""
    start_levels: int = 4
    """Levels of the hash grid that are on from the start."""
    steps_per_level: int = 200
    """Steps after which each further level is on."""
    cosine_anneal_steps: int = 5000
    """Steps over which NeuS's slope becomes exact."""
    fine_samples: int = 48
    """Sections per ray at which the field is evaluated in training, at most; pictures have twice as many."""
    surface_interval: tuple[float, float] = (0.5, 0.03)
    """Distances from the cached surface within which rays are sampled, at first and at last (region's radius: 1)."""
    surface_interval_steps: int = 8000
    """Steps over which that distance shrinks."""
    grid_resolution: int = 128
    """Resolution of the cache of distances."""
    grid_refresh_steps: int = 16
    """Steps in which the cache is refreshed once, slab by slab."""
    draw: Literal["surface", "volume"] = "surface"
    """How the viewer and ns-render draw: the traced surface, or as evaluation does, ten times slower."""
    seed: int = 0
    """Seed of the sampling jitter."""

    def level_weights(self, step: Scalar, levels: int) -> Float[Tensor, " levels"]:
        """Factors of the hash grid's levels."""
        return level_weights(step, levels, self.start_levels, self.steps_per_level)

    def state(self, now: Scalar, known: Float[Tensor, " levels"], *, known_surface: bool) -> RenderState:
        """What follows from the step, without jitter.

        Args:
            now: the step; on a device where what is recorded at this step is replayed at others.
            known: weights of the levels at this step.
            known_surface: whether training began with a surface that is about right.
        """
        weights: LevelWeights = known
        if isinstance(now, Tensor):
            weights = ScheduledWeights(self.level_weights(now, len(known)), tuple(known.ne(0).float().tolist()))
        interval = exponential_decay(now, *self.surface_interval, self.surface_interval_steps)
        return RenderState(
            weights,
            ramp(now, 0, self.cosine_anneal_steps),
            interval=at_most(interval, _KNOWN_INTERVAL) if known_surface else interval,
            enrich=self.enrichment,
            finer=1 if torch.is_grad_enabled() else _FINER,
        )
