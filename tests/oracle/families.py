"""Links, response families and random-effect families of hglm, with the numerical guards of R's `family` objects."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import betaln, expit, gammaln, ndtr, ndtri, xlog1py, xlogy

EPS = np.finfo(float).eps
Array = np.ndarray
Function = Callable[[Array], Array]


def _everywhere(x: Array) -> Array:
    return np.ones(np.shape(x), dtype=bool)


@dataclass(frozen=True)
class Link:
    """eta = link(mu); mu = inverse(eta); first = dmu/deta; second = d2mu/deta2; domain: where eta is admissible."""

    link: Function
    inverse: Function
    first: Function
    second: Function
    domain: Function = _everywhere


def _logit_inverse(eta: Array) -> Array:
    """R keeps exp(eta) between eps and 1/eps."""
    return expit(np.clip(eta, np.log(EPS), -np.log(EPS)))


def _logit_first(eta: Array) -> Array:
    return np.where(np.abs(eta) > 30, EPS, expit(eta) * expit(-eta))


def _probit_inverse(eta: Array) -> Array:
    bound = -ndtri(EPS)
    return ndtr(np.clip(eta, -bound, bound))


def _probit_first(eta: Array) -> Array:
    return np.maximum(np.exp(-0.5 * eta**2) / np.sqrt(2 * np.pi), EPS)


def _cloglog_first(eta: Array) -> Array:
    eta = np.minimum(eta, 700)
    return np.maximum(np.exp(eta - np.exp(eta)), EPS)


def _exp(eta: Array) -> Array:
    return np.maximum(np.exp(eta), EPS)


LINKS = {
    "identity": Link(lambda mu: mu, lambda eta: eta, np.ones_like, np.zeros_like),
    "log": Link(np.log, _exp, _exp, _exp),
    "logit": Link(
        lambda mu: np.log(mu / (1 - mu)),
        _logit_inverse,
        _logit_first,
        lambda eta: _logit_first(eta) * (1 - 2 * expit(eta)),
    ),
    "probit": Link(ndtri, _probit_inverse, _probit_first, lambda eta: -eta * _probit_first(eta)),
    "cloglog": Link(
        lambda mu: np.log(-np.log1p(-mu)),
        lambda eta: np.clip(-np.expm1(-np.exp(np.minimum(eta, 700))), EPS, 1 - EPS),
        _cloglog_first,
        lambda eta: _cloglog_first(eta) * (1 - np.exp(np.minimum(eta, 700))),
    ),
    "inverse": Link(
        lambda mu: 1 / mu, lambda eta: 1 / eta, lambda eta: -1 / eta**2, lambda eta: 2 / eta**3, lambda eta: eta > 0
    ),
    "sqrt": Link(np.sqrt, np.square, lambda eta: 2 * eta, lambda eta: np.full_like(eta, 2.0), lambda eta: eta > 0),
    "1/mu^2": Link(
        lambda mu: mu**-2.0,
        lambda eta: eta**-0.5,
        lambda eta: -0.5 * eta**-1.5,
        lambda eta: 0.75 * eta**-2.5,
        lambda eta: eta > 0,
    ),
    "1/sqrt": Link(
        lambda mu: mu**-0.5,
        lambda eta: eta**-2.0,
        lambda eta: -2 * eta**-3.0,
        lambda eta: 6 * eta**-4.0,
        lambda eta: eta > 0,
    ),
}


@dataclass(frozen=True)
class Family:
    """A response family.

    variance = V(mu); variance_slope = V'(mu); deviance(y, mu, weights) = weighted deviance component;
    start(y, weights) = first fitted values of R's glm; constant(y, phi, weights): see `log_density`.
    """

    variance: Function
    variance_slope: Function
    unit_deviance: Callable[[Array, Array], Array]
    start: Callable[[Array, Array], Array]
    constant: Callable[[Array, Array, Array], Array]

    def deviance(self, y: Array, mu: Array, weights: Array) -> Array:
        return weights * self.unit_deviance(y, mu)

    def log_density(self, y: Array, mu: Array, phi: Array, weights: Array) -> Array:
        """constant - deviance / (2 phi)."""
        return self.constant(y, phi, weights) - 0.5 * self.deviance(y, mu, weights) / phi


def _binomial_constant(y: Array, phi: Array, weights: Array) -> Array:
    """log choose(m, r) + r log(r/m) + (m-r) log(1-r/m), r = round(y m): the saturated log-likelihood."""
    m, r = weights, np.round(y * weights)
    choose = gammaln(m + 1) - gammaln(r + 1) - gammaln(m - r + 1)
    return choose + xlogy(r, r / m) + xlogy(m - r, 1 - r / m)


FAMILIES = {
    "gaussian": Family(
        np.ones_like,
        np.zeros_like,
        lambda y, mu: (y - mu) ** 2,
        lambda y, w: y,
        lambda y, phi, w: -0.5 * np.log(2 * np.pi * phi),
    ),
    "binomial": Family(
        lambda mu: mu * (1 - mu),
        lambda mu: 1 - 2 * mu,
        lambda y, mu: 2 * (xlogy(y, y / mu) + xlogy(1 - y, (1 - y) / (1 - mu))),
        lambda y, w: (w * y + 0.5) / (w + 1),
        _binomial_constant,
    ),
    "poisson": Family(
        lambda mu: mu,
        np.ones_like,
        lambda y, mu: 2 * (xlogy(y, y / mu) - (y - mu)),
        lambda y, w: y + 0.1,
        lambda y, phi, w: xlogy(y, y) - y - gammaln(y + 1),
    ),
    "Gamma": Family(
        np.square,
        lambda mu: 2 * mu,
        lambda y, mu: -2 * (np.log(y / mu) - (y - mu) / mu),
        lambda y, w: y,
        lambda y, phi, w: -(np.log(y) + 1 / phi + gammaln(1 / phi) + np.log(phi) / phi),
    ),
    "inverse.gaussian": Family(
        lambda mu: mu**3,
        lambda mu: 3 * mu**2,
        lambda y, mu: (y - mu) ** 2 / (y * mu**2),
        lambda y, w: y,
        lambda y, phi, w: -0.5 * np.log(2 * np.pi * phi * y**3),
    ),
}


@dataclass(frozen=True)
class RandomFamily:
    """A random-effect family seen as a quasi-likelihood of the pseudo-data psi = E(u).

    variance = V_M(u); deviance = the deviance component of psi about u; log_density(u, lam) of u itself.
    """

    psi: float
    variance: Function
    deviance: Function
    log_density: Callable[[Array, Array], Array]


def _beta_log_density(u: Array, lam: Array) -> Array:
    """Beta(a, a) with a = 1/(2 lam)."""
    a = 0.5 / lam
    return xlogy(a - 1, u) + xlog1py(a - 1, -u) - betaln(a, a)


def _gamma_log_density(u: Array, lam: Array) -> Array:
    """Gamma with shape 1/lam and scale lam: mean 1, variance lam."""
    a = 1 / lam
    return xlogy(a - 1, u) - u / lam - gammaln(a) - a * np.log(lam)


def _inverse_gamma_log_density(u: Array, lam: Array) -> Array:
    """Inverse gamma with shape 1 + 1/lam and scale 1/lam: mean 1."""
    a = 1 + 1 / lam
    return -a * np.log(lam) - gammaln(a) - (a + 1) * np.log(u) - 1 / (lam * u)


RANDOM_FAMILIES = {
    "gaussian": RandomFamily(
        0.0, np.ones_like, np.square, lambda u, lam: -0.5 * (np.log(2 * np.pi * lam) + u**2 / lam)
    ),
    "Gamma": RandomFamily(1.0, lambda u: u, lambda u: 2 * (u - 1 - np.log(u)), _gamma_log_density),
    "Beta": RandomFamily(0.5, lambda u: u * (1 - u), lambda u: -np.log(4 * u * (1 - u)), _beta_log_density),
    "inverse.gamma": RandomFamily(
        1.0, np.square, lambda u: 2 * (np.log(u) + 1 / u - 1), _inverse_gamma_log_density
    ),
}
