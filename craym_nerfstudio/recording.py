"""A training step recorded as one CUDA graph: replayed, it is one launch instead of nine hundred.

Recorded is everything from the drawing of rays to the gradients; optimizers, logs and all else that the host does with
a step stay as they are. Numbers that are scheduled are computed on the device from its own clock (`schedules`), random
numbers come from generators that the graph knows. A recording holds while the phase does, that is, what decides which
operations there are; the first steps of a phase are taken plainly, which also fills every cache and compiles kernels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from craym_nerfstudio.console import warn

_PLAIN_STEPS = 2
"""Steps of a phase that are taken before it is recorded."""


@dataclass(frozen=True)
class TakenStep:
    """What a step has computed; of a replayed one, valid until the next is."""

    outputs: dict[str, Tensor]
    batch: dict[str, Any]
    losses: dict[str, Tensor]


class Recordable(Protocol):
    """Who takes the steps."""

    def compute(self, step: int) -> TakenStep:
        """Draw rays, render them, and compare."""

    def generators(self, step: int) -> Sequence[torch.Generator]:
        """All sources of random numbers of a step, at its start."""

    def renew_generators(self) -> None:
        """Go on with others."""


@dataclass
class _Recording:
    """A graph, and what lies where it writes."""

    replay: Callable[[], None]
    clock: Tensor
    taken: TakenStep
    gradients: list[Tensor | None] = field(repr=False)


class _Replay(torch.autograd.Function):
    """The first loss of a recording; backward, the gradients of the sum of all."""

    @staticmethod
    def forward(ctx: Any, recording: _Recording, *_: Tensor) -> Tensor:
        recording.replay()
        ctx.gradients = recording.gradients
        return next(iter(recording.taken.losses.values())).clone()

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor) -> tuple[Tensor | None, ...]:
        # The factor is 1, or that of somebody's gradient scaler. The products are copies, which whoever gets them may
        # keep or add to.
        scaled = iter(torch._foreach_mul([each for each in ctx.gradients if each is not None], by_loss))
        return None, *(None if each is None else next(scaled) for each in ctx.gradients)


class StepRecorder:
    """Takes the steps of a model on a GPU, by replaying where that is possible."""

    def __init__(self, model: Any, steps: Recordable) -> None:
        self.model, self.steps = model, steps
        self._phase: Any = None
        self._plain = 0
        self._recording: _Recording | None = None
        self.failure: RuntimeError | None = None
        """Why nothing can be recorded on this device; None while it can."""

    @property
    def replays(self) -> bool:
        """Whether the next step of this phase will be replayed."""
        return self._recording is not None

    def take(self, step: int) -> TakenStep:
        """A step of training.

        The host adds the losses up: of a replayed step the gradients of the sum hang on the first of them.
        """
        if self.model.phase != self._phase:
            self._phase, self._plain, self._recording = self.model.phase, 0, None
        if self._recording is None and self.failure is None and self._plain == _PLAIN_STEPS:
            self._recording = self._recorded(step)
        if self._recording is None:
            self._plain = min(self._plain + 1, _PLAIN_STEPS)
            return self.steps.compute(step)
        self.steps.generators(step)
        self._recording.clock.fill_(step)
        first, taken = _Replay.apply(self._recording, *self._trained()), self._recording.taken
        return TakenStep(taken.outputs, taken.batch, taken.losses | {next(iter(taken.losses)): first})

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _recorded(self, step: int) -> _Recording | None:
        """A recording of this phase; None, with a word on it, where the device will not have one."""
        clock = torch.full((), float(step), device=self.model.device)
        self.model.clock = clock
        try:
            replay, (taken, gradients) = capture(lambda: self._work(step), self.steps.generators(step))
        except RuntimeError as error:
            self.failure = _first(error)
            warn(f"Steps are not recorded as a CUDA graph and take longer: {str(self.failure).splitlines()[0]}")
            self.steps.renew_generators()
            return None
        finally:
            self.model.clock = None
        return _Recording(replay, clock, taken, gradients)

    def _work(self, step: int) -> tuple[TakenStep, list[Tensor | None]]:
        """A step and its gradients, by stand-ins for the parameters.

        The parameters' own places in autograd's graph were made outside of the recording and would tie it to what is
        not recorded.
        """
        stand_ins = {
            name: parameter.detach().requires_grad_()
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
        within = {f"model.{name}": value for name, value in stand_ins.items()}
        taken = torch.func.functional_call(_Call(self.model, self.steps), within, (step,))
        total = reduce(torch.add, taken.losses.values())
        gradients = torch.autograd.grad(total, list(stand_ins.values()), allow_unused=True)
        return TakenStep(_detached(taken.outputs), taken.batch, _detached(taken.losses)), list(gradients)


def _first(error: RuntimeError) -> RuntimeError:
    """What ended a recording; that it could not be finished then is an error of its own."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return error


class _Call(nn.Module):
    """A step as a module that has the model's parameters, so that others can stand in for them."""

    def __init__(self, model: nn.Module, steps: Recordable) -> None:
        super().__init__()
        self.model = model
        self.compute = steps.compute

    def forward(self, step: int) -> TakenStep:
        return self.compute(step)


def _detached(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in values.items()}


def capture(work: Callable[[], Any], generators: Sequence[torch.Generator]) -> tuple[Callable[[], None], Any]:
    """Record what `work` launches, without doing it; how to do it, and where its results then lie."""
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    stream = torch.cuda.current_stream()
    try:
        # The viewer's thread and others go on meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = work()
    finally:  # which torch does not where a recording fails
        torch.cuda.set_stream(stream)
    return graph.replay, result
