"""Colours of splats by linear least squares: what is composited from them comes closest to the pictures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from craym_nerfstudio.console import track
from craym_nerfstudio.export.splat_view import Gaussians, composite_weights
from craym_nerfstudio.fields.color_field import spherical_harmonics
from craym_nerfstudio.geometry.pinhole import Pinhole

_SIGNS = np.array([1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1])
"""Of the harmonics of Gaussian splatting against those of the colour field."""
_ITERATIONS = 12
_PRIOR = 0.02
"""Weight of what the colours were before, against a pixel that a splat fills."""
_BAND_PRIOR = 0.1
"""The same for harmonics beyond the constant one: few pixels must not make colours that depend on the direction."""


def harmonics_of(directions: Float[np.ndarray, "n 3"], basis: int) -> Float[np.ndarray, "n basis"]:
    """The first harmonics of unit directions from a camera, with the signs of Gaussian splatting."""
    values = spherical_harmonics(torch.from_numpy(directions).float()).numpy()
    return values[:, :basis] * _SIGNS[:basis].astype(np.float32)


@dataclass(frozen=True)
class Picture:
    """What a camera sees of a scene on a background of one colour."""

    view: Pinhole
    rgb: Float[np.ndarray, "h w 3"]
    valid: Bool[np.ndarray, "h w"]
    """Pixels that show the scene or its background; others are not looked at."""
    background: Float[np.ndarray, "3"]


@dataclass(frozen=True)
class _Equations:
    """Of one picture: matrix @ (harmonics . coefficients) = target."""

    matrix: Any
    harmonics: Float[np.ndarray, "n basis"]
    target: Float[np.ndarray, "pixels 3"]

    def pictured(self, coefficients: Float[np.ndarray, "n basis 3"]) -> Float[np.ndarray, "pixels 3"]:
        """What coefficients add to the picture."""
        return self.matrix @ (self.harmonics[:, :, None] * coefficients).sum(1)

    def pulled_back(self, residual: Float[np.ndarray, "pixels 3"]) -> Float[np.ndarray, "n basis 3"]:
        """The transpose of `pictured`."""
        return self.harmonics[:, :, None] * (self.matrix.T @ residual)[:, None]


def _equations(splats: Gaussians, picture: Picture, basis: int) -> _Equations:
    matrix, left = composite_weights(splats, picture.view)
    rows = np.flatnonzero(picture.valid.ravel())
    matrix, left = matrix[rows], left[rows]
    towards = splats.means - picture.view.c2w[:, 3]
    towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
    constant = 0.5 * np.asarray(matrix.sum(1)) + left[:, None] * picture.background
    target = (picture.rgb.reshape(-1, 3)[rows] - constant).astype(np.float32)
    return _Equations(matrix, harmonics_of(towards, basis), target)


def solve_colors(
    splats: Gaussians, coefficients: Float[np.ndarray, "n basis 3"], pictures: list[Picture]
) -> Float[np.ndarray, "n basis 3"]:
    """Coefficients of harmonics that composite to the pictures, by conjugate gradients.

    Colours are linear in them, as opacities and order are fixed: no training, one system of equations.

    Args:
        coefficients: where to start, and what holds where pictures say nothing; colours are 0.5 + harmonics.
    """
    basis = coefficients.shape[1]
    equations = [_equations(splats, picture, basis) for picture in track(pictures, "Colours of splats")]
    prior = np.full((1, basis, 1), _BAND_PRIOR, dtype=np.float32)
    prior[:, 0] = _PRIOR
    diagonal = sum(each.matrix.power(2).T @ np.ones(each.matrix.shape[0], np.float32) for each in equations)
    scale = 1.0 / (diagonal[:, None, None] * 0.1 + prior)
    start = coefficients.astype(np.float32)

    def normal(change: np.ndarray) -> np.ndarray:
        return prior * change + sum(each.pulled_back(each.pictured(change)) for each in equations)

    residual = sum(each.pulled_back(each.target - each.pictured(start)) for each in equations)
    change = np.zeros_like(start)
    direction = stepped = scale * residual
    length = float((residual * stepped).sum())
    for _ in track(range(_ITERATIONS), "Colours of splats"):
        applied = normal(direction)
        step = length / max(float((direction * applied).sum()), 1e-20)
        change, residual = change + step * direction, residual - step * applied
        stepped = scale * residual
        before, length = length, float((residual * stepped).sum())
        direction = stepped + length / max(before, 1e-20) * direction
    return start + change
