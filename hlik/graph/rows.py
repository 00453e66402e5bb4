"""Linear maps from one variable to the elements of a graph node, stored without needless copies.

A node with ``m`` elements that depends affinely on a variable with ``k`` elements has an ``(m, k)`` Jacobian.
Four storages cover what models contain:

========== ========================================== =====================================
`Gather`   one entry a row: ``J[i, index[i]] = weight`` ``u[group]``, ``u[group] * x``, scalars
`Dense`    a NumPy matrix                               ``X @ beta``
`Wide`     the user's matrix as it is, rows of it       ``Z @ u`` with Z of bytes, or on disk
`Sparse`   a SciPy CSR matrix                           everything else
========== ========================================== =====================================

All are immutable: every function returns a new map and may share arrays with its arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

ROUNDING = 1e-13  # relative to the largest entry


@dataclass(frozen=True, eq=False)
class Gather:
    """``J[i, index[i]] = weight[i]``; `weight` is a scalar array when all rows share it."""

    index: np.ndarray
    weight: np.ndarray
    size: int

    @property
    def length(self) -> int:
        """Number of rows m."""
        return self.index.size


class _OfMatrix:
    """Rows that are those of a matrix."""

    matrix: np.ndarray | sp.csr_array

    @property
    def length(self) -> int:
        """Number of rows m."""
        return self.matrix.shape[0]

    @property
    def size(self) -> int:
        """Number of columns k."""
        return self.matrix.shape[1]


@dataclass(frozen=True, eq=False)
class Dense(_OfMatrix):
    """``J = matrix``, shape (m, k)."""

    matrix: np.ndarray


@dataclass(frozen=True, eq=False)
class Wide(_OfMatrix):
    """``J = weight[:, None] * matrix[index]`` with a matrix that is not float64 or lies on disk; never copied.

    `index` None stands for all rows in order; `weight` is a scalar array when all rows share it.
    """

    matrix: np.ndarray
    index: np.ndarray | None
    weight: np.ndarray

    @property
    def length(self) -> int:
        """Number of rows m."""
        return self.matrix.shape[0] if self.index is None else self.index.size


@dataclass(frozen=True, eq=False)
class Sparse(_OfMatrix):
    """``J = matrix``, SciPy CSR of shape (m, k)."""

    matrix: sp.csr_array


Rows = Gather | Dense | Wide | Sparse


def identity(size: int) -> Gather:
    """The map of a variable onto itself."""
    return Gather(np.arange(size, dtype=np.int32), np.array(1.0), size)


def take(rows: Rows, index: np.ndarray) -> Rows:
    """Rows `index` of the map, in that order and with repeats."""
    if isinstance(rows, Gather):
        weight = rows.weight if rows.weight.ndim == 0 else rows.weight[index]
        return Gather(rows.index[index], weight, rows.size)
    if isinstance(rows, Dense):
        return Dense(rows.matrix[index])
    if isinstance(rows, Wide):
        weight = rows.weight if rows.weight.ndim == 0 else rows.weight[index]
        return Wide(rows.matrix, index if rows.index is None else rows.index[index], weight)
    return Sparse(rows.matrix[index])


def scale(rows: Rows, weight: np.ndarray) -> Rows:
    """Each row multiplied by its `weight` (shape (m,) or a scalar array)."""
    if isinstance(rows, Gather):
        return Gather(rows.index, rows.weight * weight, rows.size)
    if isinstance(rows, Wide):
        return Wide(rows.matrix, rows.index, rows.weight * weight)
    column = weight if weight.ndim == 0 else weight[:, None]
    if isinstance(rows, Dense):
        return Dense(rows.matrix * column)
    if weight.ndim == 0:
        return Sparse(rows.matrix * float(weight))
    return Sparse(sp.csr_array(sp.diags_array(weight) @ rows.matrix))


def add(left: Rows, right: Rows) -> Rows:
    """The sum of two maps from the same variable."""
    if isinstance(left, Gather) and isinstance(right, Gather) and np.array_equal(left.index, right.index):
        return Gather(left.index, left.weight + right.weight, left.size)
    if isinstance(left, Dense | Wide) or isinstance(right, Dense | Wide) or left.size == 1:
        return Dense(to_dense(left) + to_dense(right))
    return Sparse(sp.csr_array(to_csr(left) + to_csr(right)))


def is_zero(rows: Rows) -> bool:
    """Whether every entry is zero."""
    if isinstance(rows, Gather):
        return not np.any(rows.weight)
    if isinstance(rows, Dense | Wide):
        return not np.any(rows.matrix)
    return not np.any(rows.matrix.data)


def close(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two arrays are equal but for the last few bits: the same sum may be taken in another order."""
    if np.array_equal(left, right):
        return True
    largest = np.max(np.abs(left), initial=0.0)
    return bool(np.all(np.abs(left - right) <= ROUNDING * largest))


def same(left: Rows, right: Rows) -> bool:
    """Whether two maps are equal in every entry, but for the last few bits."""
    if left is right:
        return True
    if (left.length, left.size) != (right.length, right.size):
        return False
    if isinstance(left, Gather) and isinstance(right, Gather) and np.array_equal(left.index, right.index):
        return close(*np.broadcast_arrays(left.weight, right.weight))
    if isinstance(left, Dense) and isinstance(right, Dense):
        return close(left.matrix, right.matrix)
    if isinstance(left, Wide) and isinstance(right, Wide) and left.matrix is right.matrix:
        every = np.arange(left.matrix.shape[0])
        indices = [every if rows.index is None else rows.index for rows in (left, right)]
        return np.array_equal(*indices) and close(*np.broadcast_arrays(left.weight, right.weight))
    one, other = to_csr(left), to_csr(right)
    largest = np.max(np.abs(one.data), initial=0.0)
    return bool(np.max(np.abs((one - other).data), initial=0.0) <= ROUNDING * largest)


def apply(matrix: np.ndarray | sp.sparray, rows: Rows) -> Rows:
    """``matrix @ J`` for a data matrix; dense data on the identity are kept as they are, uncopied."""
    if _is_kept(matrix) and is_identity(rows):
        return Wide(matrix, None, rows.weight)  # type: ignore[union-attr, arg-type]
    dense_result = not sp.issparse(matrix)
    if is_identity(rows):
        weight = float(rows.weight)  # type: ignore[union-attr]
        product = matrix if weight == 1.0 else matrix * weight
        return Dense(np.asarray(product, float)) if dense_result else Sparse(sp.csr_array(product))
    if isinstance(rows, Wide):
        return Dense(np.asarray(matrix @ to_dense(rows)))
    if isinstance(rows, Dense):
        return Dense(np.asarray(matrix @ rows.matrix))
    if dense_result and np.count_nonzero(matrix) * 2 > matrix.size:
        return Dense(np.asarray(matrix @ to_csr(rows).toarray()))
    return Sparse(sp.csr_array(sp.csr_array(matrix) @ to_csr(rows)))


def is_identity(rows: Rows) -> bool:
    """Whether the map takes every element of its variable once, in order, with one weight."""
    return (
        isinstance(rows, Gather)
        and rows.length == rows.size
        and rows.weight.ndim == 0
        and np.array_equal(rows.index, np.arange(rows.size))
    )


def _is_kept(matrix: np.ndarray | sp.sparray) -> bool:
    """Whether a matrix is dense, has more columns than rows, and is not float64 in memory."""
    if sp.issparse(matrix) or matrix.ndim != 2 or matrix.shape[1] <= matrix.shape[0]:
        return False
    return matrix.dtype != np.float64 or on_disk(matrix)  # type: ignore[arg-type]


def on_disk(array: np.ndarray) -> bool:
    """Whether an array is, or is a view of, a memory-mapped file."""
    base: object = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False


def stack(parts: list[Rows | None], lengths: list[int], size: int) -> Rows:
    """Maps one below the other; `None` stands for that many zero rows."""
    if any(isinstance(part, Wide) for part in parts) or all(part is None or isinstance(part, Dense) for part in parts):
        dense = [np.zeros((m, size)) if p is None else to_dense(p) for p, m in zip(parts, lengths, strict=True)]
        return Dense(np.vstack(dense))
    if all(isinstance(part, Gather) for part in parts):
        gathers = [part for part in parts if isinstance(part, Gather)]
        weight = np.concatenate([np.broadcast_to(g.weight, g.index.shape) for g in gathers])
        return Gather(np.concatenate([g.index for g in gathers]), weight, size)
    sparse = [sp.csr_array((m, size)) if p is None else to_csr(p) for p, m in zip(parts, lengths, strict=True)]
    return Sparse(sp.csr_array(sp.vstack(sparse)))


def to_csr(rows: Rows) -> sp.csr_array:
    """The map as CSR; explicit zeros of a `Gather` are kept, so its pattern does not depend on the data."""
    if isinstance(rows, Gather):
        weight = np.array(np.broadcast_to(rows.weight, rows.index.shape), dtype=float)
        pointer = np.arange(rows.length + 1, dtype=np.int32)
        return sp.csr_array((weight, rows.index, pointer), shape=(rows.length, rows.size))
    if isinstance(rows, Dense | Wide):
        return sp.csr_array(to_dense(rows))
    return rows.matrix


def to_dense(rows: Rows) -> np.ndarray:
    """The map as a NumPy matrix: for fixed effects and small maps only."""
    if isinstance(rows, Dense):
        return rows.matrix
    if isinstance(rows, Sparse):
        return rows.matrix.toarray()
    if isinstance(rows, Wide):
        taken = np.asarray(rows.matrix if rows.index is None else rows.matrix[rows.index], float)
        return taken * (rows.weight if rows.weight.ndim == 0 else rows.weight[:, None])
    matrix = np.zeros((rows.length, rows.size))
    matrix[np.arange(rows.length), rows.index] = rows.weight
    return matrix


def multiply(rows: Rows, vector: np.ndarray) -> np.ndarray:
    """``J @ vector``."""
    if isinstance(rows, Gather):
        return rows.weight * vector[rows.index]
    if isinstance(rows, Wide):
        columns = max(1, 4_000_000 // rows.matrix.shape[0])  # 32 MB as float64
        parts = range(0, rows.size, columns)
        product = sum(rows.matrix[:, k : k + columns].astype(float) @ vector[k : k + columns] for k in parts)
        return rows.weight * (product if rows.index is None else product[rows.index])
    return rows.matrix @ vector
