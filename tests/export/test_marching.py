"""Marching cubes on known distances, evaluated where the surface is alone."""

import numpy as np
import pytest
import torch
import trimesh
from skimage.measure import marching_cubes

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.export.marching import Distance, extract_surface

CPU = torch.device("cpu")


def ball(center: tuple[float, float, float], radius: float) -> Distance:
    return lambda points: (points - torch.tensor(center)).norm(dim=-1) - radius


def bumpy(points: torch.Tensor) -> torch.Tensor:
    """No distance, but near one: gradients between 0.6 and 1.4."""
    return points.norm(dim=-1) - 0.6 + 0.04 * torch.sin(10 * points).sum(-1) / 3**0.5


def test_a_ball_has_its_radius_centre_volume_and_outward_faces() -> None:
    mesh = trimesh.Trimesh(*extract_surface(ball((0.1, -0.2, 0.05), 0.5), 42, CPU), process=False)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices - [0.1, -0.2, 0.05], axis=-1), 0.5, atol=1e-3)
    assert mesh.is_watertight and mesh.is_winding_consistent
    # Positive only if the faces turn outwards.
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.01)
    assert mesh.euler_number == 2


@pytest.mark.parametrize("factor", [1.0, 3.0], ids=["as it is", "three times too large"])
def test_the_surface_is_that_of_the_full_grid(factor: float) -> None:
    """Also where the distances are so wrong that most blocks are found by their neighbours."""
    side, asked = 65, 0

    def distance(points: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += len(points)
        return factor * bumpy(points)

    vertices, faces = extract_surface(distance, side, CPU)
    axis = torch.linspace(-1, 1, side)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    full, full_faces, _, _ = marching_cubes((factor * bumpy(grid.view(-1, 3))).view(side, side, side).numpy(), 0.0)
    np.testing.assert_allclose(vertices, full * 2 / (side - 1) - 1, atol=1e-5)
    np.testing.assert_array_equal(faces, full_faces)
    assert asked < 0.45 * side**3


def test_a_surface_that_leaves_the_region_is_cut_open_or_closed() -> None:
    def slope(points: torch.Tensor) -> torch.Tensor:
        return points[:, 2] - 0.1

    vertices, faces = extract_surface(slope, 33, CPU)
    assert (np.abs(vertices[:, 2] - 0.1) < 1e-6).all()
    assert np.linalg.norm(vertices, axis=-1).max() < 1.0 + 2 / 16
    area = trimesh.Trimesh(vertices, faces, process=False).area
    assert area == pytest.approx(np.pi * (1 - 0.1**2), rel=0.1)
    closed = trimesh.Trimesh(*extract_surface(slope, 65, CPU, closed=True), process=False)
    assert closed.is_watertight
    # The ball that closes it ends a cell before the grid does.
    radius = 1 - 2 / 64
    assert closed.volume == pytest.approx(np.pi * (radius**2 * (0.1 + radius) - (0.1**3 + radius**3) / 3), rel=0.01)


def test_no_surface_is_an_error() -> None:
    with pytest.raises(InputError, match="no surface"):
        extract_surface(lambda points: points.norm(dim=-1) + 0.1, 16, CPU)
