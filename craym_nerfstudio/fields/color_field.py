"""Colour of a surface point seen from a direction: ``c = Phi_t(f'', SH(r_d), normal)`` (paper Eq. 11)."""

import itertools
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from craym_nerfstudio.kernels.chunks import chunks, over_ranges, summed_over_ranges

_HARMONICS: tuple[dict[str, float], ...] = (
    {"": 0.28209479},
    {"y": 0.48860251},
    {"z": 0.48860251},
    {"x": 0.48860251},
    {"xy": 1.09254843},
    {"yz": 1.09254843},
    {"zz": 3.0 * 0.31539157, "": -0.31539157},
    {"xz": 1.09254843},
    {"xx": 0.54627422, "yy": -0.54627422},
    {"xxy": 3.0 * 0.59004359, "yyy": -0.59004359},
    {"xyz": 2.89061144},
    {"yzz": 5.0 * 0.45704580, "y": -0.45704580},
    {"zzz": 5.0 * 0.37317633, "z": -3.0 * 0.37317633},
    {"xzz": 5.0 * 0.45704580, "x": -0.45704580},
    {"xxz": 1.44530572, "yyz": -1.44530572},
    {"xxx": 0.59004359, "xyy": -3.0 * 0.59004359},
)
"""Coefficients of the real spherical harmonics up to degree 3 by their monomials."""


@lru_cache(maxsize=8)
def _harmonics(dtype: torch.dtype, device: torch.device) -> Float[Tensor, "64 16"]:
    """`_HARMONICS` by the products of three of (1, x, y, z)."""
    table = torch.zeros(4, 4, 4, len(_HARMONICS), dtype=dtype)
    for column, terms in enumerate(_HARMONICS):
        for monomial, coefficient in terms.items():
            table[tuple("1xyz".index(letter) for letter in monomial.ljust(3, "1"))][column] = coefficient
    return table.view(64, -1).to(device)


def spherical_harmonics(directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 16"]:
    """Real spherical harmonics up to degree 3 (16 values) of unit directions."""
    # All products of three factors, then one matrix product: a dozen operations with their derivatives, not a hundred.
    factors = torch.nn.functional.pad(directions, (1, 0), value=1.0)
    squares = (factors[:, :, None] * factors[:, None, :]).flatten(1)
    cubes = (squares[:, :, None] * factors[:, None, :]).flatten(1)
    return cubes @ _harmonics(directions.dtype, directions.device)


class ColorField(nn.Module):
    """Texture net Phi_t."""

    def __init__(self, feature_size: int, width: int, hidden_layers: int) -> None:
        super().__init__()
        sizes = [feature_size + 16 + 3] + [width] * hidden_layers
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU(inplace=True)]
        self.net = nn.Sequential(*layers, nn.Linear(width, 3), nn.Sigmoid())

    def forward(
        self, feature: Float[Tensor, "n feat"], harmonics: Float[Tensor, "n 16"], normal: Float[Tensor, "n 3"]
    ) -> Float[Tensor, "n 3"]:
        """Colours in [0, 1]."""
        inputs = torch.cat([feature, harmonics, normal], dim=-1)
        if inputs.device.type != "cpu":
            return self.net(inputs)
        return _ChunkedNetwork.apply(inputs, *self.net.parameters())


class _ChunkedNetwork(torch.autograd.Function):
    """The texture net on a CPU: ReLU layers and a sigmoid, all of them on one chunk of points after the other."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, *parameters: Tensor) -> Tensor:
        *hidden, (last, bias) = _layers(parameters)
        values = [inputs.new_empty(len(inputs), len(offset)) for _, offset in hidden]
        colors = inputs.new_empty(len(inputs), len(bias))

        def work(_: int, part: slice) -> None:
            for rows in chunks(part, inputs.device):
                value = inputs[rows]
                for (weight, offset), kept in zip(hidden, values, strict=True):
                    value = torch.addmm(offset, value, weight.t(), out=kept[rows]).clamp_min_(0.0)
                torch.addmm(bias, value, last.t(), out=colors[rows]).sigmoid_()

        over_ranges(inputs, work)
        ctx.save_for_backward(inputs, colors, *parameters)
        ctx.values = values
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_colors: Tensor) -> tuple[Tensor, ...]:
        inputs, colors, *parameters = ctx.saved_tensors
        weights, by_inputs = [weight for weight, _ in _layers(parameters)], torch.empty_like(inputs)

        def work(part: slice, sums: list[Tensor]) -> None:
            for rows in chunks(part, inputs.device):
                by = by_colors[rows] * colors[rows] * (1.0 - colors[rows])
                before = [inputs[rows], *(value[rows] for value in ctx.values)]
                for k in range(len(weights) - 1, -1, -1):
                    sums[2 * k].addmm_(by.t(), before[k])
                    sums[2 * k + 1] += by.sum(0)
                    by = torch.mm(by, weights[k], out=by_inputs[rows] if k == 0 else None)
                    if k:
                        torch.ops.aten.threshold_backward.grad_input(by, before[k], 0.0, grad_input=by)

        return by_inputs, *summed_over_ranges(inputs, parameters, work)


def _layers(parameters: Any) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each layer."""
    return list(zip(parameters[0::2], parameters[1::2], strict=True))
