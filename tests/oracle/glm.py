"""R's `glm`: iteratively reweighted least squares with its starting values and stopping rule."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from .families import FAMILIES, LINKS, Array


@dataclass(frozen=True)
class GLM:
    """A fitted GLM; `unscaled` = (X'WX)^-1 and `leverage`, both of the last least-squares step."""

    coef: Array
    fitted: Array
    eta: Array
    deviance: Array
    unscaled: Array
    leverage: Array


def glm(y, X, *, family, link, weights=None, offset=None, epsilon=1e-8, maxit=25) -> GLM:
    """Fit a GLM as R's glm does: stop when |dev - dev_old| / (|dev| + 0.1) < epsilon."""
    family, link = FAMILIES[family], LINKS[link]
    weights = np.ones_like(y) if weights is None else weights
    offset = np.zeros_like(y) if offset is None else offset
    mu = family.start(y, weights)
    eta = link.link(mu)
    deviance_old = family.deviance(y, mu, weights).sum()
    coef_old = None
    for _ in range(maxit):
        slope = link.first(eta)
        sqrt_w = np.sqrt(weights * slope**2 / family.variance(mu))
        Q, R = np.linalg.qr(X * sqrt_w[:, None])
        coef = solve_triangular(R, Q.T @ (sqrt_w * (eta - offset + (y - mu) / slope)))
        eta, mu, coef = _halve_until_valid(family, link, y, X, offset, weights, coef, coef_old)
        deviance = family.deviance(y, mu, weights)
        if abs(deviance.sum() - deviance_old) / (abs(deviance.sum()) + 0.1) < epsilon:
            break
        deviance_old, coef_old = deviance.sum(), coef
    R_inverse = solve_triangular(R, np.eye(R.shape[0]))
    return GLM(coef, mu, eta, deviance, R_inverse @ R_inverse.T, np.sum(Q**2, axis=1))


def _halve_until_valid(family, link, y, X, offset, weights, coef, coef_old, maxit=25):
    """Halve the step to `coef_old` until the deviance is finite and eta admissible."""
    for _ in range(maxit):
        eta = X @ coef + offset
        with np.errstate(all="ignore"):
            mu = link.inverse(eta)
            valid = link.domain(eta).all() and np.isfinite(family.deviance(y, mu, weights)).all()
        if valid or coef_old is None:
            return eta, mu, coef
        coef = (coef + coef_old) / 2
    raise ArithmeticError("glm: inner loop; cannot correct step size")
