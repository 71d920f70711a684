"""A z-buffer for triangle meshes, enough for preview pictures and for asking what a camera sees."""

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class View:
    """A pinhole camera with OpenGL axes; lens distortion does not matter for what it is used for."""

    c2w: Float[np.ndarray, "3 4"]
    focal_px: Float[np.ndarray, "2"]
    center_px: Float[np.ndarray, "2"]
    size_px: tuple[int, int]

    def project(self, points: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
        """Pixel positions (x, y), and the inverse of the depth, which is 0 for points that are not in front."""
        local = (points - self.c2w[:, 3]) @ self.c2w[:, :3]
        depth = -local[:, 2]
        nearness = np.where(depth > 1e-3, 1.0 / np.maximum(depth, 1e-3), 0.0)
        pixels = local[:, :2] * np.array([1.0, -1.0]) * nearness[:, None] * self.focal_px + self.center_px
        return pixels, nearness


@dataclass(frozen=True)
class Raster:
    """What each pixel shows: the face in front (-1 for none) and the inverse of its depth (0 for none)."""

    face: Int[np.ndarray, "h w"]
    nearness: Float[np.ndarray, "h w"]


def rasterise(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], view: View) -> Raster:
    """The nearest face at every pixel centre of a view; faces that reach behind the camera are left out."""
    pixels, nearness = view.project(vertices)
    face = np.full((view.size_px[1], view.size_px[0]), -1, dtype=np.int64)
    buffer = np.zeros(face.shape)
    _fill(pixels, nearness, np.ascontiguousarray(faces), face, buffer)
    return Raster(face, buffer)


@numba.njit(nogil=True)
def _fill(pixels, nearness, faces, face, buffer):
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


def interpolate(
    values: Float[np.ndarray, "n feat"],
    faces: Int[np.ndarray, "m 3"],
    raster: Raster,
    view: View,
    vertices: Float[np.ndarray, "n 3"],
) -> Float[np.ndarray, "pixels feat"]:
    """Vertex values at the pixels that show a face, in row-major order (affine: faces are small)."""
    pixels, _ = view.project(vertices)
    row, column = np.nonzero(raster.face >= 0)
    corners = faces[raster.face[row, column]]
    here = np.stack([column + 0.5, row + 0.5], axis=-1)
    a, b, c = (pixels[corners[:, k]] - here for k in range(3))
    share = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=-1)
    share /= share.sum(-1, keepdims=True)
    return (share[..., None] * values[corners]).sum(1)


def _cross(a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
