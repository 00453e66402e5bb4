"""Sparse Cholesky factorisation: analyse a pattern once, factor many matrices that have it.

Here the kernel is chosen, by size and fill; `factor` has the results.

>>> import numpy as np, scipy.sparse as sp
>>> A = sp.csc_array([[4.0, 1.0, 0.0], [1.0, 3.0, 0.0], [0.0, 0.0, 2.0]])
>>> factor = SparseCholesky(A).factor(A)
>>> bool(np.isclose(factor.logdet(), np.log(22.0)))
True
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from .dense import DenseStructure
from .diagonal import DiagonalStructure
from .factor import Factor, Symbolic
from .ordering import choose_elimination
from .patterns import Int32, LowerPattern, frozen, lower_pattern, values_on_pattern
from .sparse import SimplicialStructure, SparseStructure, SupernodalStructure

Kernel = Literal["auto", "diagonal", "dense", "simplicial", "supernodal"]

DENSE_SIZE = 300
"""Matrices of up to so many columns go through dense LAPACK, whatever their pattern: some milliseconds at
most, and no kernel needs to be compiled or loaded for them."""

NEARLY_DENSE_SIZE = 2000
"""And up to so many if more than half of their entries are there, where a sparse factor would save nothing."""

SIMPLICIAL_COLUMN = 4.0
"""Entries per column of L below which dense blocks are only overhead."""


def analyze(pattern: Any, ordering: str | ArrayLike = "auto", kernel: Kernel = "auto") -> Symbolic:
    """Order a symmetric pattern and find the pattern of its Cholesky factor.

    Parameters
    ----------
    pattern : scipy sparse matrix or array, shape (q, q), or LowerPattern
        Symmetric: both triangles, or its lower triangle alone. The diagonal must be complete; explicit zeros
        count as entries.
    ordering : str or permutation
        "auto" takes the candidate with the least work; "natural", "largest_first", "amd_dense_last", "amd"
        and "metis" (needs the package pymetis) force one, and so does an array that says which column is
        eliminated k-th.
    kernel : {"auto", "diagonal", "dense", "simplicial", "supernodal"}
        How to factorise; "auto" chooses by size and fill. "dense" ignores the ordering.

    Returns
    -------
    Symbolic
    """
    lower = pattern if isinstance(pattern, LowerPattern) else lower_pattern(pattern)
    missing = lower.first_missing_diagonal()
    if missing is not None:
        raise ValueError(
            f"pattern must hold the whole diagonal, as a positive definite matrix does; column {missing} lacks it"
        )
    if kernel == "auto" and isinstance(ordering, str) and ordering == "auto":
        kernel = _kernel_without_ordering(lower)
    if kernel == "diagonal":
        return _analyze_diagonal(lower)
    if kernel == "dense":
        return _analyze_dense(lower)
    return _analyze_sparse(lower, ordering, kernel)


def _kernel_without_ordering(pattern: LowerPattern) -> Kernel:
    """The kernel, where size and density alone decide it."""
    q = pattern.size
    if pattern.nnz == q and q > 0:
        return "diagonal"
    if q <= DENSE_SIZE or (q <= NEARLY_DENSE_SIZE and pattern.nnz > 0.25 * q**2):
        return "dense"
    return "auto"


def _analyze_diagonal(pattern: LowerPattern) -> Symbolic:
    q = pattern.size
    if pattern.nnz != q:
        raise ValueError(
            f'kernel="diagonal" needs a diagonal pattern, got {pattern.nnz - q} entries below the diagonal'
        )
    return Symbolic(pattern, "natural", "diagonal", _identity(q), q, float(q), DiagonalStructure(q))


def _analyze_dense(pattern: LowerPattern) -> Symbolic:
    q = pattern.size
    structure = DenseStructure.build(pattern)
    return Symbolic(pattern, "natural", "dense", _identity(q), q * (q + 1) // 2, q**3 / 3.0, structure)


def _analyze_sparse(pattern: LowerPattern, ordering: str | ArrayLike, kernel: Kernel) -> Symbolic:
    elimination = choose_elimination(pattern, ordering)
    if kernel == "auto":
        kernel = "simplicial" if elimination.nnz_L < SIMPLICIAL_COLUMN * pattern.size else "supernodal"
    kinds: dict[str, type[SparseStructure]] = {"simplicial": SimplicialStructure, "supernodal": SupernodalStructure}
    if kernel not in kinds:
        raise ValueError(f"kernel must be auto, diagonal, dense, simplicial or supernodal; got {kernel!r}")
    return Symbolic(
        pattern,
        elimination.ordering,
        kernel,
        frozen(elimination.perm),
        elimination.nnz_L,
        elimination.flops,
        kinds[kernel].build(pattern, elimination),
    )


def _identity(size: int) -> Int32:
    identity: Int32 = frozen(np.arange(size, dtype=np.int32))
    return identity


class SparseCholesky:
    """Analyse once, factor many times, from whole matrices instead of values on a pattern.

    Parameters
    ----------
    pattern, ordering, kernel
        As `analyze` takes them.

    Attributes
    ----------
    symbolic : Symbolic
        The analysis.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> A = sp.csc_array([[4.0, 1.0], [1.0, 3.0]])
    >>> SparseCholesky(A).factor(A).solve([9.0, 5.0]).round(12)
    array([2., 1.])
    """

    def __init__(self, pattern: Any, ordering: str | ArrayLike = "auto", kernel: Kernel = "auto") -> None:
        self.symbolic = analyze(pattern, ordering, kernel)

    def factor(self, matrix: Any, pivot_threshold: float | None = None) -> Factor:
        """Factorise a sparse symmetric matrix whose entries lie on the pattern; only its lower triangle is read."""
        return self.symbolic.factor(values_on_pattern(matrix, self.symbolic.pattern), pivot_threshold)
