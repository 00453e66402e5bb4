r"""``Q(psi) = mean of h(v_m; psi)`` over draws of v, psi = (beta, theta), with exact derivatives, in chunks of draws.

The draws may follow the fixed effects, ``v_m + A (beta - beta_0)`` (`hlik.importance_shift`): Q is then that of another
completion of the data, of which less is missing (Meng & van Dyk 1997), and the mean of dh/dpsi is free of most of its
noise.

The gradient is exact; the Hessian exact in beta, ``-X' mean(W) X`` with ``X + Z A`` for X, and by central differences
of the exact gradient in theta, and of the densities of the random effects in beta. Parameters that stand in such
densities only are differenced there, without the responses.

References
----------
Meng, X.-L. & van Dyk, D. (1997). The EM algorithm - an old folk-song sung to a fast new tune. JRSS B 59, 511-567.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from hlik.batch import Batch, columns_at_once
from hlik.hlikelihood import HLikelihood, stacked_weights
from hlik.importance_shift import Shift

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
    shift
        How they follow the fixed effects; None: they do not.
    """

    def __init__(self, likelihood: HLikelihood, columns: np.ndarray, shift: Shift | None = None):
        self.likelihood, self.columns, self.m = likelihood, columns, columns.shape[1]
        self.shift = shift
        self.chunk = columns_at_once(likelihood, NUMBERS)
        cases = sum(term.n for term in likelihood.terms)
        self._case_sum = sp.csr_array(np.ones((1, cases)))
        self._level_sum = sp.csr_array(np.ones((1, likelihood.model.n_random)))

    def _chunks(self) -> Iterator[slice]:
        for start in range(0, self.m, self.chunk):
            yield slice(start, min(start + self.chunk, self.m))

    def _batch(
        self, part: slice, beta: np.ndarray, theta: np.ndarray, order: int = 0, with_theta: bool = False
    ) -> Batch:
        """h of some of the draws."""
        return Batch.at(self.likelihood, beta, self._moved(part, beta), theta, order, with_theta)

    def _moved(self, part: slice, beta: np.ndarray) -> np.ndarray:
        v = self.columns[:, part]
        return v if self.shift is None else self.shift.moved(v, beta)

    def values(self, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """h of every draw, shape (m,); -inf out of range."""
        return np.concatenate([self._batch(part, beta, theta).total() for part in self._chunks()])

    def scores(self, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """dh/dpsi of every draw, shape (p + r, m)."""
        parts = [
            self._block_scores(part, beta, theta, self._case_sum, self._level_sum)[:, 0] for part in self._chunks()
        ]
        return np.concatenate(parts, axis=1)

    def _block_scores(
        self, part: slice, beta: np.ndarray, theta: np.ndarray, case_sums: sp.csr_array, level_sums: sp.csr_array
    ) -> np.ndarray:
        """dh_b/dpsi of some of the draws for every block b, shape (p + r, B, m)."""
        batch = self._batch(part, beta, theta, order=1, with_theta=True)
        found = batch.block_gradients(case_sums, level_sums)
        if self.shift is not None:
            found[: beta.size] += self.shift.block_gradients(batch, level_sums)
        return found

    def block_moments(
        self, beta: np.ndarray, theta: np.ndarray, case_sums: sp.csr_array, level_sums: sp.csr_array
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means of the scores of every block, (p + r, B), and the sum over blocks of the means of their squares."""
        size, count = beta.size + theta.size, case_sums.shape[0]
        first, second = np.zeros((size, count)), np.zeros((size, size))
        chunk = max(1, min(self.chunk, NUMBERS // (size * count)))
        for start in range(0, self.m, chunk):
            found = self._block_scores(slice(start, min(start + chunk, self.m)), beta, theta, case_sums, level_sums)
            first += found.sum(axis=2) / self.m
            flat = found.reshape(size, -1)
            second += flat @ flat.T / self.m
        return first, second

    def gradient(self, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """dQ/dpsi, shape (p + r,)."""
        total = np.zeros(beta.size + theta.size)
        for part in self._chunks():
            total += self._mean_gradient(self._batch(part, beta, theta, order=1, with_theta=True))
        return total

    def _mean_gradient(self, batch: Batch) -> np.ndarray:
        """The part of dQ/dpsi that comes from some of the draws."""
        weight = np.full((1, 1), 1.0 / self.m)
        found = batch.gradient(weight, weight)
        if self.shift is None:
            return found
        model = self.likelihood.model
        by_row = np.zeros(model.n_rows)
        for term, one in zip(self.likelihood.terms, batch.responses, strict=True):
            by_row[term.rows] += one.score.sum(axis=2).ravel() / self.m
        by_effect = np.asarray(model.Z.T @ by_row)
        for effect, one in zip(model.random_effects, batch.effects, strict=True):
            by_effect[effect.index] += one.score[0].sum(axis=1) / self.m
        found[: model.n_beta] += self.shift.slope.T @ by_effect
        return found

    def derivatives(self, beta: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (p + r,) and Hessian (p + r, p + r) of Q."""
        p, r = beta.size, theta.size
        gradient, hessian = np.zeros(p + r), np.zeros((p + r, p + r))
        sums = [np.zeros(1) for _ in self.likelihood.terms]
        for part in self._chunks():
            batch = self._batch(part, beta, theta, order=2, with_theta=True)
            gradient += self._mean_gradient(batch)
            sums = [
                total + found.weight.sum(axis=2) / self.m for total, found in zip(sums, batch.responses, strict=True)
            ]
        if self.likelihood.terms:
            X = self.likelihood.X if self.shift is None else self.shift.design(self.likelihood)
            hessian[:p, :p] = -(X.T * stacked_weights(self.likelihood, sums)) @ X
        if self.shift is not None:
            hessian[:p, :p] += self._effects_curvature(beta, theta)
        in_responses = self.in_responses(beta, theta)
        for k in range(r):
            ends = []
            for sign in (1.0, -1.0):
                moved = theta.copy()
                moved[k] += sign * STEP
                own = self.gradient if in_responses[k] else self._effects_gradient
                ends.append(own(beta, moved))
            hessian[:, p + k] = (ends[0] - ends[1]) / (2 * STEP)
        hessian[p:, :p] = hessian[:p, p:].T
        hessian[p:, p:] = 0.5 * (hessian[p:, p:] + hessian[p:, p:].T)
        return gradient, hessian

    def _effects_curvature(self, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """Second derivatives by beta of the random effects' densities at draws that follow it, (p, p)."""
        assert self.shift is not None
        p, found = beta.size, np.zeros((beta.size, beta.size))
        for k, largest in enumerate(np.abs(self.shift.slope).max(axis=0)):
            if largest > 0:
                move = STEP / largest * np.eye(p)[k]
                up, down = (self._effects_gradient(beta + way, theta)[:p] for way in (move, -move))
                found[:, k] = (up - down) / (2 * move[k])
        return 0.5 * (found + found.T)

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

    def _effects_gradient(self, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """The part of dQ/dpsi that comes from the densities of the random effects."""
        model = self.likelihood.model
        total, by_effect = np.zeros(theta.size), np.zeros(model.n_random)
        for part in self._chunks():
            v = self._moved(part, beta)
            for effect, term in zip(model.random_effects, self.likelihood.random_terms, strict=True):
                found = term.cases(v[effect.index], theta, 1, True)
                by_effect[effect.index] += found.score[0].sum(axis=1) / self.m
                for by_own, slope in zip(found.by_dispersion, found.dispersion_slopes, strict=True):
                    by_case = by_own.sum(axis=1) / self.m
                    total += by_case.sum() * slope[0] if slope.shape[0] == 1 else by_case @ slope
        by_beta = np.zeros(beta.size) if self.shift is None else self.shift.slope.T @ by_effect
        return np.concatenate([by_beta, total])
