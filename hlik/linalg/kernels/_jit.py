"""How kernels are compiled: eagerly, for one set of types, cached on disk, without the interpreter's lock.

Conventions of every kernel:

- pointers and positions are int64, row and column numbers int32, values float64; arrays are contiguous;
- inputs are declared read-only, which accepts writable arrays too: nothing compiles twice;
- a symmetric matrix is its lower triangle by columns; "row i of the lower triangle" are its entries (i, j), j
  <= i;
- a cached kernel is recompiled when its own file changes. After a change in a file it imports from, touch it.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit, types

Function = TypeVar("Function", bound=Callable[..., Any])

INT32 = types.Array(types.int32, 1, "C", readonly=True)
INT64 = types.Array(types.int64, 1, "C", readonly=True)
FLOAT = types.Array(types.float64, 1, "C", readonly=True)
FLOAT2 = types.Array(types.float64, 2, "C", readonly=True)
INT32_OUT = types.Array(types.int32, 1, "C")
INT64_OUT = types.Array(types.int64, 1, "C")
FLOAT_OUT = types.Array(types.float64, 1, "C")
FLOAT2_OUT = types.Array(types.float64, 2, "C")
SIZE = types.int64
VOID = types.void
returns = types.Tuple


def compiled(signature: Any) -> Callable[[Function], Function]:
    """Compile at import, for this signature only, or load from numba's cache."""

    def decorate(function: Function) -> Function:
        options = {"nogil": True, "error_model": "numpy"}
        try:
            return njit(signature, cache=True, **options)(function)
        except RuntimeError as error:  # numba finds no directory that it may write to
            if "cannot cache" not in str(error):
                raise
            return njit(signature, **options)(function)

    return decorate


def inner(function: Function) -> Function:
    """Compile a function that only kernels call; it becomes part of them."""
    return njit(nogil=True, error_model="numpy")(function)


def inlined(function: Function) -> Function:
    """As `inner`, for what is called once per column or supernode: its text is copied into its caller.

    A call counts the references of every array it is given, which for small blocks takes longer than the work.
    """
    return njit(nogil=True, error_model="numpy", inline="always")(function)


def inner_reordered(function: Function) -> Function:
    """As `inner`, and its sums may be taken in another order, which vector registers need."""
    return njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})(function)
