"""Candidate image pairs from rough poses: those that probably see the same surface from like directions."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32
from scipy.sparse import coo_matrix

from craym_nerfstudio.console import track
from craym_nerfstudio.geometry.lie import rotation_angle_deg
from craym_nerfstudio.geometry.rays import focus_point
from craym_nerfstudio.matching.views import Views

_MATCHABLE_DEG = 30.0
"""Parallax at which descriptors have lost much of their likeness: width of the weight on common points."""
_WIDENED = 1.3
"""Frusta grow by this factor, since rough poses misplace them."""
_DEPTHS = (0.6, 1.0, 1.7)
"""Sampled depths in units of the scene's typical depth."""


def candidate_pairs(views: Views, neighbours: int = 20, exhaustive_up_to: int = 25) -> Int32[np.ndarray, "pairs 2"]:
    """Pairs (i, j), i < j, in ascending order: each image with its best `neighbours`, and what connects all images.

    Sets of at most `exhaustive_up_to` images are paired completely. Deterministic; pairs grow linearly with images.
    """
    count = len(views.names)
    if count <= exhaustive_up_to:
        return np.stack(np.triu_indices(count, 1), axis=-1).astype(np.int32)
    return best_pairs(covisibility(views), neighbours)


def turned_at_most(
    pairs: Int32[np.ndarray, "pairs 2"], c2w: Float[np.ndarray, "cams 3 4"], most_deg: float
) -> Int32[np.ndarray, "kept 2"]:
    """The pairs whose cameras are turned against each other by less than `most_deg`, by the rough poses."""
    rotation = torch.from_numpy(np.asarray(c2w, dtype=np.float64)[:, :, :3])
    first, second = (rotation[pairs[:, side]] for side in (0, 1))
    return pairs[(rotation_angle_deg(first.transpose(1, 2) @ second) < most_deg).numpy()]


def best_pairs(
    score: Float[np.ndarray, "images images"], neighbours: int, also: Bool[np.ndarray, "images images"] | bool = False
) -> Int32[np.ndarray, "pairs 2"]:
    """Pairs (i, j), i < j, in ascending order: each image with its best `neighbours` and those that are `also` wanted.

    Then the best pair between separate groups of images, until all hang together.
    """
    from scipy.sparse.csgraph import connected_components

    score = np.where(np.eye(len(score), dtype=bool), -1.0, score)
    chosen = np.zeros(score.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-score, axis=1, kind="stable")[:, :neighbours], True, axis=1)
    chosen |= chosen.T | also
    while (groups := connected_components(coo_matrix(chosen), directed=False))[0] > 1:
        between = np.where(groups[1][:, None] == groups[1], -2.0, score)
        i, j = np.unravel_index(between.argmax(), between.shape)
        chosen[i, j] = chosen[j, i] = True
    return np.argwhere(np.triu(chosen, 1)).astype(np.int32)


def covisibility(views: Views) -> Float[np.ndarray, "cams cams"]:
    """What two cameras probably share, in [0, 1]: points of one frustum that lie in the other, weighted by parallax.

    Domes, rooms and forward-facing scenes alike: where all cameras see the same volume the parallax ranks them, where
    they stand close together the overlap of their frusta does.
    """
    c2w = torch.as_tensor(np.asarray(views.c2w, dtype=np.float64))
    centers = c2w[..., 3]
    half_size = torch.as_tensor(np.asarray(views.size_px) / 2 / np.asarray(views.focal_px)[:, None])
    points = _frustum_points(c2w, half_size, _typical_depths(c2w))
    score = torch.zeros(len(c2w), len(c2w), dtype=torch.float64)
    turn_deg = torch.rad2deg(torch.arccos((c2w[..., 2] @ c2w[..., 2].T).clamp(-1, 1)))
    for i in track(range(len(c2w)), "Pairs: which images see the same"):
        local = torch.einsum("pnc,nck->npk", points[i][:, None] - centers, c2w[..., :3])
        depth = -local[..., 2]
        inside = (local[..., :2].abs() <= _WIDENED * half_size[:, None] * depth[..., None]).all(-1) & (depth > 0)
        own = torch.nn.functional.normalize(points[i] - centers[i], dim=-1)
        other = torch.nn.functional.normalize(points[i][None] - centers[:, None], dim=-1)
        parallax = torch.rad2deg(torch.arccos((own * other).sum(-1).clamp(-1, 1)))
        # Translation noise spoils the parallax and rotation noise the axes: their mean is the safer guess.
        squared_deg = 0.5 * (parallax**2 + turn_deg[i, :, None] ** 2)
        seen = torch.exp(-0.5 * squared_deg / _MATCHABLE_DEG**2)
        # What lies outside counts a little, so that hopeless pairs still have an order.
        score[i] = (seen * (inside + 1e-3)).mean(-1)
    return (0.5 * (score + score.T)).clamp(0, 1).numpy()


def _typical_depths(c2w: Float[torch.Tensor, "cams 3 4"]) -> Float[torch.Tensor, " cams"]:
    """Distance to what the cameras look at together; without such a point, the extent of the camera positions."""
    centers, axes = c2w[..., 3], -c2w[..., 2]
    extent = (centers - centers.median(0).values).norm(dim=-1).median().clamp_min(1e-6)
    depths = ((focus_point(centers, axes) - centers) * axes).sum(-1)
    # The point means nothing when many cameras turn their back on it, or when it is at their feet.
    if (depths > 0.2 * extent).double().mean() < 0.8:
        return extent.expand(len(c2w)) * 3.0
    return depths.clamp_min(0.5 * depths.median())


def _frustum_points(
    c2w: Float[torch.Tensor, "cams 3 4"], half_size: Float[torch.Tensor, "cams 2"], depths: Float[torch.Tensor, " cams"]
) -> Float[torch.Tensor, "cams points 3"]:
    """A 3 x 3 grid of rays through each image at several depths, in the world."""
    steps = torch.tensor([-0.6, 0.0, 0.6], dtype=c2w.dtype)
    grid = torch.cartesian_prod(steps, steps)
    rays = torch.cat([grid * half_size[:, None], -torch.ones(len(c2w), len(grid), 1, dtype=c2w.dtype)], dim=-1)
    factors = torch.tensor(_DEPTHS, dtype=c2w.dtype)
    local = (rays[:, None] * (depths[:, None] * factors)[..., None, None]).flatten(1, 2)
    return local @ c2w[..., :3].transpose(-1, -2) + c2w[:, None, :, 3]
