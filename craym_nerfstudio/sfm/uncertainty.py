"""How well the rays fix every camera and point: the formal covariance at the optimum.

It knows of keypoint noise alone. Calibration errors and keypoints that drift with the viewpoint come on top; measured
against exact poses, errors are about twice (rendered scenes) to ten times (photographs) of what is said here.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from craym_nerfstudio.sfm.bundle import Bundle


@dataclass(frozen=True)
class Uncertainty:
    """Formal standard deviations: of cameras as vector lengths, NaN for those the rays do not fix; of points."""

    rotation_deg: Float[np.ndarray, " cams"]
    translation: Float[np.ndarray, " cams"]
    point: Float[np.ndarray, " points"]
    """World units, cameras taken as exact."""


def uncertainty(bundle: Bundle, fixed: Bool[Tensor, "cams"], component: Float[np.ndarray, " cams"]) -> Uncertainty:
    """Covariance of all free cameras with the points eliminated, priors left out.

    Without a fixed camera, a component's variances are in the frame of its own centres.
    """
    blocks = bundle.residuals.blocks(bundle.c2w, bundle.points)
    diagonal = blocks.point.diagonal(dim1=1, dim2=2).mean(-1)
    regular = blocks.point + torch.diag_embed((1e-12 * diagonal + 1e-300)[:, None].expand(-1, 3))
    point_inverse = torch.linalg.inv(regular)
    system, _ = bundle.residuals.reduce(blocks, point_inverse)
    seen = bundle.residuals.observations
    free = (torch.bincount(seen.camera, minlength=len(bundle.c2w)) > 0) & ~fixed
    rotation = torch.full((len(free),), torch.nan, dtype=torch.float64)
    translation = rotation.clone()
    rotation[fixed], translation[fixed] = 0.0, 0.0
    for label in np.unique(component[free.numpy()]):
        members = free & torch.from_numpy(component == label)
        anchored = bool((fixed & torch.from_numpy(component == label)).any())
        rows = members.repeat_interleave(6)
        variance = _variances(system[rows][:, rows], bundle.c2w[members], anchored)
        translation[members] = variance[:, :3].sum(-1).clamp_min(0).sqrt()
        rotation[members] = variance[:, 3:].sum(-1).clamp_min(0).sqrt().rad2deg()
    point = point_inverse.diagonal(dim1=1, dim2=2).sum(-1).clamp_min(0).sqrt()
    return Uncertainty(rotation.numpy(), translation.numpy(), point.numpy())


def _variances(system: Tensor, c2w: Tensor, anchored: bool) -> Tensor:
    """Variances [cams,6] of camera tangents; without an anchor the seven freedoms of the gauge are projected out."""
    unit = _units(c2w)
    system = system * unit * unit[:, None]
    if not anchored:
        gauge = _gauge_directions(c2w)
        # The border may have any scale; that of the system keeps the inverse accurate.
        border = gauge / gauge.norm(dim=0).clamp_min(1e-12) * system.diagonal().median()
        corner = torch.zeros(7, 7, dtype=system.dtype)
        system = torch.cat([torch.cat([system, border], 1), torch.cat([border.T, corner], 1)])
    variance = torch.linalg.pinv(system, hermitian=True).diagonal()[: len(unit)]
    return (variance * unit.square()).view(-1, 6)


def _gauge_directions(c2w: Tensor) -> Tensor:
    """Tangents [6 cams, 7] of the motions that no ray sees: world translation, rotation about the centre, scale.

    Lengths count in units of the cameras' extent, so that they can stand beside angles.
    """
    to_camera = c2w[:, :, :3].transpose(1, 2)
    arm = c2w[:, :, 3] - c2w[:, :, 3].mean(0)
    extent = arm.norm(dim=-1).mean().clamp_min(1e-12)
    arm = arm / extent
    axes = torch.eye(3, dtype=c2w.dtype).expand(len(c2w), 3, 3)
    swing = torch.linalg.cross(axes, arm[:, :, None].expand(-1, 3, 3), dim=1)
    moved = to_camera @ torch.cat([axes, swing, arm[:, :, None]], dim=-1)
    turned = torch.cat([torch.zeros_like(axes), axes, torch.zeros_like(arm[:, :, None])], dim=-1)
    return torch.cat([moved, to_camera @ turned], dim=1).flatten(0, 1)


def _units(c2w: Tensor) -> Tensor:
    """Unit [6 cams] of every tangent component: the extent of the cameras for translations, radians for rotations."""
    extent = (c2w[:, :, 3] - c2w[:, :, 3].mean(0)).norm(dim=-1).mean().clamp_min(1e-12)
    return torch.cat([extent.expand(3), extent.new_ones(3)]).repeat(len(c2w))
