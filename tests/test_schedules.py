"""Schedules: values by hand, Python floats, and nothing but the step decides."""

import pytest
import torch

from craym_nerfstudio.methods import WarmupDecaySchedulerConfig
from craym_nerfstudio.schedules import exponential_decay, level_weights, ramp

CONFIG = WarmupDecaySchedulerConfig(warmup_steps=4, final_ratio=0.01, max_steps=24)


def rates(steps: int) -> list[float]:
    """Learning rates of the first steps at a base rate of 2."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = CONFIG.setup().get_scheduler(optimizer, 2.0)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_rates_by_hand() -> None:
    """Four steps of warm-up, then two decades in twenty steps, then constant."""
    found = rates(40)
    assert found[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert found[14] == pytest.approx(0.2)
    assert found[24:] == pytest.approx([0.02] * 16)


def test_rates_are_python_floats() -> None:
    """A numpy float in a checkpoint makes torch refuse to load it."""
    assert {type(rate) for rate in rates(40)} == {float}


def test_a_restored_scheduler_goes_on_where_it_was() -> None:
    uninterrupted = rates(20)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = CONFIG.setup().get_scheduler(optimizer, 2.0)
    for _ in range(10):
        optimizer.step()
        scheduler.step()
    states = optimizer.state_dict(), scheduler.state_dict()
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    resumed = CONFIG.setup().get_scheduler(other, 2.0)
    other.load_state_dict(states[0])
    resumed.load_state_dict(states[1])
    for step in range(10, 20):
        assert other.param_groups[0]["lr"] == pytest.approx(uninterrupted[step])
        other.step()
        resumed.step()


@pytest.mark.parametrize(("step", "expected"), [(0, 0.0), (10, 0.0), (15, 0.5), (20, 1.0), (99, 1.0)])
def test_ramp_by_hand(step: int, expected: float) -> None:
    value = ramp(step, 10, 20)
    assert value == expected
    assert type(value) is float


def test_ramp_without_length_is_a_switch() -> None:
    assert [ramp(4, 5, 5), ramp(5, 5, 5), ramp(0, 0, 0)] == [0.0, 1.0, 1.0]


def test_levels_fade_in_over_the_steps_before() -> None:
    weights = level_weights(150, 5, 2, 100)
    torch.testing.assert_close(weights, torch.tensor([1.0, 1.0, 1.0, 0.5, 0.0]))
    assert level_weights(125, 5, 2, 100)[3].item() == pytest.approx(0.1464466)
    assert level_weights(10_000, 5, 2, 100).tolist() == [1.0] * 5


def test_levels_rise_without_jumps() -> None:
    weights = torch.stack([level_weights(step, 6, 2, 50) for step in range(300)])
    change = weights.diff(dim=0)
    assert (change >= 0).all()
    assert change.max() < 0.04
    assert weights.dtype == torch.float32


def test_no_steps_per_level_means_all_levels_at_once() -> None:
    assert level_weights(0, 4, 1, 0).tolist() == [1.0] * 4


def test_exponential_decay_halves_in_equal_steps_and_stays() -> None:
    """0.4 to 0.1 over 100 steps: one half after 50, one quarter from 100 on."""
    values = [exponential_decay(step, 0.4, 0.1, 100) for step in (0, 50, 100, 1000)]
    assert values == pytest.approx([0.4, 0.2, 0.1, 0.1])
