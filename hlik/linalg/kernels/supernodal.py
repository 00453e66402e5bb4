"""Left-looking supernodal factorisation and triangular solves, with BLAS on the dense blocks.

Ng & Peyton (1993), SIAM J. Sci. Comput. 14, 1034-1056; Chen, Davis, Hager & Rajamanickam (2008), ACM TOMS 35,
22. The data structure is described at the head of `supernodes`. A descendant d of supernode s is an earlier
one that has rows among s's columns. With ``begin`` the first of those rows and ``middle`` the first one after
them, s is updated by

    s[rows of d from begin on, those columns] -= d[begin:, :] d[begin:middle, :]'.
"""

from typing import NamedTuple

import numpy as np

from ._jit import FLOAT_OUT, INT32, INT64, SIZE, compiled, inlined, inner
from ._types import Float, Int32, Int64
from .blas import N, R, T, gemm, potrf, trsm
from .supernodes import NARROW, Blocks, longest_rows

STRIP = 128
"""Columns of a descendant's update computed at once: bounds the workspace, leaves out most of the upper triangle."""

SMALL_UPDATE = 256
"""Multiplications below which plain loops are faster than a call of gemm."""

PANEL = 128
"""Columns of a wide supernode updated together by all its narrow descendants, so that they stay in cache."""


class _Waiting(NamedTuple):
    """Descendants in linked lists, each in that of the next supernode it updates."""

    head: Int32  # of supernode s's list
    following: Int32
    progress: Int64  # of descendant d: its first row not used yet, counted from the start of d's rows


@inlined
def _wait(blocks: Blocks, waiting: _Waiting, d: int, at: int) -> None:
    """Put d into the list of the supernode that owns its row ``at``, if it has one."""
    begin = blocks.row_ptr[d]
    if begin + at < blocks.row_ptr[d + 1]:
        waiting.progress[d] = at
        target = blocks.owner[blocks.rows[begin + at]]
        waiting.following[d] = waiting.head[target]
        waiting.head[target] = d


class _Workspace(NamedTuple):
    """What one factorisation needs beside L."""

    place: Int32  # position in the present supernode of each of its rows
    relative: Int32  # the same for the rows of a descendant, one after the other
    narrow: Int32  # narrow descendants of the present supernode
    product: Float  # a strip of a descendant's update


@inner
def _update_by_loops(blocks: Blocks, L: Float, s: int, d: int, begin: int, middle: int, place: Int32) -> None:
    """Update of s by d entry by entry."""
    first, row_ptr, rows, value_ptr = blocks.first, blocks.row_ptr, blocks.rows, blocks.value_ptr
    d_rows = row_ptr[d]
    height = row_ptr[d + 1] - d_rows
    s_height = row_ptr[s + 1] - row_ptr[s]
    for j in range(begin, middle):
        target = value_ptr[s] + np.int64(place[rows[d_rows + j]]) * s_height
        for k in range(first[d + 1] - first[d]):
            source = value_ptr[d] + k * height
            factor = L[source + j]
            for i in range(j, height):
                L[target + place[rows[d_rows + i]]] -= factor * L[source + i]


@inner
def _update_by_gemm(
    blas: Int64, blocks: Blocks, L: Float, s: int, d: int, begin: int, middle: int, workspace: _Workspace
) -> None:
    """Update of s by d in strips of columns: in place where d's rows lie together in s."""
    first, row_ptr, rows, value_ptr = blocks.first, blocks.row_ptr, blocks.rows, blocks.value_ptr
    place, relative, product = workspace.place, workspace.relative, workspace.product
    height = row_ptr[d + 1] - row_ptr[d]
    s_height = row_ptr[s + 1] - row_ptr[s]
    depth = first[d + 1] - first[d]
    n_rows = height - begin
    for i in range(n_rows):
        relative[i] = place[rows[row_ptr[d] + begin + i]]
    is_contiguous = relative[n_rows - 1] - relative[0] == n_rows - 1
    for start in range(0, middle - begin, STRIP):
        width = min(STRIP, middle - begin - start)
        length = n_rows - start
        a = value_ptr[d] + begin + start
        if is_contiguous:
            c = value_ptr[s] + np.int64(relative[start]) * (s_height + 1)
            gemm(blas, N, T, length, width, depth, -1.0, L, a, height, L, a, height, 1.0, L, c, s_height)
            continue
        gemm(blas, N, T, length, width, depth, 1.0, L, a, height, L, a, height, 0.0, product, 0, length)
        for j in range(width):
            target = value_ptr[s] + np.int64(relative[start + j]) * s_height
            for i in range(j, length):
                L[target + relative[start + i]] -= product[j * length + i]


@inlined
def _update_column(L: Float, target: int, source: int, height: int, n_columns: int, at: int, relative: Int32) -> None:
    """Update of the column at ``target`` by a narrow descendant from its row ``at`` on, two columns at a time."""
    for k in range(0, n_columns - 1, 2):
        a = source + k * height
        b = a + height
        factor_a, factor_b = L[a + at], L[b + at]
        for i in range(at, height):
            L[target + relative[i]] -= factor_a * L[a + i] + factor_b * L[b + i]
    if n_columns % 2 == 1:
        a = source + (n_columns - 1) * height
        factor_a = L[a + at]
        for i in range(at, height):
            L[target + relative[i]] -= factor_a * L[a + i]


@inlined
def _update_by_narrow(
    blocks: Blocks, waiting: _Waiting, L: Float, s: int, n_narrow: int, workspace: _Workspace
) -> None:
    """Update of s by all its narrow descendants, panel after panel of s's columns."""
    first, row_ptr, rows, value_ptr = blocks.first, blocks.row_ptr, blocks.rows, blocks.value_ptr
    progress = waiting.progress
    place, relative, narrow = workspace.place, workspace.relative, workspace.narrow
    s_height = row_ptr[s + 1] - row_ptr[s]
    end = first[s + 1]
    for panel in range(first[s], end, PANEL):
        panel_end = min(panel + PANEL, end)
        for t in range(n_narrow):
            d = narrow[t]
            d_rows, n_columns = row_ptr[d], first[d + 1] - first[d]
            height = row_ptr[d + 1] - d_rows
            at = progress[d]
            if at == height or rows[d_rows + at] >= panel_end:
                continue
            for i in range(at, height):
                relative[i] = place[rows[d_rows + i]]
            while at < height and rows[d_rows + at] < panel_end:
                target = value_ptr[s] + np.int64(relative[at]) * s_height
                _update_column(L, target, value_ptr[d], height, n_columns, at, relative)
                at += 1
            progress[d] = at


@inlined
def _update(blas: Int64, blocks: Blocks, waiting: _Waiting, L: Float, s: int, workspace: _Workspace) -> None:
    """Update of s by all its descendants, each of which then waits for the next supernode that needs it."""
    first, row_ptr, rows = blocks.first, blocks.row_ptr, blocks.rows
    head, following, progress = waiting.head, waiting.following, waiting.progress
    place, narrow = workspace.place, workspace.narrow
    d = head[s]
    if d == -1:
        return
    for k in range(row_ptr[s + 1] - row_ptr[s]):
        place[rows[row_ptr[s] + k]] = k
    n_narrow = 0
    while d != -1:
        next_d = following[d]
        depth, height = first[d + 1] - first[d], row_ptr[d + 1] - row_ptr[d]
        if depth <= NARROW:
            narrow[n_narrow] = d
            n_narrow += 1
        else:
            begin = progress[d]
            middle = begin
            while middle < height and rows[row_ptr[d] + middle] < first[s + 1]:
                middle += 1
            if (middle - begin) * (height - begin) * depth < SMALL_UPDATE:
                _update_by_loops(blocks, L, s, d, begin, middle, place)
            else:
                _update_by_gemm(blas, blocks, L, s, d, begin, middle, workspace)
            _wait(blocks, waiting, d, middle)
        d = next_d
    _update_by_narrow(blocks, waiting, L, s, n_narrow, workspace)
    for t in range(n_narrow):
        d = narrow[t]
        _wait(blocks, waiting, d, progress[d])


@inner
def _factorise_block(blas: Int64, n_rows: int, n_columns: int, L: Float, begin: int) -> int:
    """Factorise a supernode's diagonal block and divide the rows below by it. Returns the number of good pivots."""
    if n_columns > NARROW:
        info = potrf(blas, n_columns, L, begin, n_rows)
        if info == 0 and n_rows > n_columns:
            trsm(blas, R, T, n_rows - n_columns, n_columns, L, begin, n_rows, L, begin + n_columns, n_rows)
        return n_columns if info == 0 else info - 1
    for k in range(n_columns):
        column = begin + k * n_rows
        pivot = L[column + k]
        if not pivot > 0.0:
            return k
        pivot = np.sqrt(pivot)
        L[column + k] = pivot
        scale = 1.0 / pivot
        for i in range(k + 1, n_rows):
            L[column + i] *= scale
        for j in range(k + 1, n_columns):
            later = begin + j * n_rows
            factor = L[column + j]
            for i in range(j, n_rows):
                L[later + i] -= factor * L[column + i]
    return n_columns


@compiled(SIZE(INT64, INT32, INT64, INT32, INT64, INT32, FLOAT_OUT))
def factorise(blas: Int64, first: Int32, row_ptr: Int64, rows: Int32, value_ptr: Int64, owner: Int32, L: Float) -> int:
    """Replace the lower triangle of A, spread over L's pattern, by L. Returns how many first pivots were positive."""
    blocks = Blocks(first, row_ptr, rows, value_ptr, owner)
    n, n_supernodes = len(owner), len(first) - 1
    waiting = _Waiting(
        np.full(n_supernodes, -1, np.int32), np.full(n_supernodes, -1, np.int32), np.zeros(n_supernodes, np.int64)
    )
    workspace = _Workspace(
        np.empty(n, np.int32),
        np.empty(n, np.int32),
        np.empty(n_supernodes, np.int32),
        np.empty(longest_rows(first, row_ptr) * STRIP),
    )
    for s in range(n_supernodes):
        _update(blas, blocks, waiting, L, s, workspace)
        n_columns = first[s + 1] - first[s]
        good = _factorise_block(blas, row_ptr[s + 1] - row_ptr[s], n_columns, L, value_ptr[s])
        if good < n_columns:
            return first[s] + good
        _wait(blocks, waiting, s, n_columns)
    return n
