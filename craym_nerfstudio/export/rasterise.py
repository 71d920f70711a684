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
    share: Float[np.ndarray, "h w 3"]
    """What the corners of the face count at the pixel."""


def rasterise(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], view: Pinhole) -> Raster:
    """The nearest face at every pixel centre of a view; faces that reach behind the camera are left out."""
    # Numba is imported when something is drawn, not when a mesh is extracted.
    from craym_nerfstudio.export.rasterise_kernel import fill

    pixels, nearness = view.project(vertices)
    face = np.full((view.size_px[1], view.size_px[0]), -1, dtype=np.int64)
    buffer = np.zeros(face.shape)
    share = np.zeros((*face.shape, 3))
    fill(pixels, nearness, np.ascontiguousarray(faces), face, buffer, share)
    return Raster(face, buffer, share)


def interpolate(
    values: Float[np.ndarray, "n feat"], faces: Int[np.ndarray, "m 3"], raster: Raster
) -> Float[np.ndarray, "pixels feat"]:
    """Vertex values at the pixels that show a face, in row-major order (affine: faces are small)."""
    shown = raster.face >= 0
    return (raster.share[shown][..., None] * values[faces[raster.face[shown]]]).sum(1)
