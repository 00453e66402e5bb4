"""Links for means on the line or the half-line: powers of the mean and its logarithm (see `hlik.links`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import special as sc

from hlik.link_base import Derivatives, Link, constants
from hlik.special import Array, log1mexp, quiet


def _power_derivatives(x: Array, value: Array, power: float, order: int) -> Derivatives:
    """Derivatives of value = x^power, each from the one before."""
    terms = [value]
    for k in range(order):
        if power == k:
            return (*terms, *constants(np.shape(x), *([0.0] * (order - k))))
        if power == k + 1:
            terms.append(constants(np.shape(x), float(sc.factorial(k + 1)))[0])
        else:
            terms.append(terms[-1] * (power - k) / x)
    return tuple(terms)


class _PowerLink(Link):
    """eta = mu^exponent, so mu = eta^(1/exponent) and any power of mu is a power of eta."""

    domain = "eta > 0"
    exponent: ClassVar[float]

    @quiet
    def link(self, mu: Array) -> Array:
        return np.asarray(mu, dtype=float) ** self.exponent

    @quiet
    def inverse(self, eta: Array) -> Array:
        return np.asarray(eta, dtype=float) ** (1 / self.exponent)

    @quiet
    def inverse_derivatives(self, eta: Array, order: int) -> Derivatives:
        return _power_derivatives(eta, self.inverse(eta), 1 / self.exponent, order)

    def valid_eta(self, eta: Array) -> np.ndarray:
        return np.isfinite(eta) & (np.asarray(eta) > 0)

    @quiet
    def log_mean_derivatives(self, eta: Array, order: int) -> Derivatives:
        eta = np.asarray(eta, dtype=float)
        terms = [np.log(eta) / self.exponent]
        if order > 0:
            terms.append(1 / (self.exponent * eta))
        for k in range(1, order):
            terms.append(terms[-1] * -k / eta)
        return tuple(terms)

    @quiet
    def mean_power_derivatives(self, eta: Array, power: float, order: int) -> Derivatives:
        power = power / self.exponent
        return _power_derivatives(eta, np.asarray(eta, dtype=float) ** power, power, order)


@dataclass(frozen=True)
class Identity(_PowerLink):
    """eta = mu."""

    name = "identity"
    domain = "any real eta that is a valid mean of the family"
    exponent = 1.0

    def link(self, mu: Array) -> Array:
        return np.asarray(mu, dtype=float)

    def inverse(self, eta: Array) -> Array:
        return np.asarray(eta, dtype=float)

    def valid_eta(self, eta: Array) -> np.ndarray:
        return np.isfinite(eta)

    @quiet
    def log_complement_derivatives(self, eta: Array, order: int) -> Derivatives:
        terms = [np.log1p(-eta), -1 / (1 - eta)]
        for k in range(1, order):
            terms.append(terms[-1] * k / (1 - eta))
        return tuple(terms[: order + 1])


@dataclass(frozen=True)
class Inverse(_PowerLink):
    """eta = 1/mu, canonical for the Gamma family (theta = -eta)."""

    name = "inverse"
    exponent = -1.0


@dataclass(frozen=True)
class Sqrt(_PowerLink):
    """eta = sqrt(mu), which makes the working weight of Poisson data constant."""

    name = "sqrt"
    exponent = 0.5


@dataclass(frozen=True)
class InverseSquared(_PowerLink):
    """eta = 1/mu^2, canonical for the inverse Gaussian family (theta = -eta/2)."""

    name = "inverse_squared"
    exponent = -2.0

    @quiet
    def inverse(self, eta: Array) -> Array:
        return 1 / np.sqrt(eta)


@dataclass(frozen=True)
class Log(Link):
    """eta = ln mu, canonical for the Poisson family."""

    name = "log"

    @quiet
    def link(self, mu: Array) -> Array:
        return np.log(mu)

    @quiet
    def inverse_derivatives(self, eta: Array, order: int) -> Derivatives:
        return (np.exp(eta),) * (order + 1)

    def complement(self, eta: Array) -> Array:
        return -np.expm1(eta)

    def log_mean_derivatives(self, eta: Array, order: int) -> Derivatives:
        eta = np.asarray(eta, dtype=float)
        return (eta, *constants(eta.shape, 1.0, 0.0, 0.0))[: order + 1]

    @quiet
    def log_complement_derivatives(self, eta: Array, order: int) -> Derivatives:
        odds = 1 / np.expm1(-np.asarray(eta, dtype=float))
        second = -odds * (1 + odds)
        return (log1mexp(eta), -odds, second, second * (1 + 2 * odds))[: order + 1]

    @quiet
    def mean_power_derivatives(self, eta: Array, power: float, order: int) -> Derivatives:
        value = np.exp(power * np.asarray(eta, dtype=float))
        return tuple(value if power == 1 or k == 0 else power**k * value for k in range(order + 1))
