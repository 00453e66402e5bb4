"""Any entries of an inverse, and the quadratic forms t'A^-1 t of any sparse rows t.

What lies on the pattern of A comes from the selected inverse. The rest is solved for, by whole columns of the
inverse or by half-solves with whole rows t, whichever are fewer. Memory is bounded by chunks.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .patterns import Float, Int64, find_entries
from .products import count_pairs, pairs_within_rows

if TYPE_CHECKING:
    from .factor import Factor

SOLVE_ENTRIES = 4_000_000
"""Entries of a dense block of right-hand sides: 32 MB."""

SHORT_ROW = 12
"""Rows with more entries are not taken apart into pairs."""

PAIR_CHUNK = 2_000_000
"""Pairs looked up at a time."""


def inverse_entries(factor: "Factor", rows: NDArray[Any], columns: NDArray[Any]) -> Float:
    """Entries (row, column) of A^-1, both triangles, on the pattern or not."""
    rows, columns = np.maximum(rows, columns), np.minimum(rows, columns)
    positions = find_entries(factor.symbolic.pattern, rows, columns)
    out = factor.selected_inverse()[positions] if len(positions) > 0 else np.zeros(0)
    missing = np.flatnonzero(positions < 0)
    if len(missing) > 0:
        chosen, other = frequent_endpoints(rows[missing], columns[missing], factor.symbolic.size)
        out[missing] = _entries_by_columns(factor, chosen, other)
    return out


def frequent_endpoints(rows: NDArray[Any], columns: NDArray[Any], size: int) -> tuple[Int64, Int64]:
    """Of every pair the number that occurs in more pairs, and the other one: few columns then cover all pairs."""
    frequency = np.bincount(rows, minlength=size) + np.bincount(columns, minlength=size)
    take_row = frequency[rows] > frequency[columns]
    return np.where(take_row, rows, columns), np.where(take_row, columns, rows)


def _entries_by_columns(factor: "Factor", columns: Int64, rows: Int64) -> Float:
    """Entries of A^-1 from solves with unit vectors, one for each distinct column."""
    size = factor.symbolic.size
    distinct, which = np.unique(columns, return_inverse=True)
    out = np.empty(len(columns))
    step = max(1, SOLVE_ENTRIES // size)
    for start in range(0, len(distinct), step):
        chunk = distinct[start : start + step]
        units = np.zeros((size, len(chunk)))
        units[chunk, np.arange(len(chunk))] = 1.0
        solved = factor.solve(units)
        here = np.flatnonzero((which >= start) & (which < start + step))
        out[here] = solved[rows[here], which[here] - start]
    return out


def inverse_quadratics(factor: "Factor", T: sp.csr_array) -> Float:
    """t'A^-1 t of every row t of T, shape (m,)."""
    out = np.empty(T.shape[0])
    is_short = np.diff(T.indptr) <= SHORT_ROW
    long = np.flatnonzero(~is_short)
    if len(long) > 0:
        out[long] = _by_half_solves(factor, T[long])
    short = np.flatnonzero(is_short)
    step = max(1, PAIR_CHUNK * max(1, len(short)) // max(1, count_pairs(T[short]))) if len(short) > 0 else 1
    for start in range(0, len(short), step):
        chunk = short[start : start + step]
        out[chunk] = _by_pairs(factor, T[chunk])
    return out


def _by_half_solves(factor: "Factor", T: sp.csr_array) -> Float:
    """|L^-1 P t|^2 of every row."""
    out = np.empty(T.shape[0])
    step = max(1, SOLVE_ENTRIES // max(1, T.shape[1]))
    for start in range(0, T.shape[0], step):
        half = factor.solve_L(T[start : start + step].T.toarray())
        out[start : start + step] = (half**2).sum(axis=0)
    return out


def _by_pairs(factor: "Factor", T: sp.csr_array) -> Float:
    """The sum over the pairs of a row of entries of A^-1; half-solves instead for rows that are cheaper so."""
    rows, first, second, products = pairs_within_rows(T)
    positions = find_entries(factor.symbolic.pattern, first, second)
    weights = np.where(first == second, products, 2.0 * products)
    entries = factor.selected_inverse()[positions] if len(positions) > 0 else np.zeros(0)
    missing = np.flatnonzero(positions < 0)
    if len(missing) > 0:
        incomplete = np.unique(rows[missing])
        columns, others = frequent_endpoints(first[missing], second[missing], factor.symbolic.size)
        if 2 * len(np.unique(columns)) > len(incomplete):
            entries[missing] = 0.0
            out: Float = np.bincount(rows, weights * entries, minlength=T.shape[0]).astype(np.float64, copy=False)
            out[incomplete] = _by_half_solves(factor, T[incomplete])
            return out
        entries[missing] = _entries_by_columns(factor, columns, others)
    return np.bincount(rows, weights * entries, minlength=T.shape[0]).astype(np.float64, copy=False)
