"""What each splat counts at each pixel of a view, as 3D Gaussian Splatting composites them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from craym_nerfstudio.geometry.axes import flip_pose_axes
from craym_nerfstudio.geometry.pinhole import Pinhole
from craym_nerfstudio.kernels.loader import load_kernels

LOW_PASS_PX2 = 0.3
"""What the paper's renderer adds to the variance of every splat in the picture."""
_REACH = 3.0
_ENTRIES_PER_PIXEL = 40


@dataclass(frozen=True)
class Gaussians:
    """Where splats are, without their colours."""

    means: Float[np.ndarray, "n 3"]
    axes: Float[np.ndarray, "n 3 3"]
    """Columns."""
    sigmas: Float[np.ndarray, "n 3"]
    opacities: Float[np.ndarray, " n"]


def composite_weights(splats: Gaussians, view: Pinhole) -> tuple[Any, Float[np.ndarray, " pixels"]]:
    """A sparse matrix [pixels, n] that makes a picture from colours, and the share of the background at each pixel."""
    from scipy.sparse import csr_matrix

    native = load_kernels("craym_nerfstudio.export.splat_kernel", "weigh", "Splats")
    order, pixels, covariance = _projected(splats, view)
    determinant = covariance[:, 0] * covariance[:, 2] - covariance[:, 1] ** 2
    precision = covariance[:, [2, 1, 0]] * [1.0, -1.0, 1.0] / determinant[:, None]
    reach = _REACH * np.sqrt(covariance[:, [0, 2]])
    width, height = view.size_px
    capacity = _ENTRIES_PER_PIXEL * width * height
    while True:
        left = np.ones((height, width))
        entries = np.empty(capacity, dtype=np.int32), np.empty(capacity, dtype=np.int32), np.empty(capacity, np.float32)
        count = native.weigh(pixels, precision, reach, splats.opacities[order], left, *entries)
        if count >= 0:
            break
        capacity *= 2
    splat, pixel, weight = (column[:count] for column in entries)
    matrix = csr_matrix((weight, (pixel, order[splat])), shape=(height * width, len(splats.means)))
    return matrix, left.ravel().astype(np.float32)


def _projected(
    splats: Gaussians, view: Pinhole
) -> tuple[np.ndarray, Float[np.ndarray, "k 2"], Float[np.ndarray, "k 3"]]:
    """Numbers of the splats ahead, the nearest first; their positions in the picture and covariances (xx, xy, yy)."""
    turn = flip_pose_axes(view.c2w)[:, :3].T
    local = (splats.means - view.c2w[:, 3]) @ turn.T
    order = np.argsort(local[:, 2], kind="stable")
    order = order[local[order, 2] > 1e-2]
    x, y, depth = local[order].T
    fx, fy = view.focal_px
    spread = turn @ (splats.axes[order] * splats.sigmas[order, None])
    rows = [
        (fx / depth)[:, None] * (spread[:, 0] - (x / depth)[:, None] * spread[:, 2]),
        (fy / depth)[:, None] * (spread[:, 1] - (y / depth)[:, None] * spread[:, 2]),
    ]
    covariance = [(rows[a] * rows[b]).sum(-1) for a, b in ((0, 0), (0, 1), (1, 1))]
    covariance[0] += LOW_PASS_PX2
    covariance[2] += LOW_PASS_PX2
    pixels = np.stack([x, y], axis=-1) / depth[:, None] * view.focal_px + view.center_px
    return order, pixels, np.stack(covariance, axis=-1)
