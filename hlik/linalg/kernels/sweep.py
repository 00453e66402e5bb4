"""Z'WZ on a fixed pattern and row quadratic forms, column by column of the pattern.

For rows so long that their pairs would not fit in memory. Z (n, q) is given by rows, ``row_ptr, columns, z``,
columns ascending, and by ``column_ptr, rows``, the rows of every column. The pattern of C is a lower triangle by
columns, ``indptr, indices``. A dense work vector holds one column of C at a time.
"""

import numpy as np

from ._jit import FLOAT, FLOAT_OUT, INT32, INT64, VOID, compiled
from ._types import Float, Int32, Int64


@compiled(VOID(INT64, INT32, FLOAT, INT64, INT32, FLOAT, INT64, INT32, FLOAT_OUT))
def form(
    row_ptr: Int64,
    columns: Int32,
    z: Float,
    column_ptr: Int64,
    rows: Int32,
    w: Float,
    indptr: Int64,
    indices: Int32,
    C: Float,
) -> None:
    """Z'WZ into C, column by column; ``column_ptr, rows`` are the rows of every column of Z, ascending.

    Columns are met in ascending order: ``progress[i]`` is always the position of the next entry of row i,
    first column j's own and then those that make up the lower triangle with it.
    """
    progress = row_ptr[:-1].copy()
    work = np.zeros(len(indptr) - 1)
    for j in range(len(indptr) - 1):
        for e in range(column_ptr[j], column_ptr[j + 1]):
            i = rows[e]
            at = progress[i]
            weighted = w[i] * z[at]
            for b in range(at, row_ptr[i + 1]):
                work[columns[b]] += weighted * z[b]
            progress[i] = at + 1
        for e in range(indptr[j], indptr[j + 1]):
            C[e] = work[indices[e]]
            work[indices[e]] = 0.0


@compiled(VOID(INT64, INT32, FLOAT, INT64, INT32, FLOAT, INT64, INT32, FLOAT_OUT))
def quadratics(
    row_ptr: Int64,
    columns: Int32,
    z: Float,
    column_ptr: Int64,
    rows: Int32,
    M: Float,
    indptr: Int64,
    indices: Int32,
    out: Float,
) -> None:
    """z_i'M z_i of every row, column by column of M, in the manner of `form`."""
    out[:] = 0.0
    progress = row_ptr[:-1].copy()
    work = np.zeros(len(indptr) - 1)
    for j in range(len(indptr) - 1):
        for e in range(indptr[j], indptr[j + 1]):
            work[indices[e]] = M[e]
        for e in range(column_ptr[j], column_ptr[j + 1]):
            i = rows[e]
            at = progress[i]
            total = 0.5 * z[at] * work[j]
            for b in range(at + 1, row_ptr[i + 1]):
                total += z[b] * work[columns[b]]
            out[i] += 2.0 * z[at] * total
            progress[i] = at + 1
        for e in range(indptr[j], indptr[j + 1]):
            work[indices[e]] = 0.0
