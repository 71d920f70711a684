"""The pinhole by hand, and its two directions against each other."""

import numpy as np

from craym_nerfstudio.geometry.pinhole import Pinhole, bearings_from_plane, plane_from_bearings


def front_camera() -> Pinhole:
    """At the origin, looking along -z; a unit at distance 1 is 4 px."""
    return Pinhole(np.eye(3, 4), np.array([4.0, 4.0]), np.array([4.0, 3.0]), (8, 6))


def test_projection_by_hand() -> None:
    pixels, nearness = front_camera().project(np.array([[0.5, 0.25, -2.0], [0.0, 0.0, 1.0]]))
    np.testing.assert_allclose(pixels[0], [5.0, 2.5])
    np.testing.assert_allclose(nearness, [0.5, 0.0])
    assert np.isfinite(pixels).all()


def test_plane_is_right_and_down() -> None:
    np.testing.assert_allclose(plane_from_bearings(np.array([1.0, 2.0, -4.0])), [0.25, -0.5])
    np.testing.assert_allclose(bearings_from_plane(np.array([0.0, 0.75])), [0.0, -0.6, -0.8])


def test_rays_lead_to_what_is_projected() -> None:
    turned = np.array([[0.0, 0.0, 1.0, 0.5], [1.0, 0.0, 0.0, -1.0], [0.0, 1.0, 0.0, 2.0]])
    camera = Pinhole(turned, np.array([50.0, 40.0]), np.array([31.0, 25.0]), (64, 48))
    pixels = np.random.default_rng(0).uniform(0, 40, (20, 2))
    points = camera.c2w[:, 3] + 3.0 * camera.rays(pixels)
    found, nearness = camera.project(points)
    np.testing.assert_allclose(found, pixels)
    assert (nearness > 1 / 3).all()
    assert camera.shows(np.array([[0.0, 0.0], [63.9, 47.9], [64.0, 1.0], [1.0, -0.1]])).tolist() == [1, 1, 0, 0]
