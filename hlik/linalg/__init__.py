"""Sparse symmetric positive definite linear algebra: factor, solve, log-determinant, selected inverse.

No statistics in it. `analyze` orders a pattern once; its `Symbolic` factorises any number of matrices that have
the pattern; a `Factor` solves and gives the log-determinant, draws from N(0, A^-1) and entries of A^-1.
`SparseCholesky` is the same for whole matrices. `BorderedSystem` does it for H = [X'WX, X'WZ; Z'WX, Z'WZ + D] with
new weights W and a new D each time, and gives the leverages of its rows.

Small and diagonal matrices go through NumPy and LAPACK; numba is imported, and compiles or loads its kernels, only
when a large system is met (`on_compile` tells). BLAS is held at one thread meanwhile (`set_blas_threads`).

Where to read what:

- `cholesky`: which of the kernels is chosen; `factor`: what comes out; `diagonal`, `dense`, `sparse`: the kernels seen
  from Python; `ordering`: which ordering is chosen; `quadratic`: entries of A^-1 off the pattern;
- `bordered_system`, `bordered`, `border`: the bordered system; `products`: the ways to form Z'WZ and to go back to the
  rows;
- `kernels`: the compiled code, one algorithm a file;
- `patterns`, `errors`, `threads`, `compiled`: inputs in one form, what is raised, BLAS's threads, loading kernels.
"""

from .bordered import Bordered
from .bordered_system import BorderedSystem
from .cholesky import SparseCholesky, analyze
from .compiled import on_compile
from .errors import NotPositiveDefinite
from .factor import Factor, Symbolic
from .patterns import LowerPattern, lower_pattern, lower_values, symmetric_matrix
from .threads import set_blas_threads

__all__ = [
    "Bordered",
    "BorderedSystem",
    "Factor",
    "LowerPattern",
    "NotPositiveDefinite",
    "SparseCholesky",
    "Symbolic",
    "analyze",
    "lower_pattern",
    "lower_values",
    "on_compile",
    "set_blas_threads",
    "symmetric_matrix",
]
