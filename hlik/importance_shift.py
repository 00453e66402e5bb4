r"""Draws that follow the fixed effects: ``v(beta) = v + A (beta - beta_0)``, with A the slope of the conditional mode.

A translation has Jacobian one, so that the weights ``exp(h(v(beta); psi)) / q(v)`` average to the same likelihood. Its
derivative by beta becomes ``dh/dbeta + A' dh/dv``, which hardly varies between draws where the data pin down the sum
of an intercept and the effects, and not each of them: the Monte Carlo error of the intercept of crossed data falls
several times. (Integration by parts: ``dh/dv`` has mean zero given the data, it is a control variate.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hlik.adjusted_profile import Mode
from hlik.batch import Batch
from hlik.hlikelihood import HLikelihood


@dataclass(frozen=True, eq=False)
class Shift:
    """``A (beta - beta_0)``.

    Attributes
    ----------
    beta
        Where the draws are those of the proposal, shape (p,).
    slope
        A, shape (q, p).
    """

    beta: np.ndarray
    slope: np.ndarray

    @classmethod
    def of(cls, likelihood: HLikelihood, beta: np.ndarray, mode: Mode) -> Shift | None:
        """At the mode: ``-H_vv^-1 H_vbeta``; None without fixed effects, or with effects of structured precision."""
        model = likelihood.model
        if not model.n_beta or model.prior.matrix is not None:
            return None
        full = likelihood.system.factor(mode.point.weight, mode.point.random_weight)
        return cls(beta.copy(), -np.asarray(full.B))

    def moved(self, v: np.ndarray, beta: np.ndarray) -> np.ndarray:
        """Draws (q, m), or means (q,), for other fixed effects."""
        change = self.slope @ (beta - self.beta)
        if not change.any():
            return v
        return v + (change if v.ndim == 1 else change[:, None])

    def block_gradients(self, batch: Batch, level_sums: sp.csr_array) -> np.ndarray:
        """``A' dh/dv`` of every block in every column, shape (p, B, m)."""
        model = batch.likelihood.model
        score = np.zeros((model.n_rows, batch.total().size))
        for term, found in zip(batch.likelihood.terms, batch.responses, strict=True):
            score[term.rows] += found.score.reshape(-1, score.shape[1])
        by_effect = np.asarray(model.Z.T @ score)
        for effect, found in zip(model.random_effects, batch.effects, strict=True):
            by_effect[effect.index] += found.score[0]
        return np.stack([level_sums @ (column[:, None] * by_effect) for column in self.slope.T])

    def gradient(self, batch: Batch, case_weight: np.ndarray, level_weight: np.ndarray) -> np.ndarray:
        """The same, summed over blocks and columns with weights by case and level, shape (p,)."""
        model, start = batch.likelihood.model, 0
        score = np.zeros(model.n_rows)
        for term, found in zip(batch.likelihood.terms, batch.responses, strict=True):
            own = case_weight[start : start + term.n]
            score[term.rows] += np.einsum("knm,nm->kn", found.score, own).ravel()
            start += term.n
        by_effect = model.Z.T @ score
        for effect, found in zip(model.random_effects, batch.effects, strict=True):
            by_effect[effect.index] += np.einsum("nm,nm->n", found.score[0], level_weight[effect.index])
        return self.slope.T @ by_effect

    def design(self, likelihood: HLikelihood) -> np.ndarray:
        """``X + Z A``: how eta moves with beta."""
        return likelihood.X + likelihood.Z @ self.slope

    def level_curvature(self, batch: Batch, level_weight: np.ndarray) -> np.ndarray:
        """``A' D A`` with the weighted sums of the effects' own observed weights, shape (p, p)."""
        own = np.zeros(self.slope.shape[0])
        for effect, found in zip(batch.likelihood.model.random_effects, batch.effects, strict=True):
            own[effect.index] = np.einsum("nm,nm->n", found.weight[0], level_weight[effect.index])
        return (self.slope.T * own) @ self.slope
