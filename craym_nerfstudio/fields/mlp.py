"""A small softplus network that returns the gradient of its first output along with its outputs, in one pass."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from craym_nerfstudio.kernels.chunks import chunks, over_ranges, summed_over_ranges

_BETA = 100.0


class DistanceMLP(nn.Module):
    """MLP whose first output is a signed distance; its gradient with respect to the inputs is written out analytically.

    The gradient is itself differentiable by one plain autograd pass, which is what the eikonal loss and normals that
    enter the colour need. That pass is written out as well: by autograd, each of its operations on a hidden layer would
    travel through memory, which costs more than the arithmetic.
    """

    input_scale: Tensor

    def __init__(
        self, n_inputs: int, width: int, hidden_layers: int, n_outputs: int, *, feature_scale: float = 1.0
    ) -> None:
        """`feature_scale` is by what inputs after the first three, a point, are multiplied."""
        super().__init__()
        sizes = [n_inputs] + [width] * hidden_layers
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.output = nn.Linear(width, n_outputs)
        scale = torch.ones(n_inputs)
        scale[3:] = feature_scale
        # In checkpoints: what a hash table was trained to mean hangs on it.
        self.register_buffer("input_scale", scale)

    @property
    def hidden(self) -> list[nn.Linear]:
        """The hidden layers."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    @torch.no_grad()
    def initialise_sphere(self, radius: float) -> None:
        """Geometric initialisation (Atzmon and Lipman 2020): a sphere of the given radius in the first three inputs."""
        for number, layer in enumerate(self.hidden):
            nn.init.zeros_(layer.bias)
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / layer.out_features))
            if number == 0:
                layer.weight[:, 3:].zero_()
        width = self.output.in_features
        nn.init.normal_(self.output.weight, math.sqrt(math.pi / width), 1e-4)
        # Only the distance gets the sphere; the other outputs are a feature for colour.
        nn.init.normal_(self.output.weight[1:], 0.0, math.sqrt(1.0 / width))
        nn.init.zeros_(self.output.bias)
        self.output.bias[0] = -radius

    def forward(self, inputs: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        """Network outputs alone."""
        return _Network.apply(inputs, False, *self._weights())[0]

    def with_gradient(
        self, inputs: Float[Tensor, "n inputs"]
    ) -> tuple[Float[Tensor, "n outputs"], Float[Tensor, "n inputs"]]:
        """Network outputs, and the gradient of the first of them by the inputs; differentiable once, both of them."""
        return _Network.apply(inputs, True, *self._weights())

    def _weights(self) -> list[Tensor]:
        """Weights and biases as they apply to inputs that are not scaled, which spares a pass over all points."""
        first, *others = self.parameters()
        return [first * self.input_scale, *others]


def softplus(before: Tensor, slope: Tensor, out: Tensor) -> Tensor:
    """``log(1 + exp(beta z)) / beta`` from z and its ``sigmoid(beta z)``; faster than torch's on a CPU."""
    if before.device.type != "cpu":  # there what counts is how many operations are launched
        return torch.ops.aten.softplus.out(before, _BETA, out=out)
    # max(z, 0) - log(sigmoid(beta |z|)) / beta: the logarithm is of a number in [1/2, 1].
    torch.sub(1.0, slope, out=out)
    torch.maximum(out, slope, out=out).log_().mul_(-1.0 / _BETA)
    return out.add_(before.clamp_min(0.0))


@dataclass
class _Layers:
    """Weights and biases, hidden layers first; where no bias matters it may be anything."""

    weights: list[Tensor]
    biases: list[Tensor]

    @classmethod
    def of(cls, parameters: tuple[Tensor, ...]) -> "_Layers":
        detached = [parameter.detach() for parameter in parameters]
        return cls(detached[0::2], detached[1::2])

    @property
    def hidden(self) -> int:
        return len(self.weights) - 1


@dataclass
class _Trace:
    """What the forward pass leaves to the backward pass, per hidden layer [n, width]."""

    values: list[Tensor]
    slopes: list[Tensor]
    upstream: list[Tensor]
    """Gradient of the distance by the layer's value; the same row everywhere for the last layer, and not kept."""


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, wants_gradient: bool, *parameters: Tensor) -> tuple[Tensor, Tensor | None]:
        layers, n, width = _Layers.of(parameters), len(inputs), len(parameters[0])
        hidden = range(layers.hidden)
        trace = _Trace(
            [inputs.new_empty(n, width) for _ in hidden],
            [inputs.new_empty(n, width) for _ in hidden],
            [inputs.new_empty(n, width) for _ in hidden[:-1]] if wants_gradient else [],
        )
        outputs = inputs.new_empty(n, len(layers.biases[-1]))
        gradient = torch.empty_like(inputs) if wants_gradient else None
        over_ranges(inputs, lambda _, part: _evaluate(part, inputs, layers, trace, outputs, gradient))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs, *parameters)
        ctx.trace = trace
        return outputs, gradient

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_outputs: Tensor | None, by_gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, *parameters = ctx.saved_tensors
        if by_outputs is None and by_gradient is None:
            return (None,) * (2 + len(parameters))
        layers, by_inputs = _Layers.of(tuple(parameters)), torch.empty_like(inputs)

        def work(part: slice, sums: list[Tensor]) -> None:
            sum_layers = _Layers.of(tuple(sums))
            _differentiate(part, inputs, layers, ctx.trace, by_outputs, by_gradient, by_inputs, sum_layers)

        totals = summed_over_ranges(inputs, parameters, work)
        return by_inputs, None, *totals


def _evaluate(
    part: slice, inputs: Tensor, layers: _Layers, trace: _Trace, outputs: Tensor, gradient: Tensor | None
) -> None:
    """Outputs and gradient of a range of points."""
    *weights, last = layers.weights
    for rows in chunks(part, inputs.device):
        value = inputs[rows]
        for k, weight in enumerate(weights):
            before = torch.addmm(layers.biases[k], value, weight.t())
            slope = torch.mul(before, _BETA, out=trace.slopes[k][rows]).sigmoid_()
            value = softplus(before, slope, trace.values[k][rows])
        torch.addmm(layers.biases[-1], value, last.t(), out=outputs[rows])
        if gradient is None:
            continue
        upstream = last[0]
        for k in range(layers.hidden - 1, -1, -1):
            out = gradient[rows] if k == 0 else trace.upstream[k - 1][rows]
            upstream = torch.mm(trace.slopes[k][rows] * upstream, weights[k], out=out)


def _differentiate(
    part: slice,
    inputs: Tensor,
    layers: _Layers,
    trace: _Trace,
    by_outputs: Tensor | None,
    by_gradient: Tensor | None,
    by_inputs: Tensor,
    sums: _Layers,
) -> None:
    """Derivative of a loss by a range of points, and, added up in `sums`, by the parameters."""
    *weights, last = layers.weights
    for rows in chunks(part, inputs.device):
        curvature: list[Tensor | None] = [None] * layers.hidden
        if by_gradient is not None:
            by = by_gradient[rows]
            for k, weight in enumerate(weights):
                slope = trace.slopes[k][rows]
                upstream = last[0] if k == layers.hidden - 1 else trace.upstream[k][rows]
                sums.weights[k].addmm_((slope * upstream).t(), by)
                by_product = torch.mm(by, weight.t())
                by = by_product * slope
                # sigmoid' = beta s (1 - s)
                curvature[k] = (by_product.sub_(by)).mul_(slope).mul_(upstream * _BETA)
            sums.weights[-1][0] += by.sum(0)
        onward: Tensor | None = None
        if by_outputs is not None:
            onward = torch.mm(by_outputs[rows], last)
            sums.weights[-1].addmm_(by_outputs[rows].t(), trace.values[-1][rows])
            sums.biases[-1] += by_outputs[rows].sum(0)
        for k in range(layers.hidden - 1, -1, -1):
            bend = curvature[k]
            if onward is not None:
                onward *= trace.slopes[k][rows]
            before = bend if onward is None else onward if bend is None else onward.add_(bend)
            assert before is not None
            sums.weights[k].addmm_(before.t(), inputs[rows] if k == 0 else trace.values[k - 1][rows])
            sums.biases[k] += before.sum(0)
            onward = torch.mm(before, weights[k], out=by_inputs[rows] if k == 0 else None)
