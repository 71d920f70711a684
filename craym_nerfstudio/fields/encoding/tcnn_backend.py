"""Backend for CUDA through tiny-cuda-nn, where it is importable.

tiny-cuda-nn computes from our table (its layout is the one of ``grid.py``), in its own precision, usually float16. It
knows no Jacobian, but its gradient by the input is differentiable once more: the pullback is one ``autograd.grad``
call. tiny-cuda-nn also traverses masked levels, whose features are then multiplied by 0.
"""

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.fields.encoding.grid import Grid, GridSpec
from craym_nerfstudio.fields.encoding.torch_backend import TorchBackend


@lru_cache(maxsize=8)
def _native(spec: GridSpec, device: torch.device) -> Any:
    """tiny-cuda-nn's encoding of a grid; its own parameters are never used."""
    import tinycudann

    config = {
        "otype": "HashGrid",
        "n_levels": spec.levels,
        "n_features_per_level": spec.features_per_level,
        "log2_hashmap_size": spec.log2_table_size,
        "base_resolution": spec.base_resolution,
        "per_level_scale": spec.growth,
        "interpolation": "Smoothstep" if spec.smooth else "Linear",
    }
    native = tinycudann.Encoding(3, config).to(device)
    if native.params.numel() != spec.n_params:
        raise InputError(
            f"this tiny-cuda-nn lays out the grid in another way: {native.params.numel()} numbers, not {spec.n_params}",
            remedy="Update tiny-cuda-nn or use --pipeline.model.sdf-field.encoding triton.",
        )
    return native


class TcnnBackend(TorchBackend):
    """tiny-cuda-nn's kernels on our table."""

    def encode(self, x: Float[Tensor, "n 3"], grid: Grid) -> Float[Tensor, "n feat"]:
        """Features of points in the unit cube."""
        if len(x) == 0:
            return super().encode(x, grid)
        native = _native(grid.spec, x.device)
        parameters = {"params": grid.table.view(-1)}
        features = torch.func.functional_call(native, parameters, (x.clamp(0, 1),)).to(torch.float32)
        if all(weight == 1 for weight in grid.weights):
            return features
        return features * torch.tensor(grid.weights, device=x.device).repeat_interleave(grid.spec.features_per_level)
