"""Elimination trees, postorderings and the column counts of L, all without forming L.

Liu (1986), ACM TOMS 12, 127-148: the elimination tree by path compression. Liu (1990), SIAM J. Matrix Anal.
Appl. 11, 134-172: its use. Gilbert, Ng & Peyton (1994), SIAM J. Matrix Anal. Appl. 15, 1075-1091: column
counts in nearly linear time. Davis (2006), Direct Methods for Sparse Linear Systems, chapter 4: all three.
"""

import numpy as np

from ._jit import INT32, INT32_OUT, INT64, INT64_OUT, SIZE, compiled, inner, returns
from ._types import Int32, Int64


@inner
def triangle_lists(indptr: Int64, indices: Int32, inverse_perm: Int32, by_row: bool) -> tuple[Int64, Int32, Int64]:
    """Permuted lower triangle as lists of its rows (columns j <= i) or of its columns (rows i >= j), unsorted.

    Returns pointers (n + 1,), numbers (nnz,), and the position of each entry in the input (nnz,).
    """
    n = len(indptr) - 1
    pointers = np.zeros(n + 1, np.int64)
    for j in range(n):
        b = inverse_perm[j]
        for e in range(indptr[j], indptr[j + 1]):
            a = inverse_perm[indices[e]]
            pointers[(max(a, b) if by_row else min(a, b)) + 1] += 1
    for i in range(n):
        pointers[i + 1] += pointers[i]
    free = pointers[:-1].copy()
    numbers = np.empty(pointers[n], np.int32)
    sources = np.empty(pointers[n], np.int64)
    for j in range(n):
        b = inverse_perm[j]
        for e in range(indptr[j], indptr[j + 1]):
            a = inverse_perm[indices[e]]
            row, column = max(a, b), min(a, b)
            owner, number = (row, column) if by_row else (column, row)
            numbers[free[owner]] = number
            sources[free[owner]] = e
            free[owner] += 1
    return pointers, numbers, sources


@inner
def inverse_permutation(perm: Int32) -> Int32:
    """Rank of every number in the permutation."""
    inverse = np.empty(len(perm), np.int32)
    for i in range(len(perm)):
        inverse[perm[i]] = i
    return inverse


@inner
def _elimination_tree(row_ptr: Int64, columns: Int32) -> Int32:
    """Parent of every column, -1 for roots: the first row below the diagonal of L's column."""
    n = len(row_ptr) - 1
    parent = np.full(n, -1, np.int32)
    ancestor = np.full(n, -1, np.int32)  # compressed paths to the roots of the forest so far
    for i in range(n):
        for e in range(row_ptr[i], row_ptr[i + 1]):
            k = columns[e]
            while k != -1 and k < i:
                above = ancestor[k]
                ancestor[k] = i
                if above == -1:
                    parent[k] = i
                k = above
    return parent


@inner
def _postorder(parent: Int32) -> Int32:
    """Nodes of the forest, every child before its parent and every subtree contiguous."""
    n = len(parent)
    first_child = np.full(n, -1, np.int32)
    sibling = np.full(n, -1, np.int32)
    for j in range(n - 1, -1, -1):
        if parent[j] >= 0:
            sibling[j] = first_child[parent[j]]
            first_child[parent[j]] = j
    order = np.empty(n, np.int32)
    stack = np.empty(n, np.int32)
    done = 0
    for root in range(n):
        if parent[root] != -1:
            continue
        depth = 0
        stack[0] = root
        while depth >= 0:
            node = stack[depth]
            child = first_child[node]
            if child == -1:
                order[done] = node
                done += 1
                depth -= 1
            else:
                first_child[node] = sibling[child]
                depth += 1
                stack[depth] = child
    return order


@compiled(returns((INT32_OUT, INT32_OUT))(INT64, INT32, INT32))
def postordered_forest(indptr: Int64, indices: Int32, perm: Int32) -> tuple[Int32, Int32]:
    """Elimination forest of the permuted matrix, renumbered in postorder.

    Returns the permutation followed by the postordering (the same fill) and the parent of every column in it.
    """
    n = len(perm)
    row_ptr, columns, _ = triangle_lists(indptr, indices, inverse_permutation(perm), True)
    parent = _elimination_tree(row_ptr, columns)
    order = _postorder(parent)
    rank = inverse_permutation(order)
    new_perm = np.empty(n, np.int32)
    new_parent = np.empty(n, np.int32)
    for i in range(n):
        new_perm[i] = perm[order[i]]
        above = parent[order[i]]
        new_parent[i] = -1 if above == -1 else rank[above]
    return new_perm, new_parent


@inner
def _find_root(ancestor: Int32, node: int) -> int:
    """Root of a node's set, with path compression."""
    root = node
    while ancestor[root] != root:
        root = ancestor[root]
    while ancestor[node] != root:
        above = ancestor[node]
        ancestor[node] = root
        node = above
    return root


@compiled(INT64_OUT(INT64, INT32, INT32, INT32))
def column_counts(indptr: Int64, indices: Int32, perm: Int32, parent: Int32) -> Int64:
    """Entries in every column of L, the diagonal included; perm and parent as `postordered_forest` returns them.

    Gilbert, Ng & Peyton (1994): row i of L is a subtree of the forest, pruned at the entries of row i of A.
    Column j's count is the number of row subtrees that hold j. Each subtree adds 1 at its leaves and takes 1
    away where two paths meet; summed up the forest, that counts every node of it once.
    """
    n = len(parent)
    column_ptr, rows, _ = triangle_lists(indptr, indices, inverse_permutation(perm), False)
    first_descendant = np.arange(n).astype(np.int32)
    counts = np.ones(n, np.int64)  # 1 at the leaves of the forest
    for j in range(n):
        above = parent[j]
        if above != -1:
            first_descendant[above] = min(first_descendant[above], first_descendant[j])
            counts[above] = 0
    newest_first = np.full(n, -1, np.int32)  # of row i: the largest first descendant of its leaves so far
    previous_leaf = np.full(n, -1, np.int32)
    ancestor = np.arange(n).astype(np.int32)  # disjoint sets: path to the highest node done
    for j in range(n):
        above = parent[j]
        if above != -1:
            counts[above] -= 1
        for e in range(column_ptr[j], column_ptr[j + 1]):
            i = rows[e]
            if i == j or first_descendant[j] <= newest_first[i]:
                continue  # j is not a leaf of row i's subtree
            newest_first[i] = first_descendant[j]
            counts[j] += 1
            if previous_leaf[i] != -1:
                counts[_find_root(ancestor, previous_leaf[i])] -= 1
            previous_leaf[i] = j
        if above != -1:
            ancestor[j] = above
    for j in range(n):
        if parent[j] != -1:
            counts[parent[j]] += counts[j]
    return counts


@compiled(returns((SIZE, SIZE))(INT64, INT32, SIZE))
def largest_block_diagonal_range(indptr: Int64, indices: Int32, widest: int) -> tuple[int, int]:
    """First and end column of the longest contiguous range that is block diagonal.

    Its diagonal blocks are contiguous and at most ``widest`` columns wide. Greedy from the left: a range ends
    where a column has a neighbour in an earlier block of the range, or its block would grow too wide.
    """
    n = len(indptr) - 1
    nearest = np.full(n, -1, np.int64)  # the last column of the range so far that column i touches
    farthest = np.zeros(n, np.int64)  # and the first one
    best_start, best_end = 0, 0
    start, block = 0, 0
    for j in range(n):
        if nearest[j] < start:
            block = j  # a block of its own
        elif farthest[j] < block or j - block >= widest:
            start, block = j, j
        for e in range(indptr[j], indptr[j + 1]):
            i = indices[e]
            if nearest[i] < start:
                farthest[i] = j
            nearest[i] = j
        if j + 1 - start > best_end - best_start:
            best_start, best_end = start, j + 1
    return best_start, best_end
