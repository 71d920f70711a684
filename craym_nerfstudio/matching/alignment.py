"""Keypoints moved to where their pixels agree with those of one image of their track.

A detector places a corner anew in every image: a network half a pixel off and more where it is seen from elsewhere, and
SIFT, whose blur is round in each image instead of on the surface, by a tenth, all alike. The pixels round it say better
where it went (Lucas and Kanade 1981; with an affine warp, and brightness and contrast taken out).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import grid_sample

from craym_nerfstudio.console import track
from craym_nerfstudio.matching.images import load_picture
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.tracks import build_tracks
from craym_nerfstudio.matching.views import Views

_LONGEST_PX = 1024
"""Larger images are shrunk to it, as detectors do."""
_ITERATIONS = 10
_LEAST_AGREEMENT = 0.8
"""Normalised correlation of two patches that are taken to show the same."""
_FARTHEST_PX = 2.0
"""A keypoint that goes farther went to something else."""
_NEIGHBOURS, _RIGID_PX2 = 10, 4.0
"""Matches that say how a patch is warped, and how much they have to say against no warp at all."""
_DAMPING = (1e-3, 1e-3, 0.05, 0.05, 0.05, 0.05, 1e-4, 1e-3)
"""Of shift, warp, brightness and contrast: corners fix all of them, an edge only some."""
_LONGEST_CHAIN = 6


@dataclass(frozen=True)
class Patch:
    """What is compared round a keypoint."""

    blur_px: float
    """Of the image before it is compared."""
    radius_px: int


@dataclass(frozen=True)
class _Chains:
    """Keypoints that can be compared with another of their track, the reference."""

    node: Int[np.ndarray, " n"]
    reference: Int[np.ndarray, " n"]
    warp: Float[np.ndarray, "n 2 2"]
    """Of a patch of the reference into the node's image, as matches near it say."""


def aligned(matches: Matches, views: Views, patch: Patch) -> tuple[Matches, float]:
    """The matches with keypoints and bearings moved where patches agree, and the share of keypoints that was moved.

    Of each track the keypoint with most matches stays.

    Raises:
        InputError: an image cannot be read.
    """
    code = (matches.images.astype(np.int64) << 32) | matches.keypoint_ids
    codes, first, ends = np.unique(code.ravel(), return_index=True, return_inverse=True)
    ends, image = ends.reshape(-1, 2), codes >> 32
    position = matches.keypoints.reshape(-1, 2)[first].astype(np.float64)
    chains = _chains(matches, codes, ends)
    scale = np.minimum(1.0, _LONGEST_PX / np.max(views.size_px, axis=1))
    grid = _grid((2 * patch.radius_px + 1) ** 2)
    patches = np.zeros((len(chains.node), len(grid)), np.float32)
    for index in track(np.unique(image[chains.reference]).tolist(), "Patches"):
        here = image[chains.reference] == index
        at = torch.from_numpy(position[chains.reference[here]] * scale[index]).float()
        pixels = _pixels(views, index, scale[index], patch.blur_px)[:, :1]
        patches[here] = _normalised(_sample(pixels, at[:, None] + grid)[0])[0].numpy()
    moved = position.copy()
    bearings = matches.bearings.reshape(-1, 3)[first].copy()
    for index in track(np.unique(image[chains.node]).tolist(), "Keypoints aligned"):
        here = image[chains.node] == index
        node = chains.node[here]
        start = torch.from_numpy(position[node] * scale[index]).float()
        warp = torch.from_numpy(chains.warp[here]).float()
        pixels = _pixels(views, index, scale[index], patch.blur_px)
        found, good = align_patches(torch.from_numpy(patches[here]), pixels, start, warp)
        node = node[good.numpy()]
        moved[node] = found[good].double().numpy() / scale[index]
        bearings[node] = views.bearings(index, moved[node])
    share = float((moved != position).any(1).sum()) / max(1, len(chains.node))
    keypoints = moved[ends].astype(np.float32)
    return replace(matches, keypoints=keypoints, bearings=bearings[ends].astype(np.float32)), share


def align_patches(
    patches: Float[Tensor, "n pixels"],
    pixels: Float[Tensor, "1 3 h w"],
    start_px: Float[Tensor, "n 2"],
    warp: Float[Tensor, "n 2 2"],
) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
    """Where normalised patches lie in an image, by Gauss-Newton from a start and a warp, and whether they agree there.

    `pixels` has brightness and its two derivatives; positions in px, first pixel's centre at 0.5.
    """
    grid, weight = _grid(patches.shape[1]), _weight(patches.shape[1])
    at, damping = start_px, torch.diag(torch.tensor(_DAMPING))
    before = _agreement(patches, pixels, start_px, warp)
    for _ in range(_ITERATIONS):
        seen, right, down = _sample(pixels, at[:, None] + grid @ warp.transpose(1, 2))
        seen, spread = _normalised(seen)
        right, down = right / spread, down / spread
        columns = [right, down, right * grid[:, 0], right * grid[:, 1], down * grid[:, 0], down * grid[:, 1]]
        jacobian = torch.stack([*columns, torch.ones_like(seen), seen], dim=-1)
        weighted = (jacobian * weight[:, None]).transpose(1, 2)
        step = torch.linalg.solve(weighted @ jacobian + damping, (weighted @ (patches - seen)[..., None]).squeeze(-1))
        at = at + step[:, :2] / step[:, :2].norm(dim=1, keepdim=True).clamp_min(1.0)
        warp = warp + step[:, 2:6].reshape(-1, 2, 2).clamp(-0.2, 0.2)
    agreement = _agreement(patches, pixels, at, warp)
    near = (at - start_px).norm(dim=1) < _FARTHEST_PX
    return at, (agreement > _LEAST_AGREEMENT) & (agreement > before) & near


def _agreement(
    patches: Float[Tensor, "n pixels"], pixels: Float[Tensor, "1 3 h w"], at_px: Tensor, warp: Tensor
) -> Float[Tensor, " n"]:
    """Normalised correlation."""
    pixels_of_patch = patches.shape[1]
    seen = _normalised(_sample(pixels[:, :1], at_px[:, None] + _grid(pixels_of_patch) @ warp.transpose(1, 2))[0])[0]
    return (_weight(pixels_of_patch) * patches * seen).sum(-1)


def _radius_px(pixels: int) -> int:
    return (math.isqrt(pixels) - 1) // 2


def _grid(pixels: int) -> Float[Tensor, "pixels 2"]:
    """Where the pixels of a patch lie, seen from its middle."""
    radius = _radius_px(pixels)
    side = torch.arange(-radius, radius + 1, dtype=torch.float32)
    return torch.cartesian_prod(side, side).flip(-1)


def _weight(pixels: int) -> Float[Tensor, " pixels"]:
    weight = torch.exp(-0.5 * (_grid(pixels) / (0.6 * _radius_px(pixels))).square().sum(-1))
    return weight / weight.sum()


def _normalised(patches: Float[Tensor, "n pixels"]) -> tuple[Float[Tensor, "n pixels"], Float[Tensor, "n 1"]]:
    """Patches of weighted mean 0 and spread 1, and their spread."""
    weight = _weight(patches.shape[1])
    centred = patches - (weight * patches).sum(-1, keepdim=True)
    spread = (weight * centred.square()).sum(-1, keepdim=True).sqrt().clamp_min(1e-3)
    return centred / spread, spread


def _sample(pixels: Float[Tensor, "1 c h w"], at_px: Float[Tensor, "n pixels 2"]) -> Float[Tensor, "c n pixels"]:
    height, width = pixels.shape[-2:]
    where = 2 * at_px / torch.tensor([width, height]) - 1
    return grid_sample(pixels, where[None], padding_mode="border", align_corners=False)[0]


def _pixels(views: Views, index: int, scale: float, blur_px: float) -> Float[Tensor, "1 3 h w"]:
    """Brightness of an image in [0, 1], blurred, and its derivatives to the right and down per px."""
    import cv2

    grey = cv2.cvtColor(load_picture(views, index).rgb, cv2.COLOR_RGB2GRAY)
    if scale < 1:
        width, height = np.round(scale * views.size_px[index]).astype(int).tolist()
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    grey = cv2.GaussianBlur(grey.astype(np.float32) / 255.0, (0, 0), blur_px)
    down, right = np.gradient(grey)
    return torch.from_numpy(np.stack([grey, right, down])[None])


def _chains(matches: Matches, codes: Int[np.ndarray, " nodes"], ends: Int[np.ndarray, "matches 2"]) -> _Chains:
    """References of tracks and warps from them, chained over matches, the most trusted first."""
    tracks = build_tracks(matches)
    own = np.full(len(codes), -1)
    own[np.searchsorted(codes, (tracks.image.astype(np.int64) << 32) | tracks.keypoint_id)] = tracks.track_of_entry
    degree = np.bincount(ends.ravel(), minlength=len(codes))
    reference = np.full(len(tracks), -1)
    ascending = np.argsort(degree, kind="stable")
    ascending = ascending[own[ascending] >= 0]
    reference[own[ascending]] = ascending
    reached = np.zeros(len(codes), dtype=bool)
    warp = np.zeros((len(codes), 2, 2))
    reached[reference], warp[reference] = True, np.eye(2)
    order = np.argsort(-matches.confidence, kind="stable")
    order = order[(own[ends[order, 0]] == own[ends[order, 1]]) & (own[ends[order, 0]] >= 0)]
    source, target = np.concatenate([ends[order], ends[order][:, ::-1]]).T
    steps = np.concatenate([match_warps(matches)[order], match_warps(matches, backward=True)[order]])
    for _ in range(_LONGEST_CHAIN):
        open_ = np.flatnonzero(reached[source] & ~reached[target])
        taken = open_[np.unique(target[open_], return_index=True)[1]]
        warp[target[taken]] = steps[taken] @ warp[source[taken]]
        reached[target[taken]] = True
    reached[reference] = False
    node = np.flatnonzero(reached)
    return _Chains(node, reference[own[node]], warp[node])


def match_warps(matches: Matches, backward: bool = False) -> Float[np.ndarray, "matches 2 2"]:
    """Linear map from the first image of a match to the second, or `backward`, as the matches near it say."""
    warps = np.tile(np.eye(2), (len(matches), 1, 1))
    for pair in range(len(matches.pairs)):
        rows = np.flatnonzero(matches.pair_of_match == pair)
        if len(rows) < _NEIGHBOURS:
            continue
        first, second = matches.keypoints[rows].astype(np.float64).transpose(1, 0, 2)[:: -1 if backward else 1]
        near = cKDTree(first).query(first, k=_NEIGHBOURS)[1]
        there, here = second[near] - second[:, None], first[near] - first[:, None]
        # Wrong matches, and those across an edge in depth.
        far = np.linalg.norm(there - here, axis=-1) > 0.8 * np.linalg.norm(here, axis=-1) + 3.0
        here[far], there[far] = 0.0, 0.0
        normal = here.transpose(0, 2, 1) @ here + _RIGID_PX2 * np.eye(2)
        warps[rows] = (there.transpose(0, 2, 1) @ here + _RIGID_PX2 * np.eye(2)) @ np.linalg.inv(normal)
    return warps
