"""The objective of training (paper Eq. 5 to 7): which losses are on at a step, and what each weighs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.layout import MatchedPairs, Photos, Probes, RayLayout, SurfaceRays
from craym_nerfstudio.objective import losses
from craym_nerfstudio.objective.consistency import consistency_loss
from craym_nerfstudio.schedules import Scalar, exponential_decay, ramp

_FUSED_SHARE = 0.5
"""Share of the fused colours in the photometric loss of key rays; their own colours have the rest. Were they to come on
top, key rays would count twice, and what lies between keypoints suffers (lego_400, 1500 steps: 0.4 dB)."""

_LANDMARK_END = 0.4
"""Of the landmarks' weight, once images tell more: less, and colours explain what shape should."""


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
    silhouette_loss_mult: float = 30.0
    """Weight, at first, of the distance of rendered silhouettes from the images' own, in image widths; for images with
    alpha that no matches tie."""
    silhouette_steps: tuple[int, int] = (2400, 8000)
    """Up to the first silhouettes alone shape the field and shift the cameras; the weight falls to 0 at the second."""
    landmark_loss_mult: float = 10.0
    """Weight, at first, of the distance of the SDF from what stage 0's points and their rays allow; 0 also leaves out
    the warm start."""
    landmark_steps: int = 10000
    """Steps over which that weight falls to 0.4 of it, and trust in the surface between the points to nothing."""
    consistency_loss_mult: float = 0.5
    """Weight of 1 - NCC between patches of photos that see the same place of the surface, once it is fully on."""
    consistency_steps: tuple[int, int] = (1000, 3000)
    """That loss is ramped up between these steps: before, the surface is too far off for patches to tell the way."""

    def aligns(self, step: int) -> bool:
        """Whether the point alignment loss has begun at a step."""
        return bool(self.point_alignment_loss_mult * ramp(step, *self.point_alignment_steps) > 0)

    def compares(self, step: int) -> bool:
        """Whether the consistency loss has begun at a step."""
        return bool(self.consistency_loss_mult * ramp(step, *self.consistency_steps) > 0)


@dataclass(frozen=True)
class TrainingStep:
    """What a loss may see of one step of training."""

    number: int
    """Counted from the start of training."""
    now: Scalar
    """The number by which weights are scheduled: on the device where what is recorded at this step is replayed."""
    outputs: dict[str, Tensor]
    """Of the model; points are in the unit frame, poses in the world."""
    target: Float[Tensor, "rays 3"]
    """Colours of the images, on the background that was rendered."""
    visible: Float[Tensor, " rays"]
    """1 where the image is known, 0 where it is masked."""
    layout: RayLayout
    pairs: MatchedPairs | None
    """Matches whose key rays are rendered."""
    epipolar_pairs: MatchedPairs | None
    """Further matches, which are not."""
    probes: Probes | None
    """Points at which stage 0's points put bounds on the signed distance, `probed` among the outputs."""
    outline: Float[Tensor, " rays"] | None
    """Signed distance from the outline in the image, positive outside; None where silhouettes are not compared."""
    settled: bool
    """Whether stage 0 has adjusted all poses."""
    unit_from_world: Similarity
    render: Callable[[Float[Tensor, "n 3"], Float[Tensor, "n 3"]], dict[str, Tensor]]
    """Outputs of further rays, from origins and unit directions in the world, differentiable."""
    photos: Photos | None = None
    """In which the places of the surface that rays see are compared."""
    surface: SurfaceRays | None = None
    """These rays, at steps at which that is done."""


def training_losses(config: ObjectiveConfig, step: TrainingStep) -> dict[str, Tensor]:
    """All losses of a step, weighted; a part that is switched off is absent."""
    gradients, counts = step.outputs["gradients"], step.outputs.get("gradient_weights")
    result = {"eikonal": config.eikonal_loss_mult * losses.eikonal_loss(gradients, counts)}
    if step.outline is not None:
        weight = config.silhouette_loss_mult * (1.0 - ramp(step.now, *config.silhouette_steps))
        silhouettes = losses.silhouette_loss(step.outputs["accumulation"][:, 0], step.outline, step.visible)
        result["silhouette"] = weight * silhouettes
        if step.number < config.silhouette_steps[0]:
            return result
    result["photometric"] = config.photometric_loss_mult * _photometric(config, step)
    if config.ssim_loss_mult and step.layout.patches:
        result["ssim"] = config.ssim_loss_mult * _ssim(step)
    if step.probes is not None and config.landmark_loss_mult:
        first = config.landmark_loss_mult
        weight = exponential_decay(step.now, first, _LANDMARK_END * first, config.landmark_steps)
        probes = step.probes
        bounds = losses.bounds_loss(step.outputs["probed"], probes.least, probes.most, probes.weights)
        result["landmarks"] = weight * bounds
    if step.photos is not None and step.surface is not None:
        weight = config.consistency_loss_mult * ramp(step.now, *config.consistency_steps)
        compared = consistency_loss(step.photos, step.surface, step.outputs["train_c2w"], step.unit_from_world)
        result["consistency"] = weight * compared
    if step.pairs is not None and step.epipolar_pairs is not None:
        result |= _match_losses(config, step, step.pairs, step.epipolar_pairs)
    return result


def _photometric(config: ObjectiveConfig, step: TrainingStep) -> Float[Tensor, ""]:
    """Mean squared colour error; matched key rays count with their own and with their fused colours (Eq. 4)."""
    rgb, target = step.outputs["rgb"], step.target
    if not config.coherency or not step.layout.groups:
        return losses.photometric_loss(rgb, target, step.visible)
    heads = step.layout.heads
    return losses.photometric_loss(
        torch.cat([rgb, step.outputs["key_fused_rgb"].flatten(0, 1)]),
        torch.cat([target, target[heads]]),
        torch.cat([step.visible, step.visible[heads]]) * _shares(step.layout, rgb.device),
    )


@lru_cache(maxsize=4)
def _shares(layout: RayLayout, device: torch.device) -> Float[Tensor, " n"]:
    """What rays count with in the photometric loss, then the key rays with their fused colours."""
    shares = torch.ones(layout.plain + layout.grouped + layout.groups)
    shares[: layout.plain + layout.grouped][layout.heads] -= _FUSED_SHARE
    shares[layout.plain + layout.grouped :] = _FUSED_SHARE
    return shares.to(device)


def _ssim(step: TrainingStep) -> Float[Tensor, ""]:
    """1 - SSIM of the patches."""
    part, side = step.layout.patch_rays, step.layout.patch_side_px
    shape = (step.layout.patches, side, side, 3)
    return losses.ssim_loss(step.outputs["rgb"][part].view(shape), step.target[part].view(shape))


def _match_losses(
    config: ObjectiveConfig, step: TrainingStep, pairs: MatchedPairs, epipolar_pairs: MatchedPairs
) -> dict[str, Tensor]:
    """L_e on many matches, L_a on those that are rendered."""
    outputs, trust, result = step.outputs, pairs.confidence, {}
    if config.coherency and step.layout.groups:
        trust = trust * outputs["matchability"].detach()
    if config.epipolar_loss_mult:
        # Depth drops out of L_e: matches that are not rendered cost next to nothing and steady it.
        drawn = pairs.joined(epipolar_pairs)
        residuals = losses.match_residuals_px(outputs["train_c2w"], drawn.cameras, drawn.bearings, drawn.focal_px)
        # Poses that fit their matches already need no wide kernel.
        steps, many = 0 if step.settled else config.epipolar_anneal_steps, residuals[len(trust) :]
        scale = losses.annealed_kernel_scale_px(step.now, steps, config.epipolar_scale_px, many)
        weights = torch.cat([trust, epipolar_pairs.confidence])
        result["epipolar"] = config.epipolar_loss_mult * losses.epipolar_loss(residuals, scale, weights)
    if config.aligns(step.number) and step.layout.groups:
        alignment = config.point_alignment_loss_mult * ramp(step.now, *config.point_alignment_steps)
        (point_i, point_j), opacity = outputs["key_points"].unbind(1), outputs["key_accumulation"].detach()
        result["point_alignment"] = alignment * losses.point_alignment_loss(
            point_i, point_j, trust, opacity[:, 0], opacity[:, 1]
        )
    return result
