r"""Joint normal effects at the data of a prediction: new levels given those of the fit.

With the precision Q of all levels there in the blocks o (of the fit) and n (new),

.. math:: v_n \mid v_o \sim N(A v_o,\ Q_{nn}^{-1}), \qquad A = -Q_{nn}^{-1} Q_{no},

so that ``z_o'v_o + z_n'v_n`` is predicted by ``(z_o + A'z_n)'v_hat``, with the errors of v_hat and ``z_n'Q_nn^-1 z_n``.
For areas this is the conditional distribution given their neighbours, for relatives that given the pedigree, for a
covariance function kriging; for independent blocks Q_no is zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hlik.determinants import BlockDeterminant
from hlik.errors import ModelError
from hlik.inference.averages import Entries
from hlik.inference.prediction_terms import Block, Joint, Term
from hlik.inference.prior_variance import student_factor
from hlik.inference.restore import STEP, Restored
from hlik.linalg import Factor, SparseCholesky, symmetric_matrix


@dataclass(frozen=True, eq=False)
class FieldTerm(Term):
    """Effects with a joint normal density (or a t density for blocks of them) by its precision."""

    def predicted(self, fitted: Restored, theta: np.ndarray) -> np.ndarray:
        """v_hat, and ``A v_hat`` at new levels."""
        v = np.zeros(self.known.size)
        v[self.known] = fitted.v[self.position[self.known]]
        if not self.known.all():
            across, factor = self._given_known(theta)
            v[~self.known] = -factor.solve(across @ v[self.known])
        return v

    def joint(self, fitted: Restored, block: Block) -> Joint:
        """The block in terms of the fit's v, new levels by their conditional distribution."""
        if self.known.all():
            return super().joint(fitted, block)
        across, factor = self._given_known(fitted.theta)
        z_new = sp.csr_array(block.Z[:, ~self.known])
        solved = factor.solve(z_new.toarray().T)  # Q_nn^-1 z_n, a column each
        part = sp.csr_array(block.Z[:, self.known]) - sp.csr_array((across.T @ solved).T)
        variance = student_factor(self.here, self.theta(fitted.theta)) * z_new.multiply(solved.T).sum(axis=1)
        return Joint(self.on_fit(fitted, part), block.Z @ self._by_theta(fitted), np.asarray(variance).ravel())

    def spread(self, theta: np.ndarray, block: Block) -> tuple[np.ndarray, list[Entries]]:
        """A normal variance for every row."""
        if self.effect.degrees is not None:
            raise ModelError(
                f"Random effect {self.effect.name!r} has vectors with a t density: average over "
                f"hlik.simulate(model, idata) instead."
            )
        return super().spread(theta, block)

    def _by_theta(self, fitted: Restored) -> np.ndarray:
        """How ``A v_hat`` moves with theta, shape (levels, r); zero where theta counts as known."""
        slopes = np.zeros((self.known.size, fitted.theta.size))
        if not fitted.is_joint:
            return slopes
        errors = np.sqrt(np.diag(fitted.covariance)[fitted.beta.size :])
        for k in np.flatnonzero(np.isfinite(errors) & (errors > 0)):
            step = STEP * errors[k] * np.eye(errors.size)[k]
            ends = [self.predicted(fitted, fitted.theta + sign * step) for sign in (1.0, -1.0)]
            slopes[:, k] = (ends[0] - ends[1]) / (2 * step[k])
        return slopes

    def _given_known(self, theta: np.ndarray) -> tuple[sp.csr_array, Factor]:
        """Q_no and the factor of Q_nn."""
        name, precision = self.effect.name, self.here.precision
        if precision is None or precision.size != self.known.size:
            raise ModelError(
                f"Random effect {name!r} ({self._kind}) is one field, and the model does not say how its new levels "
                f"lie in it: pass data=build(...), the same model built with the matrices of all levels."
            )
        if not self._independent and int(self.known.sum()) < self.effect.size:
            raise ModelError(
                f"New levels of {name!r} ({self._kind}) follow from those of the fit, of which only "
                f"{int(self.known.sum())} of {self.effect.size} are among the levels at these data: give all of them."
            )
        if self.effect.degrees is not None and not self._independent:
            raise ModelError(f"New levels of {name!r}, one vector with a t density, are not predicted.")
        point = precision.at(self.theta(theta))
        if point is None:
            raise ModelError(f"The precision of {name!r} at these data is not positive definite at the estimates.")
        Q = sp.csr_array(symmetric_matrix(precision.pattern, point.values))
        new = np.flatnonzero(~self.known)
        own = sp.csc_array(Q[new][:, new])
        return sp.csr_array(Q[new][:, np.flatnonzero(self.known)]), SparseCholesky(own).factor(own)

    @property
    def _independent(self) -> bool:
        """Whether levels come in independent blocks, as correlated intercepts and slopes do."""
        determinant = None if self.effect.precision is None else self.effect.precision.determinant
        return isinstance(determinant, BlockDeterminant) and determinant.count > 1

    @property
    def _kind(self) -> str:
        return self.effect.distribution if self.effect.precision is None else self.effect.precision.description
