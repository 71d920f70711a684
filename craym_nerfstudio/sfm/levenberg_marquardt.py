"""Levenberg-Marquardt, whatever is adjusted: the problem brings its cost and its damped steps."""

from collections.abc import Callable
from typing import TypeVar

State = TypeVar("State")

_FIRST_DAMPING, _MIN_DAMPING, _MAX_DAMPING = 1e-4, 1e-10, 1e10


def minimise(
    start: State,
    cost_of: Callable[[State], float],
    linearise: Callable[[State], Callable[[float], State | None]],
    *,
    max_iterations: int,
    tolerance: float,
) -> State:
    """Descend until the cost falls by less than `tolerance` of itself, or until no damping makes it fall.

    Args:
        linearise: called once per iteration; returns what takes a damping to the next state, or to None when the
            damped system cannot be solved.
    """
    state, cost, damping = start, cost_of(start), _FIRST_DAMPING
    for _ in range(max_iterations):
        next_state = linearise(state)
        while True:
            candidate = next_state(damping)
            new_cost = cost if candidate is None else cost_of(candidate)
            if candidate is not None and new_cost < cost:
                break
            damping *= 8
            if damping > _MAX_DAMPING:
                return state
        converged = cost - new_cost < tolerance * cost
        state, cost, damping = candidate, new_cost, max(damping / 6, _MIN_DAMPING)
        if converged:
            break
    return state
