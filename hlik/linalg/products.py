"""Weighted cross products Z'WZ on a fixed pattern, and the row quadratic forms z_i'Mz_i that go back from it.

Both are one linear map and its transpose. With P (n, nnz) holding z_ia z_ib in row i at the entry (a, b) of
the pattern,

    Z'WZ on the pattern = P'w,        (z_i'Mz_i)_i = P (M on the pattern, off-diagonal entries doubled).

How P is held depends on the rows of Z: few entries or many, few rows or millions.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .compiled import kernels
from .patterns import Float, Int32, Int64, LowerPattern, find_entries, frozen, lower_pattern

CHUNK_ENTRIES = 1 << 17
"""Entries of a dense block of rows: 1 MB, so that it stays in cache."""

SLOT_LIMIT = 40_000_000
"""Pairs of entries within rows whose positions are stored, 4 bytes each; beyond it, the sweep."""

WORK_FOR_NUMBA = 3_000_000
"""Pairs and entries of X that are worth loading, perhaps compiling, kernels which the factorisation does not need."""

CACHE_BYTES = 1 << 19
"""Z'WX larger than this makes rows in random order miss the cache at every entry: they are sorted once instead."""

NEAR = 8
"""Columns this far apart in consecutive rows are still found in cache."""


@dataclass(frozen=True, eq=False)
class RowProducts:
    """The map between row weights and matrices on the pattern, in its generic form; X beside it.

    Subclasses define `weighted_sum` and `quadratic_forms`; they may override `form` and `quadratics` with
    something faster.

    Attributes
    ----------
    X : array, shape (n, p)
    Z : CSR array, shape (n, q)
        In canonical form.
    pattern : LowerPattern
        Holds every pair of entries of every row of Z.
    """

    X: Float
    Z: sp.csr_array
    pattern: LowerPattern

    def with_border(self, X: Float) -> Self:
        """The same rows of Z beside other columns X."""
        return replace(self, X=X)

    def weighted_sum(self, w: Float) -> Float:
        """Z'WZ on the pattern, shape (nnz,)."""
        raise NotImplementedError

    def quadratic_forms(self, values: Float) -> Float:
        """z_i'Mz_i of every row for M symmetric with these values, shape (n,)."""
        raise NotImplementedError

    def form(self, w: Float) -> tuple[Float, Float, Float]:
        """Z'WZ on the pattern, shape (nnz,); X'WX, shape (p, p); Z'WX, shape (q, p)."""
        return self.weighted_sum(w), *border_products(self.X, self.Z, w)

    def quadratics(self, values: Float, B: Float, root: Float) -> Float:
        """z_i'Mz_i + |root'(x_i - B'z_i)|^2 of every row, shape (n,); root (p, p) upper triangular."""
        return self.quadratic_forms(values) + border_quadratics(self.X, self.Z, B, root)


def border_products(X: Float, Z: sp.csr_array, w: Float) -> tuple[Float, Float]:
    """X'WX, shape (p, p), and Z'WX, shape (q, p)."""
    p = X.shape[1]
    XWX, ZWX = np.zeros((p, p)), np.zeros((Z.shape[1], p))
    if p == 0:
        return XWX, ZWX
    for chunk in row_chunks(*X.shape):
        weighted = w[chunk, None] * X[chunk]
        XWX += X[chunk].T @ weighted
        if Z.shape[1] > 0:
            ZWX += rows_of(Z, chunk).T @ weighted
    return XWX, ZWX


def border_quadratics(X: Float, Z: sp.csr_array, B: Float, root: Float) -> Float:
    """|root'(x_i - B'z_i)|^2 of every row, shape (n,)."""
    if X.shape[1] == 0:
        return np.zeros(len(X))
    out = np.empty(len(X))
    for chunk in row_chunks(*X.shape):
        u = X[chunk] - rows_of(Z, chunk) @ B
        out[chunk] = ((u @ root) ** 2).sum(axis=1)
    return out


def row_chunks(n_rows: int, n_columns: int) -> list[slice]:
    """Slices of rows whose dense blocks have about CHUNK_ENTRIES entries."""
    step = max(1, CHUNK_ENTRIES // max(1, n_columns))
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]


def rows_of(Z: sp.csr_array, chunk: slice) -> sp.csr_array:
    """Rows of Z as a view: its numbers are not copied, as they are by SciPy's slicing."""
    if chunk.start == 0 and chunk.stop == Z.shape[0]:
        return Z
    first, last = Z.indptr[chunk.start], Z.indptr[chunk.stop]
    indptr = Z.indptr[chunk.start : chunk.stop + 1] - first
    return sp.csr_array((Z.data[first:last], Z.indices[first:last], indptr), shape=(len(indptr) - 1, Z.shape[1]))


@dataclass(frozen=True, eq=False)
class PairProducts(RowProducts):
    """P held as a SciPy matrix: for rows with few entries, without anything to compile."""

    pairs: sp.csr_array
    doubled: Float

    @classmethod
    def build(cls, X: Float, Z: sp.csr_array, pattern: LowerPattern) -> "PairProducts":
        """Find the pairs."""
        if pattern.is_diagonal and np.diff(Z.indptr).max(initial=0) <= 1:
            pairs = sp.csr_array((Z.data**2, Z.indices, Z.indptr), shape=Z.shape)
            return cls(X, Z, pattern, pairs, np.ones(pattern.nnz))
        rows, first, second, products = pairs_within_rows(Z)
        slots = find_entries(pattern, first, second)
        pairs = sp.csr_array(sp.coo_array((products, (rows, slots)), shape=(Z.shape[0], pattern.nnz)))
        doubled = np.full(pattern.nnz, 2.0)
        doubled[pattern.diagonal_positions()] = 1.0
        return cls(X, Z, pattern, pairs, doubled)

    def weighted_sum(self, w: Float) -> Float:
        return self.pairs.T @ w

    def quadratic_forms(self, values: Float) -> Float:
        return self.pairs @ (self.doubled * values)


def pairs_within_rows(Z: sp.csr_array) -> tuple[Int64, Int32, Int32, Float]:
    """Every pair of entries of the same row: the row, the two columns a >= b, the product z_ia z_ib."""
    lengths = np.diff(Z.indptr)
    parts: list[tuple[NDArray[Any], ...]] = [
        (np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0))
    ]
    for length in np.unique(lengths[lengths > 0]):
        of_this_length = np.flatnonzero(lengths == length)
        first, second = np.tril_indices(length)
        entries = Z.indptr[of_this_length][:, None] + np.arange(length)
        columns, values = Z.indices[entries], Z.data[entries]
        rows = np.repeat(of_this_length, len(first))
        products = (values[:, first] * values[:, second]).ravel()
        parts.append((rows, columns[:, first].ravel(), columns[:, second].ravel(), products))
    joined = [np.concatenate(part) for part in zip(*parts, strict=True)]
    return joined[0], joined[1], joined[2], joined[3]


@dataclass(frozen=True, eq=False)
class DenseProducts(RowProducts):
    """Dense blocks of rows through BLAS: for long rows over few columns."""

    def weighted_sum(self, w: Float) -> Float:
        total = np.zeros((self.pattern.size, self.pattern.size))
        for chunk in row_chunks(*self.Z.shape):
            block = rows_of(self.Z, chunk).toarray()
            total += block.T @ (w[chunk, None] * block)
        return total[self.pattern.indices, self.pattern.columns()]

    def quadratic_forms(self, values: Float) -> Float:
        rows, columns = self.pattern.indices, self.pattern.columns()
        M = np.zeros((self.pattern.size, self.pattern.size))
        M[rows, columns] = values
        M[columns, rows] = values
        out = np.empty(self.Z.shape[0])
        for chunk in row_chunks(*self.Z.shape):
            block = rows_of(self.Z, chunk).toarray()
            out[chunk] = ((block @ M) * block).sum(axis=1)
        return out


@dataclass(frozen=True, eq=False)
class _KernelProducts(RowProducts):
    """Rows of Z in the types that the kernels take."""

    row_ptr: Int64
    columns: Int32

    def _rows(self) -> tuple[Int64, Int32, Float]:
        return self.row_ptr, self.columns, self.Z.data


@dataclass(frozen=True, eq=False)
class SlotProducts(_KernelProducts):
    """The position in the pattern of every pair: for many rows with few entries.

    X and Z may be held in another order of rows than the caller's: row k here is the caller's row
    ``order[k]``.
    """

    slots: Int32
    order: Int64 | None

    @classmethod
    def build(cls, X: Float, Z: sp.csr_array, pattern: LowerPattern) -> "SlotProducts":
        """Sort the rows if that pays, and find the pairs."""
        order = order_of_rows(Z) if 8 * Z.shape[1] * (X.shape[1] + 1) > CACHE_BYTES else None
        if order is not None:
            X, Z = X[order], Z[order]
        row_ptr, columns = kernel_rows(Z)
        slots = kernels("rows").pair_slots(row_ptr, columns, *pattern, count_pairs(Z))
        return cls(X, Z, pattern, row_ptr, columns, slots, order)

    def with_border(self, X: Float) -> Self:
        return replace(self, X=X if self.order is None else X[self.order])

    def weighted_sum(self, w: Float) -> Float:
        return self._form(w, self.X[:, :0].copy())[0]

    def quadratic_forms(self, values: Float) -> Float:
        n, q = self.Z.shape
        return self._quadratics(values, np.empty((n, 0)), np.empty((q, 0)), np.empty((0, 0)))

    def form(self, w: Float) -> tuple[Float, Float, Float]:
        return self._form(w, self.X)

    def quadratics(self, values: Float, B: Float, root: Float) -> Float:
        return self._quadratics(values, self.X, B, root)

    def _form(self, w: Float, X: Float) -> tuple[Float, Float, Float]:
        p = X.shape[1]
        values, XWX, ZWX = np.zeros(self.pattern.nnz), np.zeros((p, p)), np.zeros((self.pattern.size, p))
        if self.order is not None:
            w = w[self.order]
        kernels("rows").form(*self._rows(), self.slots, w, X, values, XWX, ZWX)
        return values, XWX + np.tril(XWX, -1).T, ZWX

    def _quadratics(self, values: Float, X: Float, B: Float, root: Float) -> Float:
        result = np.empty(self.Z.shape[0])
        kernels("rows").quadratics(*self._rows(), self.slots, values, X, B, np.ascontiguousarray(root), result)
        if self.order is None:
            return result
        out = np.empty_like(result)
        out[self.order] = result
        return out


def order_of_rows(Z: sp.csr_array) -> Int64 | None:
    """Rows sorted by their entry in the widest factor, or None where consecutive rows are near each other already."""
    lengths = np.diff(Z.indptr)
    if len(lengths) < 2 or lengths.min() == 0 or lengths.min() != lengths.max():
        return None
    by_position = Z.indices.reshape(len(lengths), -1)
    widest = int(np.argmax(np.ptp(by_position, axis=0)))
    key = by_position[:, widest]
    if np.mean(np.abs(np.diff(key)) <= NEAR) > 0.5:
        return None
    return np.argsort(key, kind="stable")


@dataclass(frozen=True, eq=False)
class SweepProducts(_KernelProducts):
    """Column after column of the pattern: for long rows, whose pairs are too many to store anything for them."""

    column_ptr: Int64
    rows: Int32

    @classmethod
    def build(cls, X: Float, Z: sp.csr_array, pattern: LowerPattern) -> "SweepProducts":
        """Find the rows of every column."""
        by_column = Z.tocsc()
        by_column.sort_indices()
        column_ptr, rows = by_column.indptr.astype(np.int64), by_column.indices.astype(np.int32)
        return cls(X, Z, pattern, *kernel_rows(Z), column_ptr, rows)

    def weighted_sum(self, w: Float) -> Float:
        values = np.empty(self.pattern.nnz)
        kernels("sweep").form(*self._rows(), self.column_ptr, self.rows, w, *self.pattern, values)
        return values

    def quadratic_forms(self, values: Float) -> Float:
        out = np.empty(self.Z.shape[0])
        kernels("sweep").quadratics(*self._rows(), self.column_ptr, self.rows, values, *self.pattern, out)
        return out


def kernel_rows(Z: sp.csr_array) -> tuple[Int64, Int32]:
    """Row pointers and columns in the types that the kernels take."""
    return Z.indptr.astype(np.int64), Z.indices.astype(np.int32, copy=False)


def count_pairs(Z: sp.csr_array) -> int:
    """Number of pairs (a >= b) of entries in the same row, over all rows."""
    lengths = np.diff(Z.indptr).astype(np.int64)
    return int((lengths * (lengths + 1) // 2).sum())


def union_pattern(Z: sp.csr_array, prior: LowerPattern) -> LowerPattern:
    """Lower pattern of Z'Z + D + I for Z in canonical form and the pattern of D."""
    q = Z.shape[1]
    if prior.is_diagonal and np.diff(Z.indptr).max(initial=0) <= 1:
        return LowerPattern.diagonal(q)
    if count_pairs(Z) > WORK_FOR_NUMBA:
        indptr, indices = kernels("rows").product_pattern(*kernel_rows(Z), *prior)
        unsorted = sp.csc_array((np.ones(len(indices), dtype=np.int8), indices, indptr), shape=(q, q))
        unsorted.sort_indices()  # SciPy's own sort is as fast and does not have to be compiled
        return LowerPattern(frozen(unsorted.indptr.astype(np.int64)), frozen(unsorted.indices.astype(np.int32)))
    # Products of ones, so that no entry can cancel and be dropped.
    ones = sp.csr_array((np.ones(Z.nnz, dtype=np.float32), Z.indices, Z.indptr), shape=Z.shape)
    lower = sp.csc_array((np.ones(prior.nnz, dtype=np.float32), prior.indices, prior.indptr), shape=(q, q))
    products = sp.tril(ones.T @ ones, format="csc")
    return lower_pattern(products + lower + sp.eye_array(q, dtype=np.float32, format="csc"), "C")


def choose_products(X: Float, Z: sp.csr_array, pattern: LowerPattern, numba_is_needed: bool) -> RowProducts:
    """The cheapest of the above for these rows.

    Parameters
    ----------
    X, Z, pattern
        As `RowProducts` holds them.
    numba_is_needed : bool
        Whether the factorisation uses compiled kernels anyhow.
    """
    n, q = Z.shape
    pairs = count_pairs(Z)
    if q <= 2000 and Z.nnz > 0.2 * n * q and pairs > 4 * Z.nnz:
        return DenseProducts(X, Z, pattern)
    if pairs + X.size <= (WORK_FOR_NUMBA // 30 if numba_is_needed else WORK_FOR_NUMBA):
        return PairProducts.build(X, Z, pattern)
    return SlotProducts.build(X, Z, pattern) if pairs <= SLOT_LIMIT else SweepProducts.build(X, Z, pattern)
