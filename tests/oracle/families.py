"""Links, response families and random-effect families of hglm, with the numerical guards of R's `family` objects."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import betaln, expit, gammaln, ndtr, ndtri, xlog1py, xlogy

EPS = np.finfo(float).eps
Array = np.ndarray
Function = Callable[[Array], Array]


@dataclass(frozen=True)
class Link:
    """eta = link(mu), mu = inverse(eta), first = dmu/deta, second = d2mu/deta2; `positive`: eta must be > 0."""

    link: Function
    inverse: Function
    first: Function
    second: Function
    positive: bool = False

    def admits(self, eta: Array) -> bool:
        return bool(np.isfinite(eta).all() and (not self.positive or (eta > 0).all()))


def _exp(eta: Array) -> Array:
    return np.maximum(np.exp(eta), EPS)


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


def _power(k: float) -> Link:
    """mu = eta^k, eta > 0."""
    return Link(
        lambda mu: mu ** (1 / k),
        lambda eta: eta**k,
        lambda eta: k * eta ** (k - 1),
        lambda eta: k * (k - 1) * eta ** (k - 2),
        positive=True,
    )


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
        lambda eta: np.clip(-np.expm1(-np.exp(eta)), EPS, 1 - EPS),
        _cloglog_first,
        lambda eta: _cloglog_first(eta) * (1 - np.exp(np.minimum(eta, 700))),
    ),
    "inverse": _power(-1.0),
    "sqrt": _power(2.0),
    "1/mu^2": _power(-0.5),
    "1/sqrt": _power(-2.0),
}


@dataclass(frozen=True)
class Family:
    """A response family.

    variance = V(mu), slope = V'(mu); start = the fitted values from which R's glm starts;
    log density = saturated(y, phi, weights) - deviance(y, mu, weights) / (2 phi).
    """

    variance: Function
    slope: Function
    unit_deviance: Callable[[Array, Array], Array]
    start: Callable[[Array, Array], Array]
    saturated: Callable[[Array, Array, Array], Array]

    def deviance(self, y: Array, mu: Array, weights: Array) -> Array:
        return weights * self.unit_deviance(y, mu)


def _binomial_saturated(y: Array, phi: Array, weights: Array) -> Array:
    """log choose(m, r) + r log(r/m) + (m - r) log(1 - r/m), where m = weights and r = round(y m)."""
    m, r = weights, np.round(y * weights)
    choose = gammaln(m + 1) - gammaln(r + 1) - gammaln(m - r + 1)
    return choose + xlogy(r, r / m) + xlogy(m - r, 1 - r / m)


FAMILIES = {
    "gaussian": Family(
        np.ones_like,
        np.zeros_like,
        lambda y, mu: (y - mu) ** 2,
        lambda y, weights: y,
        lambda y, phi, weights: -0.5 * np.log(2 * np.pi * phi),
    ),
    "binomial": Family(
        lambda mu: mu * (1 - mu),
        lambda mu: 1 - 2 * mu,
        lambda y, mu: 2 * (xlogy(y, y / mu) + xlogy(1 - y, (1 - y) / (1 - mu))),
        lambda y, weights: (weights * y + 0.5) / (weights + 1),
        _binomial_saturated,
    ),
    "poisson": Family(
        lambda mu: mu,
        np.ones_like,
        lambda y, mu: 2 * (xlogy(y, y / mu) - (y - mu)),
        lambda y, weights: y + 0.1,
        lambda y, phi, weights: xlogy(y, y) - y - gammaln(y + 1),
    ),
    "Gamma": Family(
        np.square,
        lambda mu: 2 * mu,
        lambda y, mu: -2 * (np.log(y / mu) - (y - mu) / mu),
        lambda y, weights: y,
        lambda y, phi, weights: -(np.log(y) + 1 / phi + gammaln(1 / phi) + np.log(phi) / phi),
    ),
    "inverse.gaussian": Family(
        lambda mu: mu**3,
        lambda mu: 3 * mu**2,
        lambda y, mu: (y - mu) ** 2 / (y * mu**2),
        lambda y, weights: y,
        lambda y, phi, weights: -0.5 * np.log(2 * np.pi * phi * y**3),
    ),
}


@dataclass(frozen=True)
class RandomFamily:
    """A random-effect family, seen as a quasi-likelihood of the pseudo-data psi = E(u).

    variance = V_M(u); deviance = deviance component of psi about u; log_density(u, lam) = that of u itself.
    """

    psi: float
    variance: Function
    deviance: Function
    log_density: Callable[[Array, Array], Array]


def _normal_log_density(u: Array, lam: Array) -> Array:
    return -0.5 * (np.log(2 * np.pi * lam) + u**2 / lam)


def _gamma_log_density(u: Array, lam: Array) -> Array:
    """Gamma with shape 1/lam and scale lam: mean 1, variance lam."""
    shape = 1 / lam
    return xlogy(shape - 1, u) - u / lam - gammaln(shape) - shape * np.log(lam)


def _beta_log_density(u: Array, lam: Array) -> Array:
    """Beta(a, a) with a = 1/(2 lam)."""
    a = 0.5 / lam
    return xlogy(a - 1, u) + xlog1py(a - 1, -u) - betaln(a, a)


def _inverse_gamma_log_density(u: Array, lam: Array) -> Array:
    """Inverse gamma with shape 1 + 1/lam and scale 1/lam: mean 1. (hglm has no likelihood for it.)"""
    shape = 1 + 1 / lam
    return -shape * np.log(lam) - gammaln(shape) - (shape + 1) * np.log(u) - 1 / (lam * u)


RANDOM_FAMILIES = {
    "gaussian": RandomFamily(0.0, np.ones_like, np.square, _normal_log_density),
    "Gamma": RandomFamily(1.0, lambda u: u, lambda u: 2 * (u - 1 - np.log(u)), _gamma_log_density),
    "Beta": RandomFamily(0.5, lambda u: u * (1 - u), lambda u: -np.log(4 * u * (1 - u)), _beta_log_density),
    "inverse.gamma": RandomFamily(1.0, np.square, lambda u: 2 * (np.log(u) + 1 / u - 1), _inverse_gamma_log_density),
}
