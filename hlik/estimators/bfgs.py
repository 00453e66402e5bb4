"""One BFGS step by SciPy's line searches: the whole step first, and a cautious one where that finds nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy import optimize

Function = Callable[[np.ndarray], tuple[float, np.ndarray]]


def bfgs_step(function: Function, size: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """One step from zero with the identity as inverse Hessian: the step, and the inverse Hessian after it.

    The line search (Wolfe's conditions) first tries the whole step, or `reach` of it; where it finds nothing,
    `scipy.optimize.minimize` does, which begins with a length of about one and interpolates. The step is zero where
    neither finds a better point.

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
        return _cautious_step(function, size)
    step = length * direction
    update = optimize.BFGS(init_scale=1.0)
    update.initialize(size, "inv_hess")
    update.update(step, slopes(step) - gradient)
    return step, update.get_matrix()


def _cautious_step(function: Function, size: int) -> tuple[np.ndarray, np.ndarray]:
    options = {"maxiter": 1, "gtol": 0.0, "hess_inv0": np.eye(size)}
    found = optimize.minimize(  # type: ignore[call-overload]
        function, np.zeros(size), jac=True, method="BFGS", options=options
    )
    return found.x, 0.5 * (found.hess_inv + found.hess_inv.T)
