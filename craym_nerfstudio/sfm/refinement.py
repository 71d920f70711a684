"""From first poses to the best ones: structure, robust bundle adjustment, further cameras, in rounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.geometry.alignment import align_poses
from craym_nerfstudio.geometry.lie import inverse, rotation_angle_deg
from craym_nerfstudio.matching.views import PosePriors
from craym_nerfstudio.sfm.absolute_pose import MIN_RAYS, predict, resect
from craym_nerfstudio.sfm.bundle import Bundle, PosePrior, adjust_bundle
from craym_nerfstudio.sfm.gauge import pose_spread
from craym_nerfstudio.sfm.ray_graph import CameraMask, MatchMask, Poses, RayGraph
from craym_nerfstudio.sfm.structure import Structure, build_structure


class Round(NamedTuple):
    """A round of refinement."""

    gate: float
    loss_scale: float
    """In standard deviations of a keypoint, as the gate."""
    most_iterations: int
    by_track: bool = False
    """Whether every track has the precision that it shows (`track_scatter`); left out where views are few."""


COARSE_TO_FINE = (Round(16.0, 3.0, 10), Round(16.0, 1.7, 30))
FINE = (Round(16.0, 1.7, 50), Round(16.0, 1.7, 20, by_track=True))

MANY_VIEWS = 30
"""From which on every track has a precision of its own. Few views hang together by the few tracks seen from far apart,
which scatter most: 20 of a Lego model would go from 0.35 to 0.38 degrees."""
_WRONG, _TELLING = 4.0, 5
"""Standard deviations at which a ray stops to tell of its track, as one wrong ray does not condemn the others; and how
many residuals tell of one."""

_EXTRA_ROUNDS = 3
"""Repetitions of the last round, at most, while it registers further cameras."""

_FAR_SPREADS = 6.0
"""So many standard deviations from its rough pose, a camera is not believed on the word of one other camera, nor on
that of others as far off."""

_MIN_SIGMA_PX, _MAX_SIGMA_PX = 1e-3, 4.0


@dataclass(frozen=True)
class Refined:
    """Poses of all cameras, which of them rest on rays, the structure they agree on, and the adjustment's end."""

    c2w: Poses
    solved: CameraMask
    structure: Structure
    bundle: Bundle
    sigma_px: float


def refine(
    graph: RayGraph,
    c2w: Poses,
    solved: CameraMask,
    rough: Poses,
    keep: MatchMask,
    fixed: CameraMask,
    seed: int,
    rounds: Sequence[Round] = COARSE_TO_FINE,
) -> Refined:
    """Adjust cameras that are `solved` and not `fixed`, register more of them, and predict the rest.

    `c2w` must lie in the frame of `rough`. The precision of keypoints is estimated on the way, and so is how far the
    rough poses can be trusted as a prior.
    """
    sigma_px = first_sigma_px(graph, c2w, keep & solved[graph.images_of_matches].all(-1))
    refused = np.zeros_like(solved)
    rounds = [each for each in rounds if not each.by_track or solved.sum() >= MANY_VIEWS]
    for number, (gate, loss_scale, iterations, by_track) in enumerate(
        [*rounds, *[rounds[-1]] * _EXTRA_ROUNDS], start=1
    ):
        use = keep & solved[graph.images_of_matches].all(-1)
        structure = build_structure(graph, c2w, use, gate * sigma_px)
        scatter = track_scatter(graph, structure, c2w, sigma_px) if by_track else np.ones(len(graph.image))
        prior = trust_in_input(c2w, rough, solved & ~fixed, graph.priors)
        bundle = adjust_bundle(
            c2w,
            structure.points,
            structure.observations(graph, sigma_px * scatter),
            fixed=torch.from_numpy(fixed | ~solved),
            prior=prior,
            loss_scale=loss_scale,
            max_iterations=iterations,
        )
        c2w, structure = bundle.c2w, Structure(bundle.points, structure.point, structure.node)
        sigma_px = float(np.clip(sigma_px * noise_factor(bundle), _MIN_SIGMA_PX, _MAX_SIGMA_PX))
        before = solved
        refused |= unconfirmed(graph, structure, c2w, rough, prior) & ~fixed
        fed = np.bincount(graph.image[structure.node], minlength=graph.num_images) >= MIN_RAYS
        solved = (solved & fed & ~refused) | fixed
        c2w = predict(c2w, rough, solved)
        if not solved.all():
            c2w, solved = resect(graph, structure, c2w, solved | refused, keep, seed)
            solved &= ~refused
        if number >= len(rounds) and not (solved & ~before).any():
            break
    return Refined(c2w, solved & before, structure, bundle, sigma_px)


def track_scatter(graph: RayGraph, structure: Structure, c2w: Poses, sigma_px: float) -> Float[np.ndarray, " nodes"]:
    """Standard deviations of keypoints over `sigma_px`, one for all of a track, from how far its rays miss their point.

    Corners of one surface scatter less than where an edge passes before another surface, which moves with the camera
    and misleads all views of it alike. What a track shows counts the more, the more tracks differ beyond chance
    (empirical Bayes: Smyth 2004, section 6.2, with medians).
    """
    from scipy.special import digamma, polygamma

    seen = np.bincount(structure.point, minlength=len(structure.points))
    off = np.minimum(structure.error_px(graph, c2w) / sigma_px, _WRONG) ** 2
    total = np.bincount(structure.point, off, minlength=len(seen))
    scatter, freedoms = np.ones(len(graph.image)), 2 * seen - 3  # the point takes three
    told = (freedoms >= _TELLING) & (total > 0)
    if not told.any():
        return scatter
    half = freedoms[told] / 2
    logs = np.log(total[told] / (2 * half)) - digamma(half) + np.log(half)
    spread = (1.4826 * np.median(np.abs(logs - np.median(logs)))) ** 2 - polygamma(1, half).mean()
    if spread <= 0:
        return scatter
    # Inverse of the trigamma function, to some per cent.
    prior = (1 + (1 + 2 * spread) ** 0.5) / (2 * spread)
    usual = np.exp(np.median(logs) + digamma(prior) - np.log(prior))
    variance = (2 * prior * usual + total) / (2 * prior + freedoms)
    # The median ray keeps its precision, and so the loss its width.
    scatter[structure.node] = np.sqrt(variance / np.median(variance[structure.point]))[structure.point]
    return scatter


def first_sigma_px(graph: RayGraph, c2w: Poses, use: MatchMask) -> float:
    """Robust standard deviation of keypoints from epipolar distances, pose errors included."""
    if not use.any():
        return _MAX_SIGMA_PX
    return float(np.clip(1.4826 * np.median(graph.epipolar_px(c2w)[use]), _MIN_SIGMA_PX, _MAX_SIGMA_PX))


def noise_factor(bundle: Bundle) -> float:
    """Observed over assumed standard deviation of the keypoints, the fitted freedoms taken off."""
    residuals = bundle.residuals.residuals(bundle.c2w, bundle.points)
    count = 2 * len(residuals)
    if count == 0:
        return 1.0
    freedoms = 6 * int((torch.bincount(bundle.residuals.observations.camera) > 0).sum()) + 3 * len(bundle.points)
    redundancy = max(count - freedoms, 0.05 * count)
    # 1.177: median length of a 2-vector with unit normal components.
    return float(residuals.norm(dim=-1).median()) / 1.177 * (count / redundancy) ** 0.5


def trust_in_input(c2w: Poses, rough: Poses, cameras: CameraMask, priors: PosePriors | None = None) -> PosePrior | None:
    """Prior at the rough poses, as wide as `cameras` typically are from them: the better the input, the more it holds.

    What `priors` say of a camera counts instead. Without them None with fewer than four cameras, whose distance from
    the input says nothing of its quality.
    """
    chosen = torch.from_numpy(cameras)
    infinite = torch.full((len(c2w),), torch.inf, dtype=c2w.dtype)
    translation, rotation, expected = infinite, infinite, rough
    if int(cameras.sum()) >= 4:
        sigma_translation, sigma_rotation = pose_spread(c2w[chosen], rough[chosen])
        extent = float((rough[:, :, 3] - rough[:, :, 3].mean(0)).norm(dim=-1).mean())
        translation = torch.where(chosen, max(sigma_translation, 1e-5 * extent), infinite)
        rotation = torch.where(chosen, max(sigma_rotation, 1e-5), infinite)
    elif priors is None:
        return None
    if priors is not None:
        said, said_rad = (
            torch.from_numpy(priors.translation_sigma),
            torch.from_numpy(np.radians(priors.rotation_sigma_deg)),
        )
        translation = torch.where(chosen & ~said.isnan(), said, translation)
        rotation = torch.where(chosen & ~said_rad.isnan(), said_rad, rotation)
        if priors.centers is not None:
            centers = torch.from_numpy(priors.centers)
            is_measured = ~centers.isnan().any(-1, keepdim=True)
            expected = torch.cat([rough[..., :3], torch.where(is_measured, centers, rough[..., 3])[..., None]], dim=-1)
    return PosePrior(expected, translation, rotation)


def unconfirmed(graph: RayGraph, structure: Structure, c2w: Poses, rough: Poses, prior: PosePrior | None) -> CameraMask:
    """Cameras far off their rough poses whose points no two cameras near theirs see.

    One wrong pair could have put such a camera there; a group of them may have been mirrored together, and agrees
    perfectly with itself.
    """
    if prior is None:
        return np.zeros(len(c2w), dtype=bool)
    turned = torch.deg2rad(rotation_angle_deg(c2w[:, :, :3].transpose(1, 2) @ rough[:, :, :3]))
    shifted = (c2w[:, :, 3] - rough[:, :, 3]).norm(dim=-1)
    far = (turned > _FAR_SPREADS * prior.sigma_rotation_rad) | (shifted > _FAR_SPREADS * prior.sigma_translation)
    image = graph.image[structure.node]
    witnesses = np.bincount(structure.point, ~far.numpy()[image], minlength=len(structure.points))[structure.point]
    confirmed = np.bincount(image[witnesses >= 2], minlength=len(c2w)) >= MIN_RAYS
    return far.numpy() & ~confirmed


def grow_from_pair(rough: Poses, pair: list[int], motion: Float[Tensor, "3 4"]) -> tuple[Poses, CameraMask]:
    """First poses from one pair's relative pose (x_j = R x_i + t), in the rough frame: error shared, baseline kept."""
    baseline = float((rough[pair[0], :, 3] - rough[pair[1], :, 3]).norm())
    scaled = torch.cat([motion[:, :3], baseline * motion[:, 3:]], dim=-1)
    own = torch.stack([torch.eye(4, dtype=rough.dtype)[:3], inverse(scaled)])
    c2w, solved = rough.clone(), np.zeros(len(rough), dtype=bool)
    c2w[pair], solved[pair] = align_poses(own, rough[pair]).poses(own), True
    return c2w, solved
