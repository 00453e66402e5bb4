"""Z'WZ on a fixed pattern, X'WX and Z'WX in one pass over the rows, and the row quadratic forms that go back.

Z (n, q) is given by rows: ``row_ptr, columns, z``, columns ascending. The pattern of C is a lower triangle by
columns, ``indptr, indices``. The *slots* are the positions in C of every pair of entries in a row, one for each
pair: right for short rows. For long ones see `sweep`.
"""

import numpy as np

from ._jit import (
    FLOAT,
    FLOAT2,
    FLOAT2_OUT,
    FLOAT_OUT,
    INT32,
    INT32_OUT,
    INT64,
    INT64_OUT,
    SIZE,
    VOID,
    compiled,
    inner,
    inner_reordered,
    returns,
)
from ._types import Float, Int32, Int64

BLOCK = 128
"""Rows of X turned into columns at a time, so that the loops over them run in vector registers. It also keeps
rounding errors small: they grow with the number of blocks."""


@inner_reordered
def _dot(a: Float, b: Float, n: int) -> float:
    total = 0.0
    for i in range(n):
        total += a[i] * b[i]
    return total


@inner
def _rows_of_columns(columns: Int32, row_ptr: Int64, n_columns: int) -> tuple[Int64, Int32]:
    """Rows of every column of Z, ascending."""
    pointers = np.zeros(n_columns + 1, np.int64)
    for e in range(len(columns)):
        pointers[columns[e] + 1] += 1
    for j in range(n_columns):
        pointers[j + 1] += pointers[j]
    free = pointers[:-1].copy()
    rows = np.empty(len(columns), np.int32)
    for i in range(len(row_ptr) - 1):
        for e in range(row_ptr[i], row_ptr[i + 1]):
            rows[free[columns[e]]] = i
            free[columns[e]] += 1
    return pointers, rows


@compiled(returns((INT64_OUT, INT32_OUT))(INT64, INT32, INT64, INT32))
def product_pattern(row_ptr: Int64, columns: Int32, prior_ptr: Int64, prior_rows: Int32) -> tuple[Int64, Int32]:
    """Lower pattern of Z'Z + D + I by columns, rows unsorted, from that of D; in the manner of `sweep.form`."""
    q = len(prior_ptr) - 1
    column_ptr, rows = _rows_of_columns(columns, row_ptr, q)
    progress = row_ptr[:-1].copy()
    newest = np.full(q, -1, np.int32)
    indptr = np.zeros(q + 1, np.int64)
    indices = np.empty(2 * q + len(prior_rows) + len(columns), np.int32)
    used = 0
    for j in range(q):
        if used + q - j > len(indices):
            longer = np.empty(2 * len(indices) + q, np.int32)
            longer[:used] = indices[:used]
            indices = longer
        indices[used] = j
        used += 1
        newest[j] = j
        for e in range(prior_ptr[j], prior_ptr[j + 1]):
            i = prior_rows[e]
            if newest[i] != j:
                newest[i] = j
                indices[used] = i
                used += 1
        for e in range(column_ptr[j], column_ptr[j + 1]):
            at = progress[rows[e]]
            progress[rows[e]] = at + 1
            for b in range(at + 1, row_ptr[rows[e] + 1]):
                i = columns[b]
                if newest[i] != j:
                    newest[i] = j
                    indices[used] = i
                    used += 1
        indptr[j + 1] = used
    return indptr, indices[:used].copy()


@compiled(INT32_OUT(INT64, INT32, INT64, INT32, SIZE))
def pair_slots(row_ptr: Int64, columns: Int32, indptr: Int64, indices: Int32, n_pairs: int) -> Int32:
    """Position in C of every pair (a, b), b <= a, of entries of a row, in the order in which `form` meets them."""
    slots = np.empty(n_pairs, np.int32)
    done = 0
    for i in range(len(row_ptr) - 1):
        for a in range(row_ptr[i], row_ptr[i + 1]):
            wanted = columns[a]
            for b in range(row_ptr[i], a + 1):
                low, high = indptr[columns[b]], indptr[columns[b] + 1] - 1
                while low < high:
                    middle = (low + high) >> 1
                    if indices[middle] < wanted:
                        low = middle + 1
                    else:
                        high = middle
                slots[done] = low
                done += 1
    return slots


@compiled(VOID(INT64, INT32, FLOAT, INT32, FLOAT, FLOAT2, FLOAT_OUT, FLOAT2_OUT, FLOAT2_OUT))
def form(
    row_ptr: Int64,
    columns: Int32,
    z: Float,
    slots: Int32,
    w: Float,
    X: Float,
    C: Float,
    XWX: Float,
    ZWX: Float,
) -> None:
    """Add Z'WZ to the values C, X'WX to the lower triangle of XWX (p, p), Z'WX to ZWX (q, p)."""
    n, p = X.shape
    plain, weighted = np.empty((p, BLOCK)), np.empty((p, BLOCK))
    pair = 0
    for start in range(0, n, BLOCK):
        n_rows = min(BLOCK, n - start)
        for r in range(n_rows):
            i = start + r
            for c in range(p):
                plain[c, r] = X[i, c]
                weighted[c, r] = w[i] * X[i, c]
            for a in range(row_ptr[i], row_ptr[i + 1]):
                factor = w[i] * z[a]
                column = columns[a]
                for b in range(row_ptr[i], a + 1):
                    C[slots[pair]] += factor * z[b]
                    pair += 1
                for c in range(p):
                    ZWX[column, c] += factor * X[i, c]
        for c in range(p):
            for e in range(c + 1):
                XWX[c, e] += _dot(weighted[c], plain[e], n_rows)


@compiled(VOID(INT64, INT32, FLOAT, INT32, FLOAT, FLOAT2, FLOAT2, FLOAT2, FLOAT_OUT))
def quadratics(
    row_ptr: Int64,
    columns: Int32,
    z: Float,
    slots: Int32,
    M: Float,
    X: Float,
    B: Float,
    root: Float,
    out: Float,
) -> None:
    """z_i'M z_i + |root'(x_i - B'z_i)|^2 of every row.

    M is symmetric with these values on the pattern of C; root (p, p) is upper triangular.
    """
    n, p = X.shape
    u, projected = np.empty((p, BLOCK)), np.empty(BLOCK)
    pair = 0
    for start in range(0, n, BLOCK):
        n_rows = min(BLOCK, n - start)
        for r in range(n_rows):
            i = start + r
            total = 0.0
            for c in range(p):
                u[c, r] = X[i, c]
            for a in range(row_ptr[i], row_ptr[i + 1]):
                twice = 2.0 * z[a]
                column = columns[a]
                for b in range(row_ptr[i], a):
                    total += twice * z[b] * M[slots[pair]]
                    pair += 1
                total += z[a] * z[a] * M[slots[pair]]
                pair += 1
                for c in range(p):
                    u[c, r] -= z[a] * B[column, c]
            out[i] = total
        for c in range(p):
            projected[:n_rows] = 0.0
            for e in range(c + 1):
                for r in range(n_rows):
                    projected[r] += root[e, c] * u[e, r]
            for r in range(n_rows):
                out[start + r] += projected[r] * projected[r]
