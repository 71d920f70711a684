"""Robust bundle adjustment of matched rays with pose priors and cameras held fixed.

pycolmap's adjuster knows priors on positions only, and projections into a plane. Rough poses are known in rotation
too, and bearings serve any lens.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from craym_nerfstudio.geometry.alignment import nearest_rotation
from craym_nerfstudio.geometry.lie import compose, inverse, so3_log, so3xr3_exp
from craym_nerfstudio.sfm.levenberg_marquardt import minimise
from craym_nerfstudio.sfm.normal_equations import NormalBlocks, RayObservations, RayResiduals
from craym_nerfstudio.sfm.ray_graph import Poses

_PRIOR_LOSS_SCALE = 3.0


@dataclass(frozen=True)
class PosePrior:
    """Gaussian knowledge of camera poses, Cauchy-robust so that a camera that is plainly elsewhere gets away."""

    c2w: Poses
    sigma_translation: Float[Tensor, "cams"]
    """World units; infinite where nothing is known."""
    sigma_rotation_rad: Float[Tensor, "cams"]

    def _residuals(self, c2w: Tensor) -> Tensor:
        """Tangent [cams,6] from the prior to the pose in standard deviations, translation first."""
        delta = compose(inverse(self.c2w), c2w)
        return torch.cat([delta[..., 3], so3_log(delta[..., :3])], dim=-1) / self._sigma()

    def _sigma(self) -> Tensor:
        return torch.stack([self.sigma_translation] * 3 + [self.sigma_rotation_rad] * 3, dim=-1)

    def cost(self, c2w: Poses) -> float:
        """Cauchy cost of poses."""
        squared = self._residuals(c2w).square().sum(-1)
        return float(0.5 * _PRIOR_LOSS_SCALE**2 * torch.log1p(squared / _PRIOR_LOSS_SCALE**2).sum())

    def add_to(self, blocks: NormalBlocks, c2w: Poses) -> None:
        """Add the prior's normal equations to those of the rays; of a camera's unknowns the first six are its pose."""
        residual = self._residuals(c2w)
        weight = 1 / (1 + residual.square().sum(-1, keepdim=True) / _PRIOR_LOSS_SCALE**2)
        # Derivative of the tangent with respect to a camera-frame step: the relative rotation for the translation
        # and, close enough at prior-sized angles, the identity for the rotation.
        turn = compose(inverse(self.c2w), c2w)[..., :3]
        precision = 1 / self._sigma().square()
        gradient = residual / self._sigma() * weight
        gradient = torch.cat([(gradient[:, None, :3] @ turn).squeeze(1), gradient[:, 3:]], dim=-1)
        blocks.camera[:, :6, :6] += torch.diag_embed(precision * weight)
        blocks.camera_gradient[:, :6] += gradient


@dataclass(frozen=True)
class Bundle:
    """Poses and points that minimise the robust cost, and the residuals' object."""

    c2w: Poses
    points: Float[Tensor, "points 3"]
    residuals: RayResiduals


def adjust_bundle(
    c2w: Poses,
    points: Float[Tensor, "points 3"],
    observations: RayObservations,
    *,
    fixed: Bool[Tensor, "cams"],
    prior: PosePrior | None,
    loss_scale: float,
    max_iterations: int,
) -> Bundle:
    """Levenberg-Marquardt on poses and points (float64) until the cost falls by less than 1e-5 of itself.

    Cameras that are `fixed`, or that see nothing and have no prior, stay exactly where they are.
    """
    residuals = RayResiduals(observations, len(c2w), len(points), loss_scale)
    free = torch.bincount(observations.camera, minlength=len(c2w)) > 0
    if prior is not None:
        free |= torch.isfinite(prior.sigma_rotation_rad)
    free &= ~fixed

    def cost_of(state: tuple[Tensor, Tensor]) -> float:
        return residuals.cost(*state) + (prior.cost(state[0]) if prior is not None else 0.0)

    def linearise(state: tuple[Tensor, Tensor]) -> Callable[[float], tuple[Tensor, Tensor] | None]:
        c2w, points = state
        blocks = residuals.blocks(c2w, points)
        if prior is not None:
            prior.add_to(blocks, c2w)

        def moved(damping: float) -> tuple[Tensor, Tensor] | None:
            step = damped_step(residuals, blocks, free[:, None].expand(-1, 6), damping)
            if step is None:
                return None
            return torch.where(free[:, None, None], compose(c2w, so3xr3_exp(step[0])), c2w), points + step[1]

        return moved

    c2w, points = minimise((c2w, points), cost_of, linearise, max_iterations=max_iterations, tolerance=1e-5)
    return Bundle(torch.where(free[:, None, None], _orthonormal(c2w), c2w), points, residuals)


def damped_step(
    residuals: RayResiduals, blocks: NormalBlocks, free: Bool[Tensor, "cams d"], damping: float
) -> tuple[Float[Tensor, "cams d"], Float[Tensor, "points 3"]] | None:
    """Steps of cameras and points for one damping, None when the system is not positive definite."""
    point_inverse = torch.linalg.inv(damped(blocks.point, damping))
    system, gradient = residuals.reduce(replace(blocks, camera=damped(blocks.camera, damping)), point_inverse)
    active = free.flatten()
    factor, failed = torch.linalg.cholesky_ex(system[active][:, active])
    if int(failed) > 0:
        return None
    step = torch.zeros_like(gradient)
    step[active] = -torch.cholesky_solve(gradient[active][:, None], factor).squeeze(-1)
    camera_step = step.view_as(blocks.camera_gradient)
    return camera_step, residuals.back_substitute(blocks, point_inverse, camera_step)


def damped(blocks: Tensor, damping: float) -> Tensor:
    """Marquardt's damping, with a floor that keeps empty blocks invertible."""
    diagonal = blocks.diagonal(dim1=-2, dim2=-1)
    floor = 1e-12 * diagonal.mean() + 1e-300
    return blocks + torch.diag_embed(damping * diagonal + floor)


def _orthonormal(c2w: Tensor) -> Tensor:
    """Poses with the rounding of many products taken out of their rotations."""
    return torch.cat([nearest_rotation(c2w[..., :3]), c2w[..., 3:]], dim=-1)
