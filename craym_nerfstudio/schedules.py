"""Schedules: functions of the training step alone.

A step given as a number makes Python floats (a numpy float makes checkpoints unloadable). A step that is a tensor on a
device makes tensors there: what is recorded once then follows its step when it is replayed.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Scalar = float | Float[Tensor, ""]
"""A number that is scheduled, known here or on a device."""


class StepGenerator:
    """Random numbers of a training step: one generator, started anew at every step."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget the generator: one that a recording broke off with stays of no use."""
        self._generator, self._device = torch.Generator(), torch.device("cpu")

    def at(self, seed: int, device: torch.device) -> torch.Generator:
        """The generator, at the start of what a seed gives; while a graph is recorded, where it stands."""
        if self._device != device:
            self._generator, self._device = torch.Generator(device=device), device
        if self._generator.device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
            self._generator.manual_seed(seed)
        return self._generator


def ramp(step: Scalar, start: int, stop: int) -> Scalar:
    """0 before `start`, 1 from `stop` on, linear between."""
    share = (step - start) / (stop - start) if stop > start else step - start + 1.0
    return at_most(share.clamp_min(0.0) if isinstance(share, Tensor) else max(share, 0.0), 1.0)


def at_most(value: Scalar, limit: float) -> Scalar:
    """The smaller of both."""
    return value.clamp(max=limit) if isinstance(value, Tensor) else min(value, limit)


def filled(like: Tensor, value: Scalar) -> Tensor:
    """A tensor of this shape, all of one value."""
    return value.expand_as(like) if isinstance(value, Tensor) else torch.full_like(like, value)


def exponential_decay(step: Scalar, start: float, stop: float, steps: int) -> Scalar:
    """Falls exponentially from `start` to `stop` over `steps` and stays there (UNISURF, Oechsle et al. 2021)."""
    return start * (stop / start) ** ramp(step, 0, steps)


def level_weights(step: Scalar, levels: int, start_levels: int, steps_per_level: int) -> Float[Tensor, " levels"]:
    """Coarse-to-fine mask M of Eq. 1: `start_levels` at first, then one more per `steps_per_level` steps.

    A level fades in by half a cosine (as in BARF) over the steps before it is fully on: a hard switch would make the
    gradient for the poses jump.
    """
    place = step.device if isinstance(step, Tensor) else None
    on_at = (torch.arange(levels, device=place) + 1 - start_levels) * steps_per_level
    share = ((step - on_at) / steps_per_level + 1.0).clamp(0.0, 1.0)
    return torch.where(on_at > 0, 0.5 - 0.5 * torch.cos(math.pi * share), 1.0)
