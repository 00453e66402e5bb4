"""R's `glm`: iteratively reweighted least squares with its starting values and its stopping rule."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from .families import FAMILIES, LINKS, Array


@dataclass(frozen=True)
class GLM:
    """A fitted GLM. `se` has dispersion 1; it and `leverage` belong to the last least-squares step."""

    coef: Array
    se: Array
    eta: Array
    fitted: Array
    deviance: Array
    leverage: Array


def glm(y, X, *, family, link, weights=None, offset=0.0, coef=None, epsilon=1e-8, maxit=25) -> GLM:
    """Fit as R's glm does.

    0) mu from `family.start` (or from the coefficients `coef`, where given);
    1) least squares of z = eta - offset + (y - mu)/m on X, weights (prior) m^2/V(mu), m = dmu/deta;
    2) halve the step while eta, mu or the deviance is inadmissible;
    3) stop when |dev - dev_old| / (|dev| + 0.1) < epsilon.
    """
    family, link = FAMILIES[family], LINKS[link]
    weights = np.ones_like(y) if weights is None else weights
    eta = link.link(family.start(y, weights)) if coef is None else X @ coef + offset
    mu = link.inverse(eta)
    deviance_old = family.deviance(y, mu, weights).sum()
    for _ in range(maxit):
        m = link.first(eta)
        sqrt_w = np.sqrt(weights * m**2 / family.variance(mu))
        Q, R = np.linalg.qr(X * sqrt_w[:, None])
        coef_old, coef = coef, solve_triangular(R, Q.T @ (sqrt_w * (eta - offset + (y - mu) / m)), check_finite=False)
        coef, eta, mu, deviance = _admissible(family, link, y, X, weights, offset, coef, coef_old)
        if abs(deviance.sum() - deviance_old) / (abs(deviance.sum()) + 0.1) < epsilon:
            break
        deviance_old = deviance.sum()
    se = np.linalg.norm(solve_triangular(R, np.eye(R.shape[0])), axis=1)
    return GLM(coef, se, eta, mu, deviance, np.sum(Q**2, axis=1))


def _admissible(family, link, y, X, weights, offset, coef, coef_old, max_halvings=50):
    """Halve the step from `coef_old` until eta is admissible and the deviance finite."""
    for _ in range(max_halvings):
        with np.errstate(all="ignore"):
            eta = X @ coef + offset
            mu = link.inverse(eta)
            deviance = family.deviance(y, mu, weights)
        if link.admits(eta) and np.isfinite(deviance).all():
            return coef, eta, mu, deviance
        if coef_old is None:
            break
        coef = (coef + coef_old) / 2
    raise ArithmeticError("glm: no valid set of coefficients has been found")
