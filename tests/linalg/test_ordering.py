"""Orderings: valid, as good as they should be, and quick where one of them is known to be slow."""

import numpy as np
import pytest
import scipy.sparse as sp

from hlik.linalg import analyze, lower_pattern
from hlik.linalg.compiled import kernels
from hlik.linalg.ordering import choose_elimination, eliminate, largest_block_first

from .problems import PATTERNS, grid_precision, indicator


@pytest.mark.parametrize("name", sorted(PATTERNS))
@pytest.mark.parametrize("ordering", ["natural", "largest_first", "amd_dense_last", "amd"])
def test_every_ordering_is_a_permutation_in_postorder(name, ordering):
    pattern = lower_pattern(PATTERNS[name]())
    chosen = choose_elimination(pattern, ordering)
    np.testing.assert_array_equal(np.sort(chosen.perm), np.arange(pattern.size))
    is_root = chosen.parent == -1
    assert np.all(is_root | (chosen.parent > np.arange(pattern.size)))
    # Postorder: below its parent, a column's subtree is contiguous, so that its size says where it starts.
    subtree = np.ones(pattern.size, int)
    for j in np.flatnonzero(~is_root):
        subtree[chosen.parent[j]] += subtree[j]
    for j in np.flatnonzero(~is_root):
        parent = chosen.parent[j]
        assert parent - subtree[parent] < j - subtree[j] + 1 <= j < parent


def test_parents_and_counts_are_those_of_the_dense_factor():
    for name, pattern in PATTERNS.items():
        A = pattern()
        chosen = eliminate(lower_pattern(A), np.random.default_rng(0).permutation(A.shape[0]).astype(np.int32), "given")
        L = dense_fill((A.toarray() != 0)[np.ix_(chosen.perm, chosen.perm)])
        np.testing.assert_array_equal(chosen.counts, L.sum(axis=0), err_msg=name)
        below = np.tril(L, -1)
        parents = np.where(below.any(axis=0), below.argmax(axis=0), -1)
        np.testing.assert_array_equal(chosen.parent, parents, err_msg=name)


def dense_fill(pattern: np.ndarray) -> np.ndarray:
    """Pattern of L by elimination on paper."""
    filled = np.tril(pattern)
    for j in range(len(filled)):
        rows = np.flatnonzero(filled[j + 1 :, j]) + j + 1
        filled[np.ix_(rows, rows)] = True
        filled = np.tril(filled)
    return filled


def test_minimum_degree_finds_orderings_without_fill():
    for name in ("diagonal", "arrow", "path", "dense"):
        pattern = lower_pattern(PATTERNS[name]())
        assert choose_elimination(pattern, "amd").nnz_L == pattern.nnz, name


def test_minimum_degree_on_a_grid():
    """Nested dissection theory: 31 n log2(n) / 4 entries for an n-column grid; minimum degree does no worse here."""
    grid = lower_pattern(grid_precision(60, 60))
    n = grid.size
    assert choose_elimination(grid, "amd").nnz_L < 31 / 4 * n * np.log2(n)
    assert choose_elimination(grid, "natural").nnz_L > 2 * choose_elimination(grid, "amd").nnz_L


def test_dense_columns_come_last():
    pattern = lower_pattern(PATTERNS["arrow"]())
    perm = kernels("amd").minimum_degree(pattern.indptr, pattern.indices, 16)
    assert perm[-1] == 0


def test_lists_that_outgrow_their_room_are_moved():
    """A grid crossed with a dense part makes many elements; the result must stay a permutation with little fill."""
    rng = np.random.default_rng(0)
    upper = sp.random_array((3000, 3000), density=0.002, rng=rng)
    pattern = lower_pattern(sp.csc_array(upper + upper.T + sp.eye_array(3000)))
    chosen = choose_elimination(pattern, "amd")
    np.testing.assert_array_equal(np.sort(chosen.perm), np.arange(3000))
    assert chosen.nnz_L < 0.8 * choose_elimination(pattern, "natural").nnz_L


def test_largest_factor_first():
    rng = np.random.default_rng(0)
    small, large = indicator(rng.integers(0, 7, 400), 7), indicator(rng.integers(0, 90, 400), 90)
    Z = sp.hstack([small, large], format="csr")
    perm = largest_block_first(lower_pattern(sp.csc_array(Z.T @ Z + sp.eye_array(97))))
    np.testing.assert_array_equal(perm, np.r_[7:97, 0:7])


def test_largest_factor_first_finds_blocks_of_slopes():
    perm = largest_block_first(lower_pattern(PATTERNS["slopes_and_crossed"]()))
    np.testing.assert_array_equal(perm, np.arange(172))  # 80 groups of 2 columns, then the 12 crossed levels


def test_many_slopes_crossed_with_hundreds_of_levels_do_not_try_minimum_degree():
    """Full minimum degree needs ten seconds on 100,000 slopes crossed with 500 levels, for the same fill."""
    rng = np.random.default_rng(0)
    n, groups, levels = 100_000, 10_000, 500
    group = rng.integers(0, groups, n)
    pairs = sp.csr_array(
        (np.ones(2 * n), (np.tile(np.arange(n), 2), np.concatenate([2 * group, 2 * group + 1]))), shape=(n, 2 * groups)
    )
    Z = sp.hstack([pairs, indicator(rng.integers(0, levels, n), levels)], format="csr")
    symbolic = analyze(sp.csc_array(Z.T @ Z + sp.eye_array(Z.shape[1])))
    assert symbolic.ordering in ("natural", "largest_first")
    assert symbolic.nnz_L <= symbolic.pattern.nnz + levels**2 / 2  # only the levels' own corner fills


def test_auto_is_never_much_worse_than_any_candidate():
    for name, pattern in PATTERNS.items():
        lower = lower_pattern(pattern())
        costs = {o: choose_elimination(lower, o).cost for o in ("natural", "largest_first", "amd_dense_last", "amd")}
        assert choose_elimination(lower, "auto").cost <= 1.3 * min(costs.values()), (name, costs)
