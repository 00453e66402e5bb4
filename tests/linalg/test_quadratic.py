"""Entries of the inverse and quadratic forms on and off the pattern, by every route."""

import numpy as np
import pytest
import scipy.sparse as sp

from hlik.linalg import analyze, lower_values, quadratic

from .problems import PATTERNS, with_random_values


@pytest.fixture(params=["dense", "simplicial", "supernodal"])
def factor(request):
    A = with_random_values(PATTERNS["crossed"](), np.random.default_rng(0))
    return analyze(A, kernel=request.param).factor(lower_values(A)), np.linalg.inv(A.toarray())


def test_entries_of_the_inverse(factor):
    factor, inverse = factor
    rng = np.random.default_rng(1)
    rows, columns = rng.integers(0, len(inverse), (2, 500))
    np.testing.assert_allclose(factor.inverse_entries(rows, columns), inverse[rows, columns], rtol=0, atol=1e-13)
    np.testing.assert_allclose(factor.inverse_entries([3], [3]), inverse[3, 3], rtol=1e-12)
    assert factor.inverse_entries([], []).shape == (0,)


def test_rows_of_all_lengths(factor):
    factor, inverse = factor
    rng = np.random.default_rng(2)
    T = sp.vstack(
        [
            sp.random_array((40, len(inverse)), density=0.5, rng=rng),  # long rows
            sp.random_array((200, len(inverse)), density=0.01, rng=rng),  # short ones, many pairs off the pattern
            sp.csr_array((3, len(inverse))),  # empty ones
        ],
        format="csr",
    )
    full = T.toarray()
    np.testing.assert_allclose(factor.quadratic(T), np.einsum("ij,jk,ik->i", full, inverse, full), rtol=1e-11)


def test_new_pairs_of_known_levels_need_few_columns(factor, monkeypatch):
    """2,000 rows combine 150 and 60 levels, mostly unseen pairs: about 60 solves, not 2,000."""
    factor, inverse = factor
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 150, 2000), 150 + rng.integers(0, 60, 2000)
    T = sp.csr_array((rng.normal(size=4000), (np.tile(np.arange(2000), 2), np.r_[first, second])), shape=(2000, 210))
    monkeypatch.setattr(quadratic, "_by_half_solves", None)  # would fail if it were used
    solved = []
    original = type(factor).solve
    monkeypatch.setattr(type(factor), "solve", lambda self, B: solved.append(np.shape(B)[1]) or original(self, B))
    full = T.toarray()
    np.testing.assert_allclose(factor.quadratic(T), np.einsum("ij,jk,ik->i", full, inverse, full), rtol=1e-11)
    assert 0 < sum(solved) <= 70


def test_rows_on_the_pattern_need_no_solves(factor, monkeypatch):
    factor, inverse = factor
    pattern = factor.symbolic.pattern
    m = 300
    chosen = np.random.default_rng(4).integers(0, pattern.nnz, m)
    rows, columns = pattern.indices[chosen], pattern.columns()[chosen]
    T = sp.csr_array((np.ones(2 * m), (np.tile(np.arange(m), 2), np.r_[rows, columns])), shape=(m, pattern.size))
    monkeypatch.setattr(type(factor), "solve", None)
    monkeypatch.setattr(type(factor), "solve_L", None)
    full = T.toarray()
    np.testing.assert_allclose(factor.quadratic(T), np.einsum("ij,jk,ik->i", full, inverse, full), rtol=1e-11)


@pytest.mark.parametrize("entries, pairs", [(1, 1), (500, 7)])
def test_chunks(factor, monkeypatch, entries, pairs):
    factor, inverse = factor
    monkeypatch.setattr(quadratic, "SOLVE_ENTRIES", entries)
    monkeypatch.setattr(quadratic, "PAIR_CHUNK", pairs)
    T = sp.random_array((50, len(inverse)), density=0.05, rng=np.random.default_rng(5), format="csr")
    full = T.toarray()
    np.testing.assert_allclose(factor.quadratic(T), np.einsum("ij,jk,ik->i", full, inverse, full), rtol=1e-11)
    rows, columns = np.random.default_rng(6).integers(0, len(inverse), (2, 60))
    np.testing.assert_allclose(factor.inverse_entries(rows, columns), inverse[rows, columns], rtol=0, atol=1e-13)


def test_columns_must_agree(factor):
    with pytest.raises(ValueError, match="T must have 210 columns"):
        factor[0].quadratic(sp.csr_array((3, 4)))
