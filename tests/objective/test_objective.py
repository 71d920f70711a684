"""The objective: which losses are on, what they weigh, and what the matchability may and may not change."""

import pytest
import torch
from torch import Tensor

from craym_nerfstudio.cameras.optimizer import CraymCameraOptimizer, CraymCameraOptimizerConfig
from craym_nerfstudio.data.datamanager import TrainBatch
from craym_nerfstudio.data.key_rays import MatchedPairs
from craym_nerfstudio.objective.objective import ObjectiveConfig, training_losses
from tests.dome import make_dome

PLAIN, PAIRS, AUX = 3, 2, 1
RAYS = PLAIN + 2 * PAIRS * (1 + AUX)
HEADS = torch.arange(PLAIN, RAYS, 1 + AUX)


def optimizer() -> CraymCameraOptimizer:
    """Four cameras of a dome."""
    poses = CraymCameraOptimizer(CraymCameraOptimizerConfig(), 4)
    poses.set_poses(make_dome(4, 16).c2w.float())
    return poses


def batch_and_outputs() -> tuple[dict, dict[str, Tensor], Tensor]:
    """A batch of which one key ray is masked, what a model made of it, and the colours it should have had."""
    generator = torch.Generator().manual_seed(0)
    bearings = torch.nn.functional.normalize(torch.randn((PAIRS, 2, 3), generator=generator), dim=-1)
    cameras = torch.tensor([[0, 1], [2, 3]])
    pairs = MatchedPairs(cameras, bearings, torch.tensor([1.0, 0.5]), torch.full((PAIRS,), 100.0))
    visible = torch.ones(RAYS)
    visible[HEADS[1]] = 0.0
    batch = {"visible": visible, "patches": 0, "patch_side": 8, "plain": PLAIN, "matches": TrainBatch(pairs, pairs)}
    outputs = {
        "rgb": torch.rand((RAYS, 3), generator=generator),
        "rendered": torch.ones(RAYS),
        "gradients": torch.randn((5, 3), generator=generator),
        "matchability": torch.tensor([0.7, 0.2], requires_grad=True),
        "key_fused_rgb": torch.rand((PAIRS, 2, 3), generator=generator),
        "key_points": torch.randn((PAIRS, 2, 3), generator=generator),
        "key_accumulation": torch.ones((PAIRS, 2)),
        "train_c2w": make_dome(4, 16).c2w.float(),
    }
    return batch, outputs, torch.rand((RAYS, 3), generator=generator)


def photometric(config: ObjectiveConfig, batch: dict, outputs: dict[str, Tensor], target: Tensor) -> float:
    """The photometric loss, without its weight."""
    losses = training_losses(config, outputs, target, batch, optimizer(), step=0)
    return float(losses["photometric"]) / config.photometric_loss_mult


def test_key_rays_count_once_half_with_their_own_and_half_with_their_fused_colours() -> None:
    batch, outputs, target = batch_and_outputs()
    own = (outputs["rgb"] - target).square().mean(-1)
    fused = (outputs["key_fused_rgb"].flatten(0, 1) - target[HEADS]).square().mean(-1)
    errors = own.clone()
    errors[HEADS] = 0.5 * own[HEADS] + 0.5 * fused
    expected = float((errors * batch["visible"]).sum() / (RAYS - 1))
    assert photometric(ObjectiveConfig(), batch, outputs, target) == pytest.approx(expected, rel=1e-5)


def test_fused_colours_that_equal_the_own_ones_change_nothing() -> None:
    batch, outputs, target = batch_and_outputs()
    outputs["key_fused_rgb"] = outputs["rgb"][HEADS].view(PAIRS, 2, 3)
    without = photometric(ObjectiveConfig(coherency=False), batch, outputs, target)
    assert photometric(ObjectiveConfig(), batch, outputs, target) == pytest.approx(without, rel=1e-6)


def test_the_matchability_weights_matches_but_is_not_trained_by_that() -> None:
    batch, outputs, target = batch_and_outputs()
    outputs["train_c2w"].requires_grad_()
    outputs["key_points"].requires_grad_()
    config = ObjectiveConfig(point_alignment_steps=(0, 1))
    losses = training_losses(config, outputs, target, batch, optimizer(), step=1)
    (losses["epipolar"] + losses["point_alignment"]).backward()
    assert outputs["matchability"].grad is None
    pull = outputs["key_points"].grad
    assert pull is not None
    # Unit vectors times w x confidence, averaged over two matches: 0.7 * 1 and 0.2 * 0.5.
    lengths = config.point_alignment_loss_mult * torch.tensor([0.7, 0.1]) / PAIRS
    assert torch.allclose(pull[:, 0].norm(dim=-1), lengths, rtol=1e-4)


def test_a_part_that_is_switched_off_is_absent() -> None:
    batch, outputs, target = batch_and_outputs()
    off = ObjectiveConfig(coherency=False, epipolar_loss_mult=0.0, point_alignment_loss_mult=0.0)
    assert set(training_losses(off, outputs, target, batch, optimizer(), 10_000)) == {"photometric", "eikonal"}
    on = training_losses(ObjectiveConfig(), outputs, target, batch, optimizer(), step=10_000)
    assert set(on) == {"photometric", "eikonal", "epipolar", "point_alignment"}
    assert "point_alignment" not in training_losses(ObjectiveConfig(), outputs, target, batch, optimizer(), step=0)
