"""A z-buffer for triangle meshes, enough for preview pictures and for asking what a camera sees."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from craym_nerfstudio.geometry.pinhole import Pinhole


@dataclass(frozen=True)
class Raster:
    """What each pixel shows: the face in front (-1 for none) and the inverse of its depth (0 for none)."""

    face: Int[np.ndarray, "h w"]
    nearness: Float[np.ndarray, "h w"]


def rasterise(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], view: Pinhole) -> Raster:
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
    view: Pinhole,
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
