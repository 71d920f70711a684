"""A small reference renderer of Gaussian splats: projected, sorted, composited front to back, as the paper does it."""

import numba
import numpy as np
import torch

from craym_nerfstudio.fields.color_field import spherical_harmonics

SIGNS = np.array([1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1])
LOW_PASS_PX2 = 0.3


def composite(means, sigmas, quaternions, opacities, harmonics, c2w, focal_px, center_px, size_px, background):
    """Picture [h, w, 3] of splats [n, ...] from a pinhole with OpenGL axes, pixel centres at + 0.5."""
    w, x, y, z = (quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True)).T
    rotation = np.stack(
        [
            *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        ],
        axis=-1,
    ).reshape(-1, 3, 3)
    spread = rotation * sigmas[:, None]
    view = c2w[:, :3].T * np.array([1.0, -1.0, -1.0])[:, None]
    local = (means - c2w[:, 3]) @ view.T
    order = np.argsort(local[:, 2])
    order = order[local[order, 2] > 0.01]
    local, depth = local[order], local[order, 2]
    jacobian = np.zeros((len(order), 2, 3))
    jacobian[:, 0, 0], jacobian[:, 1, 1] = focal_px[0] / depth, focal_px[1] / depth
    jacobian[:, 0, 2] = -focal_px[0] * local[:, 0] / depth**2
    jacobian[:, 1, 2] = -focal_px[1] * local[:, 1] / depth**2
    flat = jacobian @ (view @ spread[order])
    covariance = flat @ flat.transpose(0, 2, 1) + LOW_PASS_PX2 * np.eye(2)
    pixels = local[:, :2] / depth[:, None] * focal_px + center_px
    towards = means[order] - c2w[:, 3]
    towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
    count = harmonics.shape[1]
    basis = spherical_harmonics(torch.from_numpy(towards)).numpy()[:, :count] * SIGNS[:count]
    colors = np.maximum(0.5 + (basis[..., None] * harmonics[order]).sum(1), 0.0)
    width, height = size_px
    image, left = np.zeros((height, width, 3)), np.ones((height, width))
    _blend(pixels, np.linalg.inv(covariance), covariance, opacities[order], colors, image, left)
    return image + left[..., None] * background


@numba.njit(nogil=True, cache=True)
def _blend(pixels, precision, covariance, opacities, colors, image, left):
    height, width = left.shape
    for k in range(len(pixels)):
        reach_x, reach_y = 3.0 * np.sqrt(covariance[k, 0, 0]), 3.0 * np.sqrt(covariance[k, 1, 1])
        first, last = max(int(pixels[k, 0] - reach_x), 0), min(int(pixels[k, 0] + reach_x) + 1, width)
        top, bottom = max(int(pixels[k, 1] - reach_y), 0), min(int(pixels[k, 1] + reach_y) + 1, height)
        for row in range(top, bottom):
            for column in range(first, last):
                x, y = column + 0.5 - pixels[k, 0], row + 0.5 - pixels[k, 1]
                power = precision[k, 0, 0] * x * x + 2 * precision[k, 0, 1] * x * y + precision[k, 1, 1] * y * y
                alpha = min(0.99, opacities[k] * np.exp(-0.5 * power))
                if alpha < 1.0 / 255.0 or left[row, column] < 1e-4:
                    continue
                image[row, column] += left[row, column] * alpha * colors[k]
                left[row, column] *= 1.0 - alpha
