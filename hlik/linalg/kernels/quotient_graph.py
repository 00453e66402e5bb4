"""The quotient graph of minimum degree ordering, its lists in memory, and its queue of variables by degree.

Eliminating a column makes its neighbours adjacent to each other. The quotient graph stores that clique as one *element*
instead of its edges:

- a live variable i has a list of elements, then a list of variables it still touches directly;
- an element e has a list L_e of variables; L_me is that of the newest pivot;
- variables with equal lists are merged into one supervariable with a *weight*, the number of columns in it
  (0: merged into its representative or eliminated).
"""

from typing import NamedTuple

import numpy as np

from ._jit import inlined, inner
from ._types import Int32, Int64


class Graph(NamedTuple):
    """Quotient graph. The lists are in a separate array, from ``start[i]`` on; elements come first in a variable's.

    Loops take the arrays out of the tuple first: numba counts a reference at every access to a field.
    """

    start: Int64
    length: Int64  # of the list; 0 for what is dead
    n_elements: Int64  # of them elements
    weight: Int64  # columns in the supervariable; negative while in L_me
    degree: Int64  # bound on the external degree of a variable; |L_e| of an element
    outside: Int64  # of element e: stamp + |L_e minus L_me|; 0 when absorbed
    representative: Int32  # what a merged variable or a mass-eliminated one went into, or -1


class DegreeLists(NamedTuple):
    """Doubly linked lists of the variables of every degree."""

    head: Int32
    following: Int32
    preceding: Int32


@inner
def quotient_graph(indptr: Int64, indices: Int32) -> tuple[Graph, Int32, int]:
    """The graph before any elimination, its lists, and the length used of them."""
    n = len(indptr) - 1
    length = np.zeros(n, np.int64)
    for j in range(n):
        for e in range(indptr[j], indptr[j + 1]):
            i = indices[e]
            if i != j:
                length[i] += 1
                length[j] += 1
    start = np.zeros(n, np.int64)
    for j in range(1, n):
        start[j] = start[j - 1] + length[j - 1]
    used = int(length.sum())
    lists = np.empty(used + used // 2 + 4 * n + 16, np.int32)
    free = start.copy()
    for j in range(n):
        for e in range(indptr[j], indptr[j + 1]):
            i = indices[e]
            if i != j:
                lists[free[i]] = j
                lists[free[j]] = i
                free[i] += 1
                free[j] += 1
    graph = Graph(
        start,
        length,
        np.zeros(n, np.int64),
        np.ones(n, np.int64),
        length.copy(),
        np.ones(n, np.int64),
        np.full(n, -1, np.int32),
    )
    return graph, lists, used


@inner
def start_queue(graph: Graph, queue: DegreeLists, pivots: Int32, dense: int) -> tuple[int, int]:
    """Queue the variables by degree; set dense ones aside and eliminate isolated ones at once.

    Returns the numbers of pivots so far and of columns dealt with.
    """
    degree = graph.degree
    n_pivots = 0
    done = 0
    for i in range(len(degree)):
        if degree[i] > dense:
            graph.weight[i] = 0
            graph.length[i] = 0
            done += 1
        elif degree[i] == 0:
            graph.outside[i] = 0
            pivots[n_pivots] = i
            n_pivots += 1
            done += 1
        else:
            insert(queue, i, degree[i])
    return n_pivots, done


@inlined
def insert(queue: DegreeLists, i: int, degree: int) -> None:
    """Put a variable at the head of the list of its degree."""
    head = queue.head[degree]
    queue.following[i] = head
    queue.preceding[i] = -1
    if head != -1:
        queue.preceding[head] = i
    queue.head[degree] = i


@inlined
def remove(queue: DegreeLists, i: int, degree: int) -> None:
    """Take a variable out of the list of its degree."""
    before, after = queue.preceding[i], queue.following[i]
    if before == -1:
        queue.head[degree] = after
    else:
        queue.following[before] = after
    if after != -1:
        queue.preceding[after] = before


@inlined
def make_room(graph: Graph, lists: Int32, used: int, me: int) -> tuple[Int32, int]:
    """Lists with room for the new element, moved together into a new array if the old one is full."""
    needed = graph.length[me]
    for x in range(graph.start[me], graph.start[me] + graph.n_elements[me]):
        needed += graph.length[lists[x]]
    if used + needed <= len(lists):
        return lists, used
    alive = graph.length.sum()
    moved = np.empty(max(len(lists), 2 * (alive + needed)), np.int32)
    used = 0
    for i in range(len(graph.start)):
        first = graph.start[i]
        for x in range(graph.length[i]):
            moved[used + x] = lists[first + x]
        graph.start[i] = used
        used += graph.length[i]
    return moved, used
