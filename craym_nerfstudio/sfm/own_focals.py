"""Focal lengths that belong to single views, adjusted together with poses and points.

A network gives every image a focal length of its own, each of them off. Where one camera took all images one number is
enough, and it is known better: the mean of what was given. A zoom lens needs them all. Held-out matches decide.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from craym_nerfstudio.geometry.lie import compose, so3xr3_exp
from craym_nerfstudio.geometry.pinhole import refocused
from craym_nerfstudio.sfm.bundle import PosePrior, damped_step
from craym_nerfstudio.sfm.levenberg_marquardt import minimise
from craym_nerfstudio.sfm.normal_equations import NormalBlocks, RayObservations, RayResiduals
from craym_nerfstudio.sfm.ray_graph import CameraMask, MatchMask, Poses, RayGraph
from craym_nerfstudio.sfm.refinement import Refined, first_sigma_px, trust_in_input
from craym_nerfstudio.sfm.structure import build_structure
from craym_nerfstudio.sfm.view_focals import FocalFactors, with_focal_factors

_SAME = 1e-4
"""Relative difference of two focal lengths that are one."""
_STRAY = 2.5
"""Spreads from the middle beyond which a focal length does not count for the mean."""
_STEP = 1e-5
_GATES = (20.0, 12.0)
_ITERATIONS = 25
_LOSS_SCALE = 1.7

_State = tuple[Tensor, Tensor, Tensor]
"""Poses c2w [cams,3,4], points [points,3], logs of focal factors [cams]."""


def agreed_factors(graph: RayGraph) -> FocalFactors | None:
    """Factors that give all images of one size their mean focal length; None unless most have one of their own.

    Two cameras, or a few steps of a zoom, are no disagreement. Strays do not count for the mean.
    """
    factors, distinct = np.ones(graph.num_images), 0
    sizes, of_size = np.unique(graph.matches.size_px, axis=0, return_inverse=True)
    for number in range(len(sizes)):
        mine = of_size.ravel() == number
        logs = np.log(graph.focal_px[mine])
        distinct += 1 + int((np.diff(np.sort(logs)) > _SAME).sum())
        off = np.abs(logs - np.median(logs))
        near = off <= _STRAY * max(1.4826 * float(np.median(off)), _SAME)
        factors[mine] = np.exp(logs[near].mean() - logs)
    return factors if 2 * distinct > graph.num_images + 2 else None


def own_factors(
    graph: RayGraph,
    start: Refined,
    first: FocalFactors,
    sigma: float,
    rough: Poses,
    keep: MatchMask,
    fixed: CameraMask,
) -> tuple[FocalFactors, Poses]:
    """A factor on every focal length, and the poses that go with them, from matches in `keep`.

    The search begins at `start`, solved with the factors `first`; `sigma` is how well logs of focal lengths are known
    beforehand. Cameras without enough rays keep 1.
    """
    c2w, logs = start.c2w, torch.from_numpy(np.log(first))
    solved = torch.from_numpy(start.solved)
    use = keep & start.solved[graph.images_of_matches].all(-1)
    for gate in _GATES:
        moved = with_focal_factors(graph, logs.exp().numpy())
        sigma_px = first_sigma_px(moved, c2w, use)
        structure = build_structure(moved, c2w, use, gate * sigma_px)
        moves = solved & ~torch.from_numpy(fixed)
        problem = _Problem(
            observations=structure.observations(graph, sigma_px),
            prior=trust_in_input(c2w, rough, moves.numpy(), graph.priors),
            free=torch.cat([moves[:, None].expand(-1, 6), solved[:, None]], dim=1),
            sigma=sigma,
        )
        state = (c2w, structure.points, logs)
        c2w, _, logs = minimise(state, problem.cost, problem.linearise, max_iterations=_ITERATIONS, tolerance=1e-6)
    return torch.where(solved, logs.exp(), 1.0).numpy(), c2w


@dataclass(frozen=True)
class _Problem:
    """Poses, points and focal lengths, to be adjusted together; `observations` hold bearings as they were given."""

    observations: RayObservations
    prior: PosePrior | None
    free: Bool[Tensor, "cams 7"]
    sigma: float
    """Of what is known of a log factor."""

    def residuals(self, logs: Tensor, points: int) -> RayResiduals:
        """Residuals under some focal lengths."""
        raw = self.observations
        bearing, growth = _seen_through(raw.bearing, logs[raw.camera])
        seen = replace(raw, bearing=bearing, sigma_rad=raw.sigma_rad * growth)
        return RayResiduals(seen, len(logs), points, _LOSS_SCALE)

    def cost(self, state: _State) -> float:
        """Robust cost with all priors."""
        c2w, points, logs = state
        cost = self.residuals(logs, len(points)).cost(c2w, points) + 0.5 * float((logs / self.sigma).square().sum())
        return cost + (self.prior.cost(c2w) if self.prior is not None else 0.0)

    def linearise(self, state: _State) -> Callable[[float], _State | None]:
        """Steps from some poses, points and focal lengths."""
        c2w, points, logs = state
        residuals = self.residuals(logs, len(points))
        blocks = self._equations(residuals, c2w, points, logs)

        def moved(damping: float) -> _State | None:
            step = damped_step(residuals, blocks, self.free, damping)
            if step is None:
                return None
            turned = torch.where(self.free[:, :1, None], compose(c2w, so3xr3_exp(step[0][:, :6])), c2w)
            return turned, points + step[1], logs + step[0][:, 6]

        return moved

    def _equations(self, residuals: RayResiduals, c2w: Tensor, points: Tensor, logs: Tensor) -> NormalBlocks:
        rows = residuals.rows(c2w, points)
        raw, at = self.observations.bearing[residuals.order], logs[residuals.observations.camera]
        (up, up_growth), (down, down_growth) = (_seen_through(raw, at + step) for step in (_STEP, -_STEP))
        # A bearing that moves by db in its tangent plane moves the residual by -db: exact where the residual is zero.
        turn = (residuals.axes[:, :2] @ ((up - down) / (2 * _STEP))[..., None]).squeeze(-1)
        by_log = -turn * (rows.root / residuals.observations.sigma_rad)[:, None]
        by_log = by_log - rows.residual.squeeze(-1) * ((up_growth / down_growth).log() / (2 * _STEP))[:, None]
        rows = replace(rows, by_camera=torch.cat([rows.by_camera, by_log[..., None]], dim=-1))
        blocks = residuals.assemble(rows)
        if self.prior is not None:
            self.prior.add_to(blocks, c2w)
        blocks.camera[:, 6, 6] += 1 / self.sigma**2
        blocks.camera_gradient[:, 6] += logs / self.sigma**2
        return blocks


def _seen_through(
    bearing: Float[Tensor, "obs 3"], log: Float[Tensor, "obs"]
) -> tuple[Float[Tensor, "obs 3"], Float[Tensor, "obs"]]:
    """Bearings for focal lengths with a log factor, and by what a keypoint's standard deviation in radians grows."""
    factor = log.exp()
    rays = torch.from_numpy(refocused(bearing.numpy(), factor.numpy()))
    # As in `RayGraph.sigma_rad`: a pixel covers less away from the axis.
    return rays, (rays[:, 2] / bearing[:, 2]) ** 1.5 / factor
