"""Focal length, principal point and radial distortion that all views share, adjusted together with poses and points."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from craym_nerfstudio.geometry.lie import compose, so3xr3_exp
from craym_nerfstudio.geometry.pinhole import refocused
from craym_nerfstudio.sfm.bundle import PosePrior, damped
from craym_nerfstudio.sfm.levenberg_marquardt import minimise
from craym_nerfstudio.sfm.normal_equations import NormalBlocks, RayObservations, RayResiduals
from craym_nerfstudio.sfm.ray_graph import CameraMask, MatchMask, Poses, RayGraph
from craym_nerfstudio.sfm.refinement import Refined, first_sigma_px, trust_in_input
from craym_nerfstudio.sfm.result import Intrinsics
from craym_nerfstudio.sfm.structure import build_structure

_SIGMA = torch.tensor([0.5, 0.02, 0.02, 0.1, 0.1], dtype=torch.float64)
"""What is known beforehand: log focal factor, principal point over focal length (x, y), k1, k2."""
_STEP = 1e-5
_MIN_FORWARD = 0.2
"""Rays further from the axis than this cosine have no place in the image plane and keep their bearing."""
_GATES = (40.0, 20.0, 12.0)
"""Gate of each round in standard deviations of a keypoint: a wrong focal length first looks like noise."""
_ITERATIONS = 25
_LOSS_SCALE = 1.7

_State = tuple[Tensor, Tensor, Tensor]
"""Poses c2w [cams,3,4], points [points,3], intrinsics [5]."""


def correct_bearings(
    bearing: Float[Tensor, "*n 3"], intrinsics: Intrinsics, image: Int[np.ndarray, "*n"] | None = None
) -> Float[Tensor, "*n 3"]:
    """Bearings (unit, OpenGL axes) under corrected intrinsics; of which `image`, where each has a focal of its own."""
    if image is not None and intrinsics.own_focal:
        factor = np.array(intrinsics.own_focal)[image]
        bearing = torch.from_numpy(refocused(bearing.numpy(), factor)).to(bearing)
    x, y = intrinsics.center
    values = [float(np.log(intrinsics.focal_factor)), x, -y, intrinsics.k1, intrinsics.k2]
    return _corrected(bearing, torch.tensor(values, dtype=bearing.dtype))


def _corrected(bearing: Tensor, state: Tensor) -> Tensor:
    """Bearings moved in the plane at distance 1 by log f, c (right and up), k1, k2: ``q (1 + k1 q^2 + k2 q^4) / f``."""
    forward = -bearing[..., 2]
    plane = bearing[..., :2] / forward.clamp_min(_MIN_FORWARD)[..., None] - state[1:3]
    squared = plane.square().sum(-1, keepdim=True)
    plane = plane * (1 + state[3] * squared + state[4] * squared.square()) * torch.exp(-state[0])
    moved = torch.cat([plane, -torch.ones_like(plane[..., :1])], dim=-1)
    moved = moved / moved.norm(dim=-1, keepdim=True)
    return torch.where((forward > _MIN_FORWARD)[..., None], moved, bearing)


def _magnified(bearing: Tensor, state: Tensor) -> Tensor:
    """By what a small angle at a bearing grows when it is corrected: keypoints are precise in pixels, not in radians.

    Without it the adjustment would lengthen every focal length, because that shrinks all residuals. Away from the axis
    a pixel covers less (`RayGraph.sigma_rad`), and a shorter focal length takes keypoints further from it: to leave
    that out costs a per cent of the focal length where cameras surround an object, which hardly fix it.
    """
    forward = -bearing[..., 2]
    squared = (bearing[..., :2] / forward.clamp_min(_MIN_FORWARD)[..., None] - state[1:3]).square().sum(-1)
    # Mean of the radial and the tangential derivative of the radial polynomial.
    factor = (1 + 2 * state[3] * squared + 3 * state[4] * squared.square()) * torch.exp(-state[0])
    covered = (_corrected(bearing, state)[..., 2].abs() / forward.clamp_min(_MIN_FORWARD)) ** 1.5
    return torch.where(forward > _MIN_FORWARD, factor.clamp_min(0.1) * covered, torch.ones_like(factor))


def estimate_intrinsics(
    graph: RayGraph, start: Refined, rough: Poses, keep: MatchMask, fixed: CameraMask
) -> tuple[Intrinsics, Poses]:
    """Shared intrinsics and the poses that go with them, from matches in `keep` and the poses of `start`."""
    c2w = start.c2w
    state = torch.zeros(5, dtype=torch.float64)
    use = keep & start.solved[graph.images_of_matches].all(-1)
    for gate in _GATES:
        moved = with_intrinsics(graph, _named(state))
        sigma_px = first_sigma_px(moved, c2w, use)
        structure = build_structure(moved, c2w, use, gate * sigma_px)
        problem = _Problem(
            observations=structure.observations(graph, sigma_px),
            prior=trust_in_input(c2w, rough, start.solved & ~fixed, graph.priors),
            free=torch.from_numpy(start.solved & ~fixed),
        )
        unknowns = (c2w, structure.points, state)
        c2w, _, state = minimise(unknowns, problem.cost, problem.linearise, max_iterations=_ITERATIONS, tolerance=1e-6)
    return _named(state), c2w


def with_intrinsics(graph: RayGraph, intrinsics: Intrinsics, only: CameraMask | None = None) -> RayGraph:
    """The graph with corrected bearings and focal lengths, of all cameras or of some."""
    chosen = np.ones(graph.num_images, dtype=bool) if only is None else only
    bearing = correct_bearings(torch.from_numpy(graph.bearing), intrinsics).numpy()
    return replace(
        graph,
        bearing=np.where(chosen[graph.image, None], bearing, graph.bearing),
        focal_px=np.where(chosen, graph.focal_px * intrinsics.focal_factor, graph.focal_px),
    )


def _named(state: Tensor) -> Intrinsics:
    log_focal, x, y, k1, k2 = state.tolist()
    return Intrinsics(float(np.exp(log_focal)), (x, -y), k1, k2)


@dataclass(frozen=True)
class _Border:
    """What five shared unknowns add to the normal equations of cameras and points."""

    own: Float[Tensor, "5 5"]
    gradient: Float[Tensor, "5"]
    camera: Float[Tensor, "cams 6 5"]
    point: Float[Tensor, "points 3 5"]


@dataclass(frozen=True)
class _Problem:
    """Poses, points and five intrinsics, to be adjusted together; `observations` hold uncorrected bearings."""

    observations: RayObservations
    prior: PosePrior | None
    free: Bool[Tensor, "cams"]

    def residuals(self, state: Tensor, cameras: int, points: int) -> RayResiduals:
        """Residuals under some intrinsics."""
        raw = self.observations
        bearing = _corrected(raw.bearing, state)
        sigma = raw.sigma_rad * _magnified(raw.bearing, state)
        return RayResiduals(replace(raw, bearing=bearing, sigma_rad=sigma), cameras, points, _LOSS_SCALE)

    def cost(self, state: _State) -> float:
        """Robust cost with all priors."""
        c2w, points, intrinsics = state
        cost = self.residuals(intrinsics, len(c2w), len(points)).cost(c2w, points)
        cost += 0.5 * float((intrinsics / _SIGMA).square().sum())
        return cost + (self.prior.cost(c2w) if self.prior is not None else 0.0)

    def linearise(self, state: _State) -> Callable[[float], _State | None]:
        """Steps from some poses, points and intrinsics."""
        c2w, points, intrinsics = state
        residuals = self.residuals(intrinsics, len(c2w), len(points))
        blocks, border = self._equations(residuals, c2w, points, intrinsics)

        def moved(damping: float) -> _State:
            step = _bordered_step(residuals, blocks, border, self.free, damping)
            turned = torch.where(self.free[:, None, None], compose(c2w, so3xr3_exp(step[0])), c2w)
            return turned, points + step[1], intrinsics + step[2]

        return moved

    def _equations(
        self, residuals: RayResiduals, c2w: Tensor, points: Tensor, state: Tensor
    ) -> tuple[NormalBlocks, _Border]:
        rows = residuals.rows(c2w, points)
        blocks = residuals.assemble(rows)
        if self.prior is not None:
            self.prior.add_to(blocks, c2w)
        seen = residuals.observations
        raw = self.observations.bearing[residuals.order]
        columns, growth = [], []
        for step in _STEP * torch.eye(5, dtype=state.dtype):
            up, down = state + step, state - step
            columns.append((_corrected(raw, up) - _corrected(raw, down)) / (2 * _STEP))
            growth.append((_magnified(raw, up).log() - _magnified(raw, down).log()) / (2 * _STEP))
        # A bearing that moves by db in its tangent plane moves the residual by -db: exact where the residual is zero.
        by_state = -(residuals.axes[:, :2] @ torch.stack(columns, dim=-1)) * (rows.root / seen.sigma_rad)[:, None, None]
        by_state = by_state - rows.residual * torch.stack(growth, dim=-1)[:, None]
        by_state_t = by_state.transpose(1, 2)
        zeros = c2w.new_zeros
        border = _Border(
            own=(by_state_t @ by_state).sum(0) + torch.diag(1 / _SIGMA.square()),
            gradient=(by_state_t @ rows.residual).sum((0, 2)) + state / _SIGMA.square(),
            camera=zeros(len(c2w), 6, 5).index_add_(0, seen.camera, rows.by_camera.transpose(1, 2) @ by_state),
            point=zeros(len(points), 3, 5).index_add_(0, seen.point, rows.by_point.transpose(1, 2) @ by_state),
        )
        return blocks, border


def _bordered_step(
    residuals: RayResiduals, blocks: NormalBlocks, border: _Border, free: Tensor, damping: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Steps of cameras [cams,6], points [points,3] and intrinsics [5]."""
    seen = residuals.observations
    point_inverse = torch.linalg.inv(damped(blocks.point, damping))
    system, gradient = residuals.reduce(replace(blocks, camera=damped(blocks.camera, damping)), point_inverse)
    eliminated = point_inverse @ border.point
    side = border.camera.index_add(0, seen.camera, -(blocks.coupling @ eliminated[seen.point])).reshape(-1, 5)
    corner = border.own + damping * torch.diag(border.own.diagonal())
    corner = corner - (border.point.transpose(1, 2) @ eliminated).sum(0)
    own = border.gradient - (eliminated.transpose(1, 2) @ blocks.point_gradient[..., None]).sum((0, 2))
    active = free.repeat_interleave(6)
    matrix = torch.cat(
        [torch.cat([system[active][:, active], side[active]], dim=1), torch.cat([side[active].T, corner], dim=1)]
    )
    solved = -torch.linalg.solve(matrix, torch.cat([gradient[active], own]))
    step = torch.zeros_like(gradient)
    step[active] = solved[:-5]
    state_step, camera_step = solved[-5:], step.view(-1, 6)
    pulled = replace(blocks, point_gradient=blocks.point_gradient + border.point @ state_step)
    return camera_step, residuals.back_substitute(pulled, point_inverse, camera_step), state_step
