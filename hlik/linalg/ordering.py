"""Fill-reducing orderings: a few candidates, judged by the factor they lead to.

The number of entries in every column of L is known in nearly linear time without forming L, so that
candidates are compared rather than guessed at. The cheap ones come first; a dear one is tried only if it
could pay.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from .compiled import kernels
from .patterns import Int32, Int64, LowerPattern

ORDERINGS = ("auto", "natural", "largest_first", "amd_dense_last", "amd", "metis")

ENOUGH = 1.05
"""An ordering with at most so many times the entries of A in L is not improved upon."""

CLEARLY_BETTER = 0.9
"""A dearer candidate replaces a simpler one only below this part of its cost: the simpler one has larger supernodes."""

FACTORISATIONS = 5
"""The orderings tried may together take as long as so many factorisations; a fit makes tens to hundreds."""

LARGEST_SMALL_BLOCK = 16
"""Columns of the diagonal blocks of what `largest_block_first` calls a block-diagonal range."""


@dataclass(frozen=True, eq=False)
class Elimination:
    """A postordered permutation with the forest and the column counts of its factor.

    ``counts[j]`` entries in column j of L; ``parent[j]`` the first row below its diagonal, -1 for none.
    """

    ordering: str
    perm: Int32
    parent: Int32
    counts: Int64

    @property
    def nnz_L(self) -> int:
        """Entries of L, the diagonal included."""
        return int(self.counts.sum())

    @property
    def flops(self) -> float:
        """Multiplications and additions of a factorisation: the sum of the squared column counts."""
        counts = self.counts.astype(np.float64)
        return float(counts @ counts)

    @property
    def cost(self) -> float:
        """What candidates are compared by: operations, and some for every entry moved."""
        return self.flops + 10.0 * self.nnz_L


def eliminate(pattern: LowerPattern, perm: Int32, ordering: str) -> Elimination:
    """Forest and column counts of a permutation."""
    elimination = kernels("elimination")
    indptr, indices = pattern
    perm, parent = elimination.postordered_forest(indptr, indices, perm)
    return Elimination(ordering, perm, parent, elimination.column_counts(indptr, indices, perm, parent))


def choose_elimination(pattern: LowerPattern, ordering: str | ArrayLike) -> Elimination:
    """The elimination asked for: by name, by permutation, or for "auto" the cheapest candidate."""
    if not isinstance(ordering, str):
        return eliminate(pattern, _checked_permutation(ordering, pattern.size), "given")
    if ordering not in ORDERINGS:
        raise ValueError(f"ordering must be a permutation or one of {', '.join(ORDERINGS)}; got {ordering!r}")
    if ordering != "auto":
        return eliminate(pattern, _permutation(pattern, ordering), ordering)
    return _cheapest(pattern)


def _cheapest(pattern: LowerPattern) -> Elimination:
    """The best of the candidates, as far as trying them is worth its time."""
    best = eliminate(pattern, _permutation(pattern, "natural"), "natural")
    spent = 0.0
    for name, seconds in _candidates(pattern):
        if best.nnz_L <= ENOUGH * pattern.nnz or spent + seconds > _worth(best):
            continue
        spent += seconds
        candidate = eliminate(pattern, _permutation(pattern, name), name)
        if candidate.cost < CLEARLY_BETTER * best.cost:
            best = candidate
    return best


def _candidates(pattern: LowerPattern) -> Iterator[tuple[str, float]]:
    """What is tried after the natural order, about in the order of its price, with a guess of the seconds it takes.

    Approximate minimum degree scans the neighbours of neighbours: its worst case is the sum of the squared
    degrees, which a few hundred columns with thousands of neighbours each make large.
    """
    degrees = _degrees(pattern)
    squares = degrees.astype(np.float64) ** 2
    kept = degrees <= _low_dense_threshold(degrees)
    yield "largest_first", 0.0
    if not kept.all():
        yield "amd_dense_last", _amd_seconds(squares[kept])
    if find_spec("pymetis") is not None:
        yield "metis", 1e-6 * (pattern.size + pattern.nnz)
    yield "amd", _amd_seconds(squares[degrees <= _dense_threshold(pattern.size)])


def _worth(best: Elimination) -> float:
    """Seconds that may be spent in the hope of a better ordering."""
    seconds_per_factorisation = best.flops / 1e10 + best.nnz_L * 1e-8
    return 0.01 + FACTORISATIONS * seconds_per_factorisation


def _amd_seconds(squared_degrees: np.ndarray) -> float:
    return 1e-6 * len(squared_degrees) + 3e-9 * float(squared_degrees.sum())


def _permutation(pattern: LowerPattern, name: str) -> Int32:
    if name == "natural":
        return np.arange(pattern.size, dtype=np.int32)
    if name == "largest_first":
        return largest_block_first(pattern)
    if name == "metis":
        return nested_dissection(pattern)
    degrees = _degrees(pattern)
    dense = _dense_threshold(pattern.size) if name == "amd" else _low_dense_threshold(degrees)
    perm: Int32 = kernels("amd").minimum_degree(pattern.indptr, pattern.indices, dense)
    return perm


def _degrees(pattern: LowerPattern) -> Int64:
    """Number of neighbours of every column."""
    below = np.diff(pattern.indptr) - 1
    return below + np.bincount(pattern.indices, minlength=pattern.size) - 1


def _dense_threshold(size: int) -> int:
    """Amestoy, Davis & Duff's: columns with more neighbours are ordered last."""
    return int(max(16.0, 10.0 * np.sqrt(size)))


def _low_dense_threshold(degrees: Int64) -> int:
    """Ten times what is usual: sets aside the levels of a small factor that is crossed with a large one."""
    return int(max(16.0, 10.0 * np.median(degrees))) if len(degrees) > 0 else 16


def largest_block_first(pattern: LowerPattern) -> Int32:
    """The largest range of columns that is (block-)diagonal first, the others in their order.

    For one large factor crossed with small ones this is the Schur complement that one would write down by
    hand: the levels of the large factor are not adjacent to each other and cost next to nothing. The range is
    contiguous; its diagonal blocks are contiguous too and at most LARGEST_SMALL_BLOCK columns wide (the
    slopes of one level).
    """
    start, end = kernels("elimination").largest_block_diagonal_range(*pattern, LARGEST_SMALL_BLOCK)
    return np.concatenate(
        [np.arange(start, end), np.arange(start), np.arange(end, pattern.size)], dtype=np.int32, casting="same_kind"
    )


def nested_dissection(pattern: LowerPattern) -> Int32:
    """METIS (Karypis & Kumar 1998, SIAM J. Sci. Comput. 20, 359-392), if ``pymetis`` is installed."""
    if find_spec("pymetis") is None:
        raise ImportError('ordering="metis" needs the package pymetis: pip install pymetis')
    import pymetis

    neighbours = _adjacency(pattern)
    if neighbours.nnz == 0:
        return np.arange(pattern.size, dtype=np.int32)
    if hasattr(pymetis, "CSRAdjacency"):  # since 2025.2
        order, _ = pymetis.nested_dissection(pymetis.CSRAdjacency(neighbours.indptr, neighbours.indices))
    else:
        order, _ = pymetis.nested_dissection(xadj=neighbours.indptr, adjncy=neighbours.indices)
    return np.asarray(order, dtype=np.int32)


def _adjacency(pattern: LowerPattern) -> sp.csc_array:
    """Both triangles without the diagonal, by columns."""
    lower = sp.csc_array((np.ones(pattern.nnz, np.int8), pattern.indices, pattern.indptr), shape=(pattern.size,) * 2)
    strict = sp.tril(lower, -1, format="csc")
    return sp.csc_array(strict + strict.T)


def _checked_permutation(ordering: ArrayLike, size: int) -> Int32:
    perm = np.asarray(ordering)
    if perm.shape != (size,) or not np.array_equal(np.sort(perm), np.arange(size)):
        raise ValueError(f"ordering must be a permutation of 0..{size - 1}, got an array of shape {perm.shape}")
    return perm.astype(np.int32)
