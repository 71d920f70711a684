"""Reference backend: plain torch operations on any device and in any float precision, differentiable to any order."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from craym_nerfstudio.fields.encoding.grid import HASH_PRIMES, GridSpec
from craym_nerfstudio.fields.encoding.pullback import Pullback, autograd_pullback


def vertex_index(spec: GridSpec, level: int, vertex: Int[Tensor, "*b 3"]) -> Int[Tensor, "*b"]:
    """Row of a level's own table that holds an integer vertex."""
    x, y, z = vertex.unbind(-1)
    if spec.dense[level]:
        res = spec.resolutions[level]
        return (x + y * res + z * res * res) % spec.sizes[level]
    hashed = (x * HASH_PRIMES[0]) ^ (y * HASH_PRIMES[1]) ^ (z * HASH_PRIMES[2])
    return hashed & (spec.sizes[level] - 1)


def _encode_level(
    x: Float[Tensor, "n 3"], table: Float[Tensor, "entries f"], spec: GridSpec, level: int
) -> Float[Tensor, "n f"]:
    position = x.clamp(0, 1) * spec.scales[level] + 0.5
    cell = position.detach().nan_to_num().floor()
    t = position - cell
    upper = t * t * (3 - 2 * t) if spec.smooth else t
    weight = torch.stack([1 - upper, upper], -1)
    bits = torch.tensor([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)], device=x.device)
    rows = vertex_index(spec, level, cell.long()[:, None] + bits) + spec.offsets[level]
    wx, wy, wz = (weight[:, axis, bits[:, axis]] for axis in range(3))
    return torch.einsum("nc,ncf->nf", wx * wy * wz, table[rows])


class TorchBackend:
    """Plain operations; about fifteen times slower than the fused CPU kernel."""

    def encode(
        self, x: Float[Tensor, "n 3"], table: Float[Tensor, "entries f"], spec: GridSpec, weights: tuple[float, ...]
    ) -> Float[Tensor, "n feat"]:
        """Features of points in the unit cube."""
        masked = x.new_zeros(len(x), spec.features_per_level)
        levels = (
            masked if weight == 0 else _encode_level(x, table, spec, level) * weight
            for level, weight in enumerate(weights)
        )
        return torch.cat(list(levels), -1)

    def encode_with_pullback(
        self, x: Float[Tensor, "n 3"], table: Float[Tensor, "entries f"], spec: GridSpec, weights: tuple[float, ...]
    ) -> tuple[Float[Tensor, "n feat"], Pullback]:
        """Features, and the map from their gradient to the gradient of x by double autograd."""
        return autograd_pullback(lambda points: self.encode(points, table, spec, weights), x)
