"""All ways to form Z'WZ and to go back give what dense matrices give."""

import numpy as np
import pytest
import scipy.sparse as sp

from hlik.linalg import lower_pattern, products
from hlik.linalg.patterns import LowerPattern, canonical_rows
from hlik.linalg.products import (
    DenseProducts,
    PairProducts,
    SlotProducts,
    SweepProducts,
    choose_products,
    union_pattern,
)

from .problems import DESIGNS, indicator

BUILDERS = {
    "pairs": PairProducts.build,
    "dense": DenseProducts,
    "slots": SlotProducts.build,
    "sweep": SweepProducts.build,
}


@pytest.mark.parametrize("way", sorted(BUILDERS))
@pytest.mark.parametrize("name", sorted(DESIGNS))
def test_against_dense(name, way):
    rng = np.random.default_rng(0)
    X, Z, _ = DESIGNS[name](rng)
    assert_agrees_with_dense(BUILDERS[way], X, canonical_rows(Z, "Z"), rng)


def assert_agrees_with_dense(build, X, Z, rng):
    n, p = X.shape
    pattern = union_pattern(Z, LowerPattern.diagonal(Z.shape[1]))
    rows, columns = pattern.indices, pattern.columns()
    made = build(X, Z, pattern)
    w, z = rng.normal(size=n), Z.toarray()
    values, XWX, ZWX = made.form(w)
    full = z.T @ (w[:, None] * z)
    np.testing.assert_allclose(values, full[rows, columns], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(made.weighted_sum(w), full[rows, columns], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(XWX, X.T @ (w[:, None] * X), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ZWX, z.T @ (w[:, None] * X), rtol=1e-12, atol=1e-12)
    M = np.zeros_like(full)
    M[rows, columns] = M[columns, rows] = rng.normal(size=len(rows))
    B, root = rng.normal(size=(Z.shape[1], p)), np.triu(rng.normal(size=(p, p)))
    own = np.einsum("ij,jk,ik->i", z, M, z)
    np.testing.assert_allclose(made.quadratic_forms(M[rows, columns]), own, rtol=1e-11, atol=1e-11)
    both = own + (((X - z @ B) @ root) ** 2).sum(axis=1)
    np.testing.assert_allclose(made.quadratics(M[rows, columns], B, root), both, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", sorted(DESIGNS))
def test_pattern_by_scipy_and_by_the_kernel(name, monkeypatch):
    _, Z, D = DESIGNS[name](np.random.default_rng(0))
    Z = canonical_rows(Z, "Z")
    prior = LowerPattern.diagonal(Z.shape[1]) if D is None else lower_pattern(D)
    by_scipy = union_pattern(Z, prior)
    monkeypatch.setattr(products, "WORK_FOR_NUMBA", -1)
    by_kernel = union_pattern(Z, prior)
    np.testing.assert_array_equal(by_kernel.indptr, by_scipy.indptr)
    np.testing.assert_array_equal(by_kernel.indices, by_scipy.indices)
    assert by_kernel.indices.dtype == by_scipy.indices.dtype
    full = np.abs(Z.toarray()).T @ np.abs(Z.toarray()) + np.eye(Z.shape[1]) + (0 if D is None else np.abs(D.toarray()))
    np.testing.assert_array_equal(by_scipy.indices, np.nonzero(np.tril(full).T)[1])


def test_sorted_rows_give_the_same(monkeypatch):
    monkeypatch.setattr(products, "CACHE_BYTES", 0)
    rng = np.random.default_rng(1)
    n = 1000
    Z = sp.hstack([indicator(rng.integers(0, 5, n), 5), indicator(rng.integers(0, 300, n), 300)], format="csr")
    X = rng.normal(size=(n, 3))
    made = SlotProducts.build(X, canonical_rows(Z, "Z"), union_pattern(Z, LowerPattern.diagonal(305)))
    assert made.order is not None
    np.testing.assert_array_equal(np.diff(made.columns.reshape(n, 2)[:, 1]) >= 0, True)
    assert_agrees_with_dense(SlotProducts.build, X, canonical_rows(Z, "Z"), rng)


def test_rows_in_order_are_not_sorted_again(monkeypatch):
    monkeypatch.setattr(products, "CACHE_BYTES", 0)
    Z = indicator(np.repeat(np.arange(100), 10), 100)
    made = SlotProducts.build(np.ones((1000, 1)), Z, LowerPattern.diagonal(100))
    assert made.order is None


def test_the_way_is_chosen_by_the_rows(monkeypatch):
    rng = np.random.default_rng(0)

    def chosen(n, q, per_row, numba_is_needed=True):
        columns = np.concatenate([rng.choice(q, per_row, replace=False) for _ in range(n)])
        Z = sp.csr_array((np.ones(n * per_row), (np.repeat(np.arange(n), per_row), columns)), shape=(n, q))
        pattern = union_pattern(Z, LowerPattern.diagonal(q))
        return type(choose_products(np.ones((n, 1)), Z, pattern, numba_is_needed))

    assert chosen(200, 30, 2) is PairProducts
    assert chosen(200, 30, 25) is DenseProducts
    monkeypatch.setattr(products, "WORK_FOR_NUMBA", 3000)
    assert chosen(300, 30, 2) is SlotProducts
    assert chosen(300, 30, 2, numba_is_needed=False) is PairProducts
    monkeypatch.setattr(products, "SLOT_LIMIT", 100)
    assert chosen(300, 200, 8) is SweepProducts


def test_memory_of_long_rows_is_bounded():
    """400 entries in each of 2,000 rows are 160 million pairs; the sweep stores none of them."""
    rng = np.random.default_rng(0)
    Z = sp.random_array((2000, 2500), density=0.16, rng=rng, format="csr")
    pattern = LowerPattern(*_full_lower(2500))
    made = choose_products(np.ones((2000, 1)), canonical_rows(Z, "Z"), pattern, numba_is_needed=True)
    assert type(made) is SweepProducts
    assert made.rows.nbytes + made.columns.nbytes < 10 * Z.nnz
    w = rng.gamma(2.0, size=2000)
    full = (Z.T @ sp.diags_array(w) @ Z).toarray()
    np.testing.assert_allclose(made.weighted_sum(w), full[pattern.indices, pattern.columns()], rtol=1e-12, atol=1e-12)


def _full_lower(size):
    lengths = np.arange(size, 0, -1)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.arange(indptr[-1]) - np.repeat(indptr[:-1], lengths) + np.repeat(np.arange(size), lengths)
    return indptr.astype(np.int64), indices.astype(np.int32)


@pytest.mark.parametrize("way", sorted(BUILDERS))
def test_other_columns_beside_the_same_rows(way, monkeypatch):
    monkeypatch.setattr(products, "CACHE_BYTES", 0)  # rows held in another order come along
    rng = np.random.default_rng(2)

    def build(X, Z, pattern):
        return BUILDERS[way](np.ones((len(X), 2)), Z, pattern).with_border(X)

    n = 1000
    Z = sp.hstack([indicator(rng.integers(0, 5, n), 5), indicator(rng.integers(0, 300, n), 300)], format="csr")
    assert_agrees_with_dense(build, rng.normal(size=(n, 3)), canonical_rows(Z, "Z"), rng)
