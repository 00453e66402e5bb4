"""Link functions eta = g(mu): inverses with three derivatives, and the logarithms that families are made of.

| name | eta = g(mu) | mu = g^-1(eta) | eta must be |
|---|---|---|---|
| identity | mu | eta | any real number that gives the family a valid mean |
| log | ln mu | exp(eta) | any |
| logit | ln(mu/(1 - mu)) | 1/(1 + exp(-eta)) | any |
| probit | Phi^-1(mu) | Phi(eta) | any |
| cloglog | ln(-ln(1 - mu)) | 1 - exp(-exp(eta)) | any |
| loglog | -ln(-ln mu) | exp(-exp(-eta)) | any |
| cauchit | tan(pi (mu - 1/2)) | 1/2 + arctan(eta)/pi | any |
| inverse | 1/mu | 1/eta | positive |
| sqrt | sqrt(mu) | eta^2 | positive |
| inverse_squared | 1/mu^2 | 1/sqrt(eta) | positive |

Methods take arrays (or scalars) of any shape and work elementwise. No domain is checked: ask `valid_eta`.
Results may share memory with the input (identity) and constant derivatives are read-only broadcast views: do
not write into them.

References
----------
McCullagh, P. and Nelder, J. A. (1989). Generalized Linear Models, 2nd ed., sections 2.2.4 and 4.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hlik.link_base import Link
from hlik.mean_links import Identity, Inverse, InverseSquared, Log, Sqrt
from hlik.probability_links import CLOGLOG, Cauchit, Logit, LogLog, Probit
from hlik.special import Array, quiet

IDENTITY, LOG, LOGIT, PROBIT = Identity(), Log(), Logit(), Probit()
LOGLOG, CAUCHIT, INVERSE, SQRT, INVERSE_SQUARED = LogLog(), Cauchit(), Inverse(), Sqrt(), InverseSquared()

LINKS: dict[str, Link] = {
    link.name: link
    for link in (
        IDENTITY, LOG, LOGIT, PROBIT, CLOGLOG, LOGLOG, CAUCHIT, INVERSE, SQRT, INVERSE_SQUARED,
    )
}  # fmt: skip

# Moderate, so that a plainly written inverse such as 1 - exp(-exp(eta)) is itself accurate to 1e-14 there.
TEST_POINTS = np.array([-2.71, -1.93, -1.07, -0.59, -0.21, 0.13, 0.47, 0.88, 1.66, 2.39])


def identify_inverse(function: Callable[[Any], Any], rtol: float = 1e-12) -> Link | None:
    """Find the link whose inverse is the given function.

    Parameters
    ----------
    function : callable
        t -> f(t), of an array or of a scalar. Where it cannot be evaluated (domain error) it counts as NaN.
    rtol : float
        Largest relative difference at the ten points between -2.7 and 2.4 that are compared (for links with a
        restricted domain: the positive ones, and the absolute values of the others).

    Returns
    -------
    Link or None
        None if no registered link fits.
    """
    for link in LINKS.values():
        points = TEST_POINTS if link.valid_eta(TEST_POINTS).all() else np.abs(TEST_POINTS)
        expected = link.inverse(points)
        found = _evaluate(function, points)
        if found.shape == expected.shape and np.all(np.abs(found - expected) <= rtol * np.abs(expected)):
            return link
    return None


@quiet
def _evaluate(function: Callable[[Any], Any], points: Array) -> Array:
    """Return f at the points: at all at once, or one by one for a function of scalars."""
    try:
        values = np.asarray(function(points), dtype=float)
    except (TypeError, ValueError, ArithmeticError):
        values = np.empty(0)
    if values.shape == points.shape:
        return values
    return np.array([_evaluate_one(function, float(point)) for point in points])


def _evaluate_one(function: Callable[[Any], Any], point: float) -> float:
    try:
        return float(function(point))
    except (ValueError, ArithmeticError):
        return np.nan
