"""The effects of a wide term and their uncertainty, from the scores through which they were fitted (`hlik.wide`)."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import scipy.sparse as sp

from hlik.estimators.base import Estimate
from hlik.graph import rows as lin
from hlik.graph.forms import Affine, Form, Mapped
from hlik.model import RandomEffect
from hlik.wide import WideTerm


class WideEffects:
    """The q effects of one wide term at an estimate."""

    def __init__(self, estimate: Estimate, effect: RandomEffect):
        assert effect.wide is not None
        assert effect.dispersion is not None
        self.estimate, self.effect, self.wide = estimate, effect, effect.wide
        self.lam = float(effect.dispersion.value(estimate.theta)[0])

    @property
    def scores(self) -> np.ndarray:
        """Scores, shape (r,)."""
        return self.estimate.v[self.effect.index]

    @cached_property
    def values(self) -> np.ndarray:
        """Expected effects, shape (q,)."""
        return self.wide.effects(self.scores)

    @cached_property
    def share(self) -> np.ndarray:
        """How far the data reduce the variance of every effect, shape (q,)."""
        return self.wide.known_share(self.covariance, self.lam)

    @cached_property
    def standard_error(self) -> np.ndarray:
        """Prediction standard errors, shape (q,)."""
        return np.sqrt(self.wide.variance(self.share, self.lam))

    @cached_property
    def covariance(self) -> np.ndarray:
        """Covariance of the scores' prediction errors, shape (r, r); where theta counts too, with its share."""
        if self.estimate.covariance is None:
            return self._inverse
        return self._given_parameters + _quadratic(self._moves, self.estimate.covariance)

    @property
    def _given_parameters(self) -> np.ndarray:
        """The scores' covariance for known beta and theta."""
        return self.estimate.information.factor_z.solve(self._unit)[self.effect.index]

    @property
    def _moves(self) -> np.ndarray:
        """How the scores move with beta and theta, shape (r, p + number of theta)."""
        by_beta = -self.estimate.information.B[self.effect.index]
        by_theta = self.estimate.v_by_theta
        rest = np.zeros((self.effect.size, self.estimate.theta.size)) if by_theta is None else by_theta
        return np.hstack([by_beta, rest if by_theta is None else rest[self.effect.index]])

    def non_centred(self) -> tuple[np.ndarray, np.ndarray]:
        """z = v / scale of a non-centred term and its errors, shape (q,), with the scale's own where theta counts."""
        effect, theta = self.effect, self.estimate.theta
        assert effect.scale_map is not None
        scale = np.broadcast_to(effect.scale_map.value(theta), (self.wide.size,))
        z = self.values / scale
        if self.estimate.covariance is None or self.estimate.v_by_theta is None:
            return z, self.standard_error / scale
        share = self.wide.known_share(self._given_parameters, self.lam)
        moves = self.wide.effects(self._moves.T).T / scale[:, None]
        moves[:, self.estimate.beta.size :] -= z[:, None] * effect.scale_map.jacobian(theta) / scale[:, None]
        variance = self.wide.variance(share, self.lam) / scale**2
        return z, np.sqrt(variance + _quadratic_diagonal(moves, self.estimate.covariance))

    @cached_property
    def _inverse(self) -> np.ndarray:
        """The scores' block of H^-1: their covariance where that of beta is H's too."""
        zeros = np.zeros((self.estimate.beta.size, self.effect.size))
        return self.estimate.information.solve(zeros, self._unit)[1][self.effect.index]

    @property
    def _unit(self) -> np.ndarray:
        unit = np.zeros((self.estimate.v.size, self.effect.size))
        unit[self.effect.index] = np.eye(self.effect.size)
        return unit

    @property
    def leverage(self) -> np.ndarray:
        """Leverages as rows of the augmented model, shape (q,)."""
        same = self.covariance is self._inverse
        return 1.0 - (self.share if same else self.wide.known_share(self._inverse, self.lam))

    def diagnostics(self) -> dict[str, np.ndarray]:
        """What a result holds of every effect."""
        weight = self.wide.weight
        own = {} if weight is None else {"relative_variance": weight}
        with np.errstate(invalid="ignore", divide="ignore"):
            deviance = self.values**2 if weight is None else np.where(weight > 0, self.values**2 / weight, 0.0)
        return own | {
            "v": self.values,
            "v_se": self.standard_error,
            "leverage": self.leverage,
            "deviance": deviance,
            "dispersion": self.lam * (np.ones(self.wide.size) if weight is None else weight),
        }

    def rows_on_scores(self, rows: lin.Rows) -> np.ndarray:
        """Rows on the effects as rows on the scores, shape (m, r)."""
        own = own_design(self.wide, rows)
        return self.wide.project(lin.to_csr(rows)) if own is None else lin.to_dense(own)

    def unseen_variance(self, rows: lin.Rows) -> np.ndarray:
        """Variance of rows on the effects given the scores, shape (m,)."""
        if own_design(self.wide, rows) is not None:
            return np.zeros(rows.length)
        matrix = lin.to_csr(rows)
        return self.lam * self.wide.unseen_variance(matrix, self.wide.project(matrix))

    def error_of(self, rows: lin.Gather) -> np.ndarray:
        """Standard errors of single effects times numbers, shape (m,)."""
        return np.abs(rows.weight) * self.standard_error[rows.index]


def _quadratic(rows: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """``R S R'``; parameters without covariance do not count."""
    known = np.isfinite(np.diag(covariance))
    return rows[:, known] @ covariance[np.ix_(known, known)] @ rows[:, known].T


def _quadratic_diagonal(rows: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """The diagonal of ``R S R'``."""
    known = np.isfinite(np.diag(covariance))
    part = rows[:, known]
    return np.einsum("ij,ij->i", part @ covariance[np.ix_(known, known)], part)


def own_design(wide: WideTerm, rows: lin.Rows) -> lin.Rows | None:
    """Rows of the term's own matrix Z as rows on the scores; None for other rows."""
    start = 0
    for part in wide.parts:
        stop = start + part.shape[0]
        if isinstance(rows, lin.Dense | lin.Wide) and rows.matrix is part:
            own: lin.Rows = lin.Dense(wide.design[start:stop])
            if isinstance(rows, lin.Wide):
                own = lin.scale(own if rows.index is None else lin.take(own, rows.index), rows.weight)
            return own
        start = stop
    return None


def in_scores(form: Form, wide: dict[str, WideTerm]) -> Form | None:
    """A form with own rows of wide terms in terms of scores; None where it holds other rows of theirs."""
    affine = form if isinstance(form, Affine) else form.affine if isinstance(form, Mapped) else None
    if affine is None or not wide.keys() & affine.rows.keys():
        return form
    rows = {name: own_design(wide[name], own) if name in wide else own for name, own in affine.rows.items()}
    if any(own is None for own in rows.values()):
        return None
    changed = Affine(rows, affine.offset)  # type: ignore[arg-type]
    return changed if isinstance(form, Affine) else Mapped(form.function, changed, form.is_exp)  # type: ignore[union-attr]


def score_block(block: np.ndarray, index: slice, columns: int) -> sp.csr_array:
    """A dense block at some columns of a sparse matrix of so many."""
    m, r = block.shape
    indices = np.tile(np.arange(index.start, index.stop, dtype=np.int32), m)
    pointer = np.arange(0, m * r + 1, max(r, 1), dtype=np.int32) if r else np.zeros(m + 1, dtype=np.int32)
    return sp.csr_array((block.ravel(), indices, pointer), shape=(m, columns))
