"""Schedules: functions of the training step alone, in Python floats (a numpy float makes checkpoints unloadable)."""

import math

import torch


def ramp(step: int, start: int, stop: int) -> float:
    """0 before `start`, 1 from `stop` on, linear between."""
    if stop <= start:
        return float(step >= start)
    return min(max((step - start) / (stop - start), 0.0), 1.0)


def exponential_decay(step: int, start: float, stop: float, steps: int) -> float:
    """Falls exponentially from `start` to `stop` over `steps` and stays there (UNISURF, Oechsle et al. 2021)."""
    return start * (stop / start) ** ramp(step, 0, steps)


def level_weights(step: int, levels: int, start_levels: int, steps_per_level: int) -> torch.Tensor:
    """Coarse-to-fine mask M of Eq. 1: `start_levels` at first, then one more per `steps_per_level` steps.

    A level fades in by half a cosine (as in BARF) over the steps before it is fully on: a hard switch would make the
    gradient for the poses jump.
    """
    weights = []
    for level in range(levels):
        on_at = max(level + 1 - start_levels, 0) * steps_per_level
        share = ramp(step, on_at - steps_per_level, on_at) if on_at else 1.0
        weights.append(0.5 - 0.5 * math.cos(math.pi * share))
    return torch.tensor(weights, dtype=torch.float32)
