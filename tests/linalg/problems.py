"""Designs and patterns of every kind that the tests of `hlik.linalg` run through."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

Design = tuple[np.ndarray, sp.csr_array, sp.csc_array | None]


def indicator(groups: np.ndarray, n_groups: int, values: np.ndarray | None = None) -> sp.csr_array:
    """One column a group, one entry a row."""
    n = len(groups)
    data = np.ones(n) if values is None else values
    return sp.csr_array((data, (np.arange(n), groups)), shape=(n, n_groups))


def random_intercept(rng: np.random.Generator) -> Design:
    n, q = 300, 40
    return rng.normal(size=(n, 3)), indicator(rng.integers(0, q, n), q), None


def nested(rng: np.random.Generator) -> Design:
    n, outer, inner = 400, 12, 48
    leaf = rng.integers(0, inner, n)
    Z = sp.hstack([indicator(leaf // 4, outer), indicator(leaf, inner)], format="csr")
    return rng.normal(size=(n, 2)), Z, None


def crossed(rng: np.random.Generator) -> Design:
    n = 400
    Z = sp.hstack([indicator(rng.integers(0, 50, n), 50), indicator(rng.integers(0, 23, n), 23)], format="csr")
    return rng.normal(size=(n, 4)), Z, None


def random_slopes(rng: np.random.Generator) -> Design:
    n, q = 350, 60
    groups, x = rng.integers(0, q, n), rng.normal(size=n)
    Z = sp.csr_array(
        (np.r_[np.ones(n), x], (np.r_[np.arange(n), np.arange(n)], np.r_[2 * groups, 2 * groups + 1])), shape=(n, 2 * q)
    )
    D = sp.block_diag([np.ones((2, 2))] * q, format="csc")
    return rng.normal(size=(n, 2)), Z, sp.csc_array(D)


def grid_precision(rows: int, columns: int) -> sp.csc_array:
    """Pattern and values of a proper CAR precision on a grid."""
    path_r = sp.diags_array([np.ones(rows - 1), np.ones(rows - 1)], offsets=[1, -1])
    path_c = sp.diags_array([np.ones(columns - 1), np.ones(columns - 1)], offsets=[1, -1])
    neighbours = sp.kron(path_r, sp.eye_array(columns)) + sp.kron(sp.eye_array(rows), path_c)
    return sp.csc_array(sp.diags_array(neighbours.sum(axis=0) + 0.5) - neighbours)


def grid(rng: np.random.Generator) -> Design:
    D = grid_precision(9, 8)
    n = 200
    return rng.normal(size=(n, 3)), indicator(rng.integers(0, 72, n), 72), D


def long_rows(rng: np.random.Generator) -> Design:
    Z = sp.random_array((120, 35), density=0.6, rng=rng, format="csr")
    return rng.normal(size=(120, 2)), Z, None


def no_border(rng: np.random.Generator) -> Design:
    X, Z, D = crossed(rng)
    return X[:, :0], Z, D


def no_sparse(rng: np.random.Generator) -> Design:
    return rng.normal(size=(30, 4)), sp.csr_array((30, 0)), None


def nothing(rng: np.random.Generator) -> Design:
    return np.zeros((7, 0)), sp.csr_array((7, 0)), None


def single(rng: np.random.Generator) -> Design:
    return np.ones((1, 1)), sp.csr_array(np.ones((1, 1))), None


def empty_rows_and_columns(rng: np.random.Generator) -> Design:
    Z = sp.random_array((50, 20), density=0.02, rng=rng, format="csr")
    return rng.normal(size=(50, 2)), Z, None


DESIGNS: dict[str, Callable[[np.random.Generator], Design]] = {
    f.__name__: f
    for f in (
        random_intercept,
        nested,
        crossed,
        random_slopes,
        grid,
        long_rows,
        no_border,
        no_sparse,
        nothing,
        single,
        empty_rows_and_columns,
    )
}
