"""Residuals of matched rays and the camera system that is left once the points are eliminated.

A point is seen along a bearing b. Its residual lives in the plane that touches the unit sphere at b, in units of the
keypoint's standard deviation, so that any lens model fits. Cameras move by ``c2w @ [exp(w) | v]`` with the tangent
``[v, w]`` in the camera's frame; points move freely. A camera may have further unknowns behind these six, for which
whoever adds them also adds columns to the rows; below, d counts all of them.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from craym_nerfstudio.geometry.lie import skew
from craym_nerfstudio.geometry.rays import tangent_frames
from craym_nerfstudio.sfm.ray_graph import Poses

_MIN_DEPTH = 1e-9
_BEHIND = 1e3
"""Residual, in standard deviations, of a point behind its camera: constant, so that it pulls on nothing."""


@dataclass(frozen=True)
class RayObservations:
    """Which camera sees which point along which unit bearing (OpenGL camera frame), and how precisely."""

    camera: Int[Tensor, "obs"]
    point: Int[Tensor, "obs"]
    bearing: Float[Tensor, "obs 3"]
    sigma_rad: Float[Tensor, "obs"]
    """Standard deviation of the bearing along either axis of its tangent plane, in radians."""


@dataclass
class NormalBlocks:
    """Blocks of ``J^T J`` and ``J^T r``: cameras, points and what couples them, one block per observation."""

    camera: Float[Tensor, "cams d d"]
    camera_gradient: Float[Tensor, "cams d"]
    point: Float[Tensor, "points 3 3"]
    point_gradient: Float[Tensor, "points 3"]
    coupling: Float[Tensor, "obs d 3"]


@dataclass
class ResidualRows:
    """Residuals and their derivatives, each multiplied by the root of the observation's weight."""

    by_camera: Float[Tensor, "obs 2 d"]
    by_point: Float[Tensor, "obs 2 3"]
    residual: Float[Tensor, "obs 2 1"]
    root: Float[Tensor, "obs"]


class RayResiduals:
    """Residuals, robust cost and normal equations of observations sorted by point, for `cameras` and `points`."""

    def __init__(self, observations: RayObservations, cameras: int, points: int, loss_scale: float) -> None:
        """`loss_scale`: scale of the Cauchy loss in standard deviations of a keypoint."""
        self.order = torch.argsort(observations.point * cameras + observations.camera)
        self.observations = RayObservations(*(value[self.order] for value in vars(observations).values()))
        self.cameras, self.points, self.squared_scale = cameras, points, loss_scale**2
        self.axes = tangent_frames(self.observations.bearing)
        rays = torch.bincount(self.observations.point, minlength=points)
        self._start = torch.cat([rays.new_zeros(1), rays.cumsum(0)])

    def _project(self, c2w: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Points in each observation's camera [obs,3], depths, slopes off the bearing [obs,2], residuals, in-front."""
        seen = self.observations
        rotation = c2w[seen.camera, :, :3]
        local = ((points[seen.point] - c2w[seen.camera, :, 3])[:, None] @ rotation).squeeze(1)
        along = (self.axes @ local[..., None]).squeeze(-1)
        front = along[:, 2] > _MIN_DEPTH
        depth = torch.where(front, along[:, 2], 1.0)
        slopes = along[:, :2] / depth[:, None]
        return local, depth, slopes, torch.where(front[:, None], slopes / seen.sigma_rad[:, None], _BEHIND), front

    def residuals(self, c2w: Poses, points: Float[Tensor, "points 3"]) -> Float[Tensor, "obs 2"]:
        """Residuals in standard deviations, in the order of `self.observations`."""
        return self._project(c2w, points)[3]

    def cost(self, c2w: Poses, points: Float[Tensor, "points 3"]) -> float:
        """Cauchy cost ``s^2/2 sum log(1 + |r|^2 / s^2)``."""
        squared = self.residuals(c2w, points).square().sum(-1)
        return float(0.5 * self.squared_scale * torch.log1p(squared / self.squared_scale).sum())

    def rows(self, c2w: Poses, points: Float[Tensor, "points 3"]) -> ResidualRows:
        """Residuals and derivatives of the iteratively reweighted least squares that minimise `cost`."""
        seen = self.observations
        local, depth, slopes, residual, front = self._project(c2w, points)
        root = (1 / (1 + residual.square().sum(-1) / self.squared_scale) * front).sqrt()
        by_local = self.axes[:, :2] - slopes[..., None] * self.axes[:, 2:]
        by_local = (root / seen.sigma_rad / depth)[:, None, None] * by_local
        by_camera = torch.cat([-by_local, by_local @ skew(local)], dim=-1)
        by_point = by_local @ c2w[seen.camera, :, :3].transpose(1, 2)
        return ResidualRows(by_camera, by_point, (residual * root[:, None])[..., None], root)

    def blocks(self, c2w: Poses, points: Float[Tensor, "points 3"]) -> NormalBlocks:
        """Normal equations of the reweighted problem at these poses and points."""
        return self.assemble(self.rows(c2w, points))

    def assemble(self, rows: ResidualRows) -> NormalBlocks:
        """Normal equations from rows."""
        seen = self.observations
        by_camera_t, by_point_t = rows.by_camera.transpose(1, 2), rows.by_point.transpose(1, 2)
        zeros, unknowns = rows.root.new_zeros, rows.by_camera.shape[-1]
        return NormalBlocks(
            zeros(self.cameras, unknowns, unknowns).index_add_(0, seen.camera, by_camera_t @ rows.by_camera),
            zeros(self.cameras, unknowns).index_add_(0, seen.camera, (by_camera_t @ rows.residual).squeeze(-1)),
            zeros(self.points, 3, 3).index_add_(0, seen.point, by_point_t @ rows.by_point),
            zeros(self.points, 3).index_add_(0, seen.point, (by_point_t @ rows.residual).squeeze(-1)),
            by_camera_t @ rows.by_point,
        )

    def reduce(self, blocks: NormalBlocks, point_inverse: Float[Tensor, "points 3 3"]) -> tuple[Tensor, Tensor]:
        """Schur complement [d cams, d cams] and its gradient [d cams] after eliminating the points."""
        from craym_nerfstudio.sfm.schur_kernel import subtract_eliminated

        seen, cameras, unknowns = self.observations, self.cameras, blocks.camera.shape[-1]
        square = blocks.camera.new_zeros(cameras, cameras, unknowns, unknowns)
        subtract_eliminated(
            self._start.numpy(), seen.camera.numpy(), blocks.coupling.numpy(), point_inverse.numpy(), square.numpy()
        )
        diagonal = torch.arange(cameras)
        own = square[diagonal, diagonal] + blocks.camera
        square[diagonal, diagonal] = 0
        square = square + square.permute(1, 0, 3, 2)
        square[diagonal, diagonal] = own
        weighted = (point_inverse @ blocks.point_gradient[..., None])[seen.point]
        gradient = blocks.camera_gradient.index_add(0, seen.camera, -(blocks.coupling @ weighted).squeeze(-1))
        return square.permute(0, 2, 1, 3).reshape(unknowns * cameras, unknowns * cameras), gradient.flatten()

    def back_substitute(
        self, blocks: NormalBlocks, point_inverse: Float[Tensor, "points 3 3"], camera_step: Float[Tensor, "cams d"]
    ) -> Float[Tensor, "points 3"]:
        """Step of the points that goes with a step of the cameras."""
        seen = self.observations
        pulled = (blocks.coupling.transpose(1, 2) @ camera_step[seen.camera][..., None]).squeeze(-1)
        gradient = blocks.point_gradient.index_add(0, seen.point, pulled)
        return -(point_inverse @ gradient[..., None]).squeeze(-1)
