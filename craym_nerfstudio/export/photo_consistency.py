"""The vertices of a mesh moved along their normals to where the photos agree best (as Vu et al. 2012 refine meshes)."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from craym_nerfstudio.console import track
from craym_nerfstudio.export.bake import SurfacePoints, candidates, sample
from craym_nerfstudio.export.photo_views import PhotoView
from craym_nerfstudio.export.seen_surface import SeenSurface
from craym_nerfstudio.export.unwrap import Texels, UnwrappedMesh

_MOST_PIXELS = 0.5
"""A vertex moves this far at most, in pixels of the view that sees it best."""
_SMOOTHINGS = 3
"""Times that what the photos say is averaged with the neighbours."""
_TRUST = 0.1
"""Contrast, in colours per pixel, below which a vertex rather stays where it is: noise in what photos say of faint
places would move outlines, which the field has right."""


def agreeing_surface(
    surface: SeenSurface,
    layout: UnwrappedMesh,
    texels: Texels,
    views: list[PhotoView],
    gains: Float[np.ndarray, "views 3"],
) -> SeenSurface:
    """A surface at which the colours that the photos have of each place differ least.

    Raises:
        InputError: a photo cannot be read.
    """
    corners = layout.source[layout.faces]
    face_seen = surface.seen[:, corners].all(-1)
    neighbours = _neighbours(surface.faces, len(surface.vertices))
    points, normals = (texels.interpolate(values, corners) for values in (surface.vertices, surface.normals))
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    spots = SurfacePoints(points.astype(np.float32), normals.astype(np.float32), texels.face)
    slope, curvature = _step(spots, views, face_seen, gains)
    parts = [_on_vertices(values, texels, corners, len(surface.vertices)) for values in (slope, curvature)]
    for _ in range(_SMOOTHINGS):
        parts = [0.5 * (part + neighbours @ part) for part in parts]
    reach = surface.footprint
    trust = _on_vertices(np.full(len(slope), _TRUST**2), texels, corners, len(reach)) / reach**2
    moved = np.clip(-parts[0] / np.maximum(parts[1] + trust, 1e-12), -_MOST_PIXELS * reach, _MOST_PIXELS * reach)
    return replace(surface, vertices=surface.vertices + moved[:, None] * surface.normals)


def _step(
    spots: SurfacePoints, views: list[PhotoView], face_seen: np.ndarray, gains: Float[np.ndarray, "views 3"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Half the derivatives, by a move along the normal, of the variance of each point's colours in the photos."""
    import cv2

    shape = (len(spots.points), 3)
    weight = np.zeros(shape[0], dtype=np.float32)
    color, change, product, square = (np.zeros(shape, dtype=np.float32) for _ in range(4))
    for number in track(range(len(views)), "Where photos agree"):
        view = views[number]
        index, quality = candidates(spots, view, face_seen[number])
        points, normals = spots.points[index], spots.normals[index]
        pixels = view.project(points)[0]
        length = np.float32(1e-3)
        shift = (view.project(points + length * normals)[0] - pixels) / length
        photo = view.photo()
        alpha = cv2.erode(photo[..., 3], np.ones((5, 5), dtype=np.uint8))
        rgb = cv2.GaussianBlur(photo[..., :3] * gains[number].astype(np.float32), (0, 0), 0.7)
        across, down = (cv2.Sobel(rgb, cv2.CV_32F, *order, ksize=3, scale=0.125) for order in ((1, 0), (0, 1)))
        opaque = sample(alpha, pixels, smooth=False)[:, 0] > 0.99
        index, pixels, shift = index[opaque], pixels[opaque], shift[opaque]
        quality = np.sqrt(quality[opaque])
        seen = sample(rgb, pixels, smooth=False)
        slope = sum(shift[:, k, None] * sample(image, pixels, smooth=False) for k, image in enumerate((across, down)))
        weight[index] += quality
        color[index] += quality[:, None] * seen
        change[index] += quality[:, None] * slope
        product[index] += quality[:, None] * slope * seen
        square[index] += quality[:, None] * slope**2
    total = np.maximum(weight, 1e-12)[:, None]
    slope = (product - change * color / total).sum(-1)
    curvature = (square - change**2 / total).sum(-1)
    return slope / total[:, 0], curvature / total[:, 0]


def _on_vertices(
    values: Float[np.ndarray, " n"], texels: Texels, corners: Int[np.ndarray, "m 3"], count: int
) -> Float[np.ndarray, " v"]:
    """Values of texels, given to the corners of their faces by their shares."""
    vertices = corners[texels.face]
    return np.bincount(vertices.ravel(), (texels.share * values[:, None]).ravel(), count)


def _neighbours(faces: Int[np.ndarray, "m 3"], count: int):
    """The matrix that averages over the neighbours of each vertex."""
    from scipy.sparse import coo_array, diags_array

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    adjacency = (coo_array((np.ones(len(edges)), edges.T), shape=(count, count)).tocsr() > 0).astype(np.float64)
    return diags_array(1.0 / np.maximum(adjacency.sum(1), 1.0)) @ adjacency
