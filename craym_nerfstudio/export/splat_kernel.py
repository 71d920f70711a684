"""The loop that composites splats; compiled at the first call."""

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def weigh(pixels, precision, reach, opacities, left, splat, pixel, weight):
    """What each splat counts at each pixel, front to back; returns the number of entries, -1 if they do not fit.

    `left` [h,w] starts with ones and ends with the share of the background. Splats (sorted) have positions `pixels`
    [n,2], inverse covariances `precision` [n,3] (xx, xy, yy) and half widths `reach` [n,2].
    """
    height, width = left.shape
    count = 0
    for k in range(len(pixels)):
        x, y = pixels[k, 0], pixels[k, 1]
        first, last = max(int(x - reach[k, 0]), 0), min(int(x + reach[k, 0]) + 1, width)
        top, bottom = max(int(y - reach[k, 1]), 0), min(int(y + reach[k, 1]) + 1, height)
        for row in range(top, bottom):
            for column in range(first, last):
                before = left[row, column]
                if before < 1e-3:
                    continue
                u, v = column + 0.5 - x, row + 0.5 - y
                power = precision[k, 0] * u * u + 2.0 * precision[k, 1] * u * v + precision[k, 2] * v * v
                alpha = min(0.99, opacities[k] * np.exp(-0.5 * power))
                if alpha < 1.0 / 255.0:
                    continue
                if count == len(weight):
                    return -1
                splat[count], pixel[count], weight[count] = k, row * width + column, before * alpha
                left[row, column] = before * (1.0 - alpha)
                count += 1
    return count
