"""A mesh laid out in the plane, and the surface point under each texel."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

_PADDING_TEXELS = 4
"""Between charts, so that what is blended or shrunk across their rims is their own colour."""


@dataclass(frozen=True)
class UnwrappedMesh:
    """A mesh whose vertices are doubled along the rims of charts, with texture coordinates in [0, 1] (v upwards)."""

    source: Int[np.ndarray, " n"]
    """The vertex of the mesh before that each one was."""
    faces: Int[np.ndarray, "m 3"]
    uv: Float[np.ndarray, "n 2"]
    size: int
    """Side of the square texture, in texels."""


@dataclass(frozen=True)
class Texels:
    """The texels that lie on a chart, in rows from the top."""

    index: Int[np.ndarray, " n"]
    """Flat number in the texture."""
    face: Int[np.ndarray, " n"]
    share: Float[np.ndarray, "n 3"]
    """What the corners of the face count."""

    def interpolate(self, values: Float[np.ndarray, "v feat"], faces: Int[np.ndarray, "m 3"]) -> np.ndarray:
        """Values of vertices at the texels."""
        corners = faces[self.face]
        return sum(self.share[:, k, None] * values[corners[:, k]] for k in range(3))


def unwrap(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], texel: float, largest: int
) -> UnwrappedMesh:
    """Charts of little distortion in a square texture whose texels are about `texel` wide on the surface.

    Args:
        largest: side of the texture at most, in texels; texels are wider then.
    """
    import xatlas

    atlas, charts, pack = xatlas.Atlas(), xatlas.ChartOptions(), xatlas.PackOptions()
    # Charts that are cheap to grow: half the time, and as well packed.
    charts.max_cost = 0.5
    pack.padding, pack.texels_per_unit = _PADDING_TEXELS, 1.0 / texel
    # The packer's default takes minutes for thousands of charts and saves a tenth of the texture.
    pack.bruteForce, pack.blockAlign = False, True
    atlas.add_mesh(vertices.astype(np.float32), faces.astype(np.uint32))
    atlas.generate(chart_options=charts, pack_options=pack)
    source, corners, uv = atlas[0]
    needed = max(atlas.width, atlas.height)
    size = next((side for side in _SIZES if needed <= side <= largest), largest)
    # The library scales by its own width and height; a square of a usual size is kept by all programs.
    scale = np.array([atlas.width, atlas.height]) / max(size, needed)
    uv = uv.astype(np.float64) * scale
    return UnwrappedMesh(source.astype(np.int64), corners.astype(np.int64), uv, size)


_SIZES = (256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192)


def texels_of(mesh: UnwrappedMesh) -> Texels:
    """Which face each texel's centre lies on."""
    size = mesh.size
    # Rows run downwards, v upwards.
    corners = np.stack([mesh.uv[:, 0] * size, (1.0 - mesh.uv[:, 1]) * size], axis=-1)[mesh.faces]
    low = np.ceil(corners.min(1) - 0.5).astype(np.int64).clip(0)
    high = np.floor(corners.max(1) - 0.5).astype(np.int64).clip(max=size - 1)
    extent = (high - low + 1).clip(0)
    count = extent.prod(-1)
    kept: list[tuple[np.ndarray, ...]] = []
    for chosen in _pieces(count):
        face = np.repeat(chosen, count[chosen])
        number = np.arange(len(face)) - np.repeat(count[chosen].cumsum() - count[chosen], count[chosen])
        column = low[face, 0] + number % extent[face, 0]
        row = low[face, 1] + number // extent[face, 0]
        share, inside = _shares(corners[face], np.stack([column, row], axis=-1) + 0.5)
        kept.append((row[inside] * size + column[inside], face[inside], share[inside]))
    index, face, share = (np.concatenate(part) for part in zip(*kept, strict=True))
    # Faces share their edges: the first one gets a texel on it.
    index, first = np.unique(index, return_index=True)
    return Texels(index, face[first], share[first])


def _pieces(count: Int[np.ndarray, " m"], most: int = 1 << 21) -> list[Int[np.ndarray, " part"]]:
    """Faces in groups of not too many candidate texels."""
    if not len(count):
        return []
    return np.split(np.arange(len(count)), np.flatnonzero(np.diff(count.cumsum() // most)) + 1)


def _shares(
    corners: Float[np.ndarray, "n 3 2"], points: Float[np.ndarray, "n 2"]
) -> tuple[Float[np.ndarray, "n 3"], Bool[np.ndarray, " n"]]:
    """Barycentric coordinates, and which points lie inside."""
    a, b, c = (corners[:, k] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    flat = np.abs(area) < 1e-12
    area = np.where(flat, 1.0, area)
    offset = points - a
    second = (offset[:, 0] * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * offset[:, 1]) / area
    third = ((b[:, 0] - a[:, 0]) * offset[:, 1] - offset[:, 0] * (b[:, 1] - a[:, 1])) / area
    share = np.stack([1.0 - second - third, second, third], axis=-1)
    return share.astype(np.float32), ~flat & (share > -1e-6).all(-1)


def fill_gutter(texture: Float[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 3"]:
    """The texture with every unknown texel like the nearest known one: nothing foreign bleeds over the rims."""
    from scipy.ndimage import distance_transform_edt

    if known.all() or not known.any():
        return texture
    rows, columns = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return texture[rows, columns]
