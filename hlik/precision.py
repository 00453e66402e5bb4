r"""Joint normal densities of random effects by their precision ``Q(theta) = sum_k c_k(theta) M_k``.

One class serves every kind: correlated intercepts and slopes, a covariance function, a neighbourhood structure, a
random walk, relatives. The matrices M_k are known and lie on one sparse pattern; the coefficients are smooth functions
of the dispersion parameters. What differs is where log|Q| comes from:

* `BlockDeterminant`: the same small precision in many blocks, or one dense one; the coefficients are its entries;
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
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from hlik.linalg import LowerPattern, SparseCholesky, lower_pattern
from hlik.maps import ThetaMap

MAX_SEPARATE = 10  # effects of a block that start with variances of their own
LOG_2PI = float(np.log(2 * np.pi))


class Determinant(Protocol):
    """log|Q| as a function of the coefficients."""

    def logdet(self, coefficients: np.ndarray) -> float:
        """log|Q|, -inf where Q is not positive definite."""

    def logdet_gradient(self, coefficients: np.ndarray) -> np.ndarray:
        """``tr(Q^-1 M_k)``, shape (K,)."""


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


@dataclass(frozen=True, eq=False)
class ElementMap:
    """One element of a map."""

    inner: ThetaMap
    element: int
    size: int = 1

    def value(self, theta: np.ndarray) -> np.ndarray:
        """Its value, shape (1,)."""
        return self.inner.value(theta)[self.element : self.element + 1]

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives, shape (1, r)."""
        return self.inner.jacobian(theta)[self.element : self.element + 1]


def matrix_precision(
    pattern: LowerPattern, matrices: sp.csc_array, coefficients: ThetaMap, determinant: Determinant, description: str
) -> Precision:
    """A precision of known matrices with unknown coefficients."""
    typical = TypicalVariance(pattern, matrices, coefficients)
    variances = ((typical, np.arange(pattern.size)),)
    return Precision(pattern, matrices, coefficients, determinant, description, variances)


class BlockDeterminant:
    """G equal blocks, whose precision's lower triangle by rows are the coefficients, shape (k (k + 1) / 2,)."""

    def __init__(self, count: int, size: int):
        self.count, self.size = count, size
        self._rows, self._columns = np.tril_indices(size)

    def logdet(self, coefficients: np.ndarray) -> float:
        """``G log|Q_1|``."""
        try:
            root = np.linalg.cholesky(self._matrix(coefficients))
        except np.linalg.LinAlgError:
            return -np.inf
        return 2.0 * self.count * float(np.sum(np.log(np.diag(root))))

    def logdet_gradient(self, coefficients: np.ndarray) -> np.ndarray:
        """``G`` times the entries of the inverse, off-diagonal ones twice."""
        inverse = np.linalg.inv(self._matrix(coefficients))[self._rows, self._columns]
        return self.count * np.where(self._rows == self._columns, inverse, 2.0 * inverse)

    def _matrix(self, coefficients: np.ndarray) -> np.ndarray:
        matrix = np.zeros((self.size, self.size))
        matrix[self._rows, self._columns] = coefficients
        return matrix + np.tril(matrix, -1).T


class IntrinsicDeterminant:
    r"""Generalised determinant of ``c_1 L``, or of ``c_1 L + c_2 11'``, L the Laplacian of a graph without weights.

    L has one null vector for each of its C components, so that ``log|c_1 L|_+ = (n - C) log c_1 + log|L|_+``; by the
    matrix-tree theorem ``|L|_+`` is the product over the components of their size and the determinant of L without one
    of their rows and columns. ``c_2 11'`` adds ``log c_2 n``.
    """

    def __init__(self, laplacian: sp.csc_array):
        self.size = laplacian.shape[0]
        count, member = connected_components(laplacian, directed=False)
        self.rank = self.size - count
        _, first = np.unique(member, return_index=True)
        kept = np.setdiff1d(np.arange(self.size), first)
        minor = sp.csc_array(laplacian[kept][:, kept])
        self._logdet = float(np.sum(np.log(np.bincount(member))))
        if kept.size:
            self._logdet += SparseCholesky(minor).factor(minor).logdet()

    def logdet(self, coefficients: np.ndarray) -> float:
        """The logarithm of the product of the eigenvalues that are not zero."""
        if not np.all(coefficients > 0):
            return -np.inf
        total = self._logdet + self.rank * np.log(coefficients[0])
        return float(total + np.sum(np.log(coefficients[1:] * self.size)))

    def logdet_gradient(self, coefficients: np.ndarray) -> np.ndarray:
        """``rank / c``."""
        return np.array([self.rank, *np.ones(coefficients.size - 1)]) / coefficients


@dataclass(frozen=True, eq=False)
class InverseMap:
    """The lower triangle by rows of the inverse of a covariance matrix that is a function of theta.

    Attributes
    ----------
    covariance
        The covariance matrix, flattened, of size k * k.
    order
        k.
    """

    covariance: ThetaMap
    order: int

    @property
    def size(self) -> int:
        """Number of values, k (k + 1) / 2."""
        return self.order * (self.order + 1) // 2

    def value(self, theta: np.ndarray) -> np.ndarray:
        """Values, shape (k (k + 1) / 2,); NaN where the covariance matrix is not positive definite."""
        inverse = self._inverse(theta)
        return np.full(self.size, np.nan) if inverse is None else inverse[np.tril_indices(self.order)]

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """``-Q dSigma Q`` for every parameter, shape (k (k + 1) / 2, r)."""
        inverse = self._inverse(theta)
        if inverse is None:
            return np.full((self.size, theta.size), np.nan)
        slopes = self.covariance.jacobian(theta)
        result = np.zeros((self.size, slopes.shape[1]))
        rows = np.tril_indices(self.order)
        for k in np.flatnonzero(np.any(slopes != 0, axis=0)):
            result[:, k] = -(inverse @ slopes[:, k].reshape(self.order, self.order) @ inverse)[rows]
        return result

    def _inverse(self, theta: np.ndarray) -> np.ndarray | None:
        matrix = self.covariance.value(theta).reshape(self.order, self.order)
        if not np.all(np.isfinite(matrix)):
            return None
        try:
            root = np.linalg.inv(np.linalg.cholesky(0.5 * (matrix + matrix.T)))
        except np.linalg.LinAlgError:
            return None
        return root.T @ root


def block_precision(covariance: ThetaMap, blocks: np.ndarray, description: str) -> Precision:
    """Blocks of effects with one covariance matrix: ``blocks`` (G, k) are the numbers of the effects of every block."""
    count, size = blocks.shape
    rows, columns = np.tril_indices(size)
    first, second = blocks[:, rows].ravel(), blocks[:, columns].ravel()
    number = np.tile(np.arange(rows.size), count)
    lower = (np.maximum(first, second), np.minimum(first, second))
    pattern = lower_pattern(sp.coo_array((np.ones(number.size), lower), shape=(blocks.size,) * 2))
    order = np.lexsort(lower)
    matrices = sp.csc_array((np.ones(number.size), (np.arange(number.size), number[order])))
    coefficients, determinant = InverseMap(covariance, size), BlockDeterminant(count, size)
    if size > MAX_SEPARATE:
        return matrix_precision(pattern, matrices, coefficients, determinant, description)
    variances = tuple((ElementMap(covariance, k * (size + 1)), blocks[:, k]) for k in range(size))
    return Precision(pattern, matrices, coefficients, determinant, description, variances)


@dataclass(frozen=True, eq=False)
class BlockRoot:
    """``v_g = L z_g`` for every block g of effects.

    Attributes
    ----------
    matrix
        L as a function of theta, flattened, of size k * k.
    blocks
        Numbers of the effects of every block, shape (G, k).
    """

    matrix: ThetaMap
    blocks: np.ndarray

    def inverse(self, theta: np.ndarray) -> sp.csr_array:
        """The matrix that gives z from v, shape (q, q)."""
        count, size = self.blocks.shape
        inner = np.linalg.inv(self.matrix.value(theta).reshape(size, size))
        rows = np.repeat(self.blocks, size, axis=1).ravel()
        columns = np.tile(self.blocks, (1, size)).ravel()
        entries = (np.tile(inner.ravel(), count), (rows, columns))
        return sp.csr_array(sp.coo_array(entries, shape=(self.blocks.size,) * 2))

    def whitened(self, v: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """z for v of shape (..., q)."""
        return (self.inverse(theta) @ v.T).T

    def slopes(self, z: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """Derivatives of z by theta with v held fixed, shape (q, r): ``-L^-1 dL z``."""
        size = self.blocks.shape[1]
        inner = np.linalg.inv(self.matrix.value(theta).reshape(size, size))
        jacobian = self.matrix.jacobian(theta).reshape(size, size, -1)
        result = np.zeros((z.size, jacobian.shape[2]))
        result[self.blocks] = -np.einsum("ij,jkr,gk->gir", inner, jacobian, z[self.blocks])
        return result


@dataclass(frozen=True, eq=False)
class Degrees:
    """Degrees of freedom of multivariate t densities.

    Attributes
    ----------
    map
        nu as a function of theta, of size 1.
    blocks
        Numbers of the effects of every density, shape (G, k).
    """

    map: ThetaMap
    blocks: np.ndarray


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
