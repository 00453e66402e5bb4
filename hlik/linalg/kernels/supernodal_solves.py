"""Triangular solves with a supernodal factor, and its diagonal. `supernodes` describes the data structure.

A block of k right-hand sides (n, k), stored by rows, is seen as its transpose (k, n) stored by columns: rows
``first[s] .. first[s + 1] - 1`` are then a matrix (k, columns of s) that lies together in memory.
"""

import numpy as np

from ._jit import FLOAT, FLOAT_OUT, INT32, INT64, SIZE, VOID, compiled
from ._types import Float, Int32, Int64
from .blas import N, R, T, gemm, trsm
from .supernodes import NARROW, longest_rows

# The solves see a block of k right-hand sides (n, k), stored by rows, as its transpose (k, n) stored by
# columns: rows first[s] .. first[s + 1] - 1 are then a matrix (k, columns of s) that lies together in memory.


@compiled(VOID(INT64, INT32, INT64, INT32, INT64, FLOAT, FLOAT_OUT, SIZE))
def forward(
    blas: Int64, first: Int32, row_ptr: Int64, rows: Int32, value_ptr: Int64, L: Float, B: Float, k: int
) -> None:
    """Replace B (n, k), given flat, by L^-1 B."""
    work = np.empty(longest_rows(first, row_ptr) * k)
    for s in range(len(first) - 1):
        n_columns, n_rows = first[s + 1] - first[s], row_ptr[s + 1] - row_ptr[s]
        begin, own = value_ptr[s], first[s] * k
        if n_columns <= NARROW:
            for j in range(n_columns):
                column, source = begin + j * n_rows, own + j * k
                scale = 1.0 / L[column + j]
                for c in range(k):
                    B[source + c] *= scale
                for i in range(j + 1, n_rows):
                    target, value = rows[row_ptr[s] + i] * k, L[column + i]
                    for c in range(k):
                        B[target + c] -= value * B[source + c]
            continue
        below = n_rows - n_columns
        trsm(blas, R, T, k, n_columns, L, begin, n_rows, B, own, k)
        if below > 0:
            gemm(blas, N, T, k, below, n_columns, 1.0, B, own, k, L, begin + n_columns, n_rows, 0.0, work, 0, k)
            for i in range(below):
                target = rows[row_ptr[s] + n_columns + i] * k
                for c in range(k):
                    B[target + c] -= work[i * k + c]


@compiled(VOID(INT64, INT32, INT64, INT32, INT64, FLOAT, FLOAT_OUT, SIZE))
def backward(
    blas: Int64, first: Int32, row_ptr: Int64, rows: Int32, value_ptr: Int64, L: Float, B: Float, k: int
) -> None:
    """Replace B (n, k), given flat, by L^-T B."""
    work = np.empty(longest_rows(first, row_ptr) * k)
    for s in range(len(first) - 2, -1, -1):
        n_columns, n_rows = first[s + 1] - first[s], row_ptr[s + 1] - row_ptr[s]
        begin, own = value_ptr[s], first[s] * k
        if n_columns <= NARROW:
            for j in range(n_columns - 1, -1, -1):
                column, target = begin + j * n_rows, own + j * k
                for i in range(j + 1, n_rows):
                    source, value = rows[row_ptr[s] + i] * k, L[column + i]
                    for c in range(k):
                        B[target + c] -= value * B[source + c]
                scale = 1.0 / L[column + j]
                for c in range(k):
                    B[target + c] *= scale
            continue
        below = n_rows - n_columns
        if below > 0:
            for i in range(below):
                source = rows[row_ptr[s] + n_columns + i] * k
                for c in range(k):
                    work[i * k + c] = B[source + c]
            gemm(blas, N, N, k, n_columns, below, -1.0, work, 0, k, L, begin + n_columns, n_rows, 1.0, B, own, k)
        trsm(blas, R, N, k, n_columns, L, begin, n_rows, B, own, k)


@compiled(VOID(INT32, INT64, INT64, FLOAT, FLOAT_OUT))
def diagonal(first: Int32, row_ptr: Int64, value_ptr: Int64, L: Float, out: Float) -> None:
    """Diagonal of L, shape (n,)."""
    for s in range(len(first) - 1):
        step = row_ptr[s + 1] - row_ptr[s] + 1
        for j in range(first[s + 1] - first[s]):
            out[first[s] + j] = L[value_ptr[s] + j * step]
