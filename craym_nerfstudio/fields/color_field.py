"""Colour of a surface point seen from a direction: ``c = Phi_t(f'', SH(r_d), normal)`` (paper Eq. 11)."""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn


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
        return self.net(torch.cat([feature, harmonics, normal], dim=-1))
