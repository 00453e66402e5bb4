r"""``Q(psi) = mean of h(v_m; psi)`` over draws of v, psi = (beta, theta), with exact derivatives, in chunks of draws.

The gradient is exact; the Hessian exact in beta, ``-X' mean(W) X``, and by central differences of the exact gradient in
theta. Parameters that stand in densities of random effects only are differenced there, without the responses.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from hlik.batch import Batch, columns_at_once
from hlik.hlikelihood import HLikelihood, stacked_weights

STEP = 1e-4  # of a central difference in theta, on the unconstrained scale; its error is about 1e-8 of the curvature
NUMBERS = 2_000_000  # of one array: 16 MB


class Expected:
    """Q of a set of equally weighted draws.

    Parameters
    ----------
    likelihood
        h of the model.
    columns
        Draws of v, shape (q, m).
    """

    def __init__(self, likelihood: HLikelihood, columns: np.ndarray):
        self.likelihood, self.columns, self.m = likelihood, columns, columns.shape[1]
        self.chunk = columns_at_once(likelihood, NUMBERS)
        cases = sum(term.n for term in likelihood.terms)
        self._case_sum = sp.csr_array(np.ones((1, cases)))
        self._level_sum = sp.csr_array(np.ones((1, likelihood.model.n_random)))

    def _chunks(self) -> Iterator[slice]:
        for start in range(0, self.m, self.chunk):
            yield slice(start, min(start + self.chunk, self.m))

    def values(self, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """h of every draw, shape (m,); -inf out of range."""
        parts = [Batch.at(self.likelihood, beta, self.columns[:, c], theta).total() for c in self._chunks()]
        return np.concatenate(parts)

    def scores(self, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """dh/dpsi of every draw, shape (p + r, m)."""
        parts = []
        for c in self._chunks():
            batch = Batch.at(self.likelihood, beta, self.columns[:, c], theta, order=1, with_theta=True)
            parts.append(batch.block_gradients(self._case_sum, self._level_sum)[:, 0])
        return np.concatenate(parts, axis=1)

    def block_moments(
        self, beta: np.ndarray, theta: np.ndarray, case_sums: sp.csr_array, level_sums: sp.csr_array
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means of the scores of every block, (p + r, B), and the sum over blocks of the means of their squares."""
        size, count = beta.size + theta.size, case_sums.shape[0]
        first, second = np.zeros((size, count)), np.zeros((size, size))
        chunk = max(1, min(self.chunk, NUMBERS // (size * count)))
        for start in range(0, self.m, chunk):
            v = self.columns[:, start : start + chunk]
            batch = Batch.at(self.likelihood, beta, v, theta, order=1, with_theta=True)
            found = batch.block_gradients(case_sums, level_sums)
            first += found.sum(axis=2) / self.m
            flat = found.reshape(size, -1)
            second += flat @ flat.T / self.m
        return first, second

    def gradient(self, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """dQ/dpsi, shape (p + r,)."""
        weight = np.full((1, 1), 1.0 / self.m)
        total = np.zeros(beta.size + theta.size)
        for c in self._chunks():
            batch = Batch.at(self.likelihood, beta, self.columns[:, c], theta, order=1, with_theta=True)
            total += batch.gradient(weight, weight)
        return total

    def derivatives(self, beta: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (p + r,) and Hessian (p + r, p + r) of Q."""
        p, r = beta.size, theta.size
        weight = np.full((1, 1), 1.0 / self.m)
        gradient, hessian = np.zeros(p + r), np.zeros((p + r, p + r))
        sums = [np.zeros(1) for _ in self.likelihood.terms]
        for c in self._chunks():
            batch = Batch.at(self.likelihood, beta, self.columns[:, c], theta, order=2, with_theta=True)
            gradient += batch.gradient(weight, weight)
            sums = [
                total + found.weight.sum(axis=2) / self.m for total, found in zip(sums, batch.responses, strict=True)
            ]
        if self.likelihood.terms:
            X = self.likelihood.X
            hessian[:p, :p] = -(X.T * stacked_weights(self.likelihood, sums)) @ X
        in_responses = self.in_responses(beta, theta)
        for k in range(r):
            ends = []
            for sign in (1.0, -1.0):
                moved = theta.copy()
                moved[k] += sign * STEP
                whole = in_responses[k]
                ends.append(self.gradient(beta, moved) if whole else self._effects_gradient(moved, p))
            hessian[:, p + k] = (ends[0] - ends[1]) / (2 * STEP)
        hessian[p:, :p] = hessian[:p, p:].T
        hessian[p:, p:] = 0.5 * (hessian[p:, p:] + hessian[p:, p:].T)
        return gradient, hessian

    def in_responses(self, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """Which elements of theta stand in a response, a predictor or an extra term of h, shape (r,)."""
        model = self.likelihood.model
        found = np.zeros(theta.size, dtype=bool)
        if model.theta_design is not None:
            found |= np.any(model.theta_design != 0, axis=0)
        shifted = theta + 0.0137 * np.arange(1, theta.size + 1)  # a slope may vanish at one point by chance
        for at in (theta, shifted):
            batch = Batch.at(self.likelihood, beta, self.columns[:, :1], at, order=1, with_theta=True)
            for part in batch.responses:
                for slope in part.dispersion_slopes:
                    found |= np.any(slope != 0, axis=0)
        return found

    def _effects_gradient(self, theta: np.ndarray, p: int) -> np.ndarray:
        """The part of dQ/dpsi that comes from the densities of the random effects."""
        model = self.likelihood.model
        total = np.zeros(theta.size)
        for c in self._chunks():
            v = self.columns[:, c]
            for effect, term in zip(model.random_effects, self.likelihood.random_terms, strict=True):
                found = term.cases(v[effect.index], theta, 1, True)
                for by_own, slope in zip(found.by_dispersion, found.dispersion_slopes, strict=True):
                    by_case = by_own.sum(axis=1) / self.m
                    total += by_case.sum() * slope[0] if slope.shape[0] == 1 else by_case @ slope
        return np.concatenate([np.zeros(p), total])
