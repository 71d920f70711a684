"""Observations of a synthetic scene without images, as `preflight` makes them of files."""

from dataclasses import replace

import numpy as np
import torch

from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.verify import PutativePairs
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.preflight.observe import Observed
from tests.dome import look_at
from tests.sfm.synthetic import SIZE_PX, make_scene

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
