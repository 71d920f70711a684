"""The region: the sphere of the world that holds the surface, and is the unit sphere of the field."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from craym_nerfstudio.data.config import AskedRegion
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.geometry.rays import meeting_point
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.sfm.result import StageZero

_MIN_POINTS = 100
_FLAT = 0.25
"""Least over middle extent of points below which they are ground rather than an object."""
_FROM_ABOVE = 0.7
"""Mean cosine between viewing directions and the ground's normal in captures from above."""
_SPREAD = 0.3
"""Extent of the cameras in parts of their height above the ground from which on they survey it."""
_REACH, _REACH_FROM_ONE_SIDE = 0.9, 2.5
"""Radius of a region that cameras stand round, at most, in parts of their distance from what they look at."""
_ONE_SIDE = 0.9
"""Length of the mean direction to the cameras, from what they look at, beyond which they are all on one side of it."""
_PARALLEL = 1e3
"""Condition number beyond which optical axes are parallel."""
_BEFORE, _NEARLY_ALL = 0.9, 0.9
"""Cosine between optical axis and direction of what is looked at, and share of the cameras that must reach it."""

_GRID = 5
"""Rays of an image that are asked, along each side."""


def find_region(stage: StageZero, has_alpha: bool) -> Similarity | None:
    """World from unit frame, by the triangulated points; None, for want of points, keeps the world's unit sphere.

    The sphere holds the sure points (`StageZero.is_sure`). Cameras that stand round what they look at may see far
    beyond it: there it ends at the ring of the cameras, and what lies outside is background. Where all stand on one
    side, what is behind is the only wall that they see: it belongs to the surface unless it is far away.
    """
    points = stage.points[stage.is_sure]
    if len(points) < _MIN_POINTS:
        return None
    if has_alpha:
        # Keypoints miss what has no texture: a wide margin.
        return _ball(points, 1.3, 0.98)
    if is_survey(points, stage.c2w):
        # At the edge of a survey two images see the ground.
        return _ball(stage.points, 1.1, 0.99)
    ball, focus = _ball(points, 1.2, 0.95), looked_at(stage.c2w)
    if focus is not None:
        reach = _reach(stage.c2w[:, :, 3] - focus)
        if float(ball.scale) > reach:
            return Similarity.of(reach, translation=focus)
    return ball


def _reach(offset: Float[np.ndarray, "cams 3"]) -> float:
    """Largest radius of the region, by where the cameras are as seen from what they look at."""
    distance = np.linalg.norm(offset, axis=-1)
    mean_direction = (offset / np.maximum(distance, 1e-12)[:, None]).mean(0)
    on_one_side = float(np.linalg.norm(mean_direction)) > _ONE_SIDE
    return (_REACH_FROM_ONE_SIDE if on_one_side else _REACH) * float(np.median(distance))


def looked_at(c2w: Float[np.ndarray, "cams 3 4"]) -> Float[np.ndarray, "3"] | None:
    """The place that cameras standing round it look at; None where there is no such place.

    The point nearest to all optical axes; nearly all cameras must have it before them, and near their axes.
    """
    origins, axes = c2w[:, :, 3], -c2w[:, :, 2]
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    if np.linalg.cond(across.sum(0)) > _PARALLEL:
        return None
    lines = torch.from_numpy(origins), torch.from_numpy(axes)
    focus = meeting_point(*lines, torch.ones(len(axes), dtype=torch.float64)).numpy()
    offset = focus - origins
    distance = np.linalg.norm(offset, axis=-1)
    cosine = (offset * axes).sum(-1) / np.maximum(distance, 1e-12)
    return focus if float((cosine > _BEFORE).mean()) > _NEARLY_ALL else None


def _ball(points: Float[np.ndarray, "points 3"], margin: float, share: float) -> Similarity:
    """World from unit frame of the sphere round the middle of the points that holds this share of them, and more."""
    low, high = np.quantile(points, [0.02, 0.98], axis=0)
    center = 0.5 * (low + high)
    distance = np.linalg.norm(points - center, axis=-1)
    return Similarity.of(margin * float(np.quantile(distance, share)), translation=center)


def is_survey(points: Float[np.ndarray, "points 3"], c2w: Float[np.ndarray, "cams 3 4"]) -> bool:
    """Whether cameras that move over flat ground look down on it, as a drone's do."""
    low, high = np.quantile(points, [0.05, 0.95], axis=0)
    core = points[((points >= low) & (points <= high)).all(-1)]
    if len(core) < _MIN_POINTS // 2:
        return False
    middle = core.mean(0)
    _, extent, axes = np.linalg.svd(core - middle, full_matrices=False)
    height = (c2w[:, :, 3] - middle) @ axes[2]
    # The optical axis is -z; cameras are on the side that they look down from.
    down = np.abs((c2w[:, :, 2] @ axes[2]) * np.sign(height))
    along = (c2w[:, :, 3] - middle) @ axes[:2].T
    moves = float(np.ptp(along, axis=0).max()) > _SPREAD * float(np.median(np.abs(height)))
    one_side = bool((height > 0).all() or (height < 0).all())
    return bool(extent[2] < _FLAT * extent[1] and one_side and down.mean() > _FROM_ABOVE and moves)


def asked_region(asked: AskedRegion, default: Similarity, world_from_data: Similarity) -> Similarity:
    """World from unit frame with what was asked for in units of the data, and the rest as it is by default."""
    center = default.translation.numpy()
    if asked.center is not None:
        center = world_from_data.points(np.array(asked.center, dtype=np.float64))
    radius = float(default.scale)
    if asked.radius is not None:
        radius = float(world_from_data.lengths(np.array(asked.radius)))
    return Similarity.of(asked.scale * radius, translation=center)


@dataclass(frozen=True)
class RegionFigures:
    """A region in the frame and units of the data, and what it holds."""

    center: Float[np.ndarray, "3"]
    radius: float
    points: float
    """Share of stage 0's points inside; NaN without any."""
    rays: float
    """Share of the images' rays that pass through it."""

    @property
    def in_words(self) -> str:
        """For the terminal."""
        # To a thousandth of the radius, in map coordinates too.
        decimals = max(0, 3 - math.floor(math.log10(self.radius)))
        center = ", ".join(f"{value:.{decimals}f}" for value in self.center)
        held = [] if np.isnan(self.points) else [f"{self.points:.0%} of the points"]
        shares = " and ".join([*held, f"{self.rays:.0%} of the camera rays"])
        return f"centre ({center}), radius {self.radius:.4g} in units of the data; it holds {shares}"


def figures_in_data(
    world_from_unit: Similarity,
    world_from_data: Similarity,
    points: Float[np.ndarray, "points 3"] | None,
    views: Views,
) -> RegionFigures:
    """Figures of a region in the data's frame; region, points and poses of the views are in the world."""
    center, radius = world_from_unit.translation.numpy(), float(world_from_unit.scale)
    origins, directions = view_rays(views)
    offset = center - origins
    ahead = (offset * directions).sum(-1).clip(min=0)
    nearest = np.linalg.norm(offset - ahead[:, None] * directions, axis=-1)
    inside = float("nan")
    if points is not None and len(points):
        inside = float((np.linalg.norm(points - center, axis=-1) < radius).mean())
    data_from_unit = world_from_data.inverse() @ world_from_unit
    shown = data_from_unit.translation.numpy()
    return RegionFigures(shown, float(data_from_unit.scale), inside, float((nearest < radius).mean()))


def view_rays(views: Views) -> tuple[Float[np.ndarray, "rays 3"], Float[np.ndarray, "rays 3"]]:
    """Origins and unit directions of a grid of rays of every view, in the frame of its poses."""
    steps = (np.arange(_GRID) + 0.5) / _GRID
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    origins = np.repeat(views.c2w[:, :, 3], len(grid), axis=0)
    bearings = [views.bearings(k, grid * views.size_px[k]) @ views.c2w[k, :, :3].T for k in range(len(views.names))]
    return origins, np.concatenate(bearings)
