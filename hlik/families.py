"""Response families: exponential dispersion models on the mean mu, with dispersion phi and prior weights w.

| family | y | V(mu) | unit deviance d(y, mu) | phi in PyMC | w |
|---|---|---|---|---|---|
| Normal | real | 1 | (y - mu)^2 | sigma^2 | divides phi |
| Bernoulli | 0, 1 | mu (1 - mu) | as binomial | 1 | multiplies l |
| Binomial | proportion | mu (1 - mu) | 2 [y ln(y/mu) + (1 - y) ln((1 - y)/(1 - mu))] | 1 | number of trials |
| Poisson | 0, 1, 2, ... | mu | 2 [y ln(y/mu) - (y - mu)] | 1 | multiplies l |
| Gamma | positive | mu^2 | 2 [(y - mu)/mu - ln(y/mu)] | 1/alpha | divides phi |
| InverseGaussian | positive | mu^3 | (y - mu)^2/(mu^2 y) | 1/lam of Wald | divides phi |

In all of them l = s(y, phi, w) - w d/(2 phi): `saturated_log_density` and `unit_deviance`. "Divides phi": y
has the density with dispersion phi/w, as the mean of w observations has. Where phi = 1 by the model, another
phi asks for the extended quasi-likelihood l = s(y, 1, w) - ln(phi)/2 - w d/(2 phi).

Derivatives with respect to eta are taken from ln mu, ln(1 - mu) and powers of mu as functions of eta, which
links give in closed form: no factor overflows or cancels where the product does not.

References
----------
McCullagh, P. and Nelder, J. A. (1989). Generalized Linear Models, 2nd ed., sections 2.2-2.3 and 9.2.
Nelder, J. A. and Pregibon, D. (1987). An extended quasi-likelihood function. Biometrika 74, 221-232.
Jorgensen, B. (1997). The Theory of Dispersion Models, chapters 3-4.
Loader, C. (2000). Fast and accurate computation of binomial probabilities.
"""

from __future__ import annotations

import numpy as np

from hlik.binomial import Bernoulli, Binomial
from hlik.family_base import DispersionDerivatives, ResponseFamily, Values, Working, quasi, times, times_or_zero
from hlik.link_base import Link
from hlik.links import IDENTITY, INVERSE, INVERSE_SQUARED, LOG
from hlik.special import Array, quiet, relative_deviance, stirling_excess, stirling_excess_derivatives

__all__ = [
    "FAMILIES", "Bernoulli", "Binomial", "DispersionDerivatives", "Gamma", "InverseGaussian", "Normal",
    "Poisson", "ResponseFamily", "Working",
]  # fmt: skip


class Normal(ResponseFamily):
    """y ~ N(mu, phi/w)."""

    name = "normal"
    canonical_link = IDENTITY
    has_dispersion = True
    support = "finite real numbers"

    def variance(self, mu: Array) -> Array:
        return np.ones_like(mu, dtype=float)

    def variance_derivative(self, mu: Array) -> Array:
        return np.zeros_like(mu, dtype=float)

    def variance_derivative2(self, mu: Array) -> Array:
        return np.zeros_like(mu, dtype=float)

    @quiet
    def unit_deviance(self, y: Array, mu: Array) -> Array:
        return np.square(y - mu)

    @quiet
    def saturated_log_density(self, y: Array, phi: Values = 1.0, w: Values = 1.0) -> Array:
        value = -0.5 * np.log(2 * np.pi * np.divide(phi, w))
        return np.broadcast_to(value, np.broadcast_shapes(np.shape(y), np.shape(value)))

    @quiet
    def kernel_derivatives(self, y: Array, eta: Array, link: Link, order: int) -> tuple[Array, ...]:
        if link == IDENTITY:
            return super().kernel_derivatives(y, eta, link, order)
        mu, *m = link.inverse_derivatives(eta, order)
        residual = y - mu
        terms = [residual * m[0]]
        if order > 1:
            terms.append(residual * m[1] - m[0] * m[0])
        if order > 2:
            terms.append(residual * m[2] - 3 * m[0] * m[1])
        return tuple(terms)

    @quiet
    def _unit_working(self, y: Array, eta: Array, link: Link) -> tuple[Array, Array, Array]:
        mu, slope = link.inverse_derivatives(eta, 1)
        if link == IDENTITY:
            return mu, slope, y - mu
        return mu, slope * slope, (y - mu) * slope

    @quiet
    def _unit_weight_derivative(self, eta: Array, link: Link) -> Array:
        _, first, second = link.inverse_derivatives(eta, 2)
        return 2 * first * second

    def valid_mean(self, mu: Array) -> np.ndarray:
        return np.isfinite(mu)

    def in_support(self, y: Array, w: Values) -> np.ndarray:
        return np.isfinite(y)


class Poisson(ResponseFamily):
    """y ~ Poisson(mu); a weight w counts the observation w times. The kernel is y ln mu - mu."""

    name = "poisson"
    canonical_link = LOG
    has_dispersion = False
    support = "whole numbers >= 0"

    def variance(self, mu: Array) -> Array:
        return np.asarray(mu, dtype=float)

    def variance_derivative(self, mu: Array) -> Array:
        return np.ones_like(mu, dtype=float)

    def variance_derivative2(self, mu: Array) -> Array:
        return np.zeros_like(mu, dtype=float)

    @quiet
    def unit_deviance(self, y: Array, mu: Array) -> Array:
        return 2 * times_or_zero(y, relative_deviance(mu, y), mu)

    def saturated_log_density(self, y: Array, phi: Values = 1.0, w: Values = 1.0) -> Array:
        return quasi(-times(stirling_excess(y), w), phi)

    def kernel(self, y: Array, eta: Array, mu: Array, link: Link) -> Array:
        """With the log link y eta - mu."""
        return y * eta - mu if link == LOG else super().kernel(y, eta, mu, link)

    @quiet
    def kernel_derivatives(self, y: Array, eta: Array, link: Link, order: int) -> tuple[Array, ...]:
        if link == LOG:
            mu = np.exp(eta)
            return (y - mu, *(-mu,) * 2)[:order]
        log_mean, mean = link.log_mean_derivatives(eta, order), link.inverse_derivatives(eta, order)
        return tuple(y * a - m for a, m in zip(log_mean[1:], mean[1:], strict=True))

    @quiet
    def _unit_working(self, y: Array, eta: Array, link: Link) -> tuple[Array, Array, Array]:
        """With a = (ln mu)': weight mu' a, score (y - mu) a."""
        if link == LOG:
            mu = np.exp(eta)
            return mu, mu, y - mu
        mu, slope = link.inverse_derivatives(eta, 1)
        a = link.log_mean_derivatives(eta, 1)[1]
        return mu, slope * a, (y - mu) * a

    @quiet
    def _unit_weight_derivative(self, eta: Array, link: Link) -> Array:
        """The weight is mu' (ln mu)'."""
        _, a, a1 = link.log_mean_derivatives(eta, 2)
        _, m, m1 = link.inverse_derivatives(eta, 2)
        return m1 * a + m * a1

    def valid_mean(self, mu: Array) -> np.ndarray:
        return np.isfinite(mu) & np.greater_equal(mu, 0)

    def in_support(self, y: Array, w: Values) -> np.ndarray:
        return (y >= 0) & (y == np.rint(y))

    def initial_mean(self, y: Array, w: Values = 1.0) -> Array:
        return y + 0.1


class Gamma(ResponseFamily):
    """y ~ Gamma(shape w/phi, mean mu). The kernel is -y/mu - ln mu."""

    name = "gamma"
    canonical_link = INVERSE
    canonical_slope = -1.0
    has_dispersion = True
    support = "positive finite numbers"

    def variance(self, mu: Array) -> Array:
        return np.square(mu, dtype=float)

    def variance_derivative(self, mu: Array) -> Array:
        return 2 * np.asarray(mu, dtype=float)

    def variance_derivative2(self, mu: Array) -> Array:
        return np.full_like(mu, 2.0, dtype=float)

    def unit_deviance(self, y: Array, mu: Array) -> Array:
        return 2 * relative_deviance(y, mu)

    def saturated_log_density(self, y: Array, phi: Values = 1.0, w: Values = 1.0) -> Array:
        """Return a ln a - a - ln Gamma(a) - ln y for the shape a = w/phi."""
        shape = np.divide(w, phi)
        return np.log(shape) - stirling_excess(shape) - np.log(y)

    def saturated_dispersion_derivatives(self, y: Array, phi: Values = 1.0, w: Values = 1.0) -> tuple[Values, Values]:
        first, second = stirling_excess_derivatives(np.divide(w, phi))
        return first - 1, -second

    @quiet
    def kernel_derivatives(self, y: Array, eta: Array, link: Link, order: int) -> tuple[Array, ...]:
        log_mean = link.log_mean_derivatives(eta, order)
        reciprocal = link.mean_power_derivatives(eta, -1.0, order)
        return tuple(-y * r - a for a, r in zip(log_mean[1:], reciprocal[1:], strict=True))

    @quiet
    def _unit_working(self, y: Array, eta: Array, link: Link) -> tuple[Array, Array, Array]:
        """With a = (ln mu)': weight a^2, score (y/mu - 1) a."""
        mu, a = link.inverse(eta), link.log_mean_derivatives(eta, 1)[1]
        if link == LOG:
            return mu, a, y / mu - 1
        return mu, a * a, (y / mu - 1) * a

    @quiet
    def _unit_weight_derivative(self, eta: Array, link: Link) -> Array:
        _, a, a1 = link.log_mean_derivatives(eta, 2)
        return 2 * a * a1

    def valid_mean(self, mu: Array) -> np.ndarray:
        return np.isfinite(mu) & np.greater(mu, 0)

    def in_support(self, y: Array, w: Values) -> np.ndarray:
        return y > 0


class InverseGaussian(ResponseFamily):
    """y ~ inverse Gaussian (Wald) with mean mu and shape w/phi. The kernel is 1/mu - y/(2 mu^2)."""

    name = "inverse_gaussian"
    canonical_link = INVERSE_SQUARED
    canonical_slope = -0.5
    has_dispersion = True
    support = "positive finite numbers"

    def variance(self, mu: Array) -> Array:
        return np.asarray(mu, dtype=float) ** 3

    def variance_derivative(self, mu: Array) -> Array:
        return 3 * np.square(mu, dtype=float)

    def variance_derivative2(self, mu: Array) -> Array:
        return 6 * np.asarray(mu, dtype=float)

    @quiet
    def unit_deviance(self, y: Array, mu: Array) -> Array:
        return np.square((y - mu) / mu) / y

    def saturated_log_density(self, y: Array, phi: Values = 1.0, w: Values = 1.0) -> Array:
        return -0.5 * np.log(2 * np.pi * np.divide(phi, w)) - 1.5 * np.log(y)

    @quiet
    def kernel_derivatives(self, y: Array, eta: Array, link: Link, order: int) -> tuple[Array, ...]:
        reciprocal = link.mean_power_derivatives(eta, -1.0, order)
        squared = link.mean_power_derivatives(eta, -2.0, order)
        half = np.multiply(y, 0.5)
        return tuple(r - half * rr for r, rr in zip(reciprocal[1:], squared[1:], strict=True))

    @quiet
    def _unit_working(self, y: Array, eta: Array, link: Link) -> tuple[Array, Array, Array]:
        """With a = (ln mu)': weight a^2/mu, score (y/mu - 1) a/mu."""
        mu, a = link.inverse(eta), link.log_mean_derivatives(eta, 1)[1]
        b = a / mu
        return mu, a * b, (y / mu - 1) * b

    @quiet
    def _unit_weight_derivative(self, eta: Array, link: Link) -> Array:
        _, a, a1 = link.log_mean_derivatives(eta, 2)
        return (2 * a1 - a * a) * (a / link.inverse(eta))

    def valid_mean(self, mu: Array) -> np.ndarray:
        return np.isfinite(mu) & np.greater(mu, 0)

    def in_support(self, y: Array, w: Values) -> np.ndarray:
        return y > 0


FAMILIES: dict[str, ResponseFamily] = {
    family.name: family for family in (Normal(), Bernoulli(), Binomial(), Poisson(), Gamma(), InverseGaussian())
}
"""All families by name; the tests loop over them."""
