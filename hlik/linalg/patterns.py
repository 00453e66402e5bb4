"""Sparse inputs in one canonical form: sorted, without duplicates, explicit zeros kept.

One form matters twice. A zero that SciPy drops would change the pattern between two iterations of the caller,
and every new combination of index types would make numba compile its kernels once more.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class LowerPattern(NamedTuple):
    """Lower triangle of a symmetric pattern by columns, row indices ascending.

    Column j holds ``indices[indptr[j]:indptr[j + 1]]``, all >= j.
    """

    indptr: Int64
    indices: Int32

    @classmethod
    def diagonal(cls, size: int) -> "LowerPattern":
        """The pattern of a diagonal matrix."""
        return cls(frozen(np.arange(size + 1, dtype=np.int64)), frozen(np.arange(size, dtype=np.int32)))

    @property
    def size(self) -> int:
        """Number of rows and columns."""
        return len(self.indptr) - 1

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return len(self.indices)

    @property
    def is_diagonal(self) -> bool:
        """Whether it holds the whole diagonal and nothing else."""
        return self.nnz == self.size and self.first_missing_diagonal() is None

    def columns(self) -> Int32:
        """Column of every entry, shape (nnz,)."""
        return np.repeat(np.arange(self.size, dtype=np.int32), np.diff(self.indptr))

    def diagonal_positions(self) -> Int64:
        """Position of every diagonal entry, shape (size,); the diagonal must be complete."""
        return self.indptr[:-1]

    def first_missing_diagonal(self) -> int | None:
        """First column without a diagonal entry, or None."""
        starts = self.indptr[:-1]
        filled = np.diff(self.indptr) > 0
        present = np.zeros(self.size, dtype=bool)
        present[filled] = self.indices[starts[filled]] == np.flatnonzero(filled)
        return None if present.all() else int(np.argmin(present))


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """The same array, read-only."""
    array.flags.writeable = False
    return array


def _check_sparse(matrix: Any, name: str) -> None:
    """Refuse what is not a SciPy sparse matrix of two dimensions."""
    shape: tuple[int, ...] = getattr(matrix, "shape", ())
    if not sp.issparse(matrix):
        raise TypeError(f"{name} must be a scipy sparse matrix, got {type(matrix).__name__}")
    if len(shape) != 2:
        raise ValueError(f"{name} must have two dimensions, got shape {shape}")


def check_index_range(size: int, what: str) -> None:
    """Refuse sizes that 32-bit indices cannot count."""
    if size > np.iinfo(np.int32).max:
        raise ValueError(f"{what} is {size}: hlik.linalg counts rows and columns with 32-bit integers")


def lower_pattern(matrix: Any, name: str = "pattern") -> LowerPattern:
    """Lower triangle of a sparse symmetric pattern, given in full or as its lower triangle alone.

    Parameters
    ----------
    matrix : scipy sparse matrix or array, shape (q, q)
        Only the pattern is read; explicit zeros belong to it. Either both triangles or nothing above the
        diagonal.
    name : str
        What to call the argument in an error.
    """
    _check_sparse(matrix, name)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} must be square, got shape {matrix.shape}")
    coo = matrix.tocoo()
    rows, columns = coo.row, coo.col
    above, below = rows < columns, rows > columns
    lower = _sorted_pattern(rows[~above], columns[~above], matrix.shape[0])
    if above.any():
        mirrored = _sorted_pattern(columns[above], rows[above], matrix.shape[0])
        strict = _sorted_pattern(rows[below], columns[below], matrix.shape[0])
        same = np.array_equal(mirrored.indptr, strict.indptr) and np.array_equal(mirrored.indices, strict.indices)
        if not same:
            raise ValueError(f"{name} must be symmetric, or hold its lower triangle only")
    return lower


def _sorted_pattern(rows: NDArray[Any], columns: NDArray[Any], size: int) -> LowerPattern:
    check_index_range(size, "the number of columns")
    csc = sp.csc_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(size, size))
    csc.sort_indices()
    return LowerPattern(frozen(csc.indptr.astype(np.int64)), frozen(csc.indices.astype(np.int32)))


def lower_values(matrix: Any) -> Float:
    """Values of a sparse symmetric matrix in the order of `lower_pattern(matrix)`; duplicates are summed."""
    coo = matrix.tocoo()
    keep = coo.row >= coo.col
    lower = sp.csc_array((coo.data[keep].astype(np.float64), (coo.row[keep], coo.col[keep])), shape=matrix.shape)
    lower.sort_indices()
    return lower.data


def find_entries(pattern: LowerPattern, rows: NDArray[Any], columns: NDArray[Any]) -> Int64:
    """Position of each entry (row >= column) in the pattern, or -1 where the pattern lacks it."""
    keys = pattern.columns().astype(np.int64) * pattern.size + pattern.indices
    wanted = columns.astype(np.int64) * pattern.size + rows
    positions = np.searchsorted(keys, wanted)
    if len(keys) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    return np.where(keys[np.minimum(positions, len(keys) - 1)] == wanted, positions, -1)


def values_on_pattern(matrix: Any, pattern: LowerPattern, name: str = "matrix") -> Float:
    """Lower triangle of a sparse symmetric matrix in the order of a pattern that holds all its entries."""
    if matrix.shape != (pattern.size, pattern.size):
        raise ValueError(f"{name} must have shape ({pattern.size}, {pattern.size}), got {matrix.shape}")
    own, values = lower_pattern(matrix, name), lower_values(matrix)
    if np.array_equal(own.indptr, pattern.indptr) and np.array_equal(own.indices, pattern.indices):
        return values
    positions = find_entries(pattern, own.indices, own.columns())
    missing = np.flatnonzero(positions < 0)
    if len(missing) > 0:
        entry = int(own.indices[missing[0]]), int(own.columns()[missing[0]])
        raise ValueError(f"{name} has {len(missing)} entries outside the pattern, the first at {entry}")
    out = np.zeros(pattern.nnz)
    out[positions] = values
    return out


def symmetric_matrix(pattern: LowerPattern, values: Float) -> sp.csc_array:
    """The full symmetric matrix with these values on its lower triangle."""
    lower = sp.csc_array((values, pattern.indices, pattern.indptr), shape=(pattern.size, pattern.size))
    strict = values.copy()
    strict[pattern.diagonal_positions()] = 0.0
    upper = sp.csc_array((strict, pattern.indices, pattern.indptr), shape=lower.shape).T
    return sp.csc_array(lower + upper)


def canonical_rows(matrix: Any, name: str) -> sp.csr_array:
    """CSR array in float64 with sorted columns and duplicates summed; explicit zeros are kept.

    Shares memory with the input where that is already in this form.
    """
    _check_sparse(matrix, name)
    check_index_range(max(matrix.shape), f"the larger dimension of {name}")
    csr = sp.csr_array(matrix, dtype=np.float64)
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    check_finite(csr.data, name)
    return csr


def check_finite(values: Float, name: str) -> None:
    """Refuse NaN and infinity, with their number and the first place."""
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values))
        raise ValueError(f"{name} must be finite, got {len(bad)} NaN or infinite entries, the first at {bad[0]}")
