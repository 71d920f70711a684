"""Similarity alignment: planted ones are recovered, degenerate cameras fall back as documented, errors by hand."""

import numpy as np
import pytest
import torch

from craym_nerfstudio.geometry.alignment import Similarity, align_poses, nearest_rotation, pose_errors, procrustes
from craym_nerfstudio.geometry.lie import compose, rotation_angle_deg, se3_exp, so3_exp
from tests.dome import make_dome


def planted(scale: float = 2.5) -> Similarity:
    """A similarity of known scale."""
    generator = torch.Generator().manual_seed(7)
    rotation = so3_exp(torch.randn(3, generator=generator, dtype=torch.float64))
    translation = torch.randn(3, generator=generator, dtype=torch.float64)
    return Similarity(torch.tensor(scale, dtype=torch.float64), rotation, translation)


def assert_same(found: Similarity, expected: Similarity, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found.scale, expected.scale, rtol=tolerance, atol=0)
    torch.testing.assert_close(found.rotation, expected.rotation, rtol=0, atol=tolerance)
    torch.testing.assert_close(found.translation, expected.translation, rtol=0, atol=10 * tolerance)


def at(centers: torch.Tensor) -> torch.Tensor:
    """Cameras at these places whose rotations say nothing of the similarity between two sets."""
    return torch.cat([torch.eye(3, dtype=centers.dtype).expand(len(centers), 3, 3), centers[..., None]], dim=-1)


def test_planted_similarity_is_recovered() -> None:
    poses, similarity = make_dome().c2w, planted()
    assert_same(align_poses(poses, similarity.poses(poses)), similarity)
    assert_same(align_poses(poses, similarity.poses(poses), robust=True), similarity)


def test_planar_centres_are_not_mirrored() -> None:
    centers = torch.rand(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centers[:, 2] = 0
    assert_same(align_poses(at(centers), at(planted().points(centers))), planted())


def test_robust_fit_survives_wrong_cameras() -> None:
    poses, similarity = make_dome(cameras=12).c2w, planted()
    target = similarity.poses(poses)
    target[:4, :, 3] += torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 5
    assert_same(align_poses(poses, target, robust=True), similarity, 1e-6)
    plain = align_poses(poses, target)
    assert float(rotation_angle_deg(plain.rotation.T @ similarity.rotation)) > 1


def test_inverse_and_poses() -> None:
    poses, similarity = make_dome().c2w, planted()
    mapped = similarity.poses(poses)
    identity = torch.eye(3, dtype=torch.float64).expand(len(poses), 3, 3)
    torch.testing.assert_close(mapped[..., :3] @ mapped[..., :3].mT, identity, rtol=0, atol=1e-12)
    torch.testing.assert_close(similarity.inverse().poses(mapped), poses)
    assert similarity.points(poses[..., 3].float()).dtype == torch.float32


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_cameras(count: int) -> None:
    """Poses that differ by a similarity have no error; one camera cannot tell the scale and keeps it."""
    poses, similarity = make_dome().c2w[:count], planted()
    errors = pose_errors(poses, similarity.poses(poses))
    assert errors.rotation_deg_mean < 1e-6 and errors.translation_x100_mean < 1e-6
    torch.testing.assert_close(float(errors.similarity.scale), 2.5 if count > 1 else 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_centres_on_a_line_take_the_rotation_of_the_cameras(dtype: torch.dtype) -> None:
    poses, similarity = make_dome().c2w.clone(), planted()
    poses[..., 3] = torch.arange(8, dtype=torch.float64)[:, None] * torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64)
    assert_same(align_poses(poses.to(dtype), similarity.poses(poses).to(dtype)), similarity, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coinciding_centres_keep_the_scale(dtype: torch.dtype) -> None:
    poses, similarity = make_dome().c2w.to(dtype).clone(), planted(1.0)
    poses[..., 3] = torch.tensor([0.1, 0.7, -0.3], dtype=dtype)
    target = similarity.poses(poses)
    found = align_poses(poses, target)
    assert float(found.scale) == 1
    torch.testing.assert_close(found.poses(poses), target, rtol=0, atol=1e-5)


def test_undetermined_alignment_is_refused() -> None:
    line = at(torch.arange(12, dtype=torch.float64).view(4, 3))
    with pytest.raises(ValueError, match="as many"):
        align_poses(line, line[:3])
    with pytest.raises(ValueError, match="finite"):
        align_poses(line * torch.nan, line)


def test_errors_have_the_planted_size() -> None:
    """One of many cameras turned in place by 2 degrees: its w2c translation swings by its distance from the origin."""
    dome = make_dome(cameras=30, seed=2)
    turn = torch.zeros(30, 6, dtype=torch.float64)
    turn[4, 4] = torch.deg2rad(torch.tensor(2.0, dtype=torch.float64))
    errors = pose_errors(compose(dome.c2w, se3_exp(turn)), dome.c2w)
    assert float(errors.rotation_deg[4]) == pytest.approx(2.0, abs=1e-6)
    assert errors.rotation_deg_mean == pytest.approx(2.0 / 30, abs=1e-6) and float(errors.rotation_deg.median()) < 1e-6
    chord = 2 * torch.sin(turn[4, 4] / 2) * dome.c2w[4, :, 3].norm()
    assert float(errors.translation_x100[4]) == pytest.approx(100 * float(chord), rel=1e-6)


def test_errors_are_in_reference_units() -> None:
    poses = make_dome().c2w
    noisy = compose(poses, se3_exp(0.05 * torch.randn(8, 6, generator=torch.Generator().manual_seed(0)).double()))
    errors, moved = pose_errors(noisy, poses), pose_errors(planted().poses(noisy), poses)
    torch.testing.assert_close(errors.translation_x100, moved.translation_x100)
    torch.testing.assert_close(errors.rotation_deg, moved.rotation_deg)
    scale_only = Similarity(torch.tensor(3.0).double(), torch.eye(3).double(), torch.zeros(3).double())
    tripled = pose_errors(noisy, scale_only.poses(poses))
    torch.testing.assert_close(tripled.translation_x100, 3 * errors.translation_x100)


def test_similarities_compose_and_invert() -> None:
    """Twice as large and a quarter turn about z, then shifted: (1, 0, 0) goes to (3, 2, 3)."""
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    grow, shift = Similarity.of(2.0, turn), Similarity.of(translation=np.array([3.0, 0.0, 3.0]))
    both = shift @ grow
    np.testing.assert_allclose(both.points(np.array([1.0, 0.0, 0.0])), [3.0, 2.0, 3.0])
    np.testing.assert_allclose(both.directions(np.array([1.0, 0.0, 0.0])), [0.0, 1.0, 0.0])
    np.testing.assert_allclose(both.lengths(np.array([1.5])), [3.0])
    poses = make_dome().c2w
    torch.testing.assert_close(both.poses(poses), shift.poses(grow.poses(poses)))
    torch.testing.assert_close(both.inverse().poses(both.poses(poses)), poses)
    torch.testing.assert_close((grow.inverse() @ grow).poses(poses), poses)
    assert both.points(torch.zeros(2, 3)).dtype == torch.float32


def test_nearest_rotation_is_that_of_the_singular_value_decomposition() -> None:
    matrix = torch.randn(200, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, vh = torch.linalg.svd(matrix)
    signs = torch.ones(200, 3, dtype=torch.float64)
    signs[:, 2] = torch.det(u @ vh).sign()
    torch.testing.assert_close(nearest_rotation(matrix), u @ (signs[..., None] * vh), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "spread", [(2.0, 2.0, 2.0), (3.0, 1.0, 1.0), (2.0, 2.0, 0.5), (2.0, 1.0, 0.0), (3.0, 2.0, -1.0)]
)
def test_gradient_of_the_nearest_rotation_where_singular_values_meet(spread: tuple[float, ...]) -> None:
    turn = so3_exp(torch.tensor([[0.3, -1.1, 0.4], [2.0, 0.5, -0.6]], dtype=torch.float64))
    matrix = turn[0] @ torch.diag(torch.tensor(spread, dtype=torch.float64)) @ turn[1]
    assert torch.autograd.gradcheck(nearest_rotation, matrix.requires_grad_())


@pytest.mark.parametrize("spread", [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, -1.0)])
def test_undetermined_rotations_are_rotations_with_finite_gradients(spread: tuple[float, ...]) -> None:
    matrix = torch.diag(torch.tensor(spread)).requires_grad_()
    rotation = nearest_rotation(matrix)
    rotation.sum().backward()
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3))
    assert float(torch.det(rotation)) == pytest.approx(1, abs=1e-5)
    assert matrix.grad is not None and bool(torch.isfinite(matrix.grad).all())


def test_procrustes_finds_planted_motions_by_the_points_that_count() -> None:
    generator = torch.Generator().manual_seed(3)
    motion = se3_exp(torch.randn(2, 4, 6, generator=generator, dtype=torch.float64))
    source = torch.randn(2, 4, 9, 3, generator=generator, dtype=torch.float64)
    target = source @ motion[..., :3].mT + motion[..., None, :, 3]
    torch.testing.assert_close(procrustes(source, target), motion, rtol=0, atol=1e-10)
    weights = torch.rand(2, 4, 9, generator=generator, dtype=torch.float64)
    target[..., 2, :], weights[..., 2] = 7.0, 0.0
    torch.testing.assert_close(procrustes(source, target, weights), motion, rtol=0, atol=1e-10)


def test_procrustes_of_a_plane_is_a_rotation_and_its_gradients_are_right() -> None:
    """A square, whose two singular values are equal and whose third is zero, moved and bent a little."""
    square = torch.tensor([[1.0, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0]], dtype=torch.float64)
    motion = se3_exp(torch.tensor([0.1, 0.2, 0.3, 0.4, -0.5, 0.6], dtype=torch.float64))
    target = square @ motion[:, :3].T + motion[:, 3]
    torch.testing.assert_close(procrustes(square, target), motion, rtol=0, atol=1e-10)
    weights = torch.tensor([1.0, 2.0, 1.0, 0.5], dtype=torch.float64).requires_grad_()
    inputs = (square.requires_grad_(), target.requires_grad_(), weights)
    assert torch.autograd.gradcheck(procrustes, inputs)
