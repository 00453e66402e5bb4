"""Random-effect families: densities of v, the scale on which effects enter the linear predictor linearly.

| family | u | v | k(v) | deviance(v) | E(u) | V_M(u) |
|---|---|---|---|---|---|---|
| Normal | N(0, lam) | u | -v^2/2 | v^2 | 0 | 1 |
| Gamma | Gamma(shape 1/lam, rate 1/lam) | ln u | v - exp(v) | 2 (u - 1 - ln u) | 1 | u |
| Beta | Beta(1/(2 lam), 1/(2 lam)) | logit u | (ln u + ln(1 - u))/2 | -ln(4 u (1 - u)) | 1/2 | u (1 - u) |
| InverseGamma | InvGamma(shape 1 + 1/lam, scale 1/lam) | 1/u | ln v - v | 2 (ln u + 1/u - 1) | 1 | u^2 |

The log density of v, Jacobian of u -> v included, is k(v)/lam + normaliser(lam), or without cancellation
peak(lam) - deviance(v)/(2 lam), where peak(lam) is the log density at the mode. As lam -> 0 all tend to a
normal density with variance lam/(-k''(mode)): lam, lam, 4 lam, lam.

The working weight (du/dv)^2/V_M(u) of the augmented model equals -k''(v) in all four: u, 1, u (1 - u), u^2.
Fisher scoring with the pseudo-response E(u) is therefore Newton's method on the h-likelihood of v.

References
----------
Lee, Y. and Nelder, J. A. (1996). Hierarchical generalized linear models. JRSS B 58, 619-678.
Lee, Y. and Nelder, J. A. (2001). Hierarchical generalised linear models: a synthesis. Biometrika 88,
987-1006.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np
from scipy import special as sc

from hlik.special import (
    Array,
    exp_remainder,
    quiet,
    relative_deviance,
    stirling_excess,
    stirling_excess_derivatives,
)
from hlik.stateless import Stateless

Values = Array | float


class RandomWorking(NamedTuple):
    """The random effects' share of one step, per effect and for lam = 1: divide both by lam."""

    weight: Array
    """(du/dv)^2/V_M(u) = -k''(v)."""
    score: Array
    """k'(v)."""


class RandomFamily(Stateless, ABC):
    """Density of v, with dispersion lam: log f(v) = k(v)/lam + normaliser(lam).

    A new family is one subclass with the abstract members. ``v`` and ``u`` are arrays of any shape; ``lam`` >
    0 is a number or an array that broadcasts against them. Nothing is checked here: see `valid`. Instances
    hold nothing and compare equal within a class.
    """

    name: ClassVar[str]
    scale: ClassVar[str]
    """The link from u to v: "identity", "log", "logit" or "inverse"."""
    mode: ClassVar[float]
    """v at the maximum of k."""
    kernel_at_mode: ClassVar[float]
    """The maximum of k."""

    # --- what a family must say -----------------------------------------------------------------------------

    @abstractmethod
    def u(self, v: Array) -> Array:
        """Return the random effect on its own scale."""

    @abstractmethod
    def v(self, u: Array) -> Array:
        """Return the random effect on the scale of the linear predictor."""

    @abstractmethod
    def kernel_derivatives(self, v: Array, order: int) -> tuple[Array, ...]:
        """Return (k, k', k'', k''')[: order + 1]."""

    @abstractmethod
    def deviance(self, v: Array) -> Array:
        """Return 2 (k(mode) - k(v)) >= 0, without cancellation near the mode."""

    @abstractmethod
    def peak_derivatives(self, lam: Values) -> tuple[Array, Array, Array]:
        """Return the log density at the mode and its first two derivatives with respect to log lam."""

    # --- what follows ---------------------------------------------------------------------------------------

    def valid(self, v: Array) -> np.ndarray:
        """Return where v is possible (bool)."""
        return np.isfinite(v)

    def kernel(self, v: Array) -> Array:
        """Return k(v)."""
        return self.kernel_derivatives(v, 0)[0]

    def working(self, v: Array) -> RandomWorking:
        """Return the expected working weight and the score, both for lam = 1."""
        _, first, second = self.kernel_derivatives(v, 2)
        return RandomWorking(-second, first)

    def log_density(self, v: Array, lam: Values) -> Array:
        """Return log f(v), normalised; -inf where v is impossible."""
        value = self.peak(lam) - self.deviance(v) / (2 * np.asarray(lam, dtype=float))
        return np.where(self.valid(v), value, -np.inf)

    def peak(self, lam: Values) -> Array:
        """Return the log density at the mode."""
        return self.peak_derivatives(lam)[0]

    def normaliser(self, lam: Values) -> Array:
        """Return log f(v) - k(v)/lam, which for small lam is of the size of 1/lam: prefer `peak` in sums."""
        return self.normaliser_derivatives(lam)[0]

    def normaliser_derivatives(self, lam: Values) -> tuple[Array, Array, Array]:
        """Return the normaliser and its first two derivatives with respect to log lam."""
        peak, first, second = self.peak_derivatives(lam)
        top = self.kernel_at_mode / np.asarray(lam, dtype=float)
        return peak - top, first + top, second - top


class Normal(RandomFamily):
    """v = u ~ N(0, lam)."""

    name = "normal"
    scale = "identity"
    mode = 0.0
    kernel_at_mode = 0.0

    def u(self, v: Array) -> Array:
        return np.asarray(v, dtype=float)

    def v(self, u: Array) -> Array:
        return np.asarray(u, dtype=float)

    def kernel_derivatives(self, v: Array, order: int) -> tuple[Array, ...]:
        v = np.asarray(v, dtype=float)
        terms = [-0.5 * v * v]
        if order > 0:
            terms.append(-v)
        if order > 1:
            terms.append(np.full_like(v, -1.0))
        if order > 2:
            terms.append(np.zeros_like(v))
        return tuple(terms)

    def deviance(self, v: Array) -> Array:
        return np.square(v, dtype=float)

    def peak_derivatives(self, lam: Values) -> tuple[Array, Array, Array]:
        lam = np.asarray(lam, dtype=float)
        return -0.5 * np.log(2 * np.pi * lam), np.full_like(lam, -0.5), np.zeros_like(lam)


def _gamma_peak(lam: Values) -> tuple[Array, Array, Array]:
    """Return a ln a - a - ln Gamma(a) at a = 1/lam, and derivatives with respect to log lam."""
    shape = 1 / np.asarray(lam, dtype=float)
    first, second = stirling_excess_derivatives(shape)
    return np.log(shape) - stirling_excess(shape), first - 1, -second


class Gamma(RandomFamily):
    """v = ln u, u ~ Gamma with mean 1 and variance lam; conjugate to Poisson responses with log link."""

    name = "gamma"
    scale = "log"
    mode = 0.0
    kernel_at_mode = -1.0

    @quiet
    def u(self, v: Array) -> Array:
        return np.exp(v)

    @quiet
    def v(self, u: Array) -> Array:
        return np.log(u)

    @quiet
    def kernel_derivatives(self, v: Array, order: int) -> tuple[Array, ...]:
        u = np.exp(v)
        terms = [v - u]
        if order > 0:
            terms.append(-np.expm1(v))
        return (*terms, *(-u,) * (order - 1))

    def deviance(self, v: Array) -> Array:
        return 2 * exp_remainder(v)

    def peak_derivatives(self, lam: Values) -> tuple[Array, Array, Array]:
        return _gamma_peak(lam)


class Beta(RandomFamily):
    """v = logit u, u ~ Beta(1/(2 lam), 1/(2 lam)); conjugate to binomial responses with logit link.

    In v it is symmetric about 0, with exponential tails of rate 1/(2 lam): Var(v) = 2 psi'(1/(2 lam)).
    """

    name = "beta"
    scale = "logit"
    mode = 0.0
    kernel_at_mode = -float(np.log(2))

    def u(self, v: Array) -> Array:
        return sc.expit(v)

    @quiet
    def v(self, u: Array) -> Array:
        return sc.logit(u)

    @quiet
    def kernel_derivatives(self, v: Array, order: int) -> tuple[Array, ...]:
        size = np.abs(v)
        e = np.exp(-size)
        terms = [-0.5 * size - np.log1p(e)]
        if order > 0:
            tanh = np.tanh(np.multiply(v, 0.5))
            terms.append(-0.5 * tanh)
        if order > 1:
            terms.append(-e / (1 + e) ** 2)
        if order > 2:
            terms.append(-terms[2] * tanh)
        return tuple(terms)

    @quiet
    def deviance(self, v: Array) -> Array:
        """Return 2 ln cosh(v/2)."""
        size = np.abs(v)
        near = np.log1p(np.sinh(0.5 * np.minimum(size, 2.0)) ** 2)
        return np.where(size < 2, near, size + 2 * np.log1p(np.exp(-size)) - 2 * np.log(2))

    def peak_derivatives(self, lam: Values) -> tuple[Array, Array, Array]:
        """-2 a ln 2 - ln B(a, a) at a = 1/(2 lam)."""
        a = 0.5 / np.asarray(lam, dtype=float)
        once, twice = stirling_excess_derivatives(a), stirling_excess_derivatives(2 * a)
        value = stirling_excess(2 * a) - 2 * stirling_excess(a) + np.log(0.5 * a)
        return value, 2 * once[0] - twice[0] - 1, twice[1] - 2 * once[1]


class InverseGamma(RandomFamily):
    """v = 1/u, u ~ inverse gamma: mean 1, variance lam/(1 - lam) for lam < 1; conjugate to Gamma responses.

    v itself is Gamma(shape 1 + 1/lam, rate 1/lam), with mode 1 and mean 1 + lam.
    """

    name = "inverse_gamma"
    scale = "inverse"
    mode = 1.0
    kernel_at_mode = -1.0

    @quiet
    def u(self, v: Array) -> Array:
        return 1 / np.asarray(v, dtype=float)

    @quiet
    def v(self, u: Array) -> Array:
        return 1 / np.asarray(u, dtype=float)

    def valid(self, v: Array) -> np.ndarray:
        return np.isfinite(v) & np.greater(v, 0)

    @quiet
    def kernel_derivatives(self, v: Array, order: int) -> tuple[Array, ...]:
        v = np.asarray(v, dtype=float)
        terms = [np.log(v) - v]
        if order > 0:
            terms.append((1 - v) / v)
        if order > 1:
            terms.append(-1 / (v * v))
        if order > 2:
            terms.append(-2 * terms[2] / v)
        return tuple(terms)

    def deviance(self, v: Array) -> Array:
        return 2 * relative_deviance(v, 1.0)

    def peak_derivatives(self, lam: Values) -> tuple[Array, Array, Array]:
        return _gamma_peak(lam)


RANDOM_FAMILIES: dict[str, RandomFamily] = {
    family.name: family for family in (Normal(), Gamma(), Beta(), InverseGamma())
}
"""All families by name; the tests loop over them."""
