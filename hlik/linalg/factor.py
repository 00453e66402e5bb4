"""The symbolic and the numerical factor: what `analyze` finds once for a pattern, and what each matrix gives then.

``A[perm][:, perm] = L L'`` with a fill-reducing permutation ``perm``. What a `Factor` takes and returns is in
the caller's numbering, except the vectors between `Factor.solve_L` and `Factor.solve_Lt`, which are in
elimination order.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from .errors import NotPositiveDefinite
from .patterns import Float, Int32, Int64, LowerPattern, canonical_rows, check_finite, frozen
from .quadratic import inverse_entries, inverse_quadratics
from .threads import limited_blas

EPS = float(np.finfo(np.float64).eps)


def default_pivot_threshold(size: int) -> float:
    """Part of its column's diagonal entry below which a pivot counts as zero: only rounding error is left of it.

    The last pivot of a singular matrix with q columns is the sum of all the entries' rounding errors,
    weighted by the null vector: on graph Laplacians of 20 to 40,000 columns it stayed below
    q eps / 8.
    """
    return max(1e-14, 0.25 * EPS * size)


class Lower(Protocol):
    """Values of L as one of the kernels stores them, in elimination order."""

    def diagonal(self) -> Float:
        """Diagonal of L, shape (q,)."""

    def forward(self, block: Float) -> Float:
        """L^-1 block, shape (q, k); may overwrite the block, which is C-contiguous."""

    def backward(self, block: Float) -> Float:
        """L^-T block, shape (q, k); may overwrite the block, which is C-contiguous."""

    def selected_inverse(self) -> Float:
        """Entries of A^-1 in the order of the input values."""


class Structure(Protocol):
    """What a kernel needs to know of the pattern."""

    def factor(self, values: Float) -> tuple[Lower, int]:
        """Factor, and how many pivots were positive before the first bad one."""


@dataclass(frozen=True, eq=False)
class Symbolic:
    """What depends on the pattern alone: the ordering, the pattern of L, where every entry goes.

    Immutable; may be shared between threads and pickled. Made by `analyze`.

    Attributes
    ----------
    pattern : LowerPattern
        Lower triangle of A by columns: the order of the values that `factor` takes.
    ordering : str
        The ordering chosen: "natural", "largest_first", "amd", "amd_dense_last", "metis" or "given".
    kernel : str
        "diagonal", "dense", "simplicial" or "supernodal".
    perm : int32 array, shape (q,)
        Column ``perm[k]`` of A is eliminated k-th.
    nnz_L : int
        Entries of L, explicit zeros of supernodes not counted.
    flops : float
        Additions and multiplications of one factorisation.
    """

    pattern: LowerPattern = field(repr=False)
    ordering: str
    kernel: str
    perm: Int32 = field(repr=False)
    nnz_L: int
    flops: float
    structure: Structure = field(repr=False)

    @property
    def size(self) -> int:
        """Number of columns of A."""
        return self.pattern.size

    @property
    def indptr(self) -> Int64:
        """Column pointers of the lower triangle of A."""
        return self.pattern.indptr

    @property
    def indices(self) -> Int32:
        """Row indices of the lower triangle of A."""
        return self.pattern.indices

    @cached_property
    def is_unpermuted(self) -> bool:
        """Whether the columns are eliminated in their own order."""
        return bool(np.array_equal(self.perm, np.arange(self.size)))

    def factor(self, values: ArrayLike, pivot_threshold: float | None = None) -> "Factor":
        """Factorise the matrix with these values.

        Parameters
        ----------
        values : array, shape (nnz,)
            Lower triangle of A by columns, aligned with `indptr` and `indices`; see `lower_values`.
        pivot_threshold : float, optional
            Pivots up to this part of their column's diagonal entry count as zero; None:
            `default_pivot_threshold`.

        Raises
        ------
        NotPositiveDefinite
            With the column, in the caller's numbering.
        """
        values = np.ascontiguousarray(values, dtype=np.float64)
        if values.shape != (self.pattern.nnz,):
            raise ValueError(
                f"values must have shape ({self.pattern.nnz},), one per entry of the lower triangle, got {values.shape}"
            )
        check_finite(values, "values")
        if pivot_threshold is None:
            pivot_threshold = default_pivot_threshold(self.size)
        with limited_blas:
            lower, n_positive = self.structure.factor(values)
        return Factor(self, lower, self._smallest_pivot_ratio(values, lower, n_positive, pivot_threshold))

    def _smallest_pivot_ratio(self, values: Float, lower: Lower, n_positive: int, threshold: float) -> float:
        """Smallest pivot as a part of its column's diagonal entry; raises for the first one at the threshold.

        A pivot that is zero but for rounding leaves large numbers in the columns after it, one of which may
        be the first to become negative: the pivots before are looked at first.
        """
        diagonal = values[self.pattern.diagonal_positions()][self.perm]
        pivots = lower.diagonal() ** 2
        pivots[n_positive:] = 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(diagonal > 0.0, pivots / diagonal, 0.0)
        bad = ~(ratios > threshold)
        if bad.any():
            first = int(np.argmax(bad))
            raise NotPositiveDefinite(int(self.perm[first]), float(ratios[first]))
        return float(ratios.min(initial=1.0))


@dataclass(frozen=True, eq=False)
class Factor:
    """One factorised matrix A. Immutable; may be used from several threads.

    Attributes
    ----------
    symbolic : Symbolic
        Its pattern.
    pivot_ratio : float
        Smallest pivot divided by its column's diagonal entry: near 1 for a diagonally dominant matrix; what
        is below about 1e-10 leaves few correct digits in the solutions.
    """

    symbolic: Symbolic
    lower: Lower = field(repr=False)
    pivot_ratio: float

    def solve(self, B: ArrayLike) -> Float:
        """A^-1 B for a vector or a block of columns, shape (q,) or (q, k)."""
        return self.solve_Lt(self.solve_L(B))

    def solve_L(self, B: ArrayLike) -> Float:
        """L^-1 P B, in elimination order: ``|solve_L(b)|^2 = b'A^-1 b``."""
        block, shape = self._block(B)
        with limited_blas:
            return self.lower.forward(self._permuted(block)).reshape(shape)

    def solve_Lt(self, B: ArrayLike) -> Float:
        """P'L^-T B for B in elimination order: standard normal columns become draws from N(0, A^-1)."""
        block, shape = self._block(B)
        with limited_blas:
            solution = self.lower.backward(np.array(block, order="C"))
        if self.symbolic.is_unpermuted:
            return solution.reshape(shape)
        out = np.empty_like(solution, order="C")
        out[self.symbolic.perm] = solution
        return out.reshape(shape)

    def logdet(self) -> float:
        """log|A|."""
        return 2.0 * float(np.log(self.lower.diagonal()).sum())

    def selected_inverse(self) -> Float:
        """Entries of A^-1 on the pattern of A, aligned with the values factorised, shape (nnz,); read-only."""
        return self._selected_inverse

    @cached_property
    def _selected_inverse(self) -> Float:
        with limited_blas:
            return frozen(self.lower.selected_inverse())

    def inverse_diagonal(self) -> Float:
        """Diagonal of A^-1, shape (q,)."""
        return self.selected_inverse()[self.symbolic.pattern.diagonal_positions()]

    def inverse_entries(self, rows: ArrayLike, columns: ArrayLike) -> Float:
        """Any entries of A^-1, in either triangle: solves are made for those outside the pattern of A."""
        return inverse_entries(self, np.asarray(rows), np.asarray(columns))

    def quadratic(self, T: Any) -> Float:
        """t'A^-1 t of every row t of a sparse matrix (m, q), shape (m,); see `inverse_entries`."""
        rows = canonical_rows(T, "T")
        if rows.shape[1] != self.symbolic.size:
            raise ValueError(f"T must have {self.symbolic.size} columns, got shape {rows.shape}")
        return inverse_quadratics(self, rows)

    def sample(self, rng: np.random.Generator, size: int) -> Float:
        """Draws from N(0, A^-1), shape (size, q)."""
        return self.solve_Lt(rng.standard_normal((self.symbolic.size, size))).T

    def _permuted(self, block: Float) -> Float:
        """A copy in elimination order, C-contiguous."""
        if self.symbolic.is_unpermuted:
            return np.array(block, order="C")
        return np.ascontiguousarray(block[self.symbolic.perm])

    def _block(self, B: ArrayLike) -> tuple[Float, tuple[int, ...]]:
        array = np.asarray(B, dtype=np.float64)
        size = self.symbolic.size
        if array.ndim not in (1, 2) or array.shape[0] != size:
            raise ValueError(f"the right-hand side must have shape ({size},) or ({size}, k), got {array.shape}")
        return (array if array.ndim == 2 else array[:, None]), array.shape
