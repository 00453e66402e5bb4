"""Approximate minimum degree ordering.

Amestoy, Davis & Duff (1996), SIAM J. Matrix Anal. Appl. 17, 886-905, whose names are used here and in `quotient_graph`,
which describes the data structure. The degree of a variable i is bounded by |A_i| + |L_me minus i| + the sum over its
other elements e of |L_e minus L_me|, where all the |L_e minus L_me| come out of one pass over L_me.
"""

import numpy as np

from ._jit import INT32, INT32_OUT, INT64, SIZE, compiled, inlined, inner
from ._types import Int32, Int64
from .quotient_graph import DegreeLists, Graph, insert, make_room, quotient_graph, remove, start_queue


@inlined
def _new_element(graph: Graph, queue: DegreeLists, lists: Int32, used: int, me: int) -> int:
    """Eliminate ``me``: append L_me, the union of its variables and its elements' variables, and absorb those elements.

    Takes the variables of L_me out of the queue and makes their weights negative. Returns the length used.
    """
    start, length, n_elements = graph.start, graph.length, graph.n_elements
    weight, degree, outside = graph.weight, graph.degree, graph.outside
    first = used
    size = 0
    weight[me] = -weight[me]  # out of everybody's list
    n_own = n_elements[me]
    for t in range(n_own + 1):
        if t < n_own:
            element = lists[start[me] + t]
            begin = start[element]
            end = begin + length[element]
        else:
            begin = start[me] + n_own
            end = start[me] + length[me]
        for x in range(begin, end):
            i = lists[x]
            if weight[i] > 0:
                size += weight[i]
                weight[i] = -weight[i]
                lists[used] = i
                used += 1
                remove(queue, i, degree[i])
        if t < n_own:
            outside[element] = 0
            length[element] = 0
    start[me] = first
    length[me] = used - first
    n_elements[me] = 0
    degree[me] = size
    outside[me] = 1
    return used


@inlined
def _count_outside(graph: Graph, lists: Int32, first: int, end: int, stamp: int) -> None:
    """For every element e next to L_me: outside[e] = stamp + |L_e minus L_me|."""
    start, n_elements = graph.start, graph.n_elements
    weight, degree, outside = graph.weight, graph.degree, graph.outside
    for x in range(first, end):
        i = lists[x]
        columns = -weight[i]
        for y in range(start[i], start[i] + n_elements[i]):
            element = lists[y]
            if outside[element] >= stamp:
                outside[element] -= columns
            elif outside[element] != 0:
                outside[element] = degree[element] + stamp - columns


@inlined
def _update_degrees(
    graph: Graph, lists: Int32, first: int, end: int, me: int, stamp: int, bucket: Int32, chain: Int32, hashes: Int64
) -> None:
    """Rewrite the lists of the variables of L_me with ``me`` in front, bound their degrees, hash their lists.

    Elements inside L_me are absorbed even where they were not next to ``me`` (aggressive absorption); a
    variable with no other neighbour than ``me`` is eliminated with it (mass elimination). ``degree[i]``
    leaves out |L_me minus i|.
    """
    start, length, n_elements = graph.start, graph.length, graph.n_elements
    weight, degree, outside = graph.weight, graph.degree, graph.outside
    n = len(start)
    for x in range(first, end):
        i = lists[x]
        begin = start[i]
        variables = begin + n_elements[i]
        stop = begin + length[i]
        kept = begin
        bound = 0
        hashed = me
        for y in range(begin, variables):
            element = lists[y]
            if outside[element] == 0:
                continue
            beyond = outside[element] - stamp
            if beyond > 0:
                bound += beyond
                hashed += element
                lists[kept] = element
                kept += 1
            else:
                outside[element] = 0
                length[element] = 0
        first_variable = kept
        for y in range(variables, stop):
            j = lists[y]
            if weight[j] > 0:
                bound += weight[j]
                hashed += j
                lists[kept] = j
                kept += 1
        if bound == 0 and first_variable == begin:
            _eliminate_with(graph, i, me)
            continue
        degree[i] = min(degree[i], bound)
        # There is room for one more: the pivot itself or an absorbed element has left the list.
        lists[kept] = lists[first_variable]
        lists[first_variable] = lists[begin]
        lists[begin] = me
        n_elements[i] = first_variable - begin + 1
        length[i] = kept - begin + 1
        hashed %= n
        hashes[i] = hashed
        chain[i] = bucket[hashed]
        bucket[hashed] = i


@inlined
def _eliminate_with(graph: Graph, i: int, me: int) -> None:
    """Mass elimination: i of L_me becomes part of the pivot."""
    graph.representative[i] = me
    graph.degree[me] += graph.weight[i]  # both weights are negative now
    graph.weight[me] += graph.weight[i]
    graph.weight[i] = 0
    graph.n_elements[i] = 0
    graph.length[i] = 0


@inlined
def _merge_indistinguishable(
    graph: Graph,
    lists: Int32,
    first: int,
    end: int,
    bucket: Int32,
    chain: Int32,
    hashes: Int64,
    seen: Int64,
    stamp: int,
) -> int:
    """Merge variables of L_me whose lists are equal; only those with equal hashes are compared. Returns a new stamp."""
    start, length, weight = graph.start, graph.length, graph.weight
    for x in range(first, end):
        if weight[lists[x]] == 0:
            continue
        i = bucket[hashes[lists[x]]]
        bucket[hashes[lists[x]]] = -1
        while i != -1 and chain[i] != -1:
            for y in range(start[i], start[i] + length[i]):
                seen[lists[y]] = stamp
            before = i
            j = chain[i]
            while j != -1:
                if _same_lists(graph, lists, i, j, seen, stamp):
                    graph.representative[j] = i
                    weight[i] += weight[j]
                    weight[j] = 0
                    graph.n_elements[j] = 0
                    length[j] = 0
                    chain[before] = chain[j]
                else:
                    before = j
                j = chain[j]
            stamp += 1
            i = chain[i]
    return stamp


@inlined
def _same_lists(graph: Graph, lists: Int32, i: int, j: int, seen: Int64, stamp: int) -> bool:
    """Whether j's list holds the members of i's, which are marked with the stamp."""
    start, length = graph.start, graph.length
    if length[j] != length[i] or graph.n_elements[j] != graph.n_elements[i]:
        return False
    for y in range(start[j], start[j] + length[j]):
        if seen[lists[y]] != stamp:
            return False
    return True


@inlined
def _requeue(
    graph: Graph, queue: DegreeLists, lists: Int32, first: int, end: int, me: int, remaining: int, lowest: int
) -> tuple[int, int]:
    """Put what is left of L_me back into the queue with its new degrees, and drop the rest from the list.

    Returns the lowest degree in the queue and the length used of the lists.
    """
    weight, degree = graph.weight, graph.degree
    kept = first
    for x in range(first, end):
        i = lists[x]
        columns = -weight[i]
        if columns <= 0:
            continue
        weight[i] = columns
        bound = max(0, min(degree[i] + degree[me] - columns, remaining - columns))
        degree[i] = bound
        insert(queue, i, bound)
        lowest = min(lowest, bound)
        lists[kept] = i
        kept += 1
    graph.length[me] = kept - first
    if kept == first:
        graph.outside[me] = 0
    return lowest, kept


@inner
def _expand(representative: Int32, pivots: Int32) -> Int32:
    """Permutation of the columns: the pivots in order, each with all that was merged into it; dense columns last."""
    n = len(representative)
    last = len(pivots)
    rank = np.full(n, last, np.int64)
    for k in range(last):
        rank[pivots[k]] = k
    position = np.zeros(last + 2, np.int64)
    for i in range(n):
        root = i
        while representative[root] != -1:
            root = representative[root]
        node = i
        while representative[node] != -1:  # shorten the path for those who come later
            above = representative[node]
            representative[node] = root
            node = above
        position[rank[root] + 1] += 1
    for k in range(last + 1):
        position[k + 1] += position[k]
    perm = np.empty(n, np.int32)
    for i in range(n):
        k = rank[i if representative[i] == -1 else representative[i]]
        perm[position[k]] = i
        position[k] += 1
    return perm


@compiled(INT32_OUT(INT64, INT32, SIZE))
def minimum_degree(indptr: Int64, indices: Int32, dense: int) -> Int32:
    """Fill-reducing permutation of a symmetric pattern given by its lower triangle.

    Columns with more than ``dense`` neighbours are left out of the elimination and ordered last.
    """
    n = len(indptr) - 1
    graph, lists, used = quotient_graph(indptr, indices)
    queue = DegreeLists(np.full(n + 1, -1, np.int32), np.full(n, -1, np.int32), np.full(n, -1, np.int32))
    pivots = np.empty(n, np.int32)
    n_pivots, eliminated = start_queue(graph, queue, pivots, dense)
    bucket, chain = np.full(n, -1, np.int32), np.full(n, -1, np.int32)
    hashes, seen = np.zeros(n, np.int64), np.zeros(n, np.int64)
    stamp = 2
    lowest = 0
    while eliminated < n:
        while queue.head[lowest] == -1:
            lowest += 1
        me = queue.head[lowest]
        remove(queue, me, lowest)
        lists, used = make_room(graph, lists, used, me)
        first = used
        used = _new_element(graph, queue, lists, used, me)
        pivots[n_pivots] = me
        n_pivots += 1
        _count_outside(graph, lists, first, used, stamp)
        _update_degrees(graph, lists, first, used, me, stamp, bucket, chain, hashes)
        stamp += n + 1
        stamp = _merge_indistinguishable(graph, lists, first, used, bucket, chain, hashes, seen, stamp)
        graph.weight[me] = -graph.weight[me]
        eliminated += graph.weight[me]
        lowest, used = _requeue(graph, queue, lists, first, used, me, n - eliminated, lowest)
        stamp += n + 1
    return _expand(graph.representative, pivots[:n_pivots])
