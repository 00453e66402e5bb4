r"""Joint normal densities of random effects by their precision ``Q(theta) = sum_k c_k(theta) M_k``.

One class serves every kind: correlated intercepts and slopes, a covariance function, a neighbourhood structure, a
random walk, relatives. The matrices M_k are known and lie on one sparse pattern; the coefficients are smooth functions
of the dispersion parameters. What differs is where log|Q| comes from:

* `hlik.determinants.BlockDeterminant`: the same small precision in many blocks, or one dense one; the coefficients are
  its entries;
* any object with `logdet` and `logdet_gradient`, as `hlik.distributions.structure.PrecisionStructure` (sparse Cholesky
  factor and selected inverse).

With v normal with precision Q,

.. math:: \log f(v) = \tfrac12 \log|Q| - \tfrac q2 \log 2\pi - \tfrac12 v'Qv, \qquad
          \frac{\partial \log f}{\partial c_k} = \tfrac12 \mathrm{tr}(Q^{-1} M_k) - \tfrac12 v'M_k v.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp

from hlik.determinants import Determinant
from hlik.linalg import LowerPattern
from hlik.maps import ThetaMap

LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, eq=False)
class PrecisionPoint:
    """A precision at one theta: its values on the pattern, shape (nnz,), its coefficients, log|Q|."""

    values: np.ndarray
    coefficients: np.ndarray
    logdet: float


@dataclass(frozen=True, eq=False)
class Precision:
    """``Q(theta) = sum_k c_k(theta) M_k``.

    Attributes
    ----------
    pattern
        Lower triangle of Q, with its whole diagonal.
    matrices
        The M_k on the pattern, a column each: sparse, shape (nnz, K).
    coefficients
        c as a function of theta, of size K.
    determinant
        log|Q|.
    description
        For `hlik.inspect`: what kind of precision it is.
    variances
        For starting values: typical variances as functions of theta, each with the numbers of the effects that it
        belongs to.
    """

    pattern: LowerPattern
    matrices: sp.csc_array
    coefficients: ThetaMap
    determinant: Determinant
    description: str = "normal with a precision matrix"
    variances: tuple[tuple[ThetaMap, np.ndarray], ...] = ()
    _last: list[Any] = field(default_factory=list, repr=False)

    @property
    def size(self) -> int:
        """Number of random effects q."""
        return self.pattern.size

    def at(self, theta: np.ndarray) -> PrecisionPoint | None:
        """Values and determinant; None where Q is not positive definite. The last one is kept."""
        key = np.asarray(theta).tobytes()
        last = tuple(self._last)
        if not last or last[0] != key:
            last = (key, self._computed(theta))
            self._last[:] = last
        return last[1]

    def forget(self) -> None:
        """Drop the kept point, where the coefficients depend on more than theta."""
        self._last.clear()

    def _computed(self, theta: np.ndarray) -> PrecisionPoint | None:
        c = self.coefficients.value(theta)
        if not np.all(np.isfinite(c)):
            return None
        logdet = self.determinant.logdet(c)
        return PrecisionPoint(self.matrices @ c, c, logdet) if np.isfinite(logdet) else None

    def multiply(self, values: np.ndarray, v: np.ndarray) -> np.ndarray:
        """``Q v`` for v of shape (q,) or (q, m)."""
        lower = sp.csc_array((values, self.pattern.indices, self.pattern.indptr), shape=(self.size,) * 2)
        diagonal = values[self.pattern.diagonal_positions()]
        return lower @ v + lower.T @ v - (diagonal * v.T).T

    def through(self, by_values: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """From derivatives by the values on the pattern to derivatives by theta."""
        return (self.matrices.T @ by_values) @ self.coefficients.jacobian(theta)

    def logdet_slope(self, point: PrecisionPoint, theta: np.ndarray) -> np.ndarray:
        """``d log|Q| / d theta``, shape (r,)."""
        return self.determinant.logdet_gradient(point.coefficients) @ self.coefficients.jacobian(theta)

    def doubled(self, values: np.ndarray) -> np.ndarray:
        """The values with off-diagonal entries twice: sums over the pattern are then sums over the whole matrix."""
        result = 2.0 * values
        diagonal = self.pattern.diagonal_positions()
        result[diagonal] = values[diagonal]
        return result

    def products(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """``(a b' + b a') / 2`` on the pattern, off-diagonal entries twice: ``a'Qb`` is its product with Q's values."""
        rows, columns = self.pattern.indices, self.pattern.columns()
        return self.doubled(0.5 * (a[rows] * b[columns] + a[columns] * b[rows]))


@dataclass(frozen=True, eq=False)
class TypicalVariance:
    """One over the mean of the diagonal of Q: the variance of an effect given the others."""

    pattern: LowerPattern
    matrices: sp.csc_array
    coefficients: ThetaMap
    size: int = 1

    @cached_property
    def _means(self) -> np.ndarray:
        """The mean diagonal of every M_k, shape (K,)."""
        diagonal = np.zeros(self.pattern.nnz)
        diagonal[self.pattern.diagonal_positions()] = 1.0 / self.pattern.size
        return self.matrices.T @ diagonal

    def value(self, theta: np.ndarray) -> np.ndarray:
        """Its value, shape (1,)."""
        return 1.0 / np.atleast_1d(self._means @ self.coefficients.value(theta))

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives, shape (1, r)."""
        return -(self.value(theta) ** 2) * (self._means @ self.coefficients.jacobian(theta))[None, :]


def matrix_precision(
    pattern: LowerPattern, matrices: sp.csc_array, coefficients: ThetaMap, determinant: Determinant, description: str
) -> Precision:
    """A precision of known matrices with unknown coefficients."""
    typical = TypicalVariance(pattern, matrices, coefficients)
    variances = ((typical, np.arange(pattern.size)),)
    return Precision(pattern, matrices, coefficients, determinant, description, variances)


@dataclass(frozen=True, eq=False)
class PriorPattern:
    """The pattern of D, the prior precision of all random effects: a block for every term, diagonal or its own.

    Attributes
    ----------
    matrix
        The lower triangle as a sparse matrix; None where D is diagonal.
    entries
        For every term its entries among the values of D, shape (nnz,).
    diagonal
        Positions of the diagonal among the values of D, shape (q,).
    """

    matrix: sp.csc_array | None
    entries: tuple[slice, ...]
    diagonal: np.ndarray

    @classmethod
    def of(cls, sizes: Sequence[int], patterns: Sequence[LowerPattern | None]) -> PriorPattern:
        """From the sizes of the terms and their patterns, None for a diagonal one."""
        if all(pattern is None for pattern in patterns):
            stops = np.cumsum([0, *sizes])
            entries = tuple(slice(int(a), int(b)) for a, b in pairwise(stops))
            return cls(None, entries, np.arange(int(stops[-1])))
        found = [LowerPattern.diagonal(n) if p is None else p for n, p in zip(sizes, patterns, strict=True)]
        indptr, indices, parts, start, column = [np.zeros(1, np.int64)], [], [], 0, 0
        for pattern in found:
            indptr.append(pattern.indptr[1:] + start)
            indices.append(pattern.indices + column)
            parts.append(slice(start, start + pattern.nnz))
            start, column = start + pattern.nnz, column + pattern.size
        pointers, rows = np.concatenate(indptr), np.concatenate(indices)
        matrix = sp.csc_array((np.ones(start), rows, pointers), shape=(column, column))
        return cls(matrix, tuple(parts), pointers[:-1])

    @property
    def nnz(self) -> int:
        """Number of values of D."""
        return self.diagonal.size if self.matrix is None else self.matrix.nnz
