"""Losses: zero at the truth, invariances, hand values, float64 gradients, empty batches."""

import numpy as np
import pytest
import torch

from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.geometry.lie import compose, se3_exp, so3_exp
from craym_nerfstudio.geometry.rays import transform_directions
from craym_nerfstudio.objective.losses import (
    annealed_kernel_scale_px,
    eikonal_loss,
    epipolar_loss,
    epipolar_residuals_px,
    photometric_loss,
    point_alignment_loss,
    robust_cost,
    silhouette_loss,
    ssim_loss,
)
from tests.dome import FOCAL_PX, Dome, make_dome

SIMILARITY = Similarity(
    torch.tensor(5.0).double(),
    so3_exp(torch.tensor([0.3, -1.1, 0.4]).double()),
    torch.tensor([1.0, 2.0, -3.0]).double(),
)


def residuals_of(dome: Dome, c2w: torch.Tensor) -> torch.Tensor:
    """Epipolar residuals in px of all matches under given poses."""
    return epipolar_residuals_px(c2w[dome.views], dome.bearings, FOCAL_PX)


def points_of(dome: Dome, c2w: torch.Tensor, depths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """End points of the key rays of all matches."""
    poses = c2w[dome.views]
    points = poses[..., 3] + depths[..., None] * transform_directions(poses, dome.bearings)
    return points[:, 0], points[:, 1]


def noisy_poses(dome: Dome, sigma: float = 0.05) -> torch.Tensor:
    """Poses with noise in the cameras' frames."""
    xi = sigma * torch.randn(len(dome.c2w), 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return compose(dome.c2w, se3_exp(xi))


def test_geometric_losses_vanish_at_the_truth_and_only_there() -> None:
    dome = make_dome()
    assert float(epipolar_loss(residuals_of(dome, dome.c2w), 2.0)) < 1e-12
    assert float(point_alignment_loss(*points_of(dome, dome.c2w, dome.depths))) < 1e-12
    noisy = noisy_poses(dome)
    assert float(epipolar_loss(residuals_of(dome, noisy), 2.0)) > 0.5
    assert float(point_alignment_loss(*points_of(dome, noisy, dome.depths))) > 0.05


def test_a_global_similarity_leaves_epipolar_loss_and_scales_alignment_loss() -> None:
    dome = make_dome()
    noisy = noisy_poses(dome)
    moved = SIMILARITY.poses(noisy)
    torch.testing.assert_close(residuals_of(dome, moved), residuals_of(dome, noisy), rtol=1e-8, atol=1e-9)
    plain = point_alignment_loss(*points_of(dome, noisy, dome.depths))
    scaled = point_alignment_loss(*points_of(dome, moved, 5 * dome.depths))
    torch.testing.assert_close(scaled, 5 * plain)


def test_gradients_vanish_at_the_truth() -> None:
    dome = make_dome()
    xi = torch.zeros(len(dome.c2w), 6, dtype=torch.float64, requires_grad=True)
    poses = compose(dome.c2w, se3_exp(xi))
    epipolar_loss(residuals_of(dome, poses), 2.0).backward()
    assert xi.grad is not None and xi.grad.abs().max() < 1e-9


def test_gradcheck_of_geometric_losses_in_the_pose_residual() -> None:
    dome = make_dome(cameras=3, points=8)
    weights = torch.rand(len(dome.views), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    xi = 0.05 * torch.randn(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    depths = (1.1 * dome.depths).requires_grad_()

    def both(xi, depths):
        poses = compose(dome.c2w, se3_exp(xi))
        epipolar = epipolar_loss(residuals_of(dome, poses), 5.0, weights)
        return epipolar, point_alignment_loss(*points_of(dome, poses, depths), weights)

    assert torch.autograd.gradcheck(both, (xi.requires_grad_(), depths))


def test_epipolar_loss_pulls_matches_from_far_outside_its_final_kernel() -> None:
    """Matches that start tens of pixels off end below one pixel."""
    dome = make_dome(cameras=6, points=40)
    start = noisy_poses(dome, 0.12)
    assert residuals_of(dome, start).median() > 20
    xi = torch.zeros(6, 6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([xi], lr=1e-2)
    for step in range(200):
        residuals = residuals_of(dome, compose(start, se3_exp(xi)))
        scale = annealed_kernel_scale_px(step, 200, 2.0, residuals)
        optimiser.zero_grad()
        epipolar_loss(residuals, scale).backward()
        optimiser.step()
    assert residuals.median() < 1.0


def test_weights_are_trust_without_gradient() -> None:
    residuals = torch.tensor([1.0, 1.0], requires_grad=True)
    weights = torch.tensor([1.0, 0.5], requires_grad=True)
    loss = epipolar_loss(residuals, 1.0, weights)
    loss.backward()
    assert loss.item() == pytest.approx(0.375)
    assert weights.grad is None and residuals.grad is not None


def test_kernel_by_hand() -> None:
    residuals = torch.tensor([0.0, 1.0, 2.0, 6.0])
    torch.testing.assert_close(robust_cost(residuals, 2.0), torch.tensor([0.0, 0.4, 1.0, 1.8]))
    torch.testing.assert_close(robust_cost(residuals, torch.tensor(2.0)), torch.tensor([0.0, 0.4, 1.0, 1.8]))
    inner = torch.tensor([-3.0, -0.5, 0.0, 4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: robust_cost(r, torch.tensor(1.5).double()), inner)


def test_kernel_scale_follows_the_step_or_the_batch() -> None:
    scales = [annealed_kernel_scale_px(step, 100, 2.0) for step in (0, 50, 100, 900)]
    assert scales == pytest.approx([20, 40**0.5, 2, 2])
    assert annealed_kernel_scale_px(0, 0, 2.0) == pytest.approx(2)
    residuals = torch.tensor([70.0, 80.0, 900.0], requires_grad=True)
    scale = annealed_kernel_scale_px(99, 100, 2.0, residuals)
    assert float(scale) == 120.0 and not scale.requires_grad
    assert float(annealed_kernel_scale_px(0, 100, 2.0, torch.tensor([0.1]))) == pytest.approx(20)
    assert float(annealed_kernel_scale_px(0, 0, 2.0, torch.tensor([0.1]))) == pytest.approx(2)
    assert annealed_kernel_scale_px(0, 100, 2.0, torch.zeros(0)) == pytest.approx(20)


def test_alignment_counts_only_rays_that_end_on_something() -> None:
    zero, one = torch.zeros(3, 3), torch.tensor([[3.0, 4.0, 0.0]] * 3)
    opacity_i, opacity_j = torch.tensor([0.9, 0.9, 0.1]), torch.tensor([0.9, 0.1, 0.9])
    assert float(point_alignment_loss(zero, one)) == 5
    assert float(point_alignment_loss(zero, one, None, opacity_i, opacity_j)) == pytest.approx(5 / 3)
    same = torch.ones(2, 3, requires_grad=True)
    point_alignment_loss(same, same.detach()).backward()
    assert same.grad is not None and torch.equal(same.grad, torch.zeros(2, 3))


def test_eikonal_loss() -> None:
    gradients = torch.tensor([[0.0, 0.0, 1.0], [0.0, 3.0, 4.0], [0.0, 0.0, 0.0]], requires_grad=True)
    loss = eikonal_loss(gradients)
    loss.backward()
    assert float(loss) == pytest.approx((0 + 16 + 1) / 3)
    assert gradients.grad is not None and torch.isfinite(gradients.grad).all()
    assert float(eikonal_loss(gradients, torch.tensor([2.0, 0.0, 2.0]))) == pytest.approx(0.5)


def test_photometric_loss_honours_a_mask() -> None:
    predicted, target = torch.tensor([[1.0, 1, 1], [0.5, 0.5, 0.5]]), torch.zeros(2, 3)
    assert float(photometric_loss(predicted, target)) == pytest.approx(0.625)
    assert float(photometric_loss(predicted, target, torch.tensor([0.0, 1.0]))) == pytest.approx(0.25)
    assert float(photometric_loss(predicted, target, torch.zeros(2))) == 0


def test_ssim_agrees_with_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    generator = torch.Generator().manual_seed(0)
    target = torch.rand(1, 24, 20, 3, generator=generator, dtype=torch.float64)
    predicted = (target + 0.2 * torch.randn(target.shape, generator=generator)).clamp(0, 1)
    _, full = structural_similarity(
        predicted[0].numpy(), target[0].numpy(), data_range=1.0, channel_axis=-1, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    expected = float(np.mean(full[5:-5, 5:-5]))
    # The library's window has single precision.
    assert 1 - float(ssim_loss(predicted, target)) == pytest.approx(expected, abs=1e-7)


def test_ssim_of_small_patches() -> None:
    patch = torch.rand(2, 4, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    other = torch.rand(2, 4, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert float(ssim_loss(patch, patch)) == pytest.approx(0, abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: ssim_loss(x, other), patch.requires_grad_())


def test_empty_batches_cost_nothing() -> None:
    nothing = torch.zeros(0, requires_grad=True)
    points = torch.zeros(0, 3, requires_grad=True)
    losses = [epipolar_loss(nothing, 2.0, nothing), point_alignment_loss(points, points), eikonal_loss(points)]
    losses += [photometric_loss(points, points), ssim_loss(torch.zeros(0, 8, 8, 3), torch.zeros(0, 8, 8, 3))]
    assert [float(loss) for loss in losses] == [0.0] * 5


def test_silhouettes_pull_from_afar_where_colours_do_not() -> None:
    """A bar 20 px wide, shown 60 px off: its edges are 1 px soft, and nothing of it is where it should be."""
    place = torch.arange(200, dtype=torch.float64)
    outline = (place - 100).abs() - 10
    slopes = {}
    for shift in (60.0, 30.0, 0.0):
        at = torch.tensor(shift, dtype=torch.float64, requires_grad=True)
        opacity = torch.sigmoid(10 - (place - 100 - at).abs())
        (slopes[shift],) = torch.autograd.grad(silhouette_loss(opacity, outline / 200), at, retain_graph=True)
        (colours,) = torch.autograd.grad(photometric_loss(opacity[:, None], (outline < 0).float()[:, None]), at)
        assert shift == 0 or slopes[shift] > 20 * colours.abs()
    # Twice the opacity of the bar, times the distance by which its far edge is farther off than its near one.
    assert float(slopes[60.0]) == pytest.approx(20 / 200 / 200, rel=0.02)
    assert float(slopes[0.0]) == pytest.approx(0, abs=1e-6)


def test_silhouette_by_hand() -> None:
    """Half opaque 0.3 outside, a tenth transparent 0.2 inside; the third ray is masked."""
    opacity, outline = torch.tensor([0.5, 0.9, 1.0]), torch.tensor([0.3, -0.2, 0.4])
    loss = silhouette_loss(opacity, outline, torch.tensor([1.0, 1.0, 0.0]))
    assert float(loss) == pytest.approx((0.15 + 0.02) / 2)
