"""Distances between surfaces, against cases that can be worked out by hand and against other libraries."""

import numpy as np
import pytest
import torch
import trimesh
from scipy.integrate import quad
from scipy.spatial.distance import directed_hausdorff

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.evaluation.surfaces import (
    Cloud,
    SampledMesh,
    SurfaceReference,
    compare_surfaces,
    sample_mesh,
)
from craym_nerfstudio.geometry.alignment import Similarity, align_poses
from craym_nerfstudio.geometry.lie import so3_exp
from samples.analytic_scene import dome_cameras

Mesh = tuple[np.ndarray, np.ndarray]


def sphere(center: tuple[float, float, float] = (0, 0, 0)) -> Mesh:
    ball = trimesh.creation.icosphere(subdivisions=5)
    return np.asarray(ball.vertices) + center, np.asarray(ball.faces)


def cube(without_top: bool = False) -> Mesh:
    """The cube [-1, 1]^3."""
    box = trimesh.creation.box(extents=(2, 2, 2))
    faces = np.asarray(box.faces)
    return np.asarray(box.vertices), faces[box.face_normals[:, 2] < 0.5] if without_top else faces


def reference(mesh: Mesh, count: int = 60_000) -> SurfaceReference:
    surface = sample_mesh(*mesh, count, seed=1)
    return SurfaceReference("exact mesh", Cloud(surface.points, surface.normals), surface, "nothing")


def test_shifted_spheres() -> None:
    shift = 0.02
    found = compare_surfaces(sample_mesh(*sphere((shift, 0, 0)), 60_000), reference(sphere())).metrics()
    # A point at cosine u to the shift; cosines are uniform on a sphere.
    mean = 0.5 * quad(lambda u: abs(np.sqrt(1 + shift**2 + 2 * shift * u) - 1), -1, 1, points=[-shift / 2])[0]
    for name in ("accuracy", "completeness", "chamfer"):
        assert found[name] == pytest.approx(mean, abs=1.5e-4)
    assert found["hausdorff"] == pytest.approx(shift, abs=3e-4)
    assert found["hausdorff_95"] == pytest.approx(0.95 * shift, abs=3e-4)
    for name in ("precision", "recall", "f_score"):
        assert found[f"{name}_0.01"] == pytest.approx(0.5, abs=0.02)
        assert found[f"{name}_0.02"] == pytest.approx(1.0, abs=0.01)
    assert found["normal_consistency"] > 0.998


def test_cube_with_a_missing_face() -> None:
    found = compare_surfaces(sample_mesh(*cube(without_top=True), 60_000), reference(cube())).metrics()
    assert found["accuracy"] == pytest.approx(0.0, abs=1e-6)
    assert found["precision_0.01"] == 1.0
    # Mean distance to the rim of a square of side 2 is a third; the square is a sixth of the cube.
    assert found["completeness"] == pytest.approx(1 / 18, rel=0.02)
    assert found["completeness_median"] == pytest.approx(0.0, abs=1e-6)
    assert found["chamfer"] == pytest.approx(1 / 36, rel=0.02)
    assert found["hausdorff"] == pytest.approx(1.0, abs=0.02)
    recall = 5 / 6 + (1 - 0.98**2) / 6
    assert found["recall_0.02"] == pytest.approx(recall, abs=2e-3)
    assert found["f_score_0.02"] == pytest.approx(2 * recall / (1 + recall), abs=2e-3)


def test_what_is_not_observed_does_not_count() -> None:
    whole, open_cube = reference(cube()), sample_mesh(*cube(without_top=True), 60_000, seed=2)
    seen = Cloud(open_cube.points, open_cube.normals)
    unseen_top = SurfaceReference("exact mesh", seen, whole.surface, "top", lambda points: points[:, 2] < 1 - 1e-9)
    vertices, faces = cube()
    found = compare_surfaces(sample_mesh(vertices, faces, 60_000), unseen_top).metrics()
    assert found["left_out_share"] == pytest.approx(1 / 6, abs=1e-4)
    assert found["chamfer"] < 1e-6 and found["f_score_0.01"] == 1.0
    nowhere = SurfaceReference("exact mesh", seen, whole.surface, "all", lambda points: points[:, 2] > 5)
    with pytest.raises(InputError, match="No part of the mesh"):
        compare_surfaces(sample_mesh(vertices, faces, 100), nowhere)


def test_rotated_camera_ring_brings_the_frame_and_only_cameras_do() -> None:
    truth = torch.from_numpy(dome_cameras(12)).double()
    turned = Similarity(torch.tensor(0.37).double(), so3_exp(torch.tensor([0.4, -1.1, 2.0]).double()), torch.ones(3))
    to_reference = align_poses(turned.poses(truth), truth)

    def found(offset: float) -> dict[str, float]:
        vertices, faces = sphere((offset, 0, 0))
        estimated = turned.points(torch.from_numpy(vertices))
        brought = to_reference.points(estimated).numpy()
        return compare_surfaces(sample_mesh(brought, faces, 20_000), reference(sphere(), 20_000)).metrics()

    assert found(0.0)["hausdorff"] < 1e-6
    # A surface that is off with respect to its cameras stays off: an ICP would hide it.
    assert found(0.3)["hausdorff"] == pytest.approx(0.3, abs=1e-3)


def test_nearest_agrees_with_exact_libraries() -> None:
    vertices, faces = sphere()
    mesh = sample_mesh(vertices, faces, 60_000)
    query = np.random.default_rng(0).normal(size=(500, 3))
    distance, normals = mesh.nearest(query)
    o3d = pytest.importorskip("open3d")
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(o3d.core.Tensor(vertices.astype(np.float32)), o3d.core.Tensor(faces.astype(np.uint32)))
    exact = scene.compute_distance(o3d.core.Tensor(query.astype(np.float32))).numpy()
    np.testing.assert_allclose(distance, exact, atol=2e-5)
    direction = query / np.linalg.norm(query, axis=-1, keepdims=True)
    assert ((direction * normals).sum(-1) > 0.99).all()


def test_hausdorff_agrees_with_scipy_on_points() -> None:
    generator = np.random.default_rng(3)
    estimate = sample_mesh(*cube(), 800)
    points = Cloud(generator.normal(size=(700, 3)))
    found = compare_surfaces(
        SampledMesh(estimate.points, estimate.normals, np.repeat(estimate.points[:, None], 3, 1), np.arange(800)),
        SurfaceReference("visible points", points, points, "nothing"),
    ).metrics()
    ways = (estimate.points, points.points), (points.points, estimate.points)
    assert found["hausdorff"] == pytest.approx(max(directed_hausdorff(*way)[0] for way in ways), rel=1e-9)
    assert "normal_consistency" not in found


def test_samples_are_uniform_over_area_and_repeatable() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [3.0, 0, 0], [0, 0, 0]])
    faces = np.array([[0, 1, 2], [0, 3, 2], [0, 4, 1]])
    mesh = sample_mesh(vertices, faces, 4000, seed=5)
    np.testing.assert_allclose(np.bincount(mesh.face, minlength=3), [1000, 3000, 0], atol=1)
    np.testing.assert_allclose(mesh.points[mesh.face == 0].mean(0), [1 / 3, 1 / 3, 0], atol=0.02)
    np.testing.assert_array_equal(mesh.normals, [[0.0, 0.0, 1.0]] * 4000)
    np.testing.assert_array_equal(mesh.points, sample_mesh(vertices, faces, 4000, seed=5).points)
    assert not np.array_equal(mesh.points, sample_mesh(vertices, faces, 4000, seed=6).points)
    with pytest.raises(InputError, match="no surface"):
        sample_mesh(vertices, faces[2:], 10)
