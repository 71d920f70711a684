"""The rasteriser that judges exports: positions, perspective, order."""

import numpy as np

from benchmarks.raster import Painted, Pinhole, draw

CAMERA = Pinhole(np.eye(4)[:3], (40.0, 40.0), (20.0, 15.0), (40, 30))
WHITE = np.ones(3)


def square(half: float, depth: float, tilt: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two triangles before the camera, farther at the top where tilted."""
    corners = np.array([[-half, -half, -depth], [half, -half, -depth], [half, half, -depth], [-half, half, -depth]])
    return corners - [[0, 0, 0], [0, 0, 0], [0, 0, tilt], [0, 0, tilt]], np.array([[0, 1, 2], [0, 2, 3]])


def test_a_square_covers_its_pixels_and_the_nearer_one_wins() -> None:
    far, faces = square(1.0, 4.0)
    near, _ = square(0.25, 2.0)
    red, blue = np.tile([1.0, 0, 0], (4, 1)), np.tile([0.0, 0, 1], (4, 1))
    mesh = Painted(np.concatenate([near, far]), np.concatenate([faces, faces + 4]), np.concatenate([blue, red]))
    picture, covered = draw(mesh, CAMERA, WHITE)
    np.testing.assert_allclose(picture[15, 20], [0, 0, 1])
    np.testing.assert_allclose(picture[15, 12], [1, 0, 0])
    np.testing.assert_allclose(picture[2, 2], WHITE)
    assert covered.sum() == 20 * 20


def test_texture_follows_the_perspective() -> None:
    """On a slanted square the middle of the texture is not the middle of the picture."""
    vertices, faces = square(1.0, 2.0, tilt=2.0)
    uv = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    ramp = np.repeat(np.round(np.linspace(255, 0, 256)).astype(np.uint8)[:, None, None], 4, 1).repeat(3, 2)
    picture, _ = draw(Painted(vertices, faces, uv, ramp), CAMERA, WHITE)
    # The point half-way up the square lies at height 0 and depth 3: on the row of the principal point.
    np.testing.assert_allclose(picture[14:16, 20, 0].mean(), 0.5, atol=0.01)
    # At v = 0.75 the height is 0.5 and the depth 3.5.
    row = 15.0 - 40.0 * 0.5 / 3.5
    np.testing.assert_allclose(np.interp(row, np.arange(30) + 0.5, picture[:, 20, 0]), 0.75, atol=0.01)
