"""Left-looking supernodal factorisation and triangular solves, with BLAS on the dense blocks.

Ng & Peyton (1993), SIAM J. Sci. Comput. 14, 1034-1056; Chen, Davis, Hager & Rajamanickam (2008), ACM TOMS 35, 22. The data
structure is described at the head of `supernodes`. For a supernode s, a descendant d is an earlier supernode with rows
among s's columns; it takes from s the product of its rows from there on:

    s[rows of d from ``begin``, columns in s] -= d[begin:, :] d[begin:middle, :]'      (middle: d's first row after s).
"""

import numpy as np

from ._jit import FLOAT, FLOAT2_OUT, FLOAT_OUT, INT32, INT64, SIZE, VOID, compiled, inner
from ._types import Float, Int32, Int64
from .blas import N, R, T, gemm, potrf, trsm

STRIP = 128
"""Columns of a descendant's update computed at once: bounds the workspace, and leaves out the upper triangle in blocks."""

SMALL_UPDATE = 256
"""Multiplications below which plain loops are faster than a call of gemm."""

NARROW = 4
"""Supernodes up to so many columns are factorised with plain loops."""

PANEL = 32
"""Columns of a wide supernode updated together by all one-column descendants, to stay in cache."""


@inner
def _update_scalar(L, target, target_rows, begin, middle, end, value, n_rows, n_columns, row_start, rows, place):
    """Update by loops: one descendant with little to say."""


@compiled(SIZE(INT64, INT32, INT64, INT32, INT64, INT32, FLOAT_OUT))
def factorise(
    blas: Int64, first: Int32, row_ptr: Int64, rows: Int32, value_ptr: Int64, owner: Int32, L: Float
) -> int:
    """Replace the lower triangle of A, spread over L's pattern, by L. Returns how many pivots were positive in a row."""
    return 0
