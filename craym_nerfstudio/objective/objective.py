"""The objective of training (paper Eq. 5 to 7): which losses are on at a step, and what each weighs."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.cameras.optimizer import CraymCameraOptimizer
from craym_nerfstudio.data.datamanager import TrainBatch
from craym_nerfstudio.objective import losses
from craym_nerfstudio.schedules import ramp

_FUSED_SHARE = 0.5
"""Share of the fused colours in the photometric loss of key rays; their own colours have the rest. Were they to come on
top, key rays would count twice, and what lies between keypoints suffers (lego_400, 1500 steps: 0.4 dB)."""


@dataclass
class ObjectiveConfig:
    """Weights and schedules of the losses. Steps count from the start of training."""

    coherency: bool = True
    """Matched Rays Coherency (Eq. 3, 4): colours of matched key rays are fused by their matchability."""
    photometric_loss_mult: float = 10.0
    """Weight of the squared colour error."""
    ssim_loss_mult: float = 0.05
    """Weight of 1 - SSIM on patches."""
    epipolar_loss_mult: float = 0.1
    """Weight of the epipolar loss L_e (Eq. 6), per pixel."""
    epipolar_scale_px: float = 1.0
    """Residual at which the epipolar loss turns robust, once the poses have settled."""
    epipolar_anneal_steps: int = 8000
    """Steps over which that residual shrinks from 20 px."""
    point_alignment_loss_mult: float = 0.1
    """Weight of the point alignment loss L_a (Eq. 7), once it is fully on."""
    point_alignment_steps: tuple[int, int] = (6000, 9000)
    """L_a is ramped up between these steps: before, rendered depth cannot be trusted."""
    eikonal_loss_mult: float = 0.1
    """Weight of the eikonal loss."""


def training_losses(
    config: ObjectiveConfig,
    outputs: dict[str, Tensor],
    target: Float[Tensor, "rays 3"],
    batch: dict,
    poses: CraymCameraOptimizer,
    step: int,
) -> dict[str, Tensor]:
    """All losses of a batch, weighted; a part that is switched off is absent."""
    visible = batch["visible"].to(target.device).float() * outputs["rendered"]
    photometric = _photometric(config, outputs, target, visible, batch)
    result = {
        "photometric": config.photometric_loss_mult * photometric,
        "eikonal": config.eikonal_loss_mult * losses.eikonal_loss(outputs["gradients"]),
    }
    if config.ssim_loss_mult and batch["patches"]:
        result["ssim"] = config.ssim_loss_mult * _ssim(outputs["rgb"], target, batch)
    if "matches" in batch:
        result |= _match_losses(config, outputs, batch["matches"], poses, step)
    return result


def _photometric(
    config: ObjectiveConfig,
    outputs: dict[str, Tensor],
    target: Float[Tensor, "rays 3"],
    visible: Float[Tensor, " rays"],
    batch: dict,
) -> Float[Tensor, ""]:
    """Mean squared colour error; matched key rays count with their own and with their fused colours (Eq. 4)."""
    if not config.coherency or "matches" not in batch:
        return losses.photometric_loss(outputs["rgb"], target, visible)
    fused = outputs["key_fused_rgb"].flatten(0, 1)
    heads = slice(batch["plain"], None, (len(target) - batch["plain"]) // len(fused))
    own = visible.clone()
    own[heads] *= 1.0 - _FUSED_SHARE
    return losses.photometric_loss(
        torch.cat([outputs["rgb"], fused]),
        torch.cat([target, target[heads]]),
        torch.cat([own, _FUSED_SHARE * visible[heads]]),
    )


def _ssim(rgb: Float[Tensor, "rays 3"], target: Float[Tensor, "rays 3"], batch: dict) -> Float[Tensor, ""]:
    """1 - SSIM of the patches, which are the last of the plain rays."""
    shape = (batch["patches"], batch["patch_side"], batch["patch_side"], 3)
    part = slice(batch["plain"] - shape[0] * shape[1] * shape[2], batch["plain"])
    return losses.ssim_loss(rgb[part].view(shape), target[part].view(shape))


def _match_losses(
    config: ObjectiveConfig, outputs: dict[str, Tensor], matches: TrainBatch, poses: CraymCameraOptimizer, step: int
) -> dict[str, Tensor]:
    """L_e on many matches, L_a on those that are rendered."""
    trust, result = matches.pairs.confidence, {}
    if config.coherency:
        trust = trust * outputs["matchability"].detach()
    if config.epipolar_loss_mult:
        # Depth drops out of L_e: matches that are not rendered cost next to nothing and steady it.
        drawn = matches.pairs.joined(matches.epipolar)
        residuals = losses.match_residuals_px(outputs["train_c2w"], drawn.cameras, drawn.bearings, drawn.focal_px)
        # Poses that fit their matches already need no wide kernel; asking waits for CUDA, so only while it matters.
        steps, many = config.epipolar_anneal_steps, residuals[len(trust) :]
        steps = 0 if step < steps and bool(poses.settled.all()) else steps
        scale = losses.annealed_kernel_scale_px(step, steps, final_px=config.epipolar_scale_px, residuals_px=many)
        weights = torch.cat([trust, matches.epipolar.confidence])
        result["epipolar"] = config.epipolar_loss_mult * losses.epipolar_loss(residuals, scale, weights)
    alignment = config.point_alignment_loss_mult * ramp(step, *config.point_alignment_steps)
    if alignment:
        points, opacity = outputs["key_points"], outputs["key_accumulation"].detach()
        result["point_alignment"] = alignment * losses.point_alignment_loss(
            points[:, 0], points[:, 1], trust, opacity[:, 0], opacity[:, 1]
        )
    return result
