"""Links for probabilities: the mean is a distribution function of eta (see `hlik.links`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special as sc

from hlik.link_base import Derivatives, Link
from hlik.special import Array, exp_remainder, log_ndtr_derivatives, quiet


class SymmetricLink(Link):
    """A distribution function with F(-eta) = 1 - F(eta): what holds for mu holds for 1 - mu, mirrored."""

    def complement(self, eta: Array) -> Array:
        return self.inverse(-np.asarray(eta))

    def log_complement_derivatives(self, eta: Array, order: int) -> Derivatives:
        return _mirror(self.log_mean_derivatives(-np.asarray(eta), order))


def _mirror(f: Derivatives) -> Derivatives:
    """Derivatives of f(-eta) from those of f at -eta."""
    return tuple(term if k % 2 == 0 else -term for k, term in enumerate(f))


@dataclass(frozen=True)
class Logit(SymmetricLink):
    """eta = ln(mu/(1 - mu)), canonical for the Bernoulli and binomial families."""

    name = "logit"

    @quiet
    def link(self, mu: Array) -> Array:
        return sc.logit(mu)

    def inverse(self, eta: Array) -> Array:
        return sc.expit(eta)

    @quiet
    def inverse_derivatives(self, eta: Array, order: int) -> Derivatives:
        if order == 0:
            return (self.inverse(eta),)
        e = np.exp(-np.abs(eta))
        small = e / (1 + e)
        product = small / (1 + e)
        terms = [np.where(np.greater_equal(eta, 0), 1 - small, small), product]
        if order > 1:
            terms.append(product * -np.tanh(np.multiply(eta, 0.5)))
        if order > 2:
            terms.append(product * (1 - 6 * product))
        return tuple(terms)

    @quiet
    def log_mean_derivatives(self, eta: Array, order: int) -> Derivatives:
        value = sc.log_expit(eta)
        if order == 0:
            return (value,)
        terms = self.inverse_derivatives(eta, order - 1)[1:]
        return (value, self.complement(eta), *(-term for term in terms))


@dataclass(frozen=True)
class Probit(SymmetricLink):
    """eta = Phi^-1(mu)."""

    name = "probit"

    def link(self, mu: Array) -> Array:
        return sc.ndtri(mu)

    def inverse(self, eta: Array) -> Array:
        return sc.ndtr(eta)

    @quiet
    def inverse_derivatives(self, eta: Array, order: int) -> Derivatives:
        mu = self.inverse(eta)
        if order == 0:
            return (mu,)
        eta = np.asarray(eta, dtype=float)
        density = np.exp(-0.5 * eta**2) / np.sqrt(2 * np.pi)
        if order == 1:
            return mu, density
        return (mu, density, -eta * density, (eta**2 - 1) * density)[: order + 1]

    def log_mean_derivatives(self, eta: Array, order: int) -> Derivatives:
        return log_ndtr_derivatives(np.asarray(eta, dtype=float), order)


@dataclass(frozen=True)
class Cauchit(SymmetricLink):
    """eta = tan(pi (mu - 1/2))."""

    name = "cauchit"

    @quiet
    def link(self, mu: Array) -> Array:
        tail = np.minimum(mu, 1 - np.asarray(mu))
        centre = np.asarray(mu) - 0.5
        return np.where(tail < 0.25, np.sign(centre) / np.tan(np.pi * tail), np.tan(np.pi * centre))

    def inverse(self, eta: Array) -> Array:
        return np.arctan2(1.0, -np.asarray(eta, dtype=float)) / np.pi

    @quiet
    def inverse_derivatives(self, eta: Array, order: int) -> Derivatives:
        eta = np.asarray(eta, dtype=float)
        first = 1 / (np.pi * (1 + eta**2))
        second = -2 * eta * np.pi * first**2
        third = (6 * eta**2 - 2) * np.pi**2 * first**3
        return (self.inverse(eta), first, second, third)[: order + 1]

    @quiet
    def log_mean_derivatives(self, eta: Array, order: int) -> Derivatives:
        value, *slopes = super().log_mean_derivatives(eta, order)
        return (np.where(np.greater(eta, 0), np.log1p(-self.complement(eta)), value), *slopes)


# Beyond these exp(-z) and z exp(-z) are 0 in double precision, while z^2 or z itself would overflow.
Z_NEGLIGIBLE = 1e3
ETA_OVERFLOW = 709.0


@dataclass(frozen=True)
class CLogLog(Link):
    """eta = ln(-ln(1 - mu)), with z = exp(eta) = -ln(1 - mu)."""

    name = "cloglog"

    @quiet
    def link(self, mu: Array) -> Array:
        return np.log(-np.log1p(-np.asarray(mu, dtype=float)))

    @quiet
    def inverse(self, eta: Array) -> Array:
        return -np.expm1(-np.exp(eta))

    @quiet
    def inverse_derivatives(self, eta: Array, order: int) -> Derivatives:
        z = np.exp(eta)
        mu = -np.expm1(-z)
        if order == 0:
            return (mu,)
        first = np.exp(eta - z)
        z = np.minimum(z, Z_NEGLIGIBLE)
        one_minus_z = -np.expm1(np.minimum(eta, np.log(Z_NEGLIGIBLE)))
        return (mu, first, first * one_minus_z, first * (one_minus_z**2 - z))[: order + 1]

    @quiet
    def complement(self, eta: Array) -> Array:
        return np.exp(-np.exp(eta))

    @quiet
    def log_mean_derivatives(self, eta: Array, order: int) -> Derivatives:
        """With a = z/(exp(z) - 1) and c = (1 - a) - z: (ln mu)' = a, '' = a c, ''' = a (c^2 - a c - z)."""
        eta = np.asarray(eta, dtype=float)
        z = np.minimum(np.exp(eta), Z_NEGLIGIBLE)
        value = np.where(eta > 0, np.log1p(-np.exp(-z)), eta + np.log(sc.exprel(-z)))
        if order == 0:
            return (value,)
        a = 1 / sc.exprel(z)
        if order == 1:
            return value, a
        z_moderate = np.minimum(z, 500.0)  # (1 - a) is 1 from about z = 40 on
        one_minus_a = np.where(z == 0, 0.0, exp_remainder(z_moderate) / np.expm1(z_moderate))
        c = one_minus_a - z
        return (value, a, a * c, a * (c * c - a * c - z))[: order + 1]

    @quiet
    def log_complement_derivatives(self, eta: Array, order: int) -> Derivatives:
        """Return -z for ln(1 - mu) and each derivative, held finite beyond eta = 709 so that 0 z is 0."""
        return (-np.exp(np.minimum(eta, ETA_OVERFLOW)),) * (order + 1)


CLOGLOG = CLogLog()


@dataclass(frozen=True)
class LogLog(Link):
    """eta = -ln(-ln mu): the complementary log-log link for 1 - mu and -eta."""

    name = "loglog"

    @quiet
    def link(self, mu: Array) -> Array:
        return -np.log(-np.log(mu))

    @quiet
    def inverse(self, eta: Array) -> Array:
        return CLOGLOG.complement(-np.asarray(eta))

    @quiet
    def inverse_derivatives(self, eta: Array, order: int) -> Derivatives:
        _, *slopes = CLOGLOG.inverse_derivatives(-np.asarray(eta), order)
        mirrored = (slope if k % 2 == 0 else -slope for k, slope in enumerate(slopes))
        return (self.inverse(eta), *mirrored)

    def complement(self, eta: Array) -> Array:
        return CLOGLOG.inverse(-np.asarray(eta))

    def log_mean_derivatives(self, eta: Array, order: int) -> Derivatives:
        return _mirror(CLOGLOG.log_complement_derivatives(-np.asarray(eta), order))

    def log_complement_derivatives(self, eta: Array, order: int) -> Derivatives:
        return _mirror(CLOGLOG.log_mean_derivatives(-np.asarray(eta), order))
