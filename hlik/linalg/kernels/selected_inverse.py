"""The inverse on the pattern of a supernodal L, with BLAS on the dense blocks.

Takahashi, Fagan & Chin (1973); Erisman & Tinney (1975), CACM 18, 177-179: the entries of A^-1 on L's pattern
determine each other. Lin, Yang, Meza, Lu, Ying & E (2011), ACM TOMS 37, 40: by supernodes. For the supernode
with columns J and rows R below them, from the last to the first,

    Y = L[R, J] L[J, J]^-1,    Z[R, J] = -Z[R, R] Y,    Z[J, J] = (L[J, J] L[J, J]')^-1 - Y'Z[R, J].

Z[R, R] is scattered over the supernodes that own the columns R; it is gathered into a dense matrix first.
"""

import numpy as np

from ._jit import FLOAT, FLOAT_OUT, INT32, INT64, VOID, compiled, inlined, inner
from ._types import Float, Int32, Int64
from .blas import N, R, T, gemm, potri, symm_left, trsm
from .supernodes import NARROW, Blocks

SEARCH_RATIO = 12
"""Rows are found by bisection where the target has more than so many times as many."""


FEW_ROWS = 48
"""Rows below a supernode of two to NARROW columns up to which loops are faster than gathering and BLAS."""


@inner
def _is_narrow(n_columns: int, n_below: int) -> bool:
    return n_columns == 1 or (n_columns <= NARROW and n_below <= FEW_ROWS)


@inner
def _positions_in(blocks: Blocks, t: int, wanted: Int32, positions: Int32) -> None:
    """Position in supernode t of every wanted row; both ascending, and t has them all."""
    first, row_ptr, rows = blocks.first, blocks.row_ptr, blocks.rows
    begin = row_ptr[t]
    n_rows = row_ptr[t + 1] - begin
    if len(wanted) * SEARCH_RATIO >= n_rows:
        k = 0
        for i in range(len(wanted)):
            while rows[begin + k] != wanted[i]:
                k += 1
            positions[i] = k
        return
    low = np.int64(0)
    for i in range(len(wanted)):
        if wanted[i] < first[t + 1]:
            positions[i] = wanted[i] - first[t]
            continue
        high = n_rows
        while low < high:
            middle = (low + high) >> 1
            if rows[begin + middle] < wanted[i]:
                low = middle + 1
            else:
                high = middle
        positions[i] = low


@inner
def _gather(blocks: Blocks, Z: Float, below: Int32, positions: Int32, gathered: Float) -> None:
    """Lower triangle of Z[below, below] into a dense column-major matrix."""
    first, row_ptr, value_ptr, owner = blocks.first, blocks.row_ptr, blocks.value_ptr, blocks.owner
    n_below = len(below)
    start = 0
    while start < n_below:
        t = owner[below[start]]
        end = start
        while end < n_below and below[end] < first[t + 1]:
            end += 1
        _positions_in(blocks, t, below[start:], positions[start:])
        n_rows = row_ptr[t + 1] - row_ptr[t]
        for j in range(start, end):
            source = value_ptr[t] + np.int64(below[j] - first[t]) * n_rows
            target = np.int64(j) * n_below
            for i in range(j, n_below):
                gathered[target + i] = Z[source + positions[i]]
        start = end


@inlined
def _invert_narrow(blocks: Blocks, L: Float, Z: Float, s: int, Y: Float, positions: Int32) -> None:
    """A supernode of few columns by loops: column j by itself, with R all rows below j, the block's own too.

    What the rows below the block contribute does not depend on the block's other columns and is read in place,
    each entry of the lower triangle of Z once for all columns. Then, from the last column to the first, what
    the block's own later columns contribute.
    """
    first, row_ptr, rows, value_ptr, owner = blocks.first, blocks.row_ptr, blocks.rows, blocks.value_ptr, blocks.owner
    begin = value_ptr[s]
    n_columns = first[s + 1] - first[s]
    n_rows = row_ptr[s + 1] - row_ptr[s]
    below = rows[row_ptr[s] + n_columns : row_ptr[s + 1]]
    for c in range(n_columns):
        column = c * n_rows
        scale = 1.0 / L[begin + column + c]
        for i in range(c + 1, n_rows):
            Y[column + i] = L[begin + column + i] * scale
            Z[begin + column + i] = 0.0
    start = 0
    while start < len(below):
        t = owner[below[start]]
        end = start
        while end < len(below) and below[end] < first[t + 1]:
            end += 1
        _positions_in(blocks, t, below[start:], positions[start:])
        t_rows = row_ptr[t + 1] - row_ptr[t]
        for j in range(start, end):
            source = value_ptr[t] + np.int64(below[j] - first[t]) * t_rows
            for c in range(n_columns):
                y = c * n_rows + n_columns
                z = begin + y
                y_j = Y[y + j]
                total = Z[source + positions[j]] * y_j
                for i in range(j + 1, len(below)):
                    value = Z[source + positions[i]]
                    Z[z + i] -= value * y_j
                    total += value * Y[y + i]
                Z[z + j] -= total
        start = end
    for c in range(n_columns - 1, -1, -1):
        y, z = c * n_rows, begin + c * n_rows
        for j in range(c + 1, n_columns):
            source = begin + j * n_rows
            total = Z[source + j] * Y[y + j]
            for i in range(j + 1, n_rows):
                Z[z + i] -= Z[source + i] * Y[y + j]
                total += Z[source + i] * Y[y + i]
            Z[z + j] -= total
        diagonal = 1.0 / (L[z + c] * L[z + c])
        for i in range(c + 1, n_rows):
            diagonal -= Y[y + i] * Z[z + i]
        Z[z + c] = diagonal


@inner
def _invert_block(
    blas: Int64, blocks: Blocks, L: Float, Z: Float, s: int, Y: Float, positions: Int32, gathered: Float
) -> None:
    """A supernode of many columns by BLAS, with Z[R, R] gathered first."""
    first, row_ptr, rows, value_ptr = blocks.first, blocks.row_ptr, blocks.rows, blocks.value_ptr
    begin = value_ptr[s]
    n_columns = first[s + 1] - first[s]
    n_rows = row_ptr[s + 1] - row_ptr[s]
    n_below = n_rows - n_columns
    for j in range(n_columns):
        for i in range(j, n_columns):
            Z[begin + j * n_rows + i] = L[begin + j * n_rows + i]
    potri(blas, n_columns, Z, begin, n_rows)
    if n_below == 0:
        return
    for j in range(n_columns):
        for i in range(n_below):
            Y[j * n_below + i] = L[begin + j * n_rows + n_columns + i]
    trsm(blas, R, N, n_below, n_columns, L, begin, n_rows, Y, 0, n_below)
    _gather(blocks, Z, rows[row_ptr[s] + n_columns : row_ptr[s + 1]], positions, gathered)
    below = begin + n_columns
    symm_left(blas, n_below, n_columns, -1.0, gathered, 0, n_below, Y, 0, n_below, 0.0, Z, below, n_rows)
    gemm(blas, T, N, n_columns, n_columns, n_below, -1.0, Y, 0, n_below, Z, below, n_rows, 1.0, Z, begin, n_rows)


@compiled(VOID(INT64, INT32, INT64, INT32, INT64, INT32, FLOAT, FLOAT_OUT))
def selected_inverse(
    blas: Int64, first: Int32, row_ptr: Int64, rows: Int32, value_ptr: Int64, owner: Int32, L: Float, Z: Float
) -> None:
    """Fill Z with the entries of A^-1 on L's pattern; above the diagonal it holds nothing of use."""
    blocks = Blocks(first, row_ptr, rows, value_ptr, owner)
    most_below, most_gathered, largest_block = 1, 1, 1
    for s in range(len(first) - 1):
        n_columns, n_rows = int(first[s + 1] - first[s]), int(row_ptr[s + 1] - row_ptr[s])
        most_below = max(most_below, n_rows - n_columns)
        largest_block = max(largest_block, n_rows * n_columns)
        if not _is_narrow(n_columns, n_rows - n_columns):
            most_gathered = max(most_gathered, n_rows - n_columns)
    positions = np.empty(most_below, np.int32)
    gathered = np.empty(most_gathered * most_gathered)
    Y = np.empty(largest_block)
    for s in range(len(first) - 2, -1, -1):
        n_columns = first[s + 1] - first[s]
        if _is_narrow(n_columns, row_ptr[s + 1] - row_ptr[s] - n_columns):
            _invert_narrow(blocks, L, Z, s, Y, positions)
        else:
            _invert_block(blas, blocks, L, Z, s, Y, positions, gathered)
