"""The map from a gradient by features to the gradient by points, for backends that have it only through autograd."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Pullback = Callable[[Float[Tensor, "n feat"]], Float[Tensor, "n 3"]]


def autograd_pullback(
    encode: Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n feat"]], x: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n feat"], Pullback]:
    """Features of x and their pullback by one ``autograd.grad``, differentiable again where gradients are enabled."""
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        points = x.view_as(x) if differentiable and x.requires_grad else x.detach().requires_grad_()
        features = encode(points)

    def pullback(gradient: Float[Tensor, "n feat"]) -> Float[Tensor, "n 3"]:
        if not features.requires_grad:  # every level is masked
            return torch.zeros_like(x)
        (result,) = torch.autograd.grad(features, points, gradient, create_graph=differentiable, retain_graph=True)
        return result

    return (features if differentiable else features.detach()), pullback
