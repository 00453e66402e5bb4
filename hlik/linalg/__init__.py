"""Sparse symmetric positive definite linear algebra: factor, solve, log-determinant, selected inverse.

No statistics in it. Small systems go through dense LAPACK and compile nothing; numba is imported only when a
large system is met.
"""

from .bordered import Bordered, BorderedSystem
from .cholesky import Factor, SparseCholesky, Symbolic, analyze
from .compiled import on_compile
from .errors import NotPositiveDefinite
from .patterns import LowerPattern, lower_pattern, lower_values, symmetric_matrix
from .threads import set_blas_threads

__all__ = [
    "Bordered",
    "BorderedSystem",
    "Factor",
    "LowerPattern",
    "NotPositiveDefinite",
    "SparseCholesky",
    "Symbolic",
    "analyze",
    "lower_pattern",
    "lower_values",
    "on_compile",
    "set_blas_threads",
    "symmetric_matrix",
]
