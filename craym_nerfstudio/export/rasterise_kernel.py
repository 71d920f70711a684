"""The loop over pixels of the z-buffer; compiled at the first call."""

import numba
import numpy as np


@numba.njit(nogil=True)
def fill(pixels, nearness, faces, face, buffer, share):
    """Enter every face nearer than what `buffer` [h,w] holds: its number in `face`, its corners' shares in `share`."""
    height, width = face.shape
    for number in range(faces.shape[0]):
        a, b, c = faces[number, 0], faces[number, 1], faces[number, 2]
        if min(nearness[a], nearness[b], nearness[c]) <= 0.0:
            continue
        ax, ay, bx, by, cx, cy = pixels[a, 0], pixels[a, 1], pixels[b, 0], pixels[b, 1], pixels[c, 0], pixels[c, 1]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0.0:
            continue
        # Pixel centres lie at integers + 0.5.
        left = max(int(np.ceil(min(ax, bx, cx) - 0.5)), 0)
        right = min(int(np.floor(max(ax, bx, cx) - 0.5)), width - 1)
        top = max(int(np.ceil(min(ay, by, cy) - 0.5)), 0)
        bottom = min(int(np.floor(max(ay, by, cy) - 0.5)), height - 1)
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                x, y = column + 0.5, row + 0.5
                u = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / area
                v = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / area
                w = 1.0 - u - v
                if u < 0.0 or v < 0.0 or w < 0.0:
                    continue
                # Inverse depth is linear in the image.
                near = u * nearness[a] + v * nearness[b] + w * nearness[c]
                if near > buffer[row, column]:
                    buffer[row, column] = near
                    face[row, column] = number
                    share[row, column] = u, v, w
