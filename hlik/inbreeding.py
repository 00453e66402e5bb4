"""Kernels of pedigrees: an order with parents first, generations, coefficients of inbreeding.

Animals are numbered from 0; ``sire[i]`` and ``dam[i]`` are the parents' numbers, -1 where unknown. Conventions of
kernels: `hlik.linalg.kernels._jit`. Imported when first needed.
"""

from __future__ import annotations

import numpy as np
from numba import types

from hlik.linalg.kernels._jit import FLOAT_OUT, INT32, INT32_OUT, SIZE, compiled
from hlik.linalg.patterns import Float, Int32


@compiled(types.Tuple((SIZE, INT32_OUT, INT32_OUT))(INT32, INT32))
def parents_first(sire: Int32, dam: Int32) -> tuple[int, Int32, Int32]:
    """An order in which parents come before their offspring, and everybody's generation.

    Returns an animal that is its own ancestor (-1 if there is none), the order, and the generations: 0 for animals
    without known parents, else one more than that of the later parent. Depth-first search with its own stack.
    """
    n = len(sire)
    order = np.empty(n, np.int32)
    generation = np.zeros(n, np.int32)
    state = np.zeros(n, np.int8)  # 0 unseen, 1 on the stack, 2 placed
    stack = np.empty(n, np.int32)
    placed = 0
    for start in range(n):
        if state[start] != 0:
            continue
        depth = 0
        stack[0] = start
        state[start] = 1
        while depth >= 0:
            animal = stack[depth]
            waiting = -1
            for parent in (sire[animal], dam[animal]):
                if parent >= 0 and state[parent] != 2:
                    waiting = parent
            if waiting >= 0:
                if state[waiting] == 1:
                    return waiting, order, generation
                depth += 1
                stack[depth] = waiting
                state[waiting] = 1
            else:
                for parent in (sire[animal], dam[animal]):
                    if parent >= 0 and generation[parent] + 1 > generation[animal]:
                        generation[animal] = generation[parent] + 1
                state[animal] = 2
                order[placed] = animal
                placed += 1
                depth -= 1
    return -1, order, generation


@compiled(types.Tuple((FLOAT_OUT, FLOAT_OUT))(INT32, INT32, INT32, INT32))
def inbreeding(order: Int32, sire: Int32, dam: Int32, generation: Int32) -> tuple[Float, Float]:
    """Coefficients of inbreeding F and Mendelian sampling variances d, both by animal (Meuwissen & Luo 1992).

    ``A = T diag(d) T'``, so ``F_i = sum_j T_ij^2 d_j - 1`` over the ancestors j of i. Row i of T is made by passing
    half of every entry to both parents. Ancestors wait in a list of their generation, and generations are gone
    through from the last to the first, so that an entry is complete when it is passed on.
    """
    n = len(sire)
    F = np.zeros(n)
    d = np.ones(n)
    share = np.zeros(n)  # row i of T
    following = np.empty(n, np.int32)
    head = np.full(n + 1, -1, np.int32)
    for k in range(n):
        i = order[k]
        s, m = sire[i], dam[i]
        if s >= 0 and m >= 0:
            d[i] = 0.5 - 0.25 * (F[s] + F[m])
        elif s >= 0 or m >= 0:
            d[i] = 0.75 - 0.25 * F[max(s, m)]
        if s < 0 or m < 0:
            continue
        if k > 0 and sire[order[k - 1]] == s and dam[order[k - 1]] == m:
            F[i] = F[order[k - 1]]
            continue
        for parent in (s, m):
            if share[parent] == 0.0:
                following[parent] = head[generation[parent]]
                head[generation[parent]] = parent
            share[parent] += 0.5
        total = d[i]
        for g in range(generation[i] - 1, -1, -1):
            j = head[g]
            head[g] = -1
            while j >= 0:
                passed = share[j]
                share[j] = 0.0
                total += passed * passed * d[j]
                for parent in (sire[j], dam[j]):
                    if parent >= 0:
                        if share[parent] == 0.0:
                            following[parent] = head[generation[parent]]
                            head[generation[parent]] = parent
                        share[parent] += 0.5 * passed
                j = following[j]
        F[i] = total - 1.0
    return F, d
