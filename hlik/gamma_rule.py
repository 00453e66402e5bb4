r"""Gauss-Laguerre rules for gamma densities: expectations over one positive variable.

For w of shape a and rate b, ``E g(w) = sum_k p_k g(w_k)``, exact where g is a polynomial of degree ``2 points - 1``.
The nodes are the eigenvalues of the Jacobi matrix of the Laguerre polynomials of order ``a - 1`` (Golub & Welsch 1969),
divided by b; the probabilities are one over the sums of squares of the orthonormal polynomials there, which keeps the
smallest of them accurate.

References
----------
Golub, G. H. & Welsch, J. H. (1969). Calculation of Gauss quadrature rules. Mathematics of Computation 23, 221-230.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg, special

SERIES = 1e4  # shapes above which Stirling's series replaces a difference of large numbers


def gamma_rule(points: int, shape: float, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in increasing order and the logs of their probabilities, shapes (points,)."""
    k = np.arange(points)
    diagonal, beside = 2.0 * k + shape, np.sqrt(k[1:] * (k[1:] + shape - 1.0))
    nodes = linalg.eigh_tridiagonal(diagonal, beside, eigvals_only=True)
    before, now, total = np.zeros(points), np.ones(points), np.ones(points)
    for j in range(points - 1):
        last = beside[j - 1] if j else 0.0
        before, now = now, ((nodes - diagonal[j]) * now - last * before) / beside[j]
        total += now**2
    return nodes / rate, -np.log(total)


def log_gamma_density(w: np.ndarray, shape: float, rate: float) -> np.ndarray:
    """Log density of log w for w of a gamma distribution."""
    centred = np.log(w * (rate / shape))
    return shape * (centred - np.expm1(centred)) + _peak(shape)


def log_gamma_slope(w: np.ndarray, shape: float) -> np.ndarray:
    """Derivative of the log density by the shape, where the rate is equal to it: the mean of w is one."""
    by_peak = 0.5 / shape + 1.0 / (12.0 * shape**2) if shape > SERIES else np.log(shape) - special.digamma(shape)
    return np.log(w) - (w - 1.0) + by_peak


def _peak(shape: float) -> float:
    """``a log a - a - log Gamma(a)``."""
    if shape > SERIES:
        return 0.5 * float(np.log(shape / (2 * np.pi))) - 1.0 / (12.0 * shape)
    return float(shape * np.log(shape) - shape - special.gammaln(shape))
