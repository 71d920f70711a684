"""Backend for CUDA: Triton kernels, nothing to compile by hand; float32.

Gradients are accumulated in float32 by atomic additions: equal runs agree to rounding, not bit for bit. With the
environment variable ``TRITON_INTERPRET=1`` set before triton is imported, the same kernels run on CPU tensors,
slowly.
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.fields.encoding import triton_kernels as kernels
from craym_nerfstudio.fields.encoding.fused import Upstream
from craym_nerfstudio.fields.encoding.grid import Grid, GridSpec, active_levels
from craym_nerfstudio.kernels.loader import on_device


@lru_cache(maxsize=64)
def _places(spec: GridSpec, mask: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Scales and rows of `active_levels` on the device; `mask` is 0 or 1 for every level."""
    scales, rows, _ = active_levels(spec, mask)
    return torch.from_numpy(scales).to(device), torch.from_numpy(rows).int().to(device)


@lru_cache(maxsize=4)
def _weights(weights: tuple[float, ...], device: torch.device) -> Float[Tensor, " levels"]:
    """Factors that change at every step, copied without waiting."""
    return torch.tensor(weights, dtype=torch.float32).to(device, non_blocking=True)


def _levels(grid: Grid, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Scales and rows of the levels that are not masked, and the factors of all."""
    places = _places(grid.spec, tuple(float(w != 0) for w in grid.weights), device)
    return *places, _weights(grid.weights, device) if grid.scheduled is None else grid.scheduled


def _float32(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float32).contiguous()


def _blocks(n: int) -> int:
    return -(-n // kernels.BLOCK)


class TritonKernels:
    """Forward and backward parallel over points and levels."""

    def forward(
        self, x: Float[Tensor, "n 3"], grid: Grid, jacobian: bool
    ) -> tuple[Float[Tensor, "n feat"], Float[Tensor, "levels n 3 f"] | None]:
        """See ``fused.Kernels``."""
        spec, levels = grid.spec, _levels(grid, x.device)
        allocate = torch.empty if len(levels[0]) == spec.levels else torch.zeros
        features = allocate(len(x), spec.n_features, device=x.device)
        shape = (spec.levels, len(x), 3, spec.features_per_level)
        jacobians = allocate(shape, device=x.device) if jacobian else None
        programs = (_blocks(len(x)), len(levels[0]))
        if min(programs) > 0:
            out = (features, features if jacobians is None else jacobians)
            flags = {"F": spec.features_per_level, "SMOOTH": spec.smooth, "JACOBIAN": jacobian, "BLOCK": kernels.BLOCK}
            with on_device(x.device):
                kernels.forward[programs](
                    _float32(x), _float32(grid.table), *levels, *out, len(x), spec.n_features, **flags
                )
        return features, jacobians

    def backward(
        self, x: Float[Tensor, "n 3"], grid: Grid, upstream: Upstream, wants_x: bool, wants_table: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """See ``fused.Kernels``."""
        spec, levels = grid.spec, _levels(grid, x.device)
        points = _float32(x)
        grad_x = torch.zeros_like(points) if wants_x else None
        grad_table = torch.zeros(grid.table.shape, device=x.device) if wants_table else None
        given = (upstream.features, upstream.direction, upstream.pulled)
        tensors = [points if t is None else _float32(t) for t in given]  # an absent one is never read
        out = [points if t is None else t for t in (grad_table, grad_x)]
        flags = {"FEATURES": upstream.features is not None, "PULLED": upstream.pulled is not None}
        flags |= {"TABLE": wants_table, "POINTS": wants_x, "SMOOTH": spec.smooth}
        programs = (_blocks(len(x)), len(levels[0]))
        if min(programs) > 0:
            sizes = (len(x), spec.n_features, spec.features_per_level)
            with on_device(x.device):
                kernels.backward[programs](
                    points, _float32(grid.table), *levels, *tensors, *out, *sizes, BLOCK=kernels.BLOCK, **flags
                )
        return grad_x, grad_table

    def pull(self, jacobian: Float[Tensor, "levels n 3 f"], direction: Float[Tensor, "n feat"]) -> Float[Tensor, "n 3"]:
        """See ``fused.Kernels``."""
        levels, n, _, f = jacobian.shape
        pulled = torch.empty(n, 3, device=jacobian.device)
        if n > 0:
            with on_device(jacobian.device):
                kernels.pull[(_blocks(n),)](jacobian, _float32(direction), pulled, n, levels, f, kernels.BLOCK)
        return pulled

    def push(self, jacobian: Float[Tensor, "levels n 3 f"], tangent: Float[Tensor, "n 3"]) -> Float[Tensor, "n feat"]:
        """See ``fused.Kernels``."""
        levels, n, _, f = jacobian.shape
        pushed = torch.empty(n, levels * f, device=jacobian.device)
        if n > 0:
            with on_device(jacobian.device):
                kernels.push[(_blocks(n),)](jacobian, _float32(tangent), pushed, n, levels, f, kernels.BLOCK)
        return pushed
