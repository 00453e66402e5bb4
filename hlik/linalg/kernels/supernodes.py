"""Supernodes: runs of columns of L with (nearly) the same pattern, stored as dense blocks.

Supernode s holds columns ``first[s] .. first[s + 1] - 1``. Its rows, ascending, are
``rows[row_ptr[s]:row_ptr[s + 1]]``, its own columns first. Its values are a dense column-major block (rows x
columns) from ``value_ptr[s]`` on; what lies above the diagonal is never read. With one column in every
supernode this is L by columns: the simplicial factor.

Ashcraft & Grimes (1989), ACM TOMS 15, 291-309: relaxed supernodes. Liu (1990): row structure by climbing the
forest.
"""

from typing import NamedTuple

import numpy as np

from ._jit import INT32, INT32_OUT, INT64, INT64_OUT, compiled, inner, returns
from ._types import Int32, Int64
from .elimination import inverse_permutation, triangle_lists

NARROW = 4
"""Supernodes of up to so many columns are treated with plain loops."""


class Blocks(NamedTuple):
    """Pattern of L, as the head of this file describes it.

    Loops take the arrays out of the tuple first: numba counts a reference at every access to a field.
    """

    first: Int32
    row_ptr: Int64
    rows: Int32
    value_ptr: Int64
    owner: Int32


@inner
def _fundamental(parent: Int32, counts: Int64) -> Int32:
    """First columns of maximal chains in which every column is the only child of the next and loses one row."""
    n = len(parent)
    n_children = np.zeros(n, np.int32)
    for j in range(n):
        if parent[j] >= 0:
            n_children[parent[j]] += 1
    first = np.empty(n + 1, np.int32)
    n_supernodes = 0
    for j in range(n):
        continues = j > 0 and parent[j - 1] == j and counts[j - 1] == counts[j] + 1 and n_children[j] == 1
        if not continues:
            first[n_supernodes] = j
            n_supernodes += 1
    first[n_supernodes] = n
    return first[: n_supernodes + 1]


@inner
def _worth_merging(columns: int, zeros_added: int, zero_part: float) -> bool:
    """How many explicit zeros a merged supernode may hold; the thresholds that CHOLMOD documents as its defaults."""
    return (
        columns <= 4
        or zeros_added == 0
        or (columns <= 16 and zero_part < 0.8)
        or (columns <= 48 and zero_part < 0.1)
        or zero_part < 0.05
    )


@compiled(INT32_OUT(INT32, INT64))
def relaxed_supernodes(parent: Int32, counts: Int64) -> Int32:
    """First column of every supernode and n at the end; parent and counts in postorder.

    A fundamental supernode is merged with its parent where that follows at once and few explicit zeros are
    stored: larger blocks are worth more than the zeros cost.
    """
    first = _fundamental(parent, counts)
    n_supernodes = len(first) - 1
    n_columns = np.empty(n_supernodes, np.int64)
    n_rows = np.empty(n_supernodes, np.int64)
    zeros = np.zeros(n_supernodes)
    absorbed = np.zeros(n_supernodes, np.bool_)
    for s in range(n_supernodes):
        n_columns[s] = first[s + 1] - first[s]
        n_rows[s] = counts[first[s]]
    for s in range(n_supernodes - 2, -1, -1):
        above = parent[first[s + 1] - 1]
        upper = s + 1
        if above < 0 or above >= first[upper] + n_columns[upper]:
            continue  # the parent lies in a later supernode
        columns = n_columns[s] + n_columns[upper]
        zeros_added = n_columns[s] * (n_rows[upper] + n_columns[s] - n_rows[s])
        zeros_here = zeros[s] + zeros[upper] + zeros_added
        size = columns * (columns + 1) / 2.0 + columns * (n_rows[upper] - n_columns[upper])
        if _worth_merging(columns, zeros_added, zeros_here / size):
            n_rows[s] = n_columns[s] + n_rows[upper]
            n_columns[s] = columns
            zeros[s] = zeros_here
            absorbed[upper] = True
    kept = np.empty(n_supernodes + 1, np.int32)
    n_kept = 0
    for s in range(n_supernodes):
        if not absorbed[s]:
            kept[n_kept] = first[s]
            n_kept += 1
    kept[n_kept] = len(parent)
    return kept[: n_kept + 1].copy()


@inner
def _supernode_of_columns(first: Int32) -> Int32:
    owner = np.empty(first[len(first) - 1], np.int32)
    for s in range(len(first) - 1):
        for j in range(first[s], first[s + 1]):
            owner[j] = s
    return owner


@inner
def _row_structure(
    row_ptr_A: Int64, columns_A: Int32, parent: Int32, counts: Int64, first: Int32, owner: Int32
) -> tuple[Int64, Int32]:
    """Rows of every supernode, ascending.

    Row i of L holds the supernodes on the paths from the entries of row i of A up to i (Liu 1990). Rows are
    met in ascending order and each is appended to the supernodes that hold it. The last column of a supernode
    has in common with it all rows below, so that the lengths are known beforehand.
    """
    n_supernodes = len(first) - 1
    row_ptr = np.zeros(n_supernodes + 1, np.int64)
    for s in range(n_supernodes):
        last = first[s + 1] - 1
        row_ptr[s + 1] = row_ptr[s] + last - first[s] + counts[last]
    rows = np.empty(row_ptr[n_supernodes], np.int32)
    free = row_ptr[:-1].copy()
    newest = np.full(n_supernodes, -1, np.int32)
    for i in range(len(parent)):
        own = owner[i]
        rows[free[own]] = i
        free[own] += 1
        newest[own] = i
        for e in range(row_ptr_A[i], row_ptr_A[i + 1]):
            s = owner[columns_A[e]]
            while newest[s] != i:
                rows[free[s]] = i
                free[s] += 1
                newest[s] = i
                s = owner[parent[first[s + 1] - 1]]
    return row_ptr, rows


@inner
def _value_positions(
    column_ptr: Int64, rows_A: Int32, sources: Int64, first: Int32, row_ptr: Int64, rows: Int32, value_ptr: Int64
) -> Int64:
    """Position in L's values of every entry of A."""
    place = np.empty(len(column_ptr) - 1, np.int64)
    positions = np.empty(len(sources), np.int64)
    for s in range(len(first) - 1):
        n_rows = row_ptr[s + 1] - row_ptr[s]
        for k in range(n_rows):
            place[rows[row_ptr[s] + k]] = k
        for j in range(first[s], first[s + 1]):
            begin = value_ptr[s] + (j - first[s]) * n_rows
            for e in range(column_ptr[j], column_ptr[j + 1]):
                positions[sources[e]] = begin + place[rows_A[e]]
    return positions


@compiled(
    returns((INT64_OUT, INT32_OUT, INT64_OUT, INT32_OUT, INT64_OUT))(INT64, INT32, INT32, INT32, INT64, INT32),
)
def supernodal_pattern(
    indptr: Int64, indices: Int32, perm: Int32, parent: Int32, counts: Int64, first: Int32
) -> tuple[Int64, Int32, Int64, Int32, Int64]:
    """Pattern of L in supernodes, and where each entry of A goes.

    Returns ``row_ptr, rows, value_ptr, owner, positions``: see the head of this file; ``owner[j]`` is column
    j's supernode, ``positions[e]`` the position in L's values of entry e of the input.
    """
    inverse_perm = inverse_permutation(perm)
    row_ptr_A, columns_A, _ = triangle_lists(indptr, indices, inverse_perm, True)
    owner = _supernode_of_columns(first)
    row_ptr, rows = _row_structure(row_ptr_A, columns_A, parent, counts, first, owner)
    value_ptr = np.zeros(len(first), np.int64)
    for s in range(len(first) - 1):
        value_ptr[s + 1] = value_ptr[s] + (row_ptr[s + 1] - row_ptr[s]) * np.int64(first[s + 1] - first[s])
    column_ptr, rows_A, sources = triangle_lists(indptr, indices, inverse_perm, False)
    positions = _value_positions(column_ptr, rows_A, sources, first, row_ptr, rows, value_ptr)
    return row_ptr, rows, value_ptr, owner, positions


@inner
def longest_rows(first: Int32, row_ptr: Int64) -> int:
    """Rows of the longest supernode that has more than one column."""
    longest = 1
    for s in range(len(first) - 1):
        if first[s + 1] - first[s] > 1:
            longest = max(longest, int(row_ptr[s + 1] - row_ptr[s]))
    return longest
