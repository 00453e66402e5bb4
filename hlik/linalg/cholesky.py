"""Sparse Cholesky factorisation: analyse a pattern once, factor many matrices that have it.

``A[perm][:, perm] = L L'`` with a fill-reducing permutation ``perm``. Everything a `Factor` takes and returns is in the
caller's numbering, except the vectors between `Factor.solve_L` and `Factor.solve_Lt`, which are in elimination order.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .dense import DenseLower, DenseStructure
from .errors import NotPositiveDefinite
from .patterns import Float, Int32, LowerPattern, check_finite, frozen, lower_pattern
from .threads import limited_blas

PIVOT_THRESHOLD = 1e-14
"""A pivot below this part of its column's diagonal entry counts as zero: nothing but rounding error is left of it."""


@dataclass(frozen=True, eq=False)
class Symbolic:
    """What depends on the pattern alone: ordering, pattern of L, where each entry goes. Immutable, shareable, picklable."""

    pattern: LowerPattern
    ordering: str
    perm: Int32
    nnz_L: int
    flops: float
    kernel: str
    structure: DenseStructure = field(repr=False)

    def factor(self, values: ArrayLike, pivot_threshold: float = PIVOT_THRESHOLD) -> "Factor":
        values = np.ascontiguousarray(values, dtype=np.float64)
        if values.shape != (self.pattern.nnz,):
            raise ValueError(f"values must have shape ({self.pattern.nnz},), got {values.shape}")
        with limited_blas:
            lower, n_positive = self.structure.factor(values)
        ratios = self._pivot_ratios(values, lower, n_positive)
        bad = np.flatnonzero(~(ratios > pivot_threshold))
        if len(bad) > 0:
            raise NotPositiveDefinite(int(self.perm[bad[0]]), float(ratios[bad[0]]))
        if n_positive < self.pattern.size:
            raise NotPositiveDefinite(int(self.perm[n_positive]), 0.0)
        return Factor(self, lower, float(ratios.min(initial=1.0)))

    def _pivot_ratios(self, values, lower, n_positive):
        diagonal = values[self.pattern.diagonal_positions()][self.perm[:n_positive]]
        return lower.diagonal()[:n_positive] ** 2 / diagonal


@dataclass(frozen=True, eq=False)
class Factor:
    symbolic: Symbolic
    lower: DenseLower
    pivot_ratio: float

    def solve(self, B: ArrayLike) -> Float:
        return self.solve_Lt(self.solve_L(B))

    def solve_L(self, B: ArrayLike) -> Float:
        block, shape = self._block(B)
        with limited_blas:
            return self.lower.forward(block[self.symbolic.perm]).reshape(shape)

    def solve_Lt(self, B: ArrayLike) -> Float:
        block, shape = self._block(B)
        out = np.empty_like(block)
        with limited_blas:
            out[self.symbolic.perm] = self.lower.backward(block)
        return out.reshape(shape)

    def logdet(self) -> float:
        return 2.0 * float(np.log(self.lower.diagonal()).sum())

    def selected_inverse(self) -> Float:
        with limited_blas:
            return self.lower.selected_inverse()

    def inverse_diagonal(self) -> Float:
        return self.selected_inverse()[self.symbolic.pattern.diagonal_positions()]

    def sample(self, rng: np.random.Generator, size: int) -> Float:
        return self.solve_Lt(rng.standard_normal((self.symbolic.pattern.size, size))).T

    def _block(self, B: ArrayLike) -> tuple[Float, tuple[int, ...]]:
        array = np.asarray(B, dtype=np.float64)
        size = self.symbolic.pattern.size
        if array.ndim not in (1, 2) or array.shape[0] != size:
            raise ValueError(f"the right-hand side must have shape ({size},) or ({size}, k), got {array.shape}")
        return array if array.ndim == 2 else array[:, None], array.shape


def analyze(pattern: Any, ordering: str = "auto") -> Symbolic:
    lower = pattern if isinstance(pattern, LowerPattern) else lower_pattern(pattern)
    missing = lower.first_missing_diagonal()
    if missing is not None:
        raise ValueError(f"pattern must hold every diagonal entry, got none in column {missing}")
    q = lower.size
    return Symbolic(lower, "natural", frozen(np.arange(q, dtype=np.int32)), q * (q + 1) // 2, q**3 / 3, "dense", DenseStructure.build(lower))
