"""The mesh with a texture: simplified, unwrapped, and coloured by the photos."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from craym_nerfstudio.export.bake import SurfacePoints, bake, exposure_gains
from craym_nerfstudio.export.mesh import appearance
from craym_nerfstudio.export.photo_consistency import agreeing_surface
from craym_nerfstudio.export.photo_views import PhotoView
from craym_nerfstudio.export.seen_surface import SeenSurface
from craym_nerfstudio.export.unwrap import fill_gutter, texels_of, unwrap
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.model import CraymModel

TEXELS_PER_PIXEL = 2.0
"""Of the photos along each axis: more than one, because many photos together show more than one does."""
LARGEST_TEXTURE = 4096
UNSEEN_RGB = (0.45, 0.45, 0.5)
"""Of faces that no camera sees."""


@dataclass(frozen=True)
class TexturedMesh:
    """A mesh with texture coordinates (v upwards) and its texture, whose first row lies at v = 1."""

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    normals: Float[np.ndarray, "n 3"]
    uv: Float[np.ndarray, "n 2"]
    texture: UInt8[np.ndarray, "h w 3"]

    def moved(self, similarity: Similarity) -> "TexturedMesh":
        """The mesh in another frame."""
        vertices, normals = similarity.points(self.vertices), similarity.directions(self.normals)
        return TexturedMesh(vertices, self.faces, normals, self.uv, self.texture)


def texture_mesh(model: CraymModel, surface: SeenSurface, views: list[PhotoView]) -> TexturedMesh:
    """A mesh of the unit frame with a texture from the photos; what they do not show has the colour of the field.

    Raises:
        InputError: a photo cannot be read.
    """
    gains = exposure_gains(surface.vertices, views, surface.seen)
    seen_somewhere = surface.seen.any(0)
    texel = float(np.median(surface.footprint)) / TEXELS_PER_PIXEL
    layout = unwrap(surface.vertices, surface.faces, texel, LARGEST_TEXTURE)
    texels = texels_of(layout)
    corners = layout.source[layout.faces]
    surface = agreeing_surface(surface, layout, texels, views, gains)
    points, facing = (texels.interpolate(values, corners) for values in (surface.vertices, surface.normals))
    facing /= np.maximum(np.linalg.norm(facing, axis=-1, keepdims=True), 1e-12)
    spots = SurfacePoints(points.astype(np.float32), facing.astype(np.float32), texels.face)
    baked = bake(spots, views, surface.seen[:, corners].all(-1), gains)
    colors, unknown = baked.rgb.astype(np.float64), ~baked.known
    colors[unknown] = appearance(model, points[unknown])[1]
    hidden = ~seen_somewhere[corners].any(-1)
    colors[hidden[texels.face]] = UNSEEN_RGB
    texture, filled = np.zeros((layout.size**2, 3)), np.zeros(layout.size**2, dtype=bool)
    texture[texels.index], filled[texels.index] = colors, True
    shape = (layout.size, layout.size)
    texture = fill_gutter(texture.reshape(*shape, 3), filled.reshape(shape))
    rounded = np.round(texture.clip(0, 1) * 255).astype(np.uint8)
    return TexturedMesh(
        surface.vertices[layout.source], layout.faces, surface.normals[layout.source], layout.uv, rounded
    )
