"""BLAS and LAPACK for the kernels, through the addresses that SciPy publishes.

The addresses change from process to process, so they reach the kernels as an array argument; a constant would
go into numba's cache and crash the next process.
"""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic

from ._jit import inner
from ._types import Float, Int64

_ROUTINES = {"gemm": "blas", "symm": "blas", "trsm": "blas", "potrf": "lapack", "potri": "lapack"}
ADDRESSES = np.array(
    [get_cython_function_address(f"scipy.linalg.cython_{module}", f"d{name}") for name, module in _ROUTINES.items()],
    dtype=np.uint64,
).astype(np.int64)
"""Argument ``blas`` of every kernel that calls BLAS."""

GEMM, SYMM, TRSM, POTRF, POTRI = range(len(_ROUTINES))
N, T, L, R = (np.uint8(ord(letter)) for letter in "NTLR")


@intrinsic
def _call_fortran(typing_context: Any, address: Any, arguments: Any) -> Any:
    """Call the routine at an address with a tuple of arguments, and return its last one as it is afterwards.

    int64 arguments are addresses of arrays and are passed as they are; int32, float64 and uint8 (a letter)
    are scalars, passed by reference as Fortran wants. LAPACK's last argument is ``info``.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte_pointer = ir.IntType(8).as_pointer()
        pointers = []
        for value, kind in zip(cgutils.unpack_tuple(builder, args[1]), arguments.types, strict=True):
            if kind == types.int64:
                pointers.append(builder.inttoptr(value, byte_pointer))
            else:
                last = cgutils.alloca_once_value(builder, value)
                pointers.append(builder.bitcast(last, byte_pointer))
        function_type = ir.FunctionType(ir.VoidType(), [byte_pointer] * len(pointers))
        builder.call(builder.inttoptr(args[0], function_type.as_pointer()), pointers)
        return builder.load(last)

    return types.int32(address, arguments), generate


@inner
def _address(array: Float, offset: int) -> int:
    return array.ctypes.data + 8 * offset


# Every matrix below is a block of a flat array in column-major order: the array, the position of the block's
# first entry and the distance between its columns.


@inner
def gemm(
    blas: Int64,
    trans_a: np.uint8,
    trans_b: np.uint8,
    m: int,
    n: int,
    k: int,
    alpha: float,
    A: Float,
    a: int,
    lda: int,
    B: Float,
    b: int,
    ldb: int,
    beta: float,
    C: Float,
    c: int,
    ldc: int,
) -> None:
    """C (m, n) = alpha op(A) (m, k) op(B) (k, n) + beta C."""
    _call_fortran(
        blas[GEMM],
        (
            trans_a,
            trans_b,
            np.int32(m),
            np.int32(n),
            np.int32(k),
            np.float64(alpha),
            _address(A, a),
            np.int32(lda),
            _address(B, b),
            np.int32(ldb),
            np.float64(beta),
            _address(C, c),
            np.int32(ldc),
        ),
    )


@inner
def symm_left(
    blas: Int64,
    m: int,
    n: int,
    alpha: float,
    A: Float,
    a: int,
    lda: int,
    B: Float,
    b: int,
    ldb: int,
    beta: float,
    C: Float,
    c: int,
    ldc: int,
) -> None:
    """C (m, n) = alpha A (m, m) B (m, n) + beta C, A symmetric, only its lower triangle read."""
    _call_fortran(
        blas[SYMM],
        (
            L,
            L,
            np.int32(m),
            np.int32(n),
            np.float64(alpha),
            _address(A, a),
            np.int32(lda),
            _address(B, b),
            np.int32(ldb),
            np.float64(beta),
            _address(C, c),
            np.int32(ldc),
        ),
    )


@inner
def trsm(
    blas: Int64, side: np.uint8, trans: np.uint8, m: int, n: int, A: Float, a: int, lda: int, B: Float, b: int, ldb: int
) -> None:
    """B (m, n) = op(A)^-1 B, or B op(A)^-1 for side R; A lower triangular."""
    _call_fortran(
        blas[TRSM],
        (
            side,
            L,
            trans,
            N,
            np.int32(m),
            np.int32(n),
            np.float64(1.0),
            _address(A, a),
            np.int32(lda),
            _address(B, b),
            np.int32(ldb),
        ),
    )


@inner
def potrf(blas: Int64, n: int, A: Float, a: int, lda: int) -> int:
    """Replace the lower triangle of A by its Cholesky factor; returns LAPACK's info."""
    info: int = _call_fortran(blas[POTRF], (L, np.int32(n), _address(A, a), np.int32(lda), np.int32(0)))
    return info


@inner
def potri(blas: Int64, n: int, A: Float, a: int, lda: int) -> int:
    """Replace a Cholesky factor in the lower triangle of A by the inverse of the matrix factorised."""
    info: int = _call_fortran(blas[POTRI], (L, np.int32(n), _address(A, a), np.int32(lda), np.int32(0)))
    return info
