"""Landmarks: what stage 0's points, and the rays that see them, say of the surface."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.layout import Probes
from craym_nerfstudio.schedules import Scalar, filled
from craym_nerfstudio.sfm.result import StageZero
from craym_nerfstudio.start.carving import CarvedSurface

_MIN_LANDMARKS = 100
_BEHIND = 0.02
"""How far behind a landmark still is inside of what it lies on, in units of the field."""
_NEAR = 0.1
"""Up to where points before a landmark are drawn more often."""
_TABLE = 100_000
"""Points whose distance to the carved surface is known."""
_TABLE_SPREAD = 0.06
"""Half of them lie about this far from a landmark, the others anywhere."""
_SLACK, _RELATIVE_SLACK = 0.03, 0.3
"""By how much the distance to the carved surface may be wrong: it is flat between landmarks."""


@dataclass(frozen=True)
class DistanceTable:
    """Points of the region with their signed distances to the carved surface, most of them near it."""

    points: Float[Tensor, "n 3"]
    distance: Float[Tensor, " n"]

    def draw(self, count: int, generator: torch.Generator) -> tuple[Float[Tensor, "count 3"], Float[Tensor, " count"]]:
        """Some of its rows."""
        index = torch.randint(len(self.points), (count,), generator=generator, device=self.points.device)
        return self.points[index], self.distance[index]


class Landmarks:
    """Points on the surface and the rays that see them, in the unit frame.

    A ray passes through free space until it meets its point: the signed distance is positive there, and never more than
    the distance to the point.
    """

    def __init__(
        self,
        points: Float[np.ndarray, "points 3"],
        ray_point: Int[np.ndarray, " rays"],
        ray_origin: Float[np.ndarray, "rays 3"],
        weights: Float[np.ndarray, " points"],
        carved: CarvedSurface,
        device: torch.device | str = "cpu",
    ) -> None:
        generator = np.random.default_rng(0)
        near = points[generator.integers(len(points), size=_TABLE // 2)]
        near = near + _TABLE_SPREAD * generator.standard_normal(near.shape)
        wide = generator.uniform(-1.0, 1.0, (_TABLE - len(near), 3))
        table = np.concatenate([near, wide]).clip(-1.0, 1.0)

        def moved(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).float().to(device)

        self.count = len(points)
        self.table = DistanceTable(moved(table), moved(carved.signed_distance(table)))
        slack = _SLACK + _RELATIVE_SLACK * self.table.distance.abs()
        self._bounds = torch.column_stack([self.table.points, self.table.distance - slack, self.table.distance + slack])
        seen = moved(points)[ray_point]
        self._rays = torch.column_stack([seen, *_before(seen, moved(ray_origin)), moved(weights)[ray_point]])

    @classmethod
    def of(cls, stage: StageZero, world_from_unit: Similarity, device: torch.device | str) -> "Landmarks | None":
        """The sure points inside of the region; None where they do not tell of a surface.

        Args:
            stage: in the world.
        """
        unit = world_from_unit.cpu().inverse()
        points, sigma = unit.points(stage.points), unit.lengths(stage.point_sigma)
        sure = stage.is_sure & np.isfinite(sigma) & (np.linalg.norm(points, axis=-1) < 1.0)
        if sure.sum() < _MIN_LANDMARKS:
            return None
        rays, number = np.flatnonzero(sure[stage.ray_point]), np.cumsum(sure) - 1
        # A point counts half where its error is twice the median one.
        weights = 1.0 / (1.0 + (sigma[sure] / (2.0 * np.median(sigma[sure]))) ** 2)
        seen = points[sure], number[stage.ray_point[rays]], unit.points(stage.c2w[:, :, 3])[stage.ray_image[rays]]
        carved = CarvedSurface(*seen)
        return cls(*seen, weights, carved, device) if len(carved.faces) else None

    def __len__(self) -> int:
        return self.count

    def draw(self, count: int, generator: torch.Generator, carved: Scalar) -> Probes:
        """`count` probes on landmarks and their rays, and as many round the carved surface with the trust `carved`."""
        own = self._on_rays(count, generator)
        # What hangs on no draw is in the rows already: a GPU is asked for a dozen operations, not for fifty.
        row = torch.randint(len(self._bounds), (count,), generator=generator, device=self._bounds.device)
        points, *limits = self._bounds.index_select(0, row).split([3, 1, 1], dim=-1)
        least, most = (limit[:, 0] for limit in limits)
        return Probes(
            torch.cat([own.points, points]),
            torch.cat([own.least, least]),
            torch.cat([own.most, most]),
            torch.cat([own.weights, filled(least, carved)]),
        )

    def _on_rays(self, count: int, generator: torch.Generator) -> Probes:
        """On landmarks, close before them, anywhere before them within the sphere, and close behind: 4 : 2 : 3 : 1."""
        device = self._rays.device
        row = torch.randint(len(self._rays), (count,), generator=generator, device=device)
        share = torch.rand(count, generator=generator, device=device)
        landmark, away, longest, weight = self._rays.index_select(0, row).split([3, 3, 4, 1], dim=-1)
        before = share[:, None] * longest.gather(1, _kinds(count, device))
        limits = before.clamp(max=0.0)[:, 0], before.clamp_min(0.0)[:, 0]
        return Probes(landmark - away * before, *limits, weight[:, 0])


def _before(landmark: Float[Tensor, "rays 3"], origin: Float[Tensor, "rays 3"]) -> tuple[Tensor, Tensor]:
    """Directions [rays, 3] towards landmarks, and how far before them a probe of each kind lies at most [rays, 4]."""
    distance = (landmark - origin).norm(dim=-1)
    away = (landmark - origin) / distance[:, None]
    middle = -(origin * away).sum(-1)
    enter = middle - (1.0 - (origin * origin).sum(-1) + middle * middle).clamp_min(0.0).sqrt()
    reach = (distance - enter.clamp_min(0.0)).clamp_min(0.0)
    kinds = [torch.zeros_like(reach), reach.clamp(max=_NEAR), reach, torch.full_like(reach, -_BEHIND)]
    return away, torch.stack(kinds, dim=-1)


@lru_cache(maxsize=4)
def _kinds(count: int, device: torch.device) -> Int[Tensor, "count 1"]:
    """Of `count` probes on rays, in the shares that `Landmarks._on_rays` names."""
    return torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 3]).repeat(count // 10 + 1)[:count, None].to(device)
