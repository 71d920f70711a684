"""Pieces of meshes, what cameras see of them, files."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.export.marching import extract_surface
from craym_nerfstudio.export.mesh import (
    SurfaceMesh,
    appearance,
    drop_hidden_pieces,
    keep_large_components,
    write_mesh,
)
from craym_nerfstudio.export.photo_views import Visibility
from craym_nerfstudio.geometry.alignment import Similarity
from tests.export.ball_scene import RADIUS, BallTracer, ball_views
from tests.export.test_marching import CPU, ball
from tests.rendering.test_renderer import SphereField


def ball_mesh(radius: float = 0.5, resolution: int = 40) -> trimesh.Trimesh:
    return trimesh.Trimesh(*extract_surface(ball((0.1, -0.2, 0.05), radius), resolution, CPU), process=False)


def three_balls() -> tuple[np.ndarray, np.ndarray]:
    """Balls of radius 0.4 and 0.25, and a speck of 0.04."""
    balls = [ball((-0.4, 0, 0), 0.4), ball((0.5, 0, 0), 0.25), ball((0, 0.8, 0), 0.04)]
    return extract_surface(lambda points: torch.stack([one(points) for one in balls]).amin(0), 64, CPU)


@pytest.mark.parametrize(("keep", "expected"), [(0, 2), (1, 1), (2, 2), (3, 3), (9, 3)])
def test_large_components_are_kept(keep: int, expected: int) -> None:
    vertices, faces = keep_large_components(*three_balls(), keep)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.body_count == expected
    assert faces.max() == len(vertices) - 1
    if expected == 1:
        assert vertices[:, 0].max() < 0.05


def test_pieces_inside_a_solid_are_dropped(tmp_path: Path) -> None:
    outer, inner = trimesh.creation.icosphere(3, RADIUS), trimesh.creation.icosphere(2, 0.3)
    both = trimesh.util.concatenate([inner, outer])
    normals = both.vertices / np.linalg.norm(both.vertices, axis=-1, keepdims=True)
    visibility = Visibility(BallTracer(), 0.01, CPU)  # type: ignore[arg-type]
    views = ball_views(tmp_path, np.ones(3))
    vertices, faces = drop_hidden_pieces(both.vertices, both.faces, normals, views, visibility)
    assert len(vertices) == len(outer.vertices) and len(faces) == len(outer.faces)
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=-1), RADIUS)


class SideColor(torch.nn.Module):
    """Red from above, by the direction's third component (Y_1^0 = 0.4886 z)."""

    def forward(self, feature: torch.Tensor, harmonics: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
        """Colours in [0, 1]."""
        return torch.nn.functional.pad(0.5 - 0.5 * harmonics[:, 2:3] / 0.4886025, (0, 2))


def test_colours_are_the_mean_of_what_views_show() -> None:
    """At the ball's top, from right above it (1) and from 60 degrees beside it (0.75), whose view it fills half."""
    model: Any = SimpleNamespace(device=CPU, level_weights=None)
    model.scene = SimpleNamespace(field=SphereField(), color=SideColor())
    top = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, -0.5]])
    beside = top[0] + 2.0 * np.array([np.sin(np.pi / 3), 0.0, np.cos(np.pi / 3)])
    views: Any = [SimpleNamespace(center=center) for center in (np.array([0.0, 0.0, 3.0]), beside)]
    normals, colors = appearance(model, top, views)
    np.testing.assert_allclose(normals[:, 2], [1.0, -1.0])
    # Nothing faces the bottom, which is seen from right below.
    np.testing.assert_allclose(colors[:, 0], [(1.0 + 0.5 * 0.75) / 1.5, 0.0], atol=1e-6)
    np.testing.assert_allclose(appearance(model, top)[1][:, 0], [1.0, 0.0], atol=1e-6)


def test_a_similarity_moves_points_and_turns_normals() -> None:
    angle = 0.3
    turn = torch.tensor(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]], dtype=torch.float64
    )
    source = ball_mesh()
    mesh = SurfaceMesh(source.vertices, source.faces, np.tile([1.0, 0, 0], (len(source.vertices), 1)), source.vertices)
    move = Similarity(torch.tensor(3.0).double(), turn, torch.tensor([1.0, 2, 3]).double())
    moved = mesh.moved(move)
    np.testing.assert_allclose(moved.vertices, 3 * mesh.vertices @ turn.numpy().T + [1, 2, 3])
    np.testing.assert_allclose(moved.normals[0], [np.cos(angle), np.sin(angle), 0])


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_files_keep_geometry_normals_and_colours(tmp_path: Path, suffix: str) -> None:
    source = ball_mesh(0.5, 16)
    normals = source.vertices - [0.1, -0.2, 0.05]
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    colors = 0.5 + 0.5 * normals
    path = tmp_path / "new" / f"ball{suffix}"
    write_mesh(SurfaceMesh(source.vertices, source.faces, normals, colors), path)
    loaded = trimesh.load(path, process=False, force="mesh")
    assert loaded.faces.shape == source.faces.shape
    np.testing.assert_allclose(loaded.vertices, source.vertices, atol=1e-5)
    np.testing.assert_allclose(loaded.visual.vertex_colors[:, :3] / 255.0, colors, atol=0.01)
    # trimesh computes normals anew when it loads: whether they were written shows in the file.
    mark = {".ply": b"property float nx", ".obj": b"\nvn "}[suffix]
    assert mark in path.read_bytes()
    if suffix == ".obj":
        written = [line.split()[1:] for line in path.read_text().splitlines() if line.startswith("vn ")]
        np.testing.assert_allclose(np.array(written, dtype=float), normals, atol=1e-6)


def test_stl_has_the_shape(tmp_path: Path) -> None:
    source = ball_mesh(0.5, 16)
    write_mesh(SurfaceMesh(source.vertices, source.faces, source.vertices, source.vertices), tmp_path / "ball.stl")
    loaded = trimesh.load(tmp_path / "ball.stl", force="mesh")
    assert loaded.is_watertight and loaded.volume == pytest.approx(source.volume, rel=1e-5)


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    source = ball_mesh(0.5, 12)
    mesh = SurfaceMesh(source.vertices, source.faces, source.vertices, source.vertices)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        write_mesh(mesh, tmp_path / "file" / "mesh.ply")


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_map_coordinates_are_exact(suffix: str, tmp_path: Path) -> None:
    """UTM and geocentric metres: single precision would round them to half a metre."""
    ball = trimesh.creation.icosphere(2, radius=0.5)
    for place in ([512345.678, 5412345.123, 210.5], [3743900.0, 3663000.0, 3627720.0]):
        vertices = ball.vertices + place
        mesh = SurfaceMesh(vertices, np.asarray(ball.faces), 2 * ball.vertices, np.full((len(vertices), 3), 0.5))
        write_mesh(mesh, tmp_path / f"mesh{suffix}")
        read = trimesh.load(tmp_path / f"mesh{suffix}", process=False, force="mesh")
        np.testing.assert_allclose(read.vertices, vertices, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(read.faces, mesh.faces)
        assert (read.visual.vertex_colors[:, :3] == 128).all()
