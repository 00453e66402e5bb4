r"""What fixed effects, random effects and the rest contribute to the variance of a response, on the link scale.

Computed once, at the end of a fit, since it needs the design: a number and a gradient a component, whatever n is.

* fixed effects: the sample variance of ``x_i'beta`` over the observations (offset not counted);
* a random effect: the mean over the observations of ``Var(z_i'v)`` (Johnson 2014);
* the rest: the variance of the response around its mean on the link scale. phi for normal responses with identity link;
  pi^2/3, 1, pi^2/6 for binary and binomial ones with logit, probit, complementary log-log link; ``trigamma(mu/phi)``
  for Poisson with log link, ``trigamma(1/phi)`` for gamma; 1/4 for Poisson with square-root link (Nakagawa, Johnson &
  Schielzeth 2017). There mu is the mean response, averaged over the random effects as if they were normal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from scipy import special

from hlik.errors import ModelError
from hlik.inference.prior_variance import row_variance
from hlik.model import HierarchicalModel, RandomEffect, Response

BINARY = {"logit": np.pi**2 / 3, "probit": 1.0, "cloglog": np.pi**2 / 6, "loglog": np.pi**2 / 6}
DISPERSED = (("normal", "identity"), ("gamma", "log"))  # where the rest follows from phi
KEPT = 12  # row variances of so many theta
STEP = 1e-5  # of unconstrained theta, for central differences


def variance_components(
    model: HierarchicalModel, beta: np.ndarray, theta: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Components of every response.

    Returns
    -------
    names
        "fixed", the random effects, "residual"; K of them.
    variance
        Shape (responses, K); NaN where it is not known.
    gradient
        With respect to (beta, theta), shape (responses, K, p + r).
    """
    names = ["fixed", *(effect.name for effect in model.random_effects), "residual"]
    variance = np.full((len(model.responses), len(names)), np.nan)
    gradient = np.full((len(model.responses), len(names), beta.size + theta.size), np.nan)
    for number, response in enumerate(model.responses):
        if response.rows.stop - response.rows.start == response.size:
            variance[number], gradient[number] = _of_response(model, response, beta, theta)
    return names, variance, gradient


def _of_response(
    model: HierarchicalModel, response: Response, beta: np.ndarray, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    X = model.X[response.rows]
    parts = [Part(effect, sp.csr_array(model.Z[response.rows, effect.index])) for effect in model.random_effects]
    size = len(parts) + 2
    value, gradient = np.full(size, np.nan), np.zeros((size, beta.size + theta.size))
    centred = X - X.mean(axis=0)
    spread = centred.T @ centred / max(len(X) - 1, 1)
    value[0] = beta @ spread @ beta
    gradient[0, : beta.size] = 2 * spread @ beta
    for k, part in enumerate(parts, start=1):
        value[k] = part.mean(theta)
        gradient[k, beta.size :] = slopes(part.mean, theta)
    rest = _Residual(model, response, X, parts)
    value[-1], gradient[-1] = rest.value_and_gradient(beta, theta)
    return value, gradient


def slopes(function: Callable[[np.ndarray], float], x: np.ndarray) -> np.ndarray:
    """Gradient by central differences."""
    found = np.zeros(x.size)
    for k in range(x.size):
        step = np.zeros(x.size)
        step[k] = STEP * max(1.0, abs(x[k]))
        found[k] = (function(x + step) - function(x - step)) / (2 * step[k])
    return found


class Part:
    """Var(z'v) of one random effect; the squares of Z are summed once."""

    def __init__(self, effect: RandomEffect, Z: sp.csr_array):
        self.effect, self.Z = effect, Z
        self._rows: dict[bytes, np.ndarray] = {}
        self._weight = None if effect.family is None else np.asarray(Z.power(2).sum(axis=0)).ravel() / Z.shape[0]

    def mean(self, theta: np.ndarray) -> float:
        """Its mean over the rows; NaN where the density has no closed form here."""
        if self._weight is not None:
            unit = sp.csr_array(sp.eye_array(self.Z.shape[1], format="csr"))
            return float(self._weight @ row_variance(self.effect, unit, theta))
        return float(np.mean(self.rows(theta)))

    def rows(self, theta: np.ndarray) -> np.ndarray:
        """Row by row; the last ones are kept, as several sums ask for them."""
        key = theta.tobytes()
        if key not in self._rows:
            self._rows = dict(list(self._rows.items())[1 - KEPT :]) | {key: self._computed(theta)}
        return self._rows[key]

    def _computed(self, theta: np.ndarray) -> np.ndarray:
        try:
            return row_variance(self.effect, self.Z, theta)
        except ModelError:
            return np.full(self.Z.shape[0], np.nan)


class _Residual:
    """The variance of a response around its mean, on the link scale."""

    def __init__(self, model: HierarchicalModel, response: Response, X: np.ndarray, parts: list[Part]):
        self.response, self.X, self.parts = response, X, parts
        self.offset = model.offset[response.rows]
        self.kind = (response.family.name if response.family else "", response.link.name if response.link else "")

    def value_and_gradient(self, beta: np.ndarray, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Variance and its gradient by (beta, theta); NaN for families and links without a formula."""
        gradient = np.zeros(beta.size + theta.size)
        if self.kind == ("poisson", "log"):
            return self._poisson(beta, theta)
        gradient[beta.size :] = slopes(self._by_dispersion, theta) if self.kind in DISPERSED else 0.0
        return self._by_dispersion(theta), gradient

    def _by_dispersion(self, theta: np.ndarray) -> float:
        family, link = self.kind
        if family in ("binomial", "bernoulli"):
            return BINARY.get(link, np.nan)
        if self.kind == ("poisson", "sqrt"):
            return 0.25
        if self.kind not in DISPERSED:
            return np.nan
        variance = self._phi(theta) / self.response.weight
        return float(np.mean(variance if family == "normal" else special.polygamma(1, 1 / variance)))

    def _phi(self, theta: np.ndarray) -> np.ndarray:
        return np.ones(1) if self.response.dispersion is None else self.response.dispersion.value(theta)

    def _poisson(self, beta: np.ndarray, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """trigamma(m), ``m = mean(exp(x_i'beta + offset + Var(z_i'v) / 2)) / phi``, one pass over the rows."""
        mu = np.exp(self.offset + self.X @ beta + 0.5 * self._spread(theta))
        phi = float(np.mean(self._phi(theta)))
        mean, size = float(np.mean(mu)) / phi, mu.size

        def by_theta(other: np.ndarray) -> float:  # m to first order in the spread, whose difference counts alone
            return float(0.5 * mu @ self._spread(other)) / size / phi - mean * float(np.mean(self._phi(other))) / phi

        gradient = np.concatenate([self.X.T @ mu / size / phi, slopes(by_theta, theta)])
        return float(special.polygamma(1, mean)), float(special.polygamma(2, mean)) * gradient

    def _spread(self, theta: np.ndarray) -> np.ndarray:
        """Var(z'v), row by row."""
        return sum((part.rows(theta) for part in self.parts), np.zeros(self.X.shape[0]))
