"""A bumpy object seen by cameras on a dome: views and matches without images, with every fault that a test plants."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from craym_nerfstudio.geometry.epipolar import relative_pose
from craym_nerfstudio.geometry.lie import se3_exp
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.views import Views
from tests.dome import look_at

FOCAL_PX = 500.0
SIZE_PX = 400


@dataclass
class Scene:
    """True poses, rough views, matches, and which matches are right."""

    c2w: torch.Tensor
    views: Views
    matches: Matches
    right: np.ndarray


def bearings(image: int, keypoints: np.ndarray) -> np.ndarray:
    """Unit OpenGL directions of a pinhole camera with the principal point in the middle."""
    del image
    plane = (np.asarray(keypoints, dtype=np.float64) - SIZE_PX / 2) / FOCAL_PX * [1.0, -1.0]
    rays = np.concatenate([plane, -np.ones((len(plane), 1))], axis=1)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def ring(count: int, seed: int = 0, start_deg: float = 0.0, stop_deg: float = 360.0) -> torch.Tensor:
    """True poses [count,3,4] 4 units from the origin, evenly round a ring of varying height."""
    random = np.random.RandomState(seed)
    azimuth = np.radians(np.linspace(start_deg, stop_deg, count, endpoint=False))
    height = random.uniform(0.2, 0.7, count)
    direction = np.stack([np.cos(azimuth), np.sin(azimuth), height], axis=-1)
    centers = 4 * direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    return look_at(torch.from_numpy(centers), torch.zeros(3, dtype=torch.float64))


def disturbed(c2w: torch.Tensor, degrees: float, shift: float, seed: int = 0) -> torch.Tensor:
    """Poses turned about and shifted along random axes of the camera, by normal amounts."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(len(c2w), 6, generator=generator, dtype=torch.float64)
    scale = torch.tensor([shift] * 3 + [np.radians(degrees)] * 3, dtype=torch.float64)
    motion = se3_exp(draws * scale)
    rotation = c2w[:, :, :3] @ motion[:, :, :3]
    return torch.cat([rotation, c2w[:, :, 3:] + motion[:, :, 3:]], dim=-1)


def make_scene(
    c2w: torch.Tensor,
    rough: torch.Tensor,
    points: int = 400,
    noise_px: float = 0.0,
    wrong: float = 0.0,
    max_angle_deg: float = 60.0,
    cut: tuple[tuple[int, ...], tuple[int, ...]] = ((), ()),
    motion_noise_deg: float = 0.3,
    seed: int = 0,
) -> Scene:
    """Matches of points on a bumpy sphere between cameras that see them from like directions.

    `wrong` is the fraction of matches whose second end is some other keypoint; `cut` names two groups of cameras
    that share no match.
    """
    random = np.random.RandomState(seed)
    normal = random.standard_normal((points, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    world = normal * random.uniform(0.7, 1.1, (points, 1))
    poses = c2w.numpy()
    local = np.einsum("nck,npc->npk", poses[:, :, :3], world[None] - poses[:, None, :, 3])
    keypoints = local[..., :2] / -local[..., 2:] * [1.0, -1.0] * FOCAL_PX + SIZE_PX / 2
    keypoints = (keypoints + noise_px * random.standard_normal(keypoints.shape)).astype(np.float32)
    outward = poses[:, :, 3] / np.linalg.norm(poses[:, :, 3], axis=1, keepdims=True)
    seen = outward @ normal.T > 0.35
    pairs, chosen = [], []
    for i in range(len(poses)):
        for j in range(i + 1, len(poses)):
            common = np.nonzero(seen[i] & seen[j])[0]
            near = outward[i] @ outward[j] > np.cos(np.radians(max_angle_deg))
            apart = (i in cut[0] and j in cut[1]) or (i in cut[1] and j in cut[0])
            if near and not apart and len(common) >= 15:
                pairs.append((i, j))
                chosen.append(common)
    pair_of_match = np.repeat(np.arange(len(pairs)), [len(c) for c in chosen])
    ids = np.stack([np.concatenate(chosen)] * 2, axis=1)
    right = random.uniform(size=len(ids)) >= wrong
    for match in np.nonzero(~right)[0]:
        image = pairs[pair_of_match[match]][1]
        ids[match, 1] = random.choice(np.nonzero(seen[image])[0])
    right = ids[:, 0] == ids[:, 1]
    images = np.asarray(pairs)[pair_of_match]
    pixels = keypoints[images, ids]
    motion = _motions(c2w, np.asarray(pairs), motion_noise_deg, seed)
    names = [f"{k:03d}.png" for k in range(len(poses))]
    matches = Matches(
        names=list(names),
        size_px=np.full((len(poses), 2), SIZE_PX),
        pairs=np.asarray(pairs, dtype=np.int32),
        rotation=motion[:, :, :3],
        translation=motion[:, :, 3],
        pair_of_match=pair_of_match.astype(np.int32),
        keypoints=pixels,
        keypoint_ids=ids.astype(np.int32),
        bearings=bearings(0, pixels.reshape(-1, 2)).reshape(-1, 2, 3).astype(np.float32),
        confidence=np.full(len(ids), 0.9, dtype=np.float32),
        detector="synthetic",
    )
    count = len(poses)
    sizes = np.full((count, 2), SIZE_PX)
    views = Views(names, [Path(n) for n in names], None, rough.numpy(), np.full(count, FOCAL_PX), sizes, bearings)
    return Scene(c2w, views, matches, right)


def _motions(c2w: torch.Tensor, pairs: np.ndarray, noise_deg: float, seed: int) -> np.ndarray:
    """Relative poses of pairs as two views would give them: a little off, translation without length."""
    i, j = torch.from_numpy(pairs).unbind(-1)
    motion = disturbed(relative_pose(c2w[i], c2w[j]), noise_deg, 0.0, seed).numpy()
    motion[:, :, 3] /= np.linalg.norm(motion[:, :, 3], axis=1, keepdims=True)
    return motion
