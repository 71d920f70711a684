"""Putative matches of a dome of cameras without images, with the faults that verification must find."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from craym_nerfstudio.geometry.epipolar import relative_pose
from craym_nerfstudio.geometry.lie import so3_exp
from craym_nerfstudio.matching.compute import joined
from craym_nerfstudio.matching.verify import NO_PAIRS, PutativePairs
from craym_nerfstudio.matching.views import Views
from samples.analytic_scene import dome_cameras

FOCAL_PX = 500.0
SIZE_PX = 400


@dataclass
class Case:
    """What `verify` takes, the true poses, and which match is right."""

    views: Views
    keypoints: list[np.ndarray]
    bearings: list[np.ndarray]
    putative: PutativePairs
    true: torch.Tensor
    right: np.ndarray


def rays(_: int, keypoints: np.ndarray) -> np.ndarray:
    """Pinhole bearings."""
    plane = (np.asarray(keypoints, dtype=np.float64) - SIZE_PX / 2) / FOCAL_PX * [1.0, -1.0]
    found = np.concatenate([plane, -np.ones((len(plane), 1))], axis=1)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def turned(c2w: torch.Tensor, degrees: float, seed: int = 0) -> torch.Tensor:
    """Poses turned about random axes, about the world's origin (so that centres move along)."""
    random = torch.randn(len(c2w), 3, generator=torch.Generator().manual_seed(seed), dtype=c2w.dtype)
    axes = torch.nn.functional.normalize(random, dim=-1) * np.deg2rad(degrees)
    return so3_exp(axes) @ c2w


def make_case(
    cameras: int = 10,
    points: int = 80,
    wrong: float = 0.3,
    noise_px: float = 0.2,
    rough_deg: float = 10.0,
    folded: tuple[tuple[int, int], ...] = (),
    flat: float = 1.0,
    seed: int = 0,
) -> Case:
    """Every pair of cameras matches the same points; a share `wrong` of each pair's matches is mixed up.

    In the pairs `folded` the object looks as if turned by 90 degrees about the vertical. `flat` squeezes the points
    towards a plane.
    """
    random = np.random.RandomState(seed)
    true = torch.from_numpy(dome_cameras(cameras, seed=seed, elevation_deg=(30.0, 60.0)))
    cloud = random.normal(size=(points, 3))
    cloud *= random.uniform(0.3, 1.0, (points, 1)) / np.linalg.norm(cloud, axis=1, keepdims=True) * [1, 1, flat]
    quarter = so3_exp(torch.tensor([0.0, 0.0, np.pi / 2], dtype=torch.float64)).numpy()
    # Keypoints of each image: the points, then the points of the object turned by a quarter.
    keypoints = []
    for pose in true.numpy():
        both = np.concatenate([cloud, cloud @ quarter.T])
        local = (both - pose[:, 3]) @ pose[:, :3]
        pixels = local[:, :2] / -local[:, 2:] * [1, -1] * FOCAL_PX + SIZE_PX / 2
        keypoints.append((pixels + random.normal(0, noise_px, pixels.shape)).astype(np.float32))
    parts, right = [], []
    for i in range(cameras):
        for j in range(i + 1, cameras):
            first = np.arange(points)
            second = first + (points if (i, j) in folded else 0)
            mixed = random.permutation(points)[: int(wrong * points)]
            second[mixed] = second[np.roll(mixed, 1)]
            right.append(second == first)
            motion = relative_pose(true[i], true[j]).numpy()
            if (i, j) in folded:
                # From here the unturned object looks as the turned one does from camera j.
                motion = relative_pose(true[i], torch.from_numpy(quarter.T) @ true[j]).numpy()
            motion[:, 3] /= np.linalg.norm(motion[:, 3])
            ids = np.stack([first, second], axis=1).astype(np.int32)
            parts.append(
                PutativePairs(
                    pairs=np.array([[i, j]], np.int32),
                    motion=motion[None],
                    pair_of_match=np.zeros(points, np.int32),
                    keypoint_ids=ids,
                    score=np.full(points, 0.8, np.float32),
                    strict=np.ones(points, bool),
                )
            )
    names = [f"{number}.png" for number in range(cameras)]
    views = Views(
        names=names,
        paths=[Path(name) for name in names],
        mask_paths=None,
        c2w=turned(true, rough_deg).numpy(),
        focal_px=np.full(cameras, FOCAL_PX),
        size_px=np.tile([SIZE_PX, SIZE_PX], (cameras, 1)),
        bearings=rays,
    )
    bearings = [rays(0, rows) for rows in keypoints]
    return Case(views, keypoints, bearings, joined(NO_PAIRS, parts), true, np.concatenate(right))
