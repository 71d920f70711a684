"""Reference backend: plain torch operations on any device and in any float precision, differentiable to any order."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from craym_nerfstudio.fields.encoding.grid import HASH_PRIMES, Grid, GridSpec, Pullback


def vertex_index(spec: GridSpec, level: int, vertex: Int[Tensor, "*b 3"]) -> Int[Tensor, "*b"]:
    """Row of a level's own table that holds an integer vertex."""
    x, y, z = vertex.unbind(-1)
    if spec.dense[level]:
        res = spec.resolutions[level]
        return (x + y * res + z * res * res) % spec.sizes[level]
    hashed = (x * HASH_PRIMES[0]) ^ (y * HASH_PRIMES[1]) ^ (z * HASH_PRIMES[2])
    return hashed & (spec.sizes[level] - 1)


def _encode_level(x: Float[Tensor, "n 3"], grid: Grid, level: int) -> Float[Tensor, "n f"]:
    spec = grid.spec
    position = x.clamp(0, 1) * spec.scales[level] + 0.5
    cell = position.detach().nan_to_num().floor()
    t = position - cell
    upper = t * t * (3 - 2 * t) if spec.smooth else t
    weight = torch.stack([1 - upper, upper], -1)
    bits = torch.tensor([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)], device=x.device)
    rows = vertex_index(spec, level, cell.long()[:, None] + bits) + spec.offsets[level]
    wx, wy, wz = (weight[:, axis, bits[:, axis]] for axis in range(3))
    return torch.einsum("nc,ncf->nf", wx * wy * wz, grid.table[rows])


class TorchBackend:
    """Plain operations; about fifteen times slower than the fused CPU kernel."""

    def encode(self, x: Float[Tensor, "n 3"], grid: Grid) -> Float[Tensor, "n feat"]:
        """Features of points in the unit cube."""
        masked = x.new_zeros(len(x), grid.spec.features_per_level)
        levels = (
            masked if weight == 0 else _encode_level(x, grid, level) * weight
            for level, weight in enumerate(grid.weights)
        )
        return torch.cat(list(levels), -1)

    def encode_with_pullback(self, x: Float[Tensor, "n 3"], grid: Grid) -> tuple[Float[Tensor, "n feat"], Pullback]:
        """Features, and their pullback by one ``autograd.grad``, differentiable again where gradients are enabled."""
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            points = x.view_as(x) if differentiable and x.requires_grad else x.detach().requires_grad_()
            features = self.encode(points, grid)

        def pullback(gradient: Float[Tensor, "n feat"]) -> Float[Tensor, "n 3"]:
            if not features.requires_grad:  # every level is masked
                return torch.zeros_like(x)
            (result,) = torch.autograd.grad(features, points, gradient, create_graph=differentiable, retain_graph=True)
            return result

        return (features if differentiable else features.detach()), pullback
