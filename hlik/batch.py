r"""h at many values of the random effects at once: what quadrature and Monte Carlo methods sum over.

m columns of v give m columns of eta = X beta + Z v + T theta + offset, and every term of h its log densities *case by
case*: an observation is a case of its response, a level a case of its random effect. A structured term, whose density
does not split into levels, gives each level its share of the quadratic form. Weighted sums over cases and columns then
give values and gradients of any importance-sampling or quadrature rule whose weights may differ from block to block.

Memory: arrays of shape (N, m); `columns_at_once` says how many columns keep them below a bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hlik.hlikelihood import HLikelihood
from hlik.terms import Cases

MAX_NUMBERS = 10_000_000  # of one array: 80 MB


@dataclass(frozen=True, eq=False)
class Batch:
    """h at m values of v, by term.

    Attributes
    ----------
    responses
        `Cases` of every response and extra term, in the order of ``likelihood.terms``.
    effects
        `Cases` of every random effect.
    """

    likelihood: HLikelihood
    responses: tuple[Cases, ...]
    effects: tuple[Cases, ...]

    @classmethod
    def at(
        cls,
        likelihood: HLikelihood,
        beta: np.ndarray,
        v: np.ndarray,
        theta: np.ndarray,
        order: int = 0,
        with_theta: bool = False,
    ) -> Batch:
        """h at the columns of `v` (q, m); `order` 1 adds scores, 2 observed weights, `with_theta` derivatives by theta.

        The derivatives of h in beta and theta need ``order=1, with_theta=True``.
        """
        eta = predictors(likelihood, beta, v, theta)
        responses = tuple(term.cases(eta, theta, order, with_theta) for term in likelihood.terms)
        effects = tuple(
            term.cases(v[effect.index], theta, order, with_theta)
            for effect, term in zip(likelihood.model.random_effects, likelihood.random_terms, strict=True)
        )
        return cls(likelihood, responses, effects)

    def case_values(self) -> np.ndarray:
        """Log density of every case of every response and extra term, shape (cases, m)."""
        return _stacked([found.value for found in self.responses])

    def level_values(self) -> np.ndarray:
        """Log density of every level of every random effect, shape (q, m)."""
        return _stacked([found.value for found in self.effects])

    def total(self) -> np.ndarray:
        """h of every column, shape (m,); -inf out of range."""
        total = np.zeros(1) + sum(found.value.sum(axis=0) for found in (*self.responses, *self.effects))
        return np.where(np.isnan(total), -np.inf, total)

    def gradient(self, case_weight: np.ndarray, level_weight: np.ndarray) -> np.ndarray:
        """``sum weight * d(log density)/d(beta, theta)`` over cases, levels and columns, shape (p + r,).

        Parameters
        ----------
        case_weight
            Shape (cases, m), or (1, m) for weights by column only.
        level_weight
            Shape (q, m), or (1, m).
        """
        model = self.likelihood.model
        eta_part = np.zeros(model.n_rows)
        theta_part = np.zeros(model.n_theta)
        start = 0
        for term, found in zip(self.likelihood.terms, self.responses, strict=True):
            weight = case_weight if case_weight.shape[0] == 1 else case_weight[start : start + term.n]
            eta_part[term.rows] = np.einsum("knm,nm->kn", found.score, _full(weight, found)).ravel()
            theta_part += _through(found, weight)
            start += term.n
        for effect, found in zip(model.random_effects, self.effects, strict=True):
            weight = level_weight if level_weight.shape[0] == 1 else level_weight[effect.index]
            theta_part += _through(found, weight)
        if model.theta_design is not None:
            theta_part += model.theta_design.T @ eta_part
        return np.concatenate([model.X.T @ eta_part, theta_part])

    def block_gradients(self, case_block: sp.csr_array, level_block: sp.csr_array) -> np.ndarray:
        """Derivatives by (beta, theta) of the log density of every block in every column, shape (p + r, blocks, m).

        Parameters
        ----------
        case_block, level_block
            Sums over blocks: 0-1 matrices of shapes (blocks, cases) and (blocks, q).
        """
        model = self.likelihood.model
        rows = [] if model.theta_design is None else [model.theta_design]
        design = np.hstack([model.X, *rows])
        p, r = model.n_beta, model.n_theta
        m = self.total().size
        result = np.zeros((p + r, case_block.shape[0], m))
        targets = [*range(p), *range(p, p + r)][: design.shape[1]]
        start = 0
        for term, found in zip(self.likelihood.terms, self.responses, strict=True):
            sums = sp.csr_array(case_block[:, start : start + term.n])
            by_row = design[term.rows].reshape(term.n_predictors, term.n, -1)
            for column, target in enumerate(targets):
                own = by_row[:, :, column]
                if np.any(own):
                    result[target] += sums @ np.einsum("kn,knm->nm", own, found.score)
            _add_dispersions(result[p:], sums, found)
            start += term.n
        for effect, found in zip(model.random_effects, self.effects, strict=True):
            _add_dispersions(result[p:], sp.csr_array(level_block[:, effect.index]), found)
        return result


def predictors(likelihood: HLikelihood, beta: np.ndarray, v: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """eta at the columns of v, shape (N, m)."""
    model = likelihood.model
    fixed = model.offset + model.X @ beta
    if model.theta_design is not None:
        fixed = fixed + model.theta_design @ theta
    return fixed[:, None] + (model.Z @ v if v.shape[0] else np.zeros((1, v.shape[1])))


def columns_at_once(likelihood: HLikelihood, limit: int = MAX_NUMBERS) -> int:
    """How many columns of v keep every array of a `Batch` below `limit` numbers."""
    widest = max((term.n * max(term.n_predictors, 1) for term in likelihood.terms), default=1)
    return max(1, limit // max(widest, likelihood.model.n_rows, likelihood.model.n_random, 1))


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    if not parts:
        return np.zeros((0, 1))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _full(weight: np.ndarray, found: Cases) -> np.ndarray:
    return np.broadcast_to(weight, found.value.shape)


def _through(found: Cases, weight: np.ndarray) -> np.ndarray | float:
    """``sum weight * d(log density)/d theta`` of a term, shape (r,)."""
    total: np.ndarray | float = 0.0
    for by_own, slope in zip(found.by_dispersion, found.dispersion_slopes, strict=True):
        by_case = np.einsum("nm,nm->n", by_own, _full(weight, found))
        total = total + (by_case.sum() * slope[0] if slope.shape[0] == 1 else by_case @ slope)
    return total


def _add_dispersions(result: np.ndarray, sums: sp.csr_array, found: Cases) -> None:
    """Add a term's derivatives by theta, summed over blocks, to `result` (r, blocks, m)."""
    for by_own, slope in zip(found.by_dispersion, found.dispersion_slopes, strict=True):
        if slope.shape[0] == 1:
            by_block = sums @ by_own
            for k in np.flatnonzero(slope[0]):
                result[k] += slope[0, k] * by_block
        else:
            for k in np.flatnonzero(np.any(slope != 0, axis=0)):
                result[k] += sums @ (slope[:, k, None] * by_own)
