"""Cholesky factor of a small matrix through dense LAPACK: no ordering, nothing to compile."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from .patterns import Float, Int32, LowerPattern, frozen


@dataclass(frozen=True, eq=False)
class DenseStructure:
    """Where the entries of the sparse lower triangle sit in the full matrix."""

    size: int
    rows: Int32
    columns: Int32

    @classmethod
    def build(cls, pattern: LowerPattern) -> "DenseStructure":
        """From a lower-triangle pattern, in its own order."""
        return cls(pattern.size, pattern.indices, frozen(pattern.columns()))

    def factor(self, values: Float) -> tuple["DenseLower", int]:
        """Factor of the matrix with these values, and how many pivots were positive before the first bad one."""
        full = np.zeros((self.size, self.size), order="F")
        full[self.rows, self.columns] = values
        if self.size == 0:
            return DenseLower(self, full), 0
        lower, info = lapack.dpotrf(full, lower=1, clean=0, overwrite_a=1)
        return DenseLower(self, lower), self.size if info == 0 else info - 1


@dataclass(frozen=True, eq=False)
class DenseLower:
    """Lower factor in the lower triangle of a full array, Fortran order; the upper triangle is never read."""

    structure: DenseStructure
    lower: Float

    def diagonal(self) -> Float:
        """Diagonal of L, shape (q,)."""
        return self.lower.diagonal()

    def forward(self, block: Float) -> Float:
        """L^-1 block, shape (q, k)."""
        return self._triangular_solve(block, transposed=False)

    def backward(self, block: Float) -> Float:
        """L^-T block, shape (q, k)."""
        return self._triangular_solve(block, transposed=True)

    def selected_inverse(self) -> Float:
        """Entries of the inverse on the input pattern, shape (nnz,)."""
        return self.inverse()[self.structure.rows, self.structure.columns]

    def inverse(self) -> Float:
        """The whole inverse, shape (q, q), both triangles."""
        if self.structure.size == 0:
            return self.lower.copy()
        inverse, info = lapack.dpotri(self.lower, lower=1)
        if info != 0:
            raise np.linalg.LinAlgError(f"LAPACK dpotri failed with info = {info}")
        upper = np.triu_indices(self.structure.size, 1)
        inverse[upper] = inverse.T[upper]
        return inverse

    def _triangular_solve(self, block: Float, transposed: bool) -> Float:
        if block.size == 0:
            return block
        solution, info = lapack.dtrtrs(self.lower, block, lower=1, trans=int(transposed))
        if info != 0:
            raise np.linalg.LinAlgError(f"LAPACK dtrtrs failed with info = {info}")
        return np.ascontiguousarray(solution)
