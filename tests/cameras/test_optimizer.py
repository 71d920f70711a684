"""One pose convention: rays, viewer, exporter and `optimised_c2w` agree; modes, fixed cameras, checkpoints."""

from typing import get_args

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.cameras.rays import RayBundle

from craym_nerfstudio.cameras import MotionName
from craym_nerfstudio.cameras.noise import perturb_poses
from craym_nerfstudio.cameras.optimizer import (
    CraymCameraOptimizer,
    CraymCameraOptimizerConfig,
    distances_ahead,
)
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.alignment import pose_errors
from craym_nerfstudio.geometry.lie import compose, inverse, rotation_angle_deg, se3_exp
from craym_nerfstudio.objective.losses import annealed_kernel_scale_px, epipolar_loss, epipolar_residuals_px
from tests.dome import FOCAL_PX, make_dome

CAMERAS = 5
MODES = get_args(MotionName)
DISTORTION = torch.tensor([0.1, -0.05, 0.0, 0.0, 0.01, -0.01])


def dataset_poses() -> torch.Tensor:
    """What the dataset says."""
    return make_dome(CAMERAS).c2w.float()


def make_optimizer(mode="SE3", moved: bool = True, start: bool = True, fixed=None) -> CraymCameraOptimizer:
    """An optimizer with poses set and, unless off, residuals of about 10 degrees."""
    optimizer = CraymCameraOptimizerConfig(mode=mode).setup(num_cameras=CAMERAS, device="cpu")
    generator = torch.Generator().manual_seed(0)
    shift = se3_exp(0.05 * torch.randn(CAMERAS, 6, generator=generator))
    optimizer.set_poses(dataset_poses(), compose(shift, dataset_poses()) if start else None, fixed=fixed)
    if moved and mode != "off":
        with torch.no_grad():
            residual = optimizer.motion.residual
            residual.copy_(0.2 * torch.randn(residual.shape, generator=generator))
    return optimizer


def one_fixed(index: int) -> torch.Tensor:
    """A mask with one camera."""
    return torch.arange(CAMERAS) == index


def cameras_at(c2w: torch.Tensor) -> Cameras:
    """Distorted 40 x 30 pinhole cameras."""
    distortion = DISTORTION.repeat(len(c2w), 1)
    return Cameras(c2w, 50.0, 52.0, 20.0, 15.0, 40, 30, distortion, camera_type=CameraType.PERSPECTIVE, metadata={})


def rays_of(c2w: torch.Tensor, indices: torch.Tensor) -> RayBundle:
    """One ray per entry of `indices`, through differing pixels."""
    rows = torch.arange(len(indices)) * 2.0 + 0.5
    return cameras_at(c2w).generate_rays(indices[:, None], torch.stack([rows, 39.5 - rows], dim=-1))


@pytest.mark.parametrize("mode", MODES)
def test_viewer_delta_leads_to_the_optimised_pose(mode) -> None:
    optimizer = make_optimizer(mode)
    indices = torch.tensor([3, 0, 3])
    torch.testing.assert_close(compose(dataset_poses()[indices], optimizer(indices)), optimizer.optimised_c2w(indices))
    torch.testing.assert_close(optimizer.get_correction_matrices(), optimizer(torch.arange(CAMERAS)))
    torch.testing.assert_close(optimizer.optimised_c2w()[indices], optimizer.optimised_c2w(indices))


@pytest.mark.parametrize("mode", MODES)
def test_rays_are_those_of_the_optimised_cameras(mode) -> None:
    optimizer = make_optimizer(mode)
    indices = torch.tensor([4, 0, 1, 1, 2, 3])
    bundle = rays_of(dataset_poses(), indices)
    optimizer.apply_to_raybundle(bundle)
    expected = rays_of(optimizer.optimised_c2w().detach(), indices)
    torch.testing.assert_close(bundle.origins, expected.origins, rtol=0, atol=1e-5)
    torch.testing.assert_close(bundle.directions, expected.directions, rtol=0, atol=1e-5)


def test_a_bundle_of_one_ray_as_the_exporter_makes_it() -> None:
    """Un-normalised directions keep their length, and camera indices may be floats."""
    optimizer = make_optimizer()
    bundle = RayBundle(
        origins=torch.ones(1, 3), directions=torch.full((1, 3), 2.0), pixel_area=torch.ones(1, 1),
        camera_indices=torch.ones(1, 1),
    )  # fmt: skip
    optimizer.apply_to_raybundle(bundle)
    assert bundle.origins.shape == bundle.directions.shape == (1, 3)
    assert float(bundle.directions.norm()) == pytest.approx(12**0.5, rel=1e-5)
    pose, optimised = dataset_poses()[1], optimizer.optimised_c2w()[1].detach()
    local = pose[:, :3].T @ (torch.ones(3) - pose[:, 3])
    expected = optimised[:, :3] @ local + optimised[:, 3]
    torch.testing.assert_close(bundle.origins[0].detach(), expected, rtol=0, atol=1e-5)


def test_image_shaped_bundles_and_bundles_without_cameras() -> None:
    optimizer = make_optimizer()
    image = cameras_at(dataset_poses()).generate_rays(2)
    flat = image.flatten()
    optimizer.apply_to_raybundle(image)
    optimizer.apply_to_raybundle(flat)
    assert image.origins.shape == (30, 40, 3)
    torch.testing.assert_close(image.directions.reshape(-1, 3), flat.directions)
    free = RayBundle(origins=torch.ones(2, 3), directions=torch.ones(2, 3), pixel_area=torch.ones(2, 1))
    optimizer.apply_to_raybundle(free)
    assert torch.equal(free.origins, torch.ones(2, 3))


def test_apply_to_camera() -> None:
    optimizer = make_optimizer()
    camera = cameras_at(dataset_poses())[2:3]
    assert torch.equal(optimizer.apply_to_camera(camera), camera.camera_to_worlds)
    camera.metadata = {"cam_idx": 2}
    torch.testing.assert_close(optimizer.apply_to_camera(camera), optimizer.optimised_c2w()[2:3])


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_rotation_turns_the_camera_about_the_scene(mode) -> None:
    """These cameras look at the origin, which stays in the middle of the image at its distance."""
    optimizer = make_optimizer(mode, moved=False, start=False)
    with torch.no_grad():
        optimizer.motion.residual[:, 3:] = 0.3
    turned = optimizer.optimised_c2w().detach()
    assert (rotation_angle_deg(turned[..., :3] @ dataset_poses()[..., :3].transpose(-1, -2)) > 5).all()
    torch.testing.assert_close(inverse(turned)[..., 3], inverse(dataset_poses())[..., 3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", MODES[1:])
def test_motions_are_rigid(mode) -> None:
    rotation = make_optimizer(mode).optimised_c2w().detach()[..., :3]
    torch.testing.assert_close(rotation @ rotation.transpose(-1, -2), torch.eye(3).expand(CAMERAS, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(CAMERAS))


def test_a_translation_is_in_units_of_the_distance_to_the_scene() -> None:
    optimizer = make_optimizer(moved=False, start=False)
    with torch.no_grad():
        optimizer.motion.residual[:, 0] = 0.1
    shift = (optimizer.optimised_c2w() - dataset_poses())[..., 3].norm(dim=-1)
    torch.testing.assert_close(shift.detach(), 0.1 * dataset_poses()[..., 3].norm(dim=-1))


def test_distances_ahead() -> None:
    """Two cameras see the point 2 and 3 units ahead; one looks away from it and one is nearly on it."""
    poses = torch.eye(4)[:3].repeat(4, 1, 1)
    poses[:, 2, 3] = torch.tensor([2.0, 3.0, -1.0, 0.1])
    assert distances_ahead(poses).tolist() == [2.0, 3.0, 2.0, 2.0]
    torch.testing.assert_close(distances_ahead(poses, torch.tensor([5.0, 5.0, -1.0]))[:2], torch.tensor([3.0, 4.0]))
    assert distances_ahead(poses[2:3]).tolist() == [1.0]
    optimizer = CraymCameraOptimizerConfig().setup(num_cameras=4, device="cpu")
    optimizer.set_poses(poses, center=torch.tensor([0.0, 0.0, -1.0]))
    torch.testing.assert_close(optimizer.pivot_distance[:2], torch.tensor([3.0, 4.0]))


def test_off_mode_has_nothing_to_optimise_and_stays_at_the_start() -> None:
    optimizer = make_optimizer("off")
    groups, losses, metrics = {}, {}, {}
    optimizer.get_param_groups(groups)
    optimizer.get_loss_dict(losses)
    optimizer.get_metrics_dict(metrics)
    assert (groups, losses, metrics) == ({}, {}, {}) and not list(optimizer.parameters())
    assert torch.equal(optimizer.optimised_c2w(), optimizer.start_c2w)


def test_start_defaults_to_the_input() -> None:
    optimizer = make_optimizer(start=False, moved=False)
    torch.testing.assert_close(optimizer.optimised_c2w(), dataset_poses(), rtol=0, atol=1e-6)
    identity = torch.eye(4)[:3].expand(CAMERAS, 3, 4)
    torch.testing.assert_close(optimizer(torch.arange(CAMERAS)), identity, rtol=0, atol=1e-5)


def test_fixed_cameras_keep_their_input_pose() -> None:
    optimizer = make_optimizer(fixed=one_fixed(3))
    torch.testing.assert_close(optimizer.optimised_c2w()[3], dataset_poses()[3], rtol=0, atol=1e-6)
    optimizer.optimised_c2w().square().sum().backward()
    moved = optimizer.motion.residual.grad.abs().sum(-1) > 0
    assert moved.tolist() == [True, True, True, False, True]


def test_parameters_and_metrics() -> None:
    """One of five cameras turned by 0.1 about a point at distance d and shifted by 0.5 d."""
    optimizer = make_optimizer(start=False, moved=False)
    with torch.no_grad():
        optimizer.motion.residual[0] = torch.tensor([0.3, 0.0, 0.4, 0.0, 0.0, 0.1])
    groups, losses, metrics = {}, {}, {}
    optimizer.get_param_groups(groups)
    optimizer.get_loss_dict(losses)
    optimizer.get_metrics_dict(metrics)
    assert groups["camera_opt"][0] is optimizer.motion.residual
    assert losses == {}
    assert float(metrics["camera_opt_rotation_max"]) == pytest.approx(5.7296, rel=1e-3)
    distance = float(dataset_poses()[0, :, 3].norm())
    assert float(metrics["camera_opt_translation_mean"]) == pytest.approx(0.5 * distance / CAMERAS, rel=2e-2)


@pytest.mark.parametrize("mode", MODES[1:])
def test_gradcheck_of_the_pose_residual(mode) -> None:
    optimizer = make_optimizer(mode).double()
    residual = optimizer.motion.residual.detach().clone().requires_grad_()

    def deltas(values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(optimizer, {"motion.residual": values}, (torch.arange(CAMERAS),))

    assert torch.autograd.gradcheck(deltas, residual)
    assert torch.autograd.gradcheck(deltas, torch.zeros_like(residual).requires_grad_())


def test_checkpoint_restores_poses_and_refuses_other_inputs() -> None:
    trained = make_optimizer(fixed=one_fixed(1))
    state = trained.state_dict()
    fresh = make_optimizer(moved=False, start=False)
    fresh.load_state_dict(state)
    assert torch.equal(fresh.optimised_c2w(), trained.optimised_c2w()) and fresh.fixed[1]
    other = make_optimizer(moved=False)
    other.set_poses(dataset_poses() + 0.1)
    with pytest.raises(InputError, match="other input poses"):
        other.load_state_dict(state)
    unset = CraymCameraOptimizerConfig().setup(num_cameras=CAMERAS, device="cpu")
    unset.load_state_dict(state)
    assert torch.equal(unset.input_c2w, dataset_poses())


def test_a_checkpoint_of_another_number_of_images_says_so() -> None:
    fewer = CraymCameraOptimizerConfig().setup(num_cameras=CAMERAS - 1, device="cpu")
    fewer.set_poses(dataset_poses()[1:])
    with pytest.raises(InputError, match="5 training images, and the data has 4 now"):
        fewer.load_state_dict(make_optimizer().state_dict())


def test_wrong_number_of_poses_is_refused() -> None:
    optimizer = CraymCameraOptimizerConfig().setup(num_cameras=CAMERAS, device="cpu")
    with pytest.raises(ValueError, match="4 poses for 5 cameras"):
        optimizer.set_poses(dataset_poses()[:4])


def test_turning_about_the_scene_lets_the_epipolar_loss_find_the_poses() -> None:
    """From the same noise, with the same optimiser, a pivot in the camera does not get there."""
    dome = make_dome(12, points=60, around=True, seed=1)
    start, views = perturb_poses(dome.c2w, "barf", 1).float(), dome.views
    bearings = dome.bearings.float()
    errors = {}
    for pivot in ("scene", "camera"):
        optimizer = CraymCameraOptimizerConfig().setup(num_cameras=12, device="cpu")
        optimizer.set_poses(start)
        adam = torch.optim.Adam(optimizer.parameters(), lr=1e-2)
        for step in range(300):
            adam.param_groups[0]["lr"] = 1e-2 * 0.05 ** (step / 300)
            poses = optimizer.optimised_c2w()
            if pivot == "camera":
                poses = compose(start, se3_exp(optimizer.motion.residual))
            residuals = epipolar_residuals_px(poses[views], bearings, FOCAL_PX)
            adam.zero_grad()
            epipolar_loss(residuals, annealed_kernel_scale_px(step, 300, 2.0, residuals)).backward()
            adam.step()
        errors[pivot] = pose_errors(poses, dome.c2w).rotation_deg_mean
    assert errors["scene"] < 1 < 5 < errors["camera"]


def test_settled_poses_wait_and_then_move_in_small_steps() -> None:
    optimizer = CraymCameraOptimizerConfig(settled_delay_steps=5).setup(num_cameras=2, device="cpu")
    poses = torch.eye(4)[:3].repeat(2, 1, 1)
    poses[:, 2, 3] = 4.0
    optimizer.set_poses(poses, settled=torch.ones(2, dtype=torch.bool))
    with torch.no_grad():
        optimizer.motion.residual.fill_(0.01)
    optimizer.update_to_step(4)
    assert not optimizer.optimised_c2w().requires_grad
    optimizer.update_to_step(5)
    optimizer.optimised_c2w().sum().backward()
    assert optimizer.motion.residual.grad is not None
    small = (optimizer.optimised_c2w() - poses)[..., 3].norm(dim=-1)
    optimizer.set_poses(poses)
    whole = (optimizer.optimised_c2w() - poses)[..., 3].norm(dim=-1)
    assert torch.allclose(small, 0.015 * whole, rtol=1e-2)


def test_a_predicted_pose_waits_with_the_others_and_then_moves_in_whole_steps() -> None:
    """The first of two cameras was adjusted by stage 0, the second only predicted: a blur would drag it off first."""
    optimizer = CraymCameraOptimizerConfig(settled_delay_steps=5).setup(num_cameras=2, device="cpu")
    poses = torch.eye(4)[:3].repeat(2, 1, 1)
    optimizer.set_poses(poses, settled=torch.tensor([True, False]))
    with torch.no_grad():
        optimizer.motion.residual.fill_(0.01)
    optimizer.update_to_step(4)
    assert not optimizer.optimised_c2w().requires_grad
    optimizer.update_to_step(5)
    assert optimizer.optimised_c2w().requires_grad
    shift = optimizer.optimised_c2w()[:, :, 3].norm(dim=-1)
    assert float(shift[1] / shift[0]) == pytest.approx(1 / 0.015, rel=0.05)


def test_poses_that_stage_zero_has_not_touched_move_from_the_first_step() -> None:
    optimizer = CraymCameraOptimizerConfig(settled_delay_steps=5).setup(num_cameras=2, device="cpu")
    optimizer.set_poses(torch.eye(4)[:3].repeat(2, 1, 1))
    optimizer.update_to_step(0)
    assert optimizer.optimised_c2w().requires_grad


def test_the_less_certain_stage_zero_is_of_a_pose_the_larger_its_steps() -> None:
    optimizer = CraymCameraOptimizerConfig().setup(num_cameras=5, device="cpu")
    settled = torch.tensor([True, True, True, True, False])
    # Exact, as good as matches can be, held by few, held by none of the rays that it has, predicted.
    sigma_deg = torch.tensor([0.0, 0.04, 0.25, torch.nan, torch.nan], dtype=torch.float64)
    optimizer.set_poses(torch.eye(4)[:3].repeat(5, 1, 1), settled=settled, sigma_deg=sigma_deg)
    assert torch.allclose(optimizer.step_size, torch.tensor([0.015, 0.015, 0.515, 1.0, 1.0]))
    with torch.no_grad():
        optimizer.motion.residual[:, 3:] = 0.01
    angle = rotation_angle_deg(optimizer.optimised_c2w()[..., :3])
    assert torch.allclose(angle / angle[-1], optimizer.step_size, rtol=1e-2)


@pytest.mark.parametrize("mode", MODES[1:])
def test_cameras_are_shifted_first_and_turned_later(mode) -> None:
    optimizer = make_optimizer(mode)
    optimizer.centering_steps = 5
    optimizer.update_to_step(4)
    shifted = optimizer.optimised_c2w()
    torch.testing.assert_close(shifted[..., :3], optimizer.start_c2w[..., :3])
    assert float((shifted - optimizer.start_c2w)[..., 3].norm(dim=-1).min()) > 0.01
    optimizer.update_to_step(5)
    turned = rotation_angle_deg(optimizer.optimised_c2w()[..., :3].mT @ optimizer.start_c2w[..., :3])
    assert float(turned.min()) > 1


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "off"])
def test_a_camera_goes_on_from_where_it_is_placed(mode: MotionName) -> None:
    optimizer = make_optimizer(mode)
    before, elsewhere = optimizer.optimised_c2w().detach(), dataset_poses()[0]
    optimizer.place(2, elsewhere, trained=True)
    optimizer.place(3, elsewhere, trained=False)
    after = optimizer.optimised_c2w()
    torch.testing.assert_close(after[[2, 3]], elsewhere.expand(2, 3, 4))
    torch.testing.assert_close(after[[0, 1, 4]], before[[0, 1, 4]])
    after.sum().backward()
    assert optimizer.motion.residual.grad[2].any()
    assert not optimizer.motion.residual.grad[3].any()
    assert optimizer.settled[[2, 3]].all()
