"""Colour of a surface point seen from a direction: ``c = Phi_t(f'', SH(r_d), normal)`` (paper Eq. 11)."""

import itertools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from craym_nerfstudio.kernels.chunks import chunks, over_ranges, summed_over_ranges


def spherical_harmonics(directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 16"]:
    """Real spherical harmonics up to degree 3 (16 values) of unit directions."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    return torch.stack(
        [
            torch.full_like(x, 0.28209479),
            0.48860251 * y,
            0.48860251 * z,
            0.48860251 * x,
            1.09254843 * x * y,
            1.09254843 * y * z,
            0.31539157 * (3.0 * zz - 1.0),
            1.09254843 * x * z,
            0.54627422 * (xx - yy),
            0.59004359 * y * (3.0 * xx - yy),
            2.89061144 * x * y * z,
            0.45704580 * y * (5.0 * zz - 1.0),
            0.37317633 * z * (5.0 * zz - 3.0),
            0.45704580 * x * (5.0 * zz - 1.0),
            1.44530572 * z * (xx - yy),
            0.59004359 * x * (xx - 3.0 * yy),
        ],
        dim=-1,
    )


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
