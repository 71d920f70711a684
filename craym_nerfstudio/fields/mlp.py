"""A small softplus network that returns the gradient of its first output along with its outputs, in one pass."""

import itertools
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_BETA = 100.0


class DistanceMLP(nn.Module):
    """MLP whose first output is a signed distance; its gradient with respect to the inputs is written out analytically.

    Writing the backward pass of the network as ordinary operations makes the gradient itself differentiable by one
    plain autograd pass, which is what the eikonal loss and normals that enter the colour need.
    """

    def __init__(self, n_inputs: int, width: int, hidden_layers: int, n_outputs: int) -> None:
        super().__init__()
        sizes = [n_inputs] + [width] * hidden_layers
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.output = nn.Linear(width, n_outputs)

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
        value = inputs
        for layer in self.hidden:
            value = F.softplus(layer(value), _BETA)
        return self.output(value)

    def with_gradient(
        self, inputs: Float[Tensor, "n inputs"]
    ) -> tuple[Float[Tensor, "n outputs"], Float[Tensor, "n inputs"]]:
        """Network outputs, and the gradient of the first of them with respect to the inputs."""
        value, slopes = inputs, []
        for layer in self.hidden:
            before = layer(value)
            value = F.softplus(before, _BETA)
            # softplus'(z) = sigmoid(beta z) = 1 - exp(-beta softplus(z)): shares the forward's transcendental.
            slopes.append(torch.sigmoid(before * _BETA))
        gradient = self.output.weight[0].expand(inputs.shape[0], -1)
        for layer, slope in zip(reversed(self.hidden), reversed(slopes), strict=True):
            gradient = (gradient * slope) @ layer.weight
        return self.output(value), gradient
