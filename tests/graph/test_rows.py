"""Linear maps in their three storages: every operation against dense matrices."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from hlik.graph import rows as lin
from hlik.graph.rows import Dense, Gather, Rows, Sparse

LENGTH, SIZE = 7, 4


def a_gather(rng: np.random.Generator) -> Gather:
    index = rng.integers(0, SIZE, LENGTH).astype(np.int32)
    weight = np.array(1.5) if rng.integers(2) else rng.normal(size=LENGTH)
    return Gather(index, weight, SIZE)


def a_dense(rng: np.random.Generator) -> Dense:
    return Dense(rng.normal(size=(LENGTH, SIZE)))


def a_sparse(rng: np.random.Generator) -> Sparse:
    return Sparse(sp.random_array((LENGTH, SIZE), density=0.4, rng=rng, format="csr"))


KINDS = (a_gather, a_dense, a_sparse)
maps = st.tuples(st.sampled_from(KINDS), st.integers(0, 1000)).map(lambda p: p[0](np.random.default_rng(p[1])))
seeds = st.integers(0, 1000)


def matrix(rows: Rows) -> np.ndarray:
    return np.array(lin.to_dense(rows))


@given(maps, seeds)
def test_operations_are_those_of_matrices(rows, seed):
    rng = np.random.default_rng(seed)
    J, v = matrix(rows), rng.normal(size=SIZE)
    index, weight = rng.integers(0, LENGTH, 9), rng.normal(size=LENGTH)
    np.testing.assert_allclose(lin.to_csr(rows).toarray(), J)
    np.testing.assert_allclose(lin.multiply(rows, v), J @ v, atol=1e-14)
    np.testing.assert_allclose(matrix(lin.take(rows, index)), J[index])
    np.testing.assert_allclose(matrix(lin.scale(rows, weight)), J * weight[:, None])
    np.testing.assert_allclose(matrix(lin.scale(rows, np.array(-2.0))), -2 * J)
    assert (rows.length, rows.size) == (LENGTH, SIZE)


@given(maps, maps)
def test_sum(left, right):
    np.testing.assert_allclose(matrix(lin.add(left, right)), matrix(left) + matrix(right), atol=1e-15)


@given(maps)
def test_a_map_less_itself_is_zero(rows):
    assert lin.is_zero(lin.add(rows, lin.scale(rows, np.array(-1.0))))
    assert lin.is_zero(rows) == (not matrix(rows).any())


@given(maps, st.sampled_from([np.asarray, sp.csr_array, sp.csc_array]), seeds, st.sampled_from([0.2, 1.0]))
def test_product_with_data(rows, storage, seed, density):
    data = sp.random_array((5, LENGTH), density=density, rng=np.random.default_rng(seed)).toarray()
    found = lin.apply(storage(data), rows)
    np.testing.assert_allclose(matrix(found), data @ matrix(rows), atol=1e-14)


def test_product_with_the_identity_copies_nothing():
    data = np.arange(12.0).reshape(3, 4)
    found = lin.apply(data, lin.identity(4))
    assert isinstance(found, Dense)
    assert np.shares_memory(found.matrix, data)


@given(st.lists(st.one_of(st.none(), maps), min_size=2, max_size=4).filter(any))
def test_stack(parts):
    lengths = [LENGTH if part is None else part.length for part in parts]
    dense = [np.zeros((LENGTH, SIZE)) if part is None else matrix(part) for part in parts]
    np.testing.assert_allclose(matrix(lin.stack(parts, lengths, SIZE)), np.vstack(dense))


@given(maps)
def test_same_in_any_storage(rows):
    J = matrix(rows)
    assert lin.same(rows, rows)
    assert lin.same(rows, Dense(J))
    assert lin.same(Dense(J), rows)
    assert lin.same(Sparse(sp.csr_array(J)), rows)
    assert lin.same(rows, Dense(J * (1 + 1e-15)))
    other = J.copy()
    other[2, 1] += 1e-6
    assert not lin.same(rows, Dense(other))
    assert not lin.same(rows, Dense(J[:-1]))


def test_gathers_stay_gathers():
    rows = Gather(np.array([2, 0, 2], dtype=np.int32), np.array(1.0), 3)
    assert isinstance(lin.take(rows, np.array([1, 1])), Gather)
    assert isinstance(lin.scale(rows, np.arange(3.0)), Gather)
    assert isinstance(lin.stack([rows, rows], [3, 3], 3), Gather)
    assert isinstance(lin.add(rows, rows), Gather)


def test_explicit_zeros_of_a_gather_are_kept():
    rows = lin.scale(lin.identity(3), np.array([1.0, 0.0, 2.0]))
    assert lin.to_csr(rows).nnz == 3


@pytest.mark.parametrize("make", KINDS)
def test_arguments_are_not_changed(make):
    rows = make(np.random.default_rng(3))
    before = matrix(rows)
    lin.add(rows, rows)
    lin.scale(rows, np.full(LENGTH, 3.0))
    lin.apply(np.ones((2, LENGTH)), rows)
    lin.stack([rows, None], [LENGTH, 2], SIZE)
    np.testing.assert_array_equal(matrix(rows), before)
