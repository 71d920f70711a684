"""Observations of a synthetic scene without images, as `preflight` makes them of files."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.verify import PutativePairs
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.preflight.observe import Observed
from tests.dome import look_at
from tests.sfm.synthetic import FOCAL_PX, SIZE_PX, bearings, make_scene

CAMERAS = 14


def poses(count: int = CAMERAS, seed: int = 3) -> torch.Tensor:
    """An uneven dome: neither inversion nor a shift of the order leaves its relative motions alone."""
    random = np.random.RandomState(seed)
    azimuth = np.cumsum(random.uniform(8, 28, count)) * np.pi / 180
    height = random.uniform(0.1, 1.0, count)
    direction = np.stack([np.cos(azimuth), np.sin(azimuth), height], axis=-1)
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    centers = direction * random.uniform(3.5, 4.5, (count, 1))
    target = torch.from_numpy(random.uniform(-0.3, 0.3, (count, 3)))
    c2w = look_at(torch.from_numpy(centers), target)
    c2w[:, :, 3] += torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)
    return c2w


def scene(wrong: float = 0.1) -> tuple[Views, Observed]:
    """Views with true poses, and putative matches of which some are wrong."""
    c2w = poses()
    origin = c2w.clone()
    origin[:, :, 3] -= torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)
    made = make_scene(origin, origin, points=500, noise_px=0.2, wrong=wrong, max_angle_deg=75.0)
    return replace(made.views, c2w=c2w.numpy()), observed(made.matches)


def over_ground(c2w: np.ndarray, points: int = 1500) -> tuple[Views, Observed]:
    """Views of flat ground from poses above it, and right putative matches."""
    random = np.random.RandomState(1)
    ground = random.uniform([-7, -6, -0.02], [7, 6, 0.02], (points, 3))
    local = np.einsum("nck,npc->npk", c2w[:, :, :3], ground[None] - c2w[:, None, :, 3])
    pixels = local[..., :2] / -local[..., 2:] * [1.0, -1.0] * FOCAL_PX + SIZE_PX / 2
    shown = ((pixels > 0) & (pixels < SIZE_PX)).all(-1)
    keypoints = (pixels + 0.2 * random.standard_normal(pixels.shape)).astype(np.float32)
    count = len(c2w)
    chosen = {pair: np.flatnonzero(shown[pair[0]] & shown[pair[1]]) for pair in combinations(range(count), 2)}
    chosen = {pair: common for pair, common in chosen.items() if len(common) >= 30}
    ids = np.concatenate(list(chosen.values())).astype(np.int32)
    putative = PutativePairs(
        pairs=np.array(list(chosen), dtype=np.int32),
        motion=np.tile(np.eye(3, 4), (len(chosen), 1, 1)),
        pair_of_match=np.repeat(np.arange(len(chosen)), [len(common) for common in chosen.values()]).astype(np.int32),
        keypoint_ids=np.stack([ids, ids], axis=-1),
        score=np.ones(len(ids), np.float32),
        strict=np.ones(len(ids), dtype=bool),
    )
    names = [f"{k:03d}.png" for k in range(count)]
    sizes, focal = np.full((count, 2), SIZE_PX), np.full(count, FOCAL_PX)
    views = Views(names, [Path(name) for name in names], None, c2w, focal, sizes, bearings)
    return views, Observed("synthetic", list(keypoints), putative, len(chosen))


def observed(matches: Matches) -> Observed:
    """All matches as putative ones."""
    count = int(matches.keypoint_ids.max()) + 1
    keypoints = [np.full((count, 2), SIZE_PX / 2, dtype=np.float32) for _ in matches.names]
    for side in (0, 1):
        for image in range(len(matches.names)):
            mine = matches.images[:, side] == image
            keypoints[image][matches.keypoint_ids[mine, side]] = matches.keypoints[mine, side]
    putative = PutativePairs(
        pairs=matches.pairs,
        motion=np.concatenate([matches.rotation, matches.translation[..., None]], axis=-1),
        pair_of_match=matches.pair_of_match,
        keypoint_ids=matches.keypoint_ids,
        score=matches.confidence,
        strict=np.ones(len(matches), dtype=bool),
    )
    return Observed("synthetic", keypoints, putative, len(matches.pairs))


def with_turned_files(views: Views, found: Observed, turns: int, only: list[int] | None = None) -> Observed:
    """What is observed when image files are turned clockwise by `turns` times 90 degrees."""
    keypoints = list(found.keypoints)
    for image in range(len(views.names)) if only is None else only:
        for _ in range(turns):
            x, y = keypoints[image].T
            keypoints[image] = np.stack([SIZE_PX - y, x], axis=-1)
    return replace(found, keypoints=keypoints)
