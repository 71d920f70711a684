"""Camera rotations that agree with the relative rotations of as many pairs as possible: consistency of all cycles."""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from torch import Tensor

from craym_nerfstudio.geometry.lie import so3_exp, so3_log

PAIR_SIGMA_DEG = 2.5
"""Typical error of a pair's relative rotation."""


def average_rotations(
    start: Float[Tensor, "cams 3 3"],
    pairs: Int[Tensor, "pairs 2"],
    relative: Float[Tensor, "pairs 3 3"],
    prior_sigma_deg: float,
) -> Float[Tensor, "cams 3 3"]:
    """World-to-camera rotations near `start` with ``R_j = R_ij R_i`` for most pairs, in a robust sense; float64.

    Iteratively reweighted least squares on the pair graph with the Geman-McClure kernel. Its scale shrinks from 40 to 4
    degrees (graduated non-convexity), so that the many right pairs outvote the wrong ones before these are cut off. The
    rotations at the start hold with `prior_sigma_deg`: they fix the frame, and the cameras that no pair reaches.
    """
    rotation = start
    prior = torch.full((len(start),), (PAIR_SIGMA_DEG / prior_sigma_deg) ** 2, dtype=start.dtype)
    i, j = pairs[:, 0], pairs[:, 1]
    for round_ in range(40):
        scale_deg = max(4.0, 40.0 * 0.85**round_)
        error = so3_log(rotation[j].transpose(-1, -2) @ relative @ rotation[i])
        pull = so3_log(rotation.transpose(-1, -2) @ start)
        weight = 1 / (1 + (torch.rad2deg(error.norm(dim=-1)) / scale_deg).square()).square()
        laplacian = torch.diag(prior)
        laplacian.index_put_((i, i), weight, accumulate=True)
        laplacian.index_put_((j, j), weight, accumulate=True)
        laplacian.index_put_((i, j), -weight, accumulate=True)
        laplacian.index_put_((j, i), -weight, accumulate=True)
        target = prior[:, None] * pull
        target.index_add_(0, j, weight[:, None] * error).index_add_(0, i, -weight[:, None] * error)
        rotation = rotation @ so3_exp(torch.linalg.solve(laplacian, target))
    return rotation


def chained_rotations(
    start: Float[Tensor, "cams 3 3"],
    pairs: Int[Tensor, "pairs 2"],
    relative: Float[Tensor, "pairs 3 3"],
    support: Int[Tensor, " pairs"],
) -> Float[Tensor, "cams 3 3"]:
    """World-to-camera rotations chained along the best supported pairs; the first camera of each group keeps `start`.

    A start for averaging that owes nothing to the rough poses but its frame.
    """
    from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

    count = len(start)
    i, j = pairs.T.numpy()
    cost = coo_matrix((1.0 / (1.0 + support.numpy()), (i, j)), shape=(count, count))
    tree = minimum_spanning_tree(cost).tocoo()
    edge = {(int(a), int(b)): number for number, (a, b) in enumerate(zip(i, j, strict=True))}
    rotation = start.clone()
    group = connected_components(tree, directed=False)[1]
    for first in np.unique(group, return_index=True)[1]:
        order, parent = breadth_first_order(tree, int(first), directed=False)
        for camera in order[1:].tolist():
            before = int(parent[camera])
            if (before, camera) in edge:
                rotation[camera] = relative[edge[before, camera]] @ rotation[before]
            else:
                rotation[camera] = relative[edge[camera, before]].T @ rotation[before]
    return rotation
