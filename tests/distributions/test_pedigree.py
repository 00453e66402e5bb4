"""Pedigrees against the tabular method, and their errors."""

import time

import numpy as np
import pandas as pd
import pytest

from hlik.errors import ModelError
from hlik.pedigree import Pedigree


def random_pedigree(rng, n, *, founders=5, window=12, known=0.9):
    """Numbered parents from the last `window` individuals, in a shuffled order: much inbreeding."""
    parents = np.full((2, n), -1)
    for i in range(founders, n):
        for parent in parents:
            if rng.random() < known:
                parent[i] = rng.integers(max(0, i - window), i)
    order = rng.permutation(n)
    place = np.argsort(order)
    sire, dam = (np.where(parent[order] >= 0, place[parent[order]], -1) for parent in parents)
    return Pedigree(np.arange(n), sire, dam)


@pytest.mark.parametrize("seed", range(12))
def test_precision_is_the_inverse_of_the_tabular_matrix(seed):
    pedigree = random_pedigree(np.random.default_rng(seed), 60)
    A = pedigree.relationship()
    assert pedigree.inbreeding.max() > 0.2
    inverse = np.linalg.inv(A)
    assert np.max(np.abs(pedigree.precision.toarray() - inverse)) < 1e-12 * np.max(np.abs(inverse))
    np.testing.assert_allclose(pedigree.precision @ A, np.eye(60), atol=1e-12)
    np.testing.assert_allclose(pedigree.inbreeding, np.diag(A) - 1, atol=1e-14)
    np.testing.assert_allclose(pedigree.logdet, np.linalg.slogdet(A)[1], rtol=1e-12, atol=1e-12)


def test_example_of_textbooks():
    """Mrode (2014), Linear Models for the Prediction of Animal Breeding Values, example 2.1."""
    pedigree = Pedigree.of(range(1, 7), [0, 0, 1, 1, 4, 5], [0, 0, 2, 0, 3, 2])
    A = [
        [1, 0, 0.5, 0.5, 0.5, 0.25],
        [0, 1, 0.5, 0, 0.25, 0.625],
        [0.5, 0.5, 1, 0.25, 0.625, 0.5625],
        [0.5, 0, 0.25, 1, 0.625, 0.3125],
        [0.5, 0.25, 0.625, 0.625, 1.125, 0.6875],
        [0.25, 0.625, 0.5625, 0.3125, 0.6875, 1.125],
    ]
    np.testing.assert_array_equal(pedigree.relationship(), A)
    np.testing.assert_allclose(pedigree.inbreeding, [0, 0, 0, 0, 0.125, 0.125])


def test_selfing_and_one_parent():
    pedigree = Pedigree(np.arange(4), np.array([-1, 0, 1, 2]), np.array([-1, 0, 1, -1]))
    np.testing.assert_allclose(pedigree.inbreeding, [0, 0.5, 0.75, 0])
    np.testing.assert_allclose(pedigree.precision.toarray(), np.linalg.inv(pedigree.relationship()), atol=1e-12)


def test_long_line_of_descent():
    n = 50_000
    sire = np.arange(1, n + 1)  # each the child of the next
    sire[-1] = -1
    line = Pedigree(np.arange(n), sire, np.full(n, -1))
    assert np.all(line.inbreeding == 0)
    np.testing.assert_allclose(line.mendelian_variance[:-1], 0.75)


def test_draws_have_the_covariance_of_the_pedigree():
    pedigree = random_pedigree(np.random.default_rng(3), 8, founders=3, window=5)
    draws = pedigree.sample(np.random.default_rng(0), 40_000)
    A = pedigree.relationship()
    error = np.abs(np.cov(draws.T) - A)
    assert np.all(error < 5 * np.sqrt((A**2 + np.outer(np.diag(A), np.diag(A))) / 40_000))


def test_identities_in_any_order_with_unknown_parents():
    frame = pd.DataFrame(
        {"id": ["kid", "ma", "pa", "gran"], "sire": ["pa", None, np.nan, ""], "dam": ["ma", "gran", "0", None]}
    )
    pedigree = Pedigree.from_frame(frame)
    assert pedigree.ids.tolist() == ["kid", "ma", "pa", "gran"]
    assert pedigree.sire.tolist() == [2, -1, -1, -1]
    assert pedigree.dam.tolist() == [1, 3, -1, -1]
    assert pedigree.index(["gran", "kid"]).tolist() == [3, 0]
    with pytest.raises(ModelError, match=r"'dog' is not in the pedigree"):
        pedigree.index(["kid", "dog"])


def test_zero_may_be_an_identity():
    pedigree = Pedigree.of([0, 1, 2], [None, 0, 0], [None, None, 1])
    assert pedigree.sire.tolist() == [-1, 0, 0]


def test_parents_without_a_row():
    arguments = ["a", "b"], ["x", None], ["y", "x"]
    with pytest.raises(ModelError, match=r"2 parents have no row of their own, the first is 'x'.*add_founders=True"):
        Pedigree.of(*arguments)
    pedigree = Pedigree.of(*arguments, add_founders=True)
    assert pedigree.ids.tolist() == ["x", "y", "a", "b"]
    assert (pedigree.sire.tolist(), pedigree.dam.tolist()) == ([-1, -1, 0, -1], [-1, -1, 1, 0])


@pytest.mark.parametrize(
    ("ids", "sire", "dam", "message"),
    [
        (["a", "b"], ["b", None], [None, "a"], "is its own ancestor"),
        (["a"], ["a"], [None], "'a' is its own ancestor"),
        (["a", "a"], [None] * 2, [None] * 2, "'a' has more than one row"),
        (["a", None], [None] * 2, [None] * 2, "must not be missing"),
        (["a", "b"], [None], [None] * 2, "one length"),
    ],
)
def test_pedigrees_that_cannot_be(ids, sire, dam, message):
    with pytest.raises(ModelError, match=message):
        Pedigree.of(ids, sire, dam)


def test_frame_without_its_columns():
    with pytest.raises(ModelError, match=r"\['dam'\] are missing"):
        Pedigree.from_frame(pd.DataFrame({"id": [1], "sire": [0]}))


def test_hundred_thousand_animals_take_seconds():
    rng = np.random.default_rng(0)
    generations, n = 10, 10_000
    sire, dam = np.full((2, generations * n), -1)
    for g in range(1, generations):
        before = (g - 1) * n
        family = rng.integers(0, 4000, n)
        sire[g * n : (g + 1) * n] = before + rng.choice(n // 2, 200)[rng.integers(0, 200, 4000)][family]
        dam[g * n : (g + 1) * n] = before + n // 2 + rng.choice(n // 2, 4000, replace=False)[family]
    Pedigree.of([1], [0], [0])  # kernels compiled
    began = time.process_time()
    pedigree = Pedigree(np.arange(generations * n), sire, dam)
    nnz = pedigree.precision.nnz
    assert time.process_time() - began < 5  # it takes 0.3
    assert nnz < 10 * pedigree.size
    assert pedigree.inbreeding.max() > 0.05
