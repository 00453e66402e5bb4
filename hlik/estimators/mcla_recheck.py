r"""Whether the maximum of a sampled likelihood can be believed: a second opinion from draws made at the estimate.

A proposal that stays far from the maximum of the likelihood misses part of the effects' distribution there; the sampled
likelihood is then too low and too steep at the true maximum, and has its own maximum nearer to the proposal, where the
weights look well behaved. Neither Pareto k nor the spread between randomisations shows it. With the gradient g and the
Hessian -J of the likelihood at the estimate from independent draws of a proposal made there, ``e = J^-1 g`` is the way
that is left to the true maximum. If the estimate had its stated Monte Carlo covariance M, and e the error C of the
second draws, ``a = e' (M + C)^-1 e`` would have mean p, the number of parameters. The covariance reported is

.. math:: M + \max(0, 1 - p / a)\, e e',

which leaves M as it is where it is honest, and takes the distance itself where it is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from hlik.importance import ImportanceLikelihood
from hlik.importance_diagnostics import Weights, weights_at
from hlik.importance_maximum import Maximum, at_maximum

BELIEVED = 1 - 1e-4  # probability of the chi-squared quantile beyond which the stated error is not believed


@dataclass(frozen=True, eq=False)
class Recheck:
    """A second opinion on a maximum.

    Attributes
    ----------
    second
        What the independent draws say of the same psi.
    active
        Which elements of psi the search moves, (p + r,).
    step
        e, the way left to the maximum, (p + r,); zero for elements that are not active.
    surprise
        a, squared length of e in the Monte Carlo errors of both.
    weights
        Of the independent draws.
    """

    second: Maximum
    active: np.ndarray
    step: np.ndarray
    surprise: float
    weights: Weights

    @classmethod
    def of(cls, likelihood: ImportanceLikelihood, first: Maximum) -> Recheck:
        """Of a maximum, by the likelihood of independent draws."""
        active = np.isfinite(np.diag(first.covariance))
        second = at_maximum(likelihood, first.psi, active)
        part = np.ix_(active, active)
        step = np.zeros(first.psi.size)
        step[active] = second.covariance[part] @ second.derivatives.gradient[active]
        both = (first.mcse + second.mcse)[part]
        surprise = float(step[active] @ np.linalg.pinv(both, hermitian=True) @ step[active])
        return cls(second, active, step, surprise, weights_at(likelihood, first.psi))

    @property
    def is_reliable(self) -> bool:
        """Whether the second opinion itself can be trusted."""
        return self.weights.are_reliable and bool(np.all(np.isfinite(self.step)))

    def corrected(self, first: Maximum) -> Maximum:
        """The maximum with honest Monte Carlo errors, and with standard errors by the second Hessian."""
        count = int(self.active.sum())
        share = max(0.0, 1.0 - count / self.surprise) if self.surprise > 0 else 0.0
        gap = first.value - self.second.value
        spread = first.value_mcse**2 + self.second.value_mcse**2
        return replace(
            first,
            covariance=self.second.covariance,
            mcse=first.mcse + share * np.outer(self.step, self.step),
            value_mcse=float(np.sqrt(first.value_mcse**2 + max(0.0, gap**2 - spread))),
        )

    def distance(self) -> float:
        """The largest way left, in standard errors."""
        error = np.sqrt(np.diag(self.second.covariance))[self.active]
        return float(np.max(np.abs(self.step[self.active]) / error, initial=0.0))

    def failure(self, tolerated: float) -> str | None:
        """That the maximum is not one of the likelihood, where it is farther away than `tolerated` standard errors."""
        count, distance = int(self.active.sum()), self.distance()
        if distance <= tolerated or self.surprise <= stats.chi2.ppf(BELIEVED, max(count, 1)):
            return None
        return (
            "stopped: importance sampling with proposal='glmm' fails here: independent draws from a proposal made at "
            f"the estimate put the maximum of the likelihood {distance:.2f} standard errors away: "
            "use proposal='laplace'"
        )
