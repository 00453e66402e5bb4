"""One BFGS step by SciPy's line search, or by halving where its conditions have no solution."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy import optimize

HALVINGS = 20  # of a step for which the line search finds nothing
Function = Callable[[np.ndarray], tuple[float, np.ndarray]]


def bfgs_step(function: Function, size: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """One step from zero with the identity as inverse Hessian: the step, and the inverse Hessian after it.

    The line search (Wolfe's conditions) first tries the whole step, or `reach` of it; where it finds nothing the step
    is halved until the value falls. The step is zero where neither finds a better point.

    Parameters
    ----------
    function
        Value and gradient of what is minimised; its second call at a point should cost nothing.
    size
        Number of variables, in standard units.
    reach
        Longest first trial.
    """

    def values(z: np.ndarray) -> float:
        return function(z)[0]

    def slopes(z: np.ndarray) -> np.ndarray:
        return function(z)[1]

    value, gradient = function(np.zeros(size))
    direction = -gradient * min(1.0, reach / max(float(np.linalg.norm(gradient)), 1e-300))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The line search algorithm|Rounding errors", RuntimeWarning)
        length = optimize.line_search(values, slopes, np.zeros(size), direction, gradient, value)[0]
    if length is None:
        length = _halved(values, direction, value, float(gradient @ direction))
    if length is None:
        return np.zeros(size), np.eye(size)
    step = length * direction
    update = optimize.BFGS(init_scale=1.0)
    update.initialize(size, "inv_hess")
    update.update(step, slopes(step) - gradient)
    return step, update.get_matrix()


def _halved(values: Callable[[np.ndarray], float], direction: np.ndarray, value: float, slope: float) -> float | None:
    """Half the step, a quarter, ... that gains a tenth of what the slope says; None where none of them does.

    Wolfe's conditions may have no solution in front of a wall, where h has no mode.
    """
    for length in 0.5 ** np.arange(1, HALVINGS):
        if values(length * direction) < value + 0.1 * length * slope:
            return float(length)
    return None
