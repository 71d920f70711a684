"""The search: a parabola by hand, a curved valley, and systems that cannot be solved."""

import math

import pytest

from craym_nerfstudio.sfm.levenberg_marquardt import minimise


def test_parabola_is_solved_in_two_steps() -> None:
    """Newton's step of (x - 3)^2, plus 1, shortened by the damping alone."""
    visited = []

    def linearise(x: float):
        visited.append(x)
        return lambda damping: x - (x - 3) / (1 + damping)

    found = minimise(0.0, lambda x: 1 + (x - 3) ** 2, linearise, max_iterations=10, tolerance=1e-3)
    assert found == pytest.approx(3.0, abs=1e-6) and len(visited) <= 3


def test_damping_rises_until_the_cost_falls() -> None:
    """Gauss-Newton's step of arctan overshoots from far away."""

    def linearise(x: float):
        slope = 1 / (1 + x * x)
        return lambda damping: x - slope * math.atan(x) / (slope * slope * (1 + damping))

    found = minimise(20.0, lambda x: math.atan(x) ** 2, linearise, max_iterations=100, tolerance=1e-12)
    assert found == pytest.approx(0.0, abs=1e-5)


def test_without_a_step_the_start_stays() -> None:
    assert minimise(5.0, abs, lambda x: lambda damping: None, max_iterations=10, tolerance=1e-6) == 5.0


def test_the_number_of_iterations_is_bounded() -> None:
    assert minimise(1.0, abs, lambda x: lambda damping: 0.5 * x, max_iterations=4, tolerance=1e-6) == 0.0625
