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


def _axis_weights(spec: GridSpec, t: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 3 2"], Float[Tensor, "n 3 2"]]:
    """Interpolation weights of the lower and upper vertex on each axis, and their derivative by the grid position."""
    upper, slope = (t * t * (3 - 2 * t), 6 * t * (1 - t)) if spec.smooth else (t, torch.ones_like(t))
    return torch.stack([1 - upper, upper], -1), torch.stack([-slope, slope], -1)


def _encode_level(
    x: Float[Tensor, "n 3"], table: Float[Tensor, "entries f"], spec: GridSpec, level: int, jacobian: bool
) -> tuple[Float[Tensor, "n f"], Float[Tensor, "n f 3"] | None]:
    position = x.clamp(0, 1) * spec.scales[level] + 0.5
    cell = position.detach().nan_to_num().floor()
    weight, slope = _axis_weights(spec, position - cell)
    bits = torch.tensor([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)], device=x.device)
    rows = vertex_index(spec, level, cell.long()[:, None] + bits) + spec.offsets[level]
    values = table[rows]
    wx, wy, wz = (weight[:, axis, bits[:, axis]] for axis in range(3))
    features = torch.einsum("nc,ncf->nf", wx * wy * wz, values)
    if not jacobian:
        return features, None
    slope = slope * (spec.scales[level] * ((x >= 0) & (x <= 1)))[..., None]
    dx, dy, dz = (slope[:, axis, bits[:, axis]] for axis in range(3))
    corner_slopes = torch.stack([dx * wy * wz, wx * dy * wz, wx * wy * dz], -1)
    return features, torch.einsum("ncd,ncf->nfd", corner_slopes, values)


class TorchBackend:
    """Plain operations; about fifteen times slower than the fused CPU kernel."""

    name = "torch"

    def encode(
        self, x: Float[Tensor, "n 3"], table: Float[Tensor, "entries f"], spec: GridSpec, weights: tuple[float, ...]
    ) -> Float[Tensor, "n feat"]:
        """Features of points in the unit cube."""
        return self._run(x, table, spec, weights, jacobian=False)[0]

    def encode_with_jacobian(
        self, x: Float[Tensor, "n 3"], table: Float[Tensor, "entries f"], spec: GridSpec, weights: tuple[float, ...]
    ) -> tuple[Float[Tensor, "n feat"], Float[Tensor, "n feat 3"]]:
        """Features and their derivative by x."""
        features, jacobian = self._run(x, table, spec, weights, jacobian=True)
        assert jacobian is not None
        return features, jacobian

    def encode_with_pullback(
        self, x: Float[Tensor, "n 3"], table: Float[Tensor, "entries f"], spec: GridSpec, weights: tuple[float, ...]
    ) -> tuple[Float[Tensor, "n feat"], Pullback]:
        """Features, and the map from their gradient to the gradient of x by double autograd."""
        return autograd_pullback(lambda points: self.encode(points, table, spec, weights), x)

    def _run(
        self, x: Tensor, table: Tensor, spec: GridSpec, weights: tuple[float, ...], jacobian: bool
    ) -> tuple[Tensor, Tensor | None]:
        f = spec.features_per_level
        features, jacobians = [], []
        for level, weight in enumerate(weights):
            level_features: Tensor
            level_jacobian: Tensor | None
            if weight == 0:
                level_features, level_jacobian = x.new_zeros(len(x), f), x.new_zeros(len(x), f, 3)
            else:
                level_features, level_jacobian = _encode_level(x, table, spec, level, jacobian)
                level_features = level_features * weight
            features.append(level_features)
            if level_jacobian is not None and jacobian:
                jacobians.append(level_jacobian * weight)
        return torch.cat(features, -1), torch.cat(jacobians, -2) if jacobian else None
