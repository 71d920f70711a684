"""Autograd around fused kernels: one traversal of the grid forward, one backward, second-order terms included.

The Jacobian J of the features by the points is computed on the way forward, so that a loss on it (the eikonal loss,
normals) needs first-order gradients alone. What a field needs of it is ``J^T g`` with ``g`` the gradient of the SDF by
the features: the gradient by J is then the outer product of ``g`` and of one vector per point, and is never stored.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from craym_nerfstudio.fields.encoding.grid import Grid, Pullback


@dataclass
class Upstream:
    """Gradients that reach the encoding: by the features, and by the Jacobian as the product ``direction x pulled``."""

    features: Float[Tensor, "n feat"] | None = None
    direction: Float[Tensor, "n feat"] | None = None
    pulled: Float[Tensor, "n 3"] | None = None


class Kernels(Protocol):
    """What a device must provide; how it stores Jacobians is its own affair."""

    def forward(self, x: Tensor, grid: Grid, jacobian: bool) -> tuple[Tensor, Tensor | None]:
        """Features [n, feat] and, if wanted, the Jacobian."""

    def backward(
        self, x: Tensor, grid: Grid, upstream: Upstream, wants_x: bool, wants_table: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients by x [n, 3] and by the table."""

    def pull(self, jacobian: Tensor, direction: Tensor) -> Tensor:
        """``J^T direction`` [n, 3]."""

    def push(self, jacobian: Tensor, tangent: Tensor) -> Tensor:
        """``J tangent`` [n, feat]."""


@dataclass
class _Call:
    """One use of the grid, and what its parts tell each other outside of autograd."""

    kernels: Kernels
    grid: Grid
    jacobian: Tensor | None = field(default=None, repr=False)
    direction: Tensor | None = field(default=None, repr=False)


class _Encode(torch.autograd.Function):
    """Features, and a stand-in [n, 3] whose gradient is the one that reaches the pulled back vector."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, call: _Call, jacobian: bool) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, table)
        ctx.set_materialize_grads(False)
        ctx.call = call
        features, call.jacobian = call.kernels.forward(x, call.grid, jacobian)
        return features, torch.zeros_like(x)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_features: Tensor | None, grad_pulled: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        call = ctx.call
        if grad_features is None and grad_pulled is None:
            return None, None, None, None
        upstream = Upstream(features=grad_features, direction=call.direction, pulled=grad_pulled)
        x, table = ctx.saved_tensors
        grid = replace(call.grid, table=table)
        return *call.kernels.backward(x, grid, upstream, *ctx.needs_input_grad[:2]), None, None


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, stand_in: Tensor, direction: Tensor, call: _Call) -> Tensor:
        assert call.jacobian is not None
        ctx.call, call.direction = call, direction.detach()
        return call.kernels.pull(call.jacobian, direction)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_pulled: Tensor) -> tuple[Tensor, Tensor | None, None]:
        grad_direction = ctx.call.kernels.push(ctx.call.jacobian, grad_pulled) if ctx.needs_input_grad[1] else None
        return grad_pulled, grad_direction, None


class FusedBackend:
    """The two ways to encode, on any device's kernels."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels

    def encode(self, x: Float[Tensor, "n 3"], grid: Grid) -> Float[Tensor, "n feat"]:
        """Features of points in the unit cube."""
        return _Encode.apply(x, grid.table, _Call(self.kernels, grid), False)[0]

    def encode_with_pullback(self, x: Float[Tensor, "n 3"], grid: Grid) -> tuple[Float[Tensor, "n feat"], Pullback]:
        """Features, and the map from a gradient by them to the gradient by x, usable once."""
        call = _Call(self.kernels, grid)
        features, stand_in = _Encode.apply(x, grid.table, call, True)

        def pullback(gradient: Float[Tensor, "n feat"]) -> Float[Tensor, "n 3"]:
            if call.direction is not None:
                raise RuntimeError("a pullback can be used once; encode the points again for a second direction")
            return _Pull.apply(stand_in, gradient, call)

        return features, pullback
