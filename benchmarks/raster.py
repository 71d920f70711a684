"""A renderer of meshes that shares no line with the package: each triangle's pixels, the nearest wins, no light."""

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float, Int, UInt8

FINE = 3
"""Samples per pixel along each axis."""


@dataclass(frozen=True)
class Pinhole:
    """A camera with OpenGL axes; the first pixel's centre lies at 0.5."""

    c2w: Float[np.ndarray, "3 4"]
    focal_px: tuple[float, float]
    center_px: tuple[float, float]
    size_px: tuple[int, int]


@dataclass(frozen=True)
class Painted:
    """A mesh with colours at the corners of its faces, or places in a texture (v upwards) there."""

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    attributes: Float[np.ndarray, "n feat"]
    texture: UInt8[np.ndarray, "h w 3"] | None = None

    @classmethod
    def read(cls, path) -> "Painted":
        """A file that `craym export` has written, its vertices in the frame of the data."""
        import trimesh

        content = trimesh.load(path, process=False)
        part = next(iter(content.geometry.values())) if isinstance(content, trimesh.Scene) else content
        vertices, faces = np.asarray(part.vertices, dtype=np.float64), np.asarray(part.faces)
        if part.visual.kind == "texture":
            texture = np.asarray(part.visual.material.baseColorTexture)[..., :3]
            return cls(vertices, faces, np.asarray(part.visual.uv, dtype=np.float64), np.ascontiguousarray(texture))
        return cls(vertices, faces, np.asarray(part.visual.vertex_colors)[:, :3] / 255.0)


def draw(
    mesh: Painted, camera: Pinhole, background: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w"]]:
    """The picture on a background, and the share of each pixel that the mesh covers."""
    local = (mesh.vertices - camera.c2w[:, 3]) @ camera.c2w[:, :3]
    depth = np.maximum(-local[:, 2], 1e-6)
    flat = np.stack(
        [
            camera.center_px[0] + camera.focal_px[0] * local[:, 0] / depth,
            camera.center_px[1] - camera.focal_px[1] * local[:, 1] / depth,
        ],
        axis=-1,
    )
    width, height = camera.size_px
    shape = (height * FINE, width * FINE)
    nearest, values = np.full(shape, np.inf), np.zeros((*shape, mesh.attributes.shape[1]))
    ahead = (local[:, 2] < -1e-3)[mesh.faces].all(-1)
    _fill(flat * FINE, 1.0 / depth, mesh.faces[ahead], np.ascontiguousarray(mesh.attributes), nearest, values)
    hit = np.isfinite(nearest)
    rgb = values if mesh.texture is None else _looked_up(mesh.texture, values)
    rgb = np.where(hit[..., None], rgb, background)
    blocks = (height, FINE, width, FINE)
    return rgb.reshape(*blocks, 3).mean((1, 3)), hit.reshape(blocks).mean((1, 3))


def _looked_up(texture: UInt8[np.ndarray, "h w 3"], uv: Float[np.ndarray, "y x 2"]) -> Float[np.ndarray, "y x 3"]:
    """Bilinear."""
    height, width = texture.shape[:2]
    x, y = uv[..., 0] * width - 0.5, (1.0 - uv[..., 1]) * height - 0.5
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    total = np.zeros((*uv.shape[:2], 3))
    for right in (0, 1):
        for below in (0, 1):
            share = np.abs(1 - right - (x - column)) * np.abs(1 - below - (y - row))
            taken = texture[(row + below).clip(0, height - 1), (column + right).clip(0, width - 1)]
            total += share[..., None] * taken / 255.0
    return total


@numba.njit(cache=True)
def _fill(flat, inverse_depth, faces, attributes, nearest, values):
    height, width = nearest.shape
    for number in range(len(faces)):
        a, b, c = faces[number]
        ax, ay, bx, by, cx, cy = flat[a, 0], flat[a, 1], flat[b, 0], flat[b, 1], flat[c, 0], flat[c, 1]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0.0:
            continue
        first, last = max(int(min(ax, bx, cx) - 0.5), 0), min(int(max(ax, bx, cx) + 0.5) + 1, width)
        top, bottom = max(int(min(ay, by, cy) - 0.5), 0), min(int(max(ay, by, cy) + 0.5) + 1, height)
        for row in range(top, bottom):
            for column in range(first, last):
                x, y = column + 0.5, row + 0.5
                second = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / area
                third = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / area
                if second < 0.0 or third < 0.0 or second + third > 1.0:
                    continue
                # What is linear on the triangle is linear in the picture after division by the depth.
                u = (1.0 - second - third) * inverse_depth[a]
                v, w = second * inverse_depth[b], third * inverse_depth[c]
                depth = 1.0 / (u + v + w)
                if depth < nearest[row, column]:
                    nearest[row, column] = depth
                    for k in range(attributes.shape[1]):
                        mixed = u * attributes[a, k] + v * attributes[b, k] + w * attributes[c, k]
                        values[row, column, k] = depth * mixed
