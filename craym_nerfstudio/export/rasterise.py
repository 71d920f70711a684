"""A z-buffer for triangle meshes, enough for preview pictures and for asking what a camera sees."""

from dataclasses import dataclass

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
    # Numba is imported when something is drawn, not when a mesh is extracted.
    from craym_nerfstudio.export.rasterise_kernel import fill

    pixels, nearness = view.project(vertices)
    face = np.full((view.size_px[1], view.size_px[0]), -1, dtype=np.int64)
    buffer = np.zeros(face.shape)
    fill(pixels, nearness, np.ascontiguousarray(faces), face, buffer)
    return Raster(face, buffer)


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
