"""The factor column by column, for L with few entries a column, where dense blocks would only be overhead.

L is ``indptr, rows, values`` by columns, rows ascending, the diagonal first. Left-looking factorisation with
linked lists (George & Liu 1981, Computer Solution of Large Sparse Positive Definite Systems, section 5.4);
the inverse on L's pattern by the recursion of Takahashi, Fagan & Chin (1973), shown to need no entry outside
it by Erisman & Tinney (1975), CACM 18, 177-179.
"""

import numpy as np

from ._jit import FLOAT, FLOAT2_OUT, FLOAT_OUT, INT32, INT64, SIZE, VOID, compiled
from ._types import Float, Int32, Int64


@compiled(SIZE(INT64, INT32, FLOAT_OUT))
def factorise(indptr: Int64, rows: Int32, L: Float) -> int:
    """Replace the lower triangle of A, spread over L's pattern, by L. Returns how many first pivots were positive.

    Column j needs the columns k < j with L[j, k] != 0. Each column waits in the list of the next row it has
    to update; ``progress[k]`` is that row's position in column k.
    """
    n = len(indptr) - 1
    head = np.full(n, -1, np.int32)
    following = np.full(n, -1, np.int32)
    progress = np.empty(n, np.int64)
    column = np.zeros(n)
    for j in range(n):
        begin, end = indptr[j], indptr[j + 1]
        k = head[j]
        if k != -1:
            for e in range(begin, end):
                column[rows[e]] = L[e]
            while k != -1:
                next_k = following[k]
                at = progress[k]
                factor = L[at]
                for e in range(at, indptr[k + 1]):
                    column[rows[e]] -= factor * L[e]
                at += 1
                if at < indptr[k + 1]:
                    progress[k] = at
                    following[k] = head[rows[at]]
                    head[rows[at]] = k
                k = next_k
            for e in range(begin, end):
                L[e] = column[rows[e]]
        pivot = L[begin]
        if not pivot > 0.0:
            return j
        pivot = np.sqrt(pivot)
        L[begin] = pivot
        scale = 1.0 / pivot
        for e in range(begin + 1, end):
            L[e] *= scale
        if begin + 1 < end:
            progress[j] = begin + 1
            following[j] = head[rows[begin + 1]]
            head[rows[begin + 1]] = j
    return n


@compiled(VOID(INT64, INT32, FLOAT, FLOAT2_OUT))
def forward(indptr: Int64, rows: Int32, L: Float, B: Float) -> None:
    """Replace B (n, k) by L^-1 B."""
    for j in range(len(indptr) - 1):
        scale = 1.0 / L[indptr[j]]
        for c in range(B.shape[1]):
            B[j, c] *= scale
        for e in range(indptr[j] + 1, indptr[j + 1]):
            for c in range(B.shape[1]):
                B[rows[e], c] -= L[e] * B[j, c]


@compiled(VOID(INT64, INT32, FLOAT, FLOAT2_OUT))
def backward(indptr: Int64, rows: Int32, L: Float, B: Float) -> None:
    """Replace B (n, k) by L^-T B."""
    for j in range(len(indptr) - 2, -1, -1):
        for e in range(indptr[j] + 1, indptr[j + 1]):
            for c in range(B.shape[1]):
                B[j, c] -= L[e] * B[rows[e], c]
        scale = 1.0 / L[indptr[j]]
        for c in range(B.shape[1]):
            B[j, c] *= scale


@compiled(VOID(INT64, INT32, FLOAT, FLOAT_OUT))
def selected_inverse(indptr: Int64, rows: Int32, L: Float, Z: Float) -> None:
    """Fill Z with the entries of A^-1 on L's pattern.

    From the last column to the first, with y = L[R, j] / L[j, j] and R the rows of column j below the
    diagonal:

        Z[R, j] = -Z[R, R] y,        Z[j, j] = 1 / L[j, j]^2 - y'Z[R, j].

    Every entry of Z[R, R] is there already: column k of L holds all rows of R that come after k in R.
    """
    n = len(indptr) - 1
    y = np.zeros(n)
    z = np.zeros(n)
    newest = np.full(n, -1, np.int32)
    for j in range(n - 1, -1, -1):
        begin, end = indptr[j], indptr[j + 1]
        scale = 1.0 / L[begin]
        for e in range(begin + 1, end):
            i = rows[e]
            y[i] = L[e] * scale
            z[i] = 0.0
            newest[i] = j
        for e in range(begin + 1, end):
            k = rows[e]
            y_k = y[k]
            total = Z[indptr[k]] * y_k
            for f in range(indptr[k] + 1, indptr[k + 1]):
                i = rows[f]
                if newest[i] == j:
                    z[i] -= Z[f] * y_k
                    total += Z[f] * y[i]
            z[k] -= total
        diagonal = scale * scale
        for e in range(begin + 1, end):
            i = rows[e]
            Z[e] = z[i]
            diagonal -= y[i] * z[i]
        Z[begin] = diagonal
