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


# Symmetric patterns for the factorisation alone. Each is given by its edges; the diagonal is added.


def diagonal_pattern() -> sp.csc_array:
    return sp.csc_array(sp.eye_array(40))


def nested_pattern() -> sp.csc_array:
    leaf = np.arange(60)
    return _products(indicator(np.repeat(leaf // 15, 3), 4), indicator(np.repeat(leaf // 5, 3), 12), _leaves(60, 3))


def crossed_pattern() -> sp.csc_array:
    rng = np.random.default_rng(1)
    return _products(indicator(rng.integers(0, 150, 700), 150), indicator(rng.integers(0, 60, 700), 60))


def slopes_and_crossed_pattern() -> sp.csc_array:
    rng = np.random.default_rng(2)
    groups = rng.integers(0, 80, 500)
    pairs = sp.csr_array(
        (np.ones(1000), (np.tile(np.arange(500), 2), np.concatenate([2 * groups, 2 * groups + 1]))), shape=(500, 160)
    )
    return _products(pairs, indicator(rng.integers(0, 12, 500), 12))


def grid_pattern() -> sp.csc_array:
    return grid_precision(17, 13)


def pedigree_pattern() -> sp.csc_array:
    """A' A for trios of an animal and two earlier ones, which is the pattern of an inverse relationship matrix."""
    rng = np.random.default_rng(3)
    n, founders = 180, 40
    child = np.arange(founders, n)
    sire, dam = (rng.integers(0, np.maximum(founders, child - 60)) for _ in range(2))
    rows = np.concatenate([np.arange(n), child, child])
    columns = np.concatenate([np.arange(n), sire, dam])
    trios = sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))
    return sp.csc_array(trios.T @ trios)


def arrow_pattern() -> sp.csc_array:
    full = np.eye(90)
    full[0] = full[:, 0] = 1.0
    return sp.csc_array(full)


def dense_pattern() -> sp.csc_array:
    return sp.csc_array(np.ones((70, 70)))


def path_pattern() -> sp.csc_array:
    return sp.csc_array(sp.diags_array([np.ones(119), np.ones(120), np.ones(119)], offsets=[-1, 0, 1]))


def disconnected_pattern() -> sp.csc_array:
    blocks = [dense_pattern()[:9, :9], sp.eye_array(5), grid_precision(4, 6), arrow_pattern()[:20, :20]]
    return sp.csc_array(sp.block_diag(blocks))


def random_pattern() -> sp.csc_array:
    upper = sp.random_array((200, 200), density=0.01, rng=np.random.default_rng(4))
    return sp.csc_array(upper + upper.T + sp.eye_array(200))


def one_by_one_pattern() -> sp.csc_array:
    return sp.csc_array(np.ones((1, 1)))


def _leaves(n: int, each: int) -> sp.csr_array:
    return indicator(np.repeat(np.arange(n), each), n)


def _products(*designs: sp.csr_array) -> sp.csc_array:
    Z = sp.hstack(designs, format="csr")
    return sp.csc_array(Z.T @ Z + sp.eye_array(Z.shape[1]))


PATTERNS: dict[str, Callable[[], sp.csc_array]] = {
    f.__name__.removesuffix("_pattern"): f
    for f in (
        diagonal_pattern,
        nested_pattern,
        crossed_pattern,
        slopes_and_crossed_pattern,
        grid_pattern,
        pedigree_pattern,
        arrow_pattern,
        dense_pattern,
        path_pattern,
        disconnected_pattern,
        random_pattern,
        one_by_one_pattern,
    )
}


def with_random_values(pattern: sp.csc_array, rng: np.random.Generator, dominance: float = 0.3) -> sp.csc_array:
    """A symmetric, diagonally dominant matrix on a pattern; its condition number is about 1 / dominance."""
    lower = sp.tril(sp.csc_array(pattern), -1, format="coo")
    lower = sp.csc_array((rng.normal(size=lower.nnz), (lower.row, lower.col)), shape=pattern.shape)
    matrix = lower + lower.T
    size = abs(matrix).sum(axis=0)
    return sp.csc_array(matrix + sp.diags_array(size * (1 + dominance) + rng.gamma(2.0, size=len(size)) + 0.1))
