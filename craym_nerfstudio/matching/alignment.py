"""Keypoints moved to where their pixels agree with those of one image of their track.

A detector places a corner anew in every image: a network half a pixel off and more where it is seen from elsewhere, and
SIFT, whose blur is round in each image instead of on the surface, by a tenth, all alike. The pixels round it say better
where it went.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from craym_nerfstudio.matching.images import Picture
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.patches import Brightness, Patch, align_patches, compared_scale, cut_out, over_images
from craym_nerfstudio.matching.tracks import build_tracks
from craym_nerfstudio.matching.views import Views

_LEAST_AGREEMENT = 0.8
"""Normalised correlation of two patches that are taken to show the same."""
_FARTHEST_PX = 2.0
"""A keypoint that goes farther went to something else."""
_NEIGHBOURS, _RIGID_PX2 = 10, 4.0
"""Matches that say how a patch is warped, and how much they have to say against no warp at all."""
_LONGEST_CHAIN = 6


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
    scale = compared_scale(views)
    patches = torch.zeros((len(chains.node), patch.pixels))

    def cut(index: int, pixels: Brightness, _: Picture) -> None:
        here = image[chains.reference] == index
        at = torch.from_numpy(position[chains.reference[here]] * scale[index]).float()
        patches[torch.from_numpy(here)] = cut_out(pixels, at, patch)

    over_images(views, np.unique(image[chains.reference]), patch, "Patches", cut)
    moved = position.copy()
    bearings = matches.bearings.reshape(-1, 3)[first].copy()

    def align(index: int, pixels: Brightness, _: Picture) -> None:
        here = image[chains.node] == index
        node = chains.node[here]
        start = torch.from_numpy(position[node] * scale[index]).float()
        warp = torch.from_numpy(chains.warp[here]).float()
        found = align_patches(patches[torch.from_numpy(here)], pixels, start, warp)
        good = (found.agreement > _LEAST_AGREEMENT) & (found.agreement > found.agreement_before)
        good &= (found.at_px - start).norm(dim=1) < _FARTHEST_PX
        node = node[good.numpy()]
        moved[node] = found.at_px[good].double().numpy() / scale[index]
        bearings[node] = views.bearings(index, moved[node])

    over_images(views, np.unique(image[chains.node]), patch, "Keypoints aligned", align)
    share = float((moved != position).any(1).sum()) / max(1, len(chains.node))
    keypoints = moved[ends].astype(np.float32)
    return replace(matches, keypoints=keypoints, bearings=bearings[ends].astype(np.float32)), share


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
