"""log|Q| of precision matrices as functions of their coefficients, with gradients.

Here where a closed form serves: equal small blocks, and graphs without a proper density (`pm.ICAR`, random walks).
Sparse Cholesky factors: `hlik.distributions.structure.PrecisionStructure`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from hlik.linalg import SparseCholesky


class Determinant(Protocol):
    """log|Q| as a function of the coefficients."""

    def logdet(self, coefficients: np.ndarray) -> float:
        """log|Q|, -inf where Q is not positive definite."""

    def logdet_gradient(self, coefficients: np.ndarray) -> np.ndarray:
        """``tr(Q^-1 M_k)``, shape (K,)."""


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
