"""What a link is: the interface, and what follows from the inverse and its derivatives (see `hlik.links`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from hlik.special import Array, quiet

Derivatives = tuple[Array, ...]
"""A function and its derivatives with respect to eta, from the 0th up to the order asked for (at most 3)."""


class Link(ABC):
    """A link eta = g(mu). A new one needs `name`, `link` and `inverse_derivatives`; the rest follows.

    The methods with `log` in the name are overridden where mu or 1 - mu rounds to 0 or 1 long before their
    logarithms stop to matter: log-likelihoods of binomial data are sums of ln mu and ln(1 - mu).
    """

    name: ClassVar[str]
    domain: ClassVar[str] = "any real eta"

    @abstractmethod
    def link(self, mu: Array) -> Array:
        """Return eta = g(mu)."""

    @abstractmethod
    def inverse_derivatives(self, eta: Array, order: int) -> Derivatives:
        """Return (mu, dmu/deta, d2mu/deta2, d3mu/deta3)[: order + 1]."""

    def inverse(self, eta: Array) -> Array:
        """Return mu = g^-1(eta)."""
        return self.inverse_derivatives(eta, 0)[0]

    def valid_eta(self, eta: Array) -> np.ndarray:
        """Return where eta is finite and inside the domain (bool, shape of eta)."""
        return np.isfinite(eta)

    def complement(self, eta: Array) -> Array:
        """Return 1 - mu, accurate also where mu rounds to 1."""
        return 1 - self.inverse(eta)

    @quiet
    def log_mean_derivatives(self, eta: Array, order: int) -> Derivatives:
        """Return ln mu and its derivatives with respect to eta."""
        return _log_chain(self.inverse_derivatives(eta, order))

    @quiet
    def log_complement_derivatives(self, eta: Array, order: int) -> Derivatives:
        """Return ln(1 - mu) and its derivatives with respect to eta."""
        mu, *slopes = self.inverse_derivatives(eta, order)
        complement = self.complement(eta)
        value = np.where(mu < 0.5, np.log1p(-mu), np.log(complement))
        return (value, *_log_chain((complement, *(-slope for slope in slopes)))[1:])

    @quiet
    def mean_power_derivatives(self, eta: Array, power: float, order: int) -> Derivatives:
        """Return mu^power and its derivatives with respect to eta."""
        log_mean = self.log_mean_derivatives(eta, order)
        a = tuple(power * term for term in log_mean)
        value = np.exp(a[0])
        terms = [value]
        if order > 0:
            terms.append(a[1] * value)
        if order > 1:
            terms.append((a[1] ** 2 + a[2]) * value)
        if order > 2:
            terms.append((a[1] ** 3 + 3 * a[1] * a[2] + a[3]) * value)
        return tuple(terms)


def _log_chain(f: Derivatives) -> Derivatives:
    """Derivatives of ln f from those of f."""
    terms = [np.log(f[0])]
    if len(f) > 1:
        terms.append(f[1] / f[0])
    if len(f) > 2:
        terms.append(f[2] / f[0] - terms[1] ** 2)
    if len(f) > 3:
        terms.append(f[3] / f[0] - 3 * terms[1] * terms[2] - terms[1] ** 3)
    return tuple(terms)


def constants(shape: tuple[int, ...], *values: float) -> Derivatives:
    """Read-only arrays of one value each, without memory."""
    return tuple(np.broadcast_to(np.float64(value), shape) for value in values)
