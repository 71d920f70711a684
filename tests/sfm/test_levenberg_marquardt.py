"""The search: a parabola by hand, a curved valley, and systems that cannot be solved."""

import math

import pytest

from craym_nerfstudio.sfm.levenberg_marquardt import minimise


def test_parabola_is_solved_in_two_steps() -> None:
    """Newton's step of (x - 3)^2, plus 1, shortened by the damping alone."""
    found = minimise(
        0.0, lambda x: 1 + (x - 3) ** 2, lambda x: lambda damping: x - (x - 3) / (1 + damping),
        max_iterations=10, tolerance=1e-3,
    )  # fmt: skip
    assert found.converged and found.iterations <= 3
    assert found.state == pytest.approx(3.0, abs=1e-6) and found.cost == pytest.approx(1.0, abs=1e-10)


def test_damping_rises_until_the_cost_falls() -> None:
    """Gauss-Newton's step of arctan overshoots from far away."""

    def linearise(x: float):
        slope = 1 / (1 + x * x)
        return lambda damping: x - slope * math.atan(x) / (slope * slope * (1 + damping))

    found = minimise(20.0, lambda x: math.atan(x) ** 2, linearise, max_iterations=100, tolerance=1e-12)
    assert found.state == pytest.approx(0.0, abs=1e-5)


def test_without_a_step_the_start_stays() -> None:
    found = minimise(5.0, abs, lambda x: lambda damping: None, max_iterations=10, tolerance=1e-6)
    assert (found.state, found.cost, found.iterations, found.converged) == (5.0, 5.0, 1, True)


def test_the_number_of_iterations_is_bounded() -> None:
    found = minimise(1.0, abs, lambda x: lambda damping: 0.5 * x, max_iterations=4, tolerance=1e-6)
    assert (found.state, found.iterations, found.converged) == (0.0625, 4, False)
