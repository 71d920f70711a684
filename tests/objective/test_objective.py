"""The objective: which losses are on, what they weigh, and what the matchability may and may not change."""

from dataclasses import replace

import pytest
import torch

from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.layout import MatchedPairs, Probes, RayLayout
from craym_nerfstudio.objective.objective import ObjectiveConfig, TrainingStep, training_losses
from tests.dome import make_dome

PAIRS = 2
LAYOUT = RayLayout(plain=3, groups=2 * PAIRS, aux=1)
RAYS = LAYOUT.plain + LAYOUT.grouped
HEADS = torch.arange(3, RAYS, 2)


def made_step(number: int = 0) -> TrainingStep:
    """A step whose batch has one masked key ray, what a model made of it, and the colours it should have had."""
    generator = torch.Generator().manual_seed(0)
    bearings = torch.nn.functional.normalize(torch.randn((PAIRS, 2, 3), generator=generator), dim=-1)
    cameras = torch.tensor([[0, 1], [2, 3]])
    pairs = MatchedPairs(cameras, bearings, torch.tensor([1.0, 0.5]), torch.full((PAIRS,), 100.0))
    visible = torch.ones(RAYS)
    visible[HEADS[1]] = 0.0
    outputs = {
        "rgb": torch.rand((RAYS, 3), generator=generator),
        "gradients": torch.randn((5, 3), generator=generator),
        "matchability": torch.tensor([0.7, 0.2], requires_grad=True),
        "key_fused_rgb": torch.rand((PAIRS, 2, 3), generator=generator),
        "key_points": torch.randn((PAIRS, 2, 3), generator=generator),
        "key_accumulation": torch.ones((PAIRS, 2)),
        "train_c2w": make_dome(4, 16).c2w.float(),
    }
    return TrainingStep(
        number=number,
        now=number,
        outputs=outputs,
        target=torch.rand((RAYS, 3), generator=generator),
        visible=visible,
        layout=LAYOUT,
        pairs=pairs,
        epipolar_pairs=pairs,
        probes=None,
        outline=None,
        settled=False,
        unit_from_world=Similarity.of(),
        render=lambda *_: {},
    )


def photometric(config: ObjectiveConfig, step: TrainingStep) -> float:
    """The photometric loss, without its weight."""
    return float(training_losses(config, step)["photometric"]) / config.photometric_loss_mult


def test_key_rays_count_once_half_with_their_own_and_half_with_their_fused_colours() -> None:
    step = made_step()
    own = (step.outputs["rgb"] - step.target).square().mean(-1)
    fused = (step.outputs["key_fused_rgb"].flatten(0, 1) - step.target[HEADS]).square().mean(-1)
    errors = own.clone()
    errors[HEADS] = 0.5 * own[HEADS] + 0.5 * fused
    expected = float((errors * step.visible).sum() / (RAYS - 1))
    assert photometric(ObjectiveConfig(), step) == pytest.approx(expected, rel=1e-5)


def test_fused_colours_that_equal_the_own_ones_change_nothing() -> None:
    step = made_step()
    step.outputs["key_fused_rgb"] = step.outputs["rgb"][HEADS].view(PAIRS, 2, 3)
    without = photometric(ObjectiveConfig(coherency=False), step)
    assert photometric(ObjectiveConfig(), step) == pytest.approx(without, rel=1e-6)


def test_the_matchability_weights_matches_but_is_not_trained_by_that() -> None:
    step = made_step(1)
    step.outputs["train_c2w"].requires_grad_()
    step.outputs["key_points"].requires_grad_()
    config = ObjectiveConfig(point_alignment_steps=(0, 1))
    losses = training_losses(config, step)
    (losses["epipolar"] + losses["point_alignment"]).backward()
    assert step.outputs["matchability"].grad is None
    pull = step.outputs["key_points"].grad
    assert pull is not None
    # Unit vectors times w x confidence, averaged over two matches: 0.7 * 1 and 0.2 * 0.5.
    lengths = config.point_alignment_loss_mult * torch.tensor([0.7, 0.1]) / PAIRS
    assert torch.allclose(pull[:, 0].norm(dim=-1), lengths, rtol=1e-4)


def test_a_part_that_is_switched_off_is_absent() -> None:
    late = made_step(10_000)
    off = ObjectiveConfig(coherency=False, epipolar_loss_mult=0.0, point_alignment_loss_mult=0.0)
    assert set(training_losses(off, late)) == {"photometric", "eikonal"}
    assert set(training_losses(ObjectiveConfig(), late)) == {"photometric", "eikonal", "epipolar", "point_alignment"}
    assert "point_alignment" not in training_losses(ObjectiveConfig(), made_step())


def test_without_matches_colours_and_the_eikonal_loss_remain() -> None:
    alone = replace(made_step(10_000), pairs=None, epipolar_pairs=None)
    assert set(training_losses(ObjectiveConfig(), alone)) == {"photometric", "eikonal"}


def test_settled_poses_need_no_wide_kernel() -> None:
    """Residuals of many pixels pull less where the kernel is narrow from the start."""
    wide = training_losses(ObjectiveConfig(), made_step())["epipolar"]
    narrow = training_losses(ObjectiveConfig(), replace(made_step(), settled=True))["epipolar"]
    assert float(narrow) <= float(wide)


def test_landmarks_weigh_less_the_longer_training_lasts() -> None:
    """A point that should be on the surface and is 0.2 off: 10 x 0.2 at first, 0.4 of it in the end."""
    zero = torch.zeros(1)
    config = ObjectiveConfig(landmark_steps=100)
    for number, expected in ((0, 2.0), (50, 2.0 * 0.4**0.5), (100, 0.8), (900, 0.8)):
        step = replace(made_step(number), probes=Probes(torch.zeros(1, 3), zero, zero, torch.ones(1)))
        step.outputs["probed"] = torch.tensor([0.2])
        assert float(training_losses(config, step)["landmarks"]) == pytest.approx(expected)
    assert "landmarks" not in training_losses(replace(config, landmark_loss_mult=0.0), step)


def test_silhouettes_come_first_alone_then_with_colours_and_fade_out() -> None:
    """Half of the opacity on rays 0.2 outside of the outline."""
    config = ObjectiveConfig(silhouette_loss_mult=10.0, silhouette_steps=(100, 200))

    def at(number: int) -> dict[str, torch.Tensor]:
        step = made_step(number)
        step.outputs["accumulation"] = torch.full((RAYS, 1), 0.5)
        return training_losses(config, replace(step, outline=torch.full((RAYS,), 0.2)))

    assert set(at(99)) == {"eikonal", "silhouette"}
    assert float(at(99)["silhouette"]) == pytest.approx(1.0)
    assert "photometric" in at(100) and float(at(150)["silhouette"]) == pytest.approx(0.5)
    assert float(at(200)["silhouette"]) == 0
    assert "silhouette" not in training_losses(config, made_step(150))
