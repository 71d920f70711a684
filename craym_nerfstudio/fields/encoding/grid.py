"""Geometry of the multi-resolution hash grid, shared by every backend.

Layout and indexing are those of tiny-cuda-nn's ``HashGrid`` (Mueller et al. 2022, "Instant neural graphics
primitives"), so that one table serves all backends: level ``l`` has ``resolution_l`` vertices per axis, ``position =
x * scale_l + 0.5`` staggers the levels against each other, a level that fits is stored densely (index wrapped at its
end), any other one is hashed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

HASH_PRIMES = (1, 2654435761, 805459861)

Pullback = Callable[[Float[Tensor, "n feat"]], Float[Tensor, "n 3"]]
"""The map from a gradient by features to the gradient by points."""


@dataclass(frozen=True)
class GridSpec:
    """Sizes of a hash grid over the unit cube; raises ``ValueError`` for sizes that cannot be indexed."""

    levels: int = 16
    features_per_level: int = 2
    """Mueller et al. 2022 found 2, with 16 levels, a good trade of quality against time."""
    log2_table_size: int = 19
    base_resolution: int = 32
    growth: float = 1.3195
    interpolation: Literal["linear", "smoothstep"] = "linear"

    def __post_init__(self) -> None:
        if self.levels < 1 or self.base_resolution < 2 or self.growth < 1:
            raise ValueError(f"a grid needs levels >= 1, base_resolution >= 2, growth >= 1; got {self}")
        if self.features_per_level not in (1, 2, 4, 8):
            raise ValueError(f"features_per_level must be 1, 2, 4 or 8; got {self}")
        if not 3 <= self.log2_table_size <= 24 or self.base_resolution * self.growth ** (self.levels - 1) > 2**20:
            raise ValueError(f"log2_table_size must lie in 3..24 and the finest resolution below 2^20; got {self}")
        if self.interpolation not in ("linear", "smoothstep"):
            raise ValueError(f"interpolation must be linear or smoothstep; got {self.interpolation}")

    @cached_property
    def scales(self) -> tuple[float, ...]:
        """Grid units per unit of x on each level, rounded to float32 as on the GPU."""
        log2_growth = np.float32(math.log2(self.growth))
        powers = np.exp2(np.arange(self.levels, dtype=np.float32) * log2_growth)
        return tuple(float(s) for s in powers * np.float32(self.base_resolution) - np.float32(1))

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Vertices per axis on each level."""
        return tuple(math.ceil(scale) + 1 for scale in self.scales)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Table entries of each level: all vertices rounded up to a multiple of 8, at most ``2^log2_table_size``."""
        return tuple(min(-(-(r**3) // 8) * 8, 2**self.log2_table_size) for r in self.resolutions)

    @cached_property
    def dense(self) -> tuple[bool, ...]:
        """Whether each level has an entry of its own for every vertex."""
        return tuple(r**3 <= size for r, size in zip(self.resolutions, self.sizes, strict=True))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First table entry of each level, and the number of entries at the end."""
        return (0, *np.cumsum(self.sizes).tolist())

    @property
    def n_entries(self) -> int:
        """Rows of the table."""
        return self.offsets[-1]

    @property
    def n_features(self) -> int:
        """Width of the encoding: levels times features per level."""
        return self.levels * self.features_per_level

    @property
    def n_params(self) -> int:
        """Numbers in the table."""
        return self.n_entries * self.features_per_level

    @property
    def smooth(self) -> bool:
        """Whether interpolation weights are smoothstep (continuous first derivative across cells)."""
        return self.interpolation == "smoothstep"


@dataclass(frozen=True)
class Grid:
    """What a backend computes from: sizes, the table and the factor of every level."""

    spec: GridSpec
    table: Float[Tensor, "entries f"]
    weights: tuple[float, ...]
    scheduled: Float[Tensor, " levels"] | None = None
    """Where a device computes the factors itself: these; `weights` then only tells which are 0."""


@lru_cache(maxsize=256)
def active_levels(spec: GridSpec, weights: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale, (level, offset, size, dense resolution or 0) and weight of the levels that are not masked."""
    active = [level for level, weight in enumerate(weights) if weight != 0]
    rows = [(k, spec.offsets[k], spec.sizes[k], spec.resolutions[k] * spec.dense[k]) for k in active]
    scales = np.array([spec.scales[k] for k in active], np.float32)
    return scales, np.array(rows, np.int64).reshape(-1, 4), np.array([weights[k] for k in active], np.float32)


@dataclass(frozen=True)
class ScheduledWeights:
    """Factors of the levels that a device computes from the step, so that what is recorded there once follows it."""

    values: Float[Tensor, " levels"]
    active: tuple[float, ...]
    """0 for levels that are not traversed, whatever the device says, 1 for the others."""


LevelWeights = Sequence[float] | Tensor | ScheduledWeights | None


def weighted_grid(spec: GridSpec, table: Float[Tensor, "entries f"], level_weights: LevelWeights) -> Grid:
    """The grid under a coarse-to-fine mask (a plain tensor on a GPU is waited for: keep the mask on the CPU)."""
    if isinstance(level_weights, ScheduledWeights) and level_weights.values.device.type != "cpu":
        weights, scheduled = level_weights.active, level_weights.values
    else:
        given = level_weights.values if isinstance(level_weights, ScheduledWeights) else level_weights
        values = (1.0,) * spec.levels if given is None else given.tolist() if isinstance(given, Tensor) else given
        weights, scheduled = tuple(float(w) for w in values), None
    if len(weights) != spec.levels:
        raise ValueError(f"level_weights must have one value per level: {len(weights)} given, {spec.levels} levels")
    return Grid(spec, table, weights, scheduled)
