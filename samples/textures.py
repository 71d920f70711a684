"""Procedural textures: points [n, 3] in a solid's frame -> colours [n, 3] in [0, 1]; none repeats within a scene."""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Float, Int

from samples.primitives import Points, Values

Colours = Float[np.ndarray, "n 3"]
Palette = Float[np.ndarray, "colours 3"]


def colour(code: str) -> Float[np.ndarray, " 3"]:
    """Colour of a "#rrggbb" code, in [0, 1]."""
    return np.array([int(code[start : start + 2], 16) for start in (1, 3, 5)]) / 255.0


def palette(*codes: str) -> Palette:
    """Colours of several "#rrggbb" codes."""
    return np.stack([colour(code) for code in codes])


def hashed(lattice: Int[np.ndarray, "n 3"], seed: int) -> Values:
    """Pseudo-random numbers in [0, 1) of integer lattice points, the same on every machine."""
    mixed = np.full(len(lattice), (seed * 0x9E3779B1 + 0x7F4A7C15) & 0xFFFFFFFF, dtype=np.uint32)
    for axis, prime in enumerate((0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F)):
        mixed ^= lattice[:, axis].astype(np.int64).astype(np.uint32) * np.uint32(prime)
        mixed ^= mixed >> np.uint32(15)
        mixed *= np.uint32(0x2C1B3C6D)
        mixed ^= mixed >> np.uint32(12)
    return mixed / 2.0**32


def noise(points: Points, size: float, seed: int) -> Values:
    """Smooth value noise in [0, 1] whose blobs are ``size`` wide."""
    scaled = points / size
    base = np.floor(scaled).astype(np.int64)
    fraction = scaled - base
    weight = fraction * fraction * (3.0 - 2.0 * fraction)
    total = np.zeros(len(points))
    for corner in itertools.product((0, 1), repeat=3):
        share = np.where(np.array(corner) == 1, weight, 1.0 - weight).prod(axis=-1)
        total += share * hashed(base + np.array(corner), seed)
    return total


def fractal_noise(points: Points, size: float, seed: int, octaves: int = 3) -> Values:
    """Sum of :func:`noise` at halving sizes and weights, in [0, 1]."""
    weights = 0.5 ** np.arange(octaves)
    layers = [weight * noise(points, size * weight, seed + index) for index, weight in enumerate(weights)]
    return np.sum(layers, axis=0) / weights.sum()


def voronoi(points: Points, size: float, seed: int) -> tuple[Values, Values, Int[np.ndarray, "n 3"]]:
    """Cells around one random site per cube of ``size``: distances to the nearest two sites, cube of the nearest."""
    scaled = points / size
    base = np.floor(scaled).astype(np.int64)
    nearest = np.full(len(points), np.inf)
    second = np.full(len(points), np.inf)
    owner = base.copy()
    for offset in itertools.product((-1, 0, 1), repeat=3):
        lattice = base + np.array(offset)
        site = lattice + np.stack([hashed(lattice, seed + 101 * axis) for axis in range(3)], axis=-1)
        distance = np.sqrt(((scaled - site) ** 2).sum(axis=-1))
        closer = distance < nearest
        second = np.where(closer, nearest, np.minimum(second, distance))
        nearest = np.where(closer, distance, nearest)
        owner[closer] = lattice[closer]
    return nearest * size, second * size, owner


def cells(points: Points, size: float, colours: Palette, seed: int) -> Colours:
    """Irregular wavy patches about ``size`` wide, each in a random colour of the palette with its own brightness."""
    waves = np.stack([noise(points, 0.6 * size, seed + 11 * axis) for axis in range(3)], axis=-1) - 0.5
    _, _, owner = voronoi(points + 0.5 * size * waves, size, seed)
    chosen = colours[(hashed(owner, seed + 7) * len(colours)).astype(int)]
    return chosen * (0.75 + 0.25 * hashed(owner, seed + 8))[:, None]


def mix(first: Float[np.ndarray, " 3"], second: Float[np.ndarray, " 3"], share: Values) -> Colours:
    """``first`` where ``share`` is 0, ``second`` where it is 1, blends between."""
    return first + (second - first) * share[:, None]
