"""Weighted cross products Z'WZ on a fixed pattern, and row quadratic forms z_i'Mz_i with M on that pattern.

Both are the same linear map and its transpose: with P (n, nnz) holding z_ia z_ib at (row i, entry (a, b) of the pattern),

    Z'WZ on the pattern = P'w,        (z_i'Mz_i)_i = P (M on the pattern, off-diagonal entries doubled).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from .patterns import Float, Int32, Int64, LowerPattern, find_entries

CHUNK_ENTRIES = 1 << 20
"""Entries of a dense block of rows: 8 MB."""


class RowProducts(Protocol):
    """The map between row weights and a matrix on the pattern."""

    def weighted_sum(self, weights: Float) -> Float:
        """Z'WZ on the pattern, shape (nnz,)."""

    def quadratic_forms(self, values: Float) -> Float:
        """z_i'Mz_i of every row for M symmetric with these values, shape (n,)."""


@dataclass(frozen=True, eq=False)
class PairProducts:
    """The map held as a sparse matrix, for rows with few entries: one SciPy product each way."""

    pairs: sp.csr_array
    off_diagonal_factor: Float

    @classmethod
    def build(cls, Z: sp.csr_array, pattern: LowerPattern) -> "PairProducts":
        """Z in canonical form; the pattern holds every pair of every row."""
        rows, slots, products = row_pairs(Z, pattern)
        pairs = sp.csr_array(sp.coo_array((products, (rows, slots)), shape=(Z.shape[0], pattern.nnz)))
        factor = np.full(pattern.nnz, 2.0)
        factor[pattern.diagonal_positions()] = 1.0
        return cls(pairs, factor)

    def weighted_sum(self, weights: Float) -> Float:
        """Z'WZ on the pattern, shape (nnz,)."""
        return self.pairs.T @ weights

    def quadratic_forms(self, values: Float) -> Float:
        """z_i'Mz_i of every row, shape (n,)."""
        return self.pairs @ (self.off_diagonal_factor * values)


@dataclass(frozen=True, eq=False)
class DenseProducts:
    """Dense blocks of rows through BLAS, for long rows over few columns."""

    Z: sp.csr_array
    rows: Int32
    columns: Int32

    @classmethod
    def build(cls, Z: sp.csr_array, pattern: LowerPattern) -> "DenseProducts":
        """Z in canonical form."""
        return cls(Z, pattern.indices, pattern.columns())

    def weighted_sum(self, weights: Float) -> Float:
        """Z'WZ on the pattern, shape (nnz,)."""
        total = np.zeros((self.Z.shape[1], self.Z.shape[1]))
        for chunk in row_chunks(*self.Z.shape):
            block = self.Z[chunk].toarray()
            total += block.T @ (weights[chunk, None] * block)
        return total[self.rows, self.columns]

    def quadratic_forms(self, values: Float) -> Float:
        """z_i'Mz_i of every row, shape (n,)."""
        M = np.zeros((self.Z.shape[1], self.Z.shape[1]))
        M[self.columns, self.rows] = values
        M[self.rows, self.columns] = values
        out = np.empty(self.Z.shape[0])
        for chunk in row_chunks(*self.Z.shape):
            block = self.Z[chunk].toarray()
            out[chunk] = ((block @ M) * block).sum(axis=1)
        return out


def row_chunks(n_rows: int, n_columns: int) -> list[slice]:
    """Slices of rows whose dense blocks have about CHUNK_ENTRIES entries."""
    step = max(1, CHUNK_ENTRIES // max(1, n_columns))
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]


def row_pairs(Z: sp.csr_array, pattern: LowerPattern) -> tuple[Int64, Int64, Float]:
    """Every pair (a >= b) of entries in the same row: its row, its position in the pattern, its product z_ia z_ib."""
    lengths = np.diff(Z.indptr)
    rows, slots, products = [], [], []
    for length in np.unique(lengths[lengths > 0]):
        of_this_length = np.flatnonzero(lengths == length)
        first, second = np.tril_indices(length)
        entries = Z.indptr[of_this_length][:, None] + np.arange(length)
        columns, values = Z.indices[entries], Z.data[entries]
        rows.append(np.repeat(of_this_length, len(first)))
        slots.append(find_entries(pattern, columns[:, first].ravel(), columns[:, second].ravel()))
        products.append((values[:, first] * values[:, second]).ravel())
    if not rows:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    return np.concatenate(rows), np.concatenate(slots), np.concatenate(products)


def count_pairs(Z: sp.csr_array) -> int:
    """Number of pairs (a >= b) of entries in the same row, over all rows."""
    lengths = np.diff(Z.indptr).astype(np.int64)
    return int((lengths * (lengths + 1) // 2).sum())
