"""Sparse factors: by columns where L has few entries, in supernodes where it has many.

Both keep L as the head of `kernels.supernodes` describes; the simplicial one has one column in every
supernode.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .compiled import kernels
from .ordering import Elimination
from .patterns import Float, Int32, Int64, LowerPattern, frozen


@dataclass(frozen=True, eq=False)
class SparseStructure:
    """Pattern of L in supernodes, and the position in its values of every entry of A."""

    first: Int32
    row_ptr: Int64
    rows: Int32
    value_ptr: Int64
    owner: Int32
    positions: Int64

    @classmethod
    def build(cls, pattern: LowerPattern, elimination: Elimination) -> "SparseStructure":
        """From the pattern of A and an elimination of it."""
        supernodal_pattern = kernels("supernodes").supernodal_pattern
        first = cls._supernodes(elimination)
        row_ptr, rows, value_ptr, owner, positions = supernodal_pattern(
            *pattern, elimination.perm, elimination.parent, elimination.counts, first
        )
        return cls(*(frozen(array) for array in (first, row_ptr, rows, value_ptr, owner, positions)))

    @staticmethod
    def _supernodes(elimination: Elimination) -> Int32:
        raise NotImplementedError

    def factor(self, values: Float) -> "tuple[SimplicialLower | SupernodalLower, int]":
        """Factor of the matrix with these values, and how many pivots were positive before the first bad one."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Number of columns."""
        return len(self.owner)

    def spread(self, values: Float) -> Float:
        """Values of A in the places of L, zero elsewhere."""
        L = np.zeros(self.value_ptr[-1])
        L[self.positions] = values
        return L


@dataclass(frozen=True, eq=False)
class SimplicialStructure(SparseStructure):
    """Every column by itself."""

    @staticmethod
    def _supernodes(elimination: Elimination) -> Int32:
        return np.arange(len(elimination.perm) + 1, dtype=np.int32)

    def factor(self, values: Float) -> tuple["SimplicialLower", int]:
        """Factor of the matrix with these values, and how many pivots were positive before the first bad one."""
        L = self.spread(values)
        n_positive = kernels("simplicial").factorise(self.row_ptr, self.rows, L)
        return SimplicialLower(self, L), n_positive


@dataclass(frozen=True, eq=False)
class SimplicialLower:
    """Values of L by columns."""

    structure: SimplicialStructure
    values: Float

    def diagonal(self) -> Float:
        """Diagonal of L, shape (q,)."""
        return self.values[self.structure.row_ptr[:-1]]

    def forward(self, block: Float) -> Float:
        """L^-1 block, shape (q, k); the block is overwritten."""
        kernels("simplicial").forward(self.structure.row_ptr, self.structure.rows, self.values, block)
        return block

    def backward(self, block: Float) -> Float:
        """L^-T block, shape (q, k); the block is overwritten."""
        kernels("simplicial").backward(self.structure.row_ptr, self.structure.rows, self.values, block)
        return block

    def inverse_values(self) -> Float:
        """The inverse on the pattern of L."""
        Z = np.empty_like(self.values)
        kernels("simplicial").selected_inverse(self.structure.row_ptr, self.structure.rows, self.values, Z)
        return Z

    def selected_inverse(self) -> Float:
        """Entries of the inverse on the input pattern, shape (nnz,)."""
        return self.inverse_values()[self.structure.positions]


@dataclass(frozen=True, eq=False)
class SupernodalStructure(SparseStructure):
    """Columns in relaxed supernodes."""

    @staticmethod
    def _supernodes(elimination: Elimination) -> Int32:
        first: Int32 = kernels("supernodes").relaxed_supernodes(elimination.parent, elimination.counts)
        return first

    def factor(self, values: Float) -> tuple["SupernodalLower", int]:
        """Factor of the matrix with these values, and how many pivots were positive before the first bad one."""
        L = self.spread(values)
        blas = kernels("blas").ADDRESSES
        n_positive = kernels("supernodal").factorise(
            blas, self.first, self.row_ptr, self.rows, self.value_ptr, self.owner, L
        )
        return SupernodalLower(self, L), n_positive


@dataclass(frozen=True, eq=False)
class SupernodalLower:
    """Values of L in dense blocks."""

    structure: SupernodalStructure
    values: Float

    def diagonal(self) -> Float:
        """Diagonal of L, shape (q,)."""
        structure = self.structure
        out = np.empty(structure.size)
        kernels("supernodal_solves").diagonal(structure.first, structure.row_ptr, structure.value_ptr, self.values, out)
        return out

    def forward(self, block: Float) -> Float:
        """L^-1 block, shape (q, k); the block is overwritten."""
        return self._solve(kernels("supernodal_solves").forward, block)

    def backward(self, block: Float) -> Float:
        """L^-T block, shape (q, k); the block is overwritten."""
        return self._solve(kernels("supernodal_solves").backward, block)

    def inverse_values(self) -> Float:
        """The inverse on the pattern of L; the upper triangles of the diagonal blocks too."""
        structure = self.structure
        Z = np.empty_like(self.values)
        kernels("selected_inverse").selected_inverse(
            kernels("blas").ADDRESSES,
            structure.first,
            structure.row_ptr,
            structure.rows,
            structure.value_ptr,
            structure.owner,
            self.values,
            Z,
        )
        return Z

    def selected_inverse(self) -> Float:
        """Entries of the inverse on the input pattern, shape (nnz,)."""
        return self.inverse_values()[self.structure.positions]

    def _solve(self, kernel: Callable[..., None], block: Float) -> Float:
        structure = self.structure
        if block.size > 0:
            kernel(
                kernels("blas").ADDRESSES,
                structure.first,
                structure.row_ptr,
                structure.rows,
                structure.value_ptr,
                self.values,
                block.reshape(-1),
                block.shape[1],
            )
        return block
