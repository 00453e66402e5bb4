"""A precision matrix ``Q(c) = sum_k c_k M_k`` of known symmetric matrices: factor, log-determinant, its derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy import linalg
from scipy.sparse.linalg import LinearOperator, eigsh

from hlik.errors import ModelError
from hlik.linalg import Factor, LowerPattern, NotPositiveDefinite, Symbolic, analyze, lower_pattern
from hlik.linalg.patterns import values_on_pattern

SPECTRAL_SIZE = 500
"""Up to so many elements the log-determinant goes through eigenvalues, found once: some hundredths of a second."""

SYMMETRY = 1e-12  # part of the largest entry


class PrecisionStructure:
    """The matrices M_k of a precision, and what is computed once of them.

    Parameters
    ----------
    matrices
        Symmetric matrices of shape (n, n), SciPy sparse or dense.
    polynomial_of
        Where ``M_k = D^k`` for one matrix D, that matrix: the eigenvalues of Q are then those polynomials of D's.
    within_range_of
        For `SAR`: the matrix D for which ``I - rho D``, ``rho = -c_1 / (2 c_0)``, must be positive definite too.
    logdet
        With a single matrix: its log-determinant, where that is known.
    domain
        For messages: where Q is positive definite.
    """

    def __init__(
        self,
        matrices: Sequence[Any],
        *,
        polynomial_of: sp.csc_array | None = None,
        within_range_of: sp.csc_array | None = None,
        logdet: float | None = None,
        domain: str = "the precision matrix must be positive definite",
    ):
        self.matrices = tuple(symmetric(matrix, f"matrices[{k}]") for k, matrix in enumerate(matrices))
        if not self.matrices or len({matrix.shape for matrix in self.matrices}) != 1:
            raise ModelError(f"Expected matrices of one shape, got {[matrix.shape for matrix in self.matrices]}.")
        self.polynomial_of = polynomial_of
        self.within_range_of = within_range_of
        self.domain = domain
        self._logdet = logdet
        self._last: tuple[bytes, Factor] | None = None

    @property
    def size(self) -> int:
        """Number of elements n."""
        return self.matrices[0].shape[0]

    @property
    def n_coefficients(self) -> int:
        """Number of matrices K."""
        return len(self.matrices)

    @cached_property
    def pattern(self) -> LowerPattern:
        """Lower triangle of the union of the patterns, with the whole diagonal."""
        union = sp.eye_array(self.size, format="csc")
        for matrix in self.matrices:
            union = union + sp.csc_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)
        return lower_pattern(union)

    @cached_property
    def values(self) -> np.ndarray:
        """Every M_k on the pattern, shape (K, nnz)."""
        return np.array([values_on_pattern(matrix, self.pattern) for matrix in self.matrices])

    @cached_property
    def symbolic(self) -> Symbolic:
        """The pattern analysed for factorisation."""
        return analyze(self.pattern)

    @cached_property
    def eigenvalues(self) -> np.ndarray | None:
        """Eigenvalues of every M_k in one common order, shape (K, n), where they are few and cheap; else None."""
        if self.polynomial_of is None or self.size > SPECTRAL_SIZE:
            return None
        found = linalg.eigvalsh(self.polynomial_of.toarray())
        return np.array([found**k for k in range(self.n_coefficients)])

    @cached_property
    def positive(self) -> np.ndarray:
        """Columns with ``c @ column > 0`` for all valid c, beside a positive definite Q; shape (K, m), m 0 or 2."""
        if self.within_range_of is None:
            return np.zeros((self.n_coefficients, 0))
        ends = np.array(outer_eigenvalues(self.within_range_of))
        return np.array([np.ones(2), 0.5 * ends, np.zeros(2)])

    @cached_property
    def single_logdet(self) -> float:
        """log|M_0| where it is the only matrix."""
        return self.factor(np.ones(1)).logdet() if self._logdet is None else self._logdet

    def factor(self, coefficients: np.ndarray) -> Factor:
        """Cholesky factor of Q(c); the last one is kept.

        Raises
        ------
        NotPositiveDefinite
            Where Q(c) is not.
        """
        coefficients = np.ascontiguousarray(coefficients, dtype=float)
        key = coefficients.tobytes()
        last = self._last  # read once: another thread may replace it
        if last is None or last[0] != key:
            last = (key, self.symbolic.factor(coefficients @ self.values))
            self._last = last
        return last[1]

    def logdet(self, coefficients: np.ndarray) -> float:
        """log|Q(c)|, -inf where Q(c) is not positive definite."""
        if not (np.all(np.isfinite(coefficients)) and np.all(coefficients @ self.positive > 0)):
            return -np.inf
        try:
            return self.factor(coefficients).logdet()
        except NotPositiveDefinite:
            return -np.inf

    def logdet_gradient(self, coefficients: np.ndarray) -> np.ndarray:
        """``tr(Q^-1 M_k)`` by the selected inverse, shape (K,); NaN where Q(c) is not positive definite."""
        if not np.isfinite(self.logdet(coefficients)):
            return np.full(self.n_coefficients, np.nan)
        inverse = 2.0 * self.factor(coefficients).selected_inverse()
        inverse[self.pattern.diagonal_positions()] *= 0.5
        return self.values @ inverse

    def sample(self, coefficients: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        """Draws from N(0, Q(c)^-1), shape (size, n)."""
        if not np.isfinite(self.logdet(coefficients)):
            raise ValueError(f"{self.domain}; got coefficients {np.asarray(coefficients).tolist()}")
        return self.factor(coefficients).sample(rng, size)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.n_coefficients} of {self.size} x {self.size})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}


def outer_eigenvalues(D: sp.csc_array) -> tuple[float, float]:
    """Smallest and largest eigenvalue of a symmetric matrix."""
    if D.shape[0] <= SPECTRAL_SIZE:
        found = linalg.eigvalsh(D.toarray())
        return float(found[0]), float(found[-1])
    return -_largest_eigenvalue(-D), _largest_eigenvalue(D)


def _largest_eigenvalue(D: sp.csc_array) -> float:
    """By Lanczos' method on ``(bound I - D)^-1``, where `bound`, a little above the sums of rows, is no eigenvalue.

    There the outer eigenvalues lie far apart, which those of D, on a large map, do not.
    """
    bound = float(np.max(abs(D).sum(axis=1))) * (1 + 1e-6)
    if bound == 0:
        return 0.0
    factor = PrecisionStructure([sp.eye_array(D.shape[0]), D]).factor(np.array([bound, -1.0]))
    inverse = LinearOperator(D.shape, matvec=factor.solve, dtype=float)
    start = np.random.default_rng(0).normal(size=D.shape[0])
    return bound - 1.0 / float(eigsh(inverse, k=1, which="LA", return_eigenvectors=False, v0=start)[0])


def symmetric(matrix: Any, name: str) -> sp.csc_array:
    """A symmetric matrix as CSC in float64, sorted, without stored zeros; errors name it."""
    found = sp.csc_array(matrix, dtype=float)
    if matrix is None or found.ndim != 2 or found.shape[0] != found.shape[1]:
        raise ModelError(f"{name} must be a square matrix, got shape {np.shape(matrix)}.")
    if found is matrix or np.shares_memory(found.data, getattr(matrix, "data", np.empty(0))):
        found = found.copy()
    found.sum_duplicates()
    found.eliminate_zeros()
    found.sort_indices()
    if not np.all(np.isfinite(found.data)):
        raise ModelError(f"{name} has entries that are not finite.")
    gap = np.max(np.abs((found - found.T).data), initial=0.0)
    if gap > SYMMETRY * np.max(np.abs(found.data), initial=0.0):
        raise ModelError(f"{name} must be symmetric; entries differ from those of its transpose by up to {gap:.3g}.")
    return found
