"""The loops that composite splats and lead back what pictures ask for; compiled at the first call."""

import numba
import numpy as np

_FAINTEST = np.float32(1.0 / 255.0)
_OPAQUE = np.float32(0.99)
_HIDDEN = np.float32(1e-4)


@numba.njit(nogil=True, cache=True)
def _between(middle, reach, least, stop):
    """First pixel of an axis that a splat reaches, and the one after its last."""
    return max(int(middle - reach), least), min(int(middle + reach) + 1, stop)


@numba.njit(nogil=True, cache=True)
def _shape(precision, u, v):
    """A splat's share of its opacity at (u, v) from its middle."""
    power = precision[0] * u * u + 2 * precision[1] * u * v + precision[2] * v * v
    return np.exp(np.float32(-0.5) * power)


@numba.njit(nogil=True, cache=True)
def composite(first_row, stop_row, order, pixels, precision, reach, opacities, colors, image, left):
    """Add splats to the rows of a picture, front to back.

    `order` numbers the splats, the nearest first. They have positions `pixels` [n,2], inverse covariances `precision`
    [n,3] (xx, xy, yy) and half widths `reach` [n,2]. `left` [h,w] starts with ones and ends with the share of the
    background.
    """
    width = left.shape[1]
    for k in order:
        x, y = pixels[k, 0], pixels[k, 1]
        first, last = _between(x, reach[k, 0], 0, width)
        top, bottom = _between(y, reach[k, 1], first_row, stop_row)
        for row in range(top, bottom):
            for column in range(first, last):
                before = left[row, column]
                if before < _HIDDEN:
                    continue
                u, v = np.float32(column + 0.5) - x, np.float32(row + 0.5) - y
                shape = _shape(precision[k], u, v)
                alpha = min(_OPAQUE, opacities[k] * shape)
                if alpha < _FAINTEST:
                    continue
                for channel in range(3):
                    image[row, column, channel] += before * alpha * colors[k, channel]
                left[row, column] = before * (1 - alpha)


@numba.njit(nogil=True, cache=True)
def pull_back(
    first_row, stop_row, order, pixels, precision, reach, opacities, colors, image, slope, left, so_far, slopes
):
    """Add to `slopes` [n,9] (x, y; xx, xy, yy; opacity; colour) what follows from the `slope` [h,w,3] of some rows.

    `image` is what `composite` made, on its background; `left` starts with ones again, `so_far` with zeros.
    """
    width = left.shape[1]
    for k in order:
        x, y = pixels[k, 0], pixels[k, 1]
        first, last = _between(x, reach[k, 0], 0, width)
        top, bottom = _between(y, reach[k, 1], first_row, stop_row)
        for row in range(top, bottom):
            for column in range(first, last):
                before = left[row, column]
                if before < _HIDDEN:
                    continue
                u, v = np.float32(column + 0.5) - x, np.float32(row + 0.5) - y
                shape = _shape(precision[k], u, v)
                alpha = min(_OPAQUE, opacities[k] * shape)
                if alpha < _FAINTEST:
                    continue
                by_alpha = np.float32(0.0)
                for channel in range(3):
                    so_far[row, column, channel] += before * alpha * colors[k, channel]
                    behind = (image[row, column, channel] - so_far[row, column, channel]) / (1 - alpha)
                    by_alpha += slope[row, column, channel] * (before * colors[k, channel] - behind)
                    slopes[k, 6 + channel] += before * alpha * slope[row, column, channel]
                left[row, column] = before * (1 - alpha)
                if alpha < _OPAQUE:
                    by_power = np.float32(-0.5) * alpha * by_alpha
                    slopes[k, 0] -= 2 * by_power * (precision[k, 0] * u + precision[k, 1] * v)
                    slopes[k, 1] -= 2 * by_power * (precision[k, 1] * u + precision[k, 2] * v)
                    slopes[k, 2] += by_power * u * u
                    slopes[k, 3] += 2 * by_power * u * v
                    slopes[k, 4] += by_power * v * v
                    slopes[k, 5] += by_alpha * shape
