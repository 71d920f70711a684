"""The one loop of bundle adjustment that tensors do badly: many products of tiny blocks, scattered over a matrix.

Importing this module imports numba; it is compiled at the first call, which takes a second.
"""

import numba
import numpy as np


@numba.njit(nogil=True)
def subtract_eliminated(start, camera, coupling, point_inverse, system):
    """Take ``W_a V^-1 W_b^T`` off the upper blocks (a, b) of `system` [cams,cams,d,d] for all rays of every point.

    Rays of point p are ``start[p]:start[p + 1]``, sorted by camera; `coupling` holds their W [rays,d,3] and
    `point_inverse` the V^-1 [points,3,3]. A camera has d unknowns.
    """
    unknowns = coupling.shape[1]
    eliminated = np.empty((unknowns, 3))
    for point in range(len(start) - 1):
        inverse = point_inverse[point]
        for a in range(start[point], start[point + 1]):
            for row in range(unknowns):
                for column in range(3):
                    eliminated[row, column] = (
                        coupling[a, row, 0] * inverse[0, column]
                        + coupling[a, row, 1] * inverse[1, column]
                        + coupling[a, row, 2] * inverse[2, column]
                    )
            for b in range(a, start[point + 1]):
                block = system[camera[a], camera[b]]
                for row in range(unknowns):
                    for column in range(unknowns):
                        block[row, column] -= (
                            eliminated[row, 0] * coupling[b, column, 0]
                            + eliminated[row, 1] * coupling[b, column, 1]
                            + eliminated[row, 2] * coupling[b, column, 2]
                        )
