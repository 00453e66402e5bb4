"""Every kernel, with every ordering, against dense linear algebra on every kind of pattern."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp

from hlik.linalg import (
    NotPositiveDefinite,
    SparseCholesky,
    analyze,
    lower_pattern,
    lower_values,
    symmetric_matrix,
)

from .problems import PATTERNS, grid_precision, with_random_values

KERNELS = ("dense", "simplicial", "supernodal")
ORDERINGS = ("auto", "natural", "largest_first", "amd_dense_last", "amd")

TOLERANCE = 1e-12
"""Relative to the largest entry; the matrices have condition numbers below about 100."""


def assert_close(actual, expected):
    scale = max(1e-300, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(np.asarray(actual) / scale, np.asarray(expected) / scale, rtol=0, atol=TOLERANCE)


def assert_agrees_with_dense(factor, A, rng):
    """All methods of a factor."""
    full = A.toarray()
    inverse = np.linalg.inv(full)
    q = len(full)
    rows, columns = factor.symbolic.indices, factor.symbolic.pattern.columns()
    B = rng.normal(size=(q, 4))
    assert_close(factor.solve(B), inverse @ B)
    assert_close(factor.solve(B[:, 1]), inverse @ B[:, 1])
    assert_close(factor.solve(np.asfortranarray(B)), inverse @ B)
    assert_close(factor.logdet(), np.linalg.slogdet(full)[1])
    assert_close(factor.selected_inverse(), inverse[rows, columns])
    assert_close(factor.inverse_diagonal(), inverse.diagonal())
    assert_close(factor.solve_Lt(factor.solve_L(B)), inverse @ B)
    assert_close((factor.solve_L(B) ** 2).sum(axis=0), np.einsum("ij,ij->j", B, inverse @ B))
    root = factor.solve_Lt(np.eye(q))  # of draws from N(0, A^-1): root root' is their covariance
    assert_close(root @ root.T, inverse)
    assert 0.0 < factor.pivot_ratio <= 1.0


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_against_dense(name, kernel, ordering):
    rng = np.random.default_rng(0)
    A = with_random_values(PATTERNS[name](), rng)
    assert_agrees_with_dense(analyze(A, ordering, kernel).factor(lower_values(A)), A, rng)


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_kernel_chosen_by_itself(name):
    rng = np.random.default_rng(1)
    A = with_random_values(PATTERNS[name](), rng)
    assert_agrees_with_dense(analyze(A).factor(lower_values(A)), A, rng)


def test_metis_ordering():
    pytest.importorskip("pymetis")
    rng = np.random.default_rng(0)
    A = with_random_values(PATTERNS["grid"](), rng)
    symbolic = analyze(A, "metis", "supernodal")
    assert_agrees_with_dense(symbolic.factor(lower_values(A)), A, rng)


def test_wide_supernodes_of_blocks_and_strips():
    """A dense corner wider than the panels and strips of the kernel, with one-column and wide descendants."""
    rng = np.random.default_rng(5)
    corner, leaves, block = 300, 120, 40
    size = leaves + block + corner
    full = np.zeros((size, size))
    full[-corner:, -corner:] = 1.0
    full[leaves : leaves + block, leaves : leaves + block] = 1.0
    full[-corner:, leaves : leaves + block] = rng.random((corner, 1)) < 0.7
    full[-corner:, :leaves] = rng.random((corner, leaves)) < 0.1
    full = np.tril(full) + np.tril(full, -1).T + np.eye(size)
    A = with_random_values(sp.csc_array(full), rng)
    for ordering in ("natural", "amd"):
        assert_agrees_with_dense(analyze(A, ordering, "supernodal").factor(lower_values(A)), A, rng)


def test_the_pattern_may_be_full_or_lower_and_of_any_format_and_index_type():
    A = with_random_values(PATTERNS["crossed"](), np.random.default_rng(0))
    expected = analyze(A).factor(lower_values(A)).logdet()
    for given in (A, sp.tril(A), A.tocsr(), A.tocoo(), sp.csr_matrix(A)):
        for index_type in (np.int32, np.int64):
            matrix = given.tocsc().copy()
            matrix.indices, matrix.indptr = matrix.indices.astype(index_type), matrix.indptr.astype(index_type)
            matrix.data.flags.writeable = False
            symbolic = analyze(matrix, kernel="supernodal")
            assert symbolic.factor(lower_values(matrix)).logdet() == pytest.approx(expected, rel=1e-13)


def test_explicit_zeros_stay_in_the_pattern():
    A = sp.csc_array(([4.0, 0.0, 0.0, 4.0, 2.0], ([0, 1, 0, 1, 2], [0, 0, 1, 1, 2])), shape=(3, 3))
    symbolic = analyze(A)
    assert symbolic.pattern.nnz == 4
    inverse = symbolic.factor([4.0, 1.0, 4.0, 2.0]).selected_inverse()
    np.testing.assert_allclose(inverse, [4 / 15, -1 / 15, 4 / 15, 0.5], rtol=1e-14)


def test_symmetric_matrix_and_lower_values_undo_each_other():
    A = with_random_values(PATTERNS["pedigree"](), np.random.default_rng(0))
    pattern = lower_pattern(A)
    assert (symmetric_matrix(pattern, lower_values(A)) != A).nnz == 0


@pytest.mark.parametrize("kernel", ("diagonal", *KERNELS))
def test_symbolic_survives_pickling(kernel):
    rng = np.random.default_rng(0)
    A = with_random_values(PATTERNS["diagonal" if kernel == "diagonal" else "grid"](), rng)
    symbolic = analyze(A, kernel=kernel)
    copy = pickle.loads(pickle.dumps(symbolic))
    values = lower_values(A)
    factor = copy.factor(values)
    np.testing.assert_array_equal(factor.selected_inverse(), symbolic.factor(values).selected_inverse())
    again = pickle.loads(pickle.dumps(factor))
    np.testing.assert_array_equal(again.solve(np.ones(copy.size)), factor.solve(np.ones(copy.size)))


def test_values_are_not_changed_and_factors_do_not_share_memory():
    A = with_random_values(PATTERNS["grid"](), np.random.default_rng(0))
    for kernel in KERNELS:
        symbolic = analyze(A, kernel=kernel)
        values = lower_values(A)
        kept = values.copy()
        first = symbolic.factor(values)
        logdet, b = first.logdet(), np.ones(symbolic.size)
        symbolic.factor(2.0 * values)
        first.solve(b)
        np.testing.assert_array_equal(values, kept)
        np.testing.assert_array_equal(b, 1.0)
        assert first.logdet() == logdet


def test_sample_covariance():
    """Moments of 20,000 draws: the standard error of an entry of the covariance is at most sqrt(2 / 20,000) =
    0.01 of the variances; five of them."""
    A = with_random_values(PATTERNS["arrow"](), np.random.default_rng(0))
    inverse = np.linalg.inv(A.toarray())
    scale = np.sqrt(inverse.diagonal())
    for kernel in KERNELS:
        draws = analyze(A, kernel=kernel).factor(lower_values(A)).sample(np.random.default_rng(1), 20_000)
        assert draws.shape == (20_000, 90)
        np.testing.assert_allclose(
            np.cov(draws.T) / np.outer(scale, scale), inverse / np.outer(scale, scale), atol=0.05
        )


class TestNotPositiveDefinite:
    """The column that is named is in the caller's numbering and belongs to the indefinite part."""

    @pytest.mark.parametrize("kernel", KERNELS)
    @pytest.mark.parametrize("ordering", ORDERINGS)
    @pytest.mark.parametrize("name", ["crossed", "grid", "disconnected", "dense"])
    def test_one_bad_column(self, name, ordering, kernel):
        A = with_random_values(PATTERNS[name](), np.random.default_rng(0)).tolil()
        bad = A.shape[0] // 3
        A[bad, bad] = -A[bad, bad]
        A = sp.csc_array(A)
        others = np.delete(np.arange(A.shape[0]), bad)
        with pytest.raises(NotPositiveDefinite) as raised:
            analyze(A, ordering, kernel).factor(lower_values(A))
        # Whatever is eliminated before the bad column is positive definite and does not fail.
        assert raised.value.column == bad
        np.linalg.cholesky(A.toarray()[np.ix_(others, others)])
        assert f"column {bad}" in str(raised.value)

    @pytest.mark.parametrize("kernel", KERNELS)
    def test_singular_block(self, kernel):
        """A graph Laplacian between two definite blocks: rounding may leave its last pivot positive, or not."""
        laplacian = grid_precision(6, 7)
        laplacian = sp.csc_array(laplacian - 0.5 * sp.eye_array(42))
        definite = with_random_values(PATTERNS["path"](), np.random.default_rng(0))
        for scale in (1.0, 0.1, 1 / 3, np.pi):
            A = sp.csc_array(sp.block_diag([definite, scale * laplacian, definite]))
            with pytest.raises(NotPositiveDefinite) as raised:
                analyze(A, kernel=kernel).factor(lower_values(A))
            assert 120 <= raised.value.column < 162

    def test_large_singular_grid(self):
        """40,000 columns: rounding error in the last pivot has grown to 1e-12 of the diagonal."""
        grid = grid_precision(200, 200)
        laplacian = sp.csc_array(grid - 0.5 * sp.eye_array(grid.shape[0]))
        symbolic = analyze(laplacian)
        for scale in (1.0, 0.1, 1 / 3):
            with pytest.raises(NotPositiveDefinite):
                symbolic.factor(scale * lower_values(laplacian))
        assert symbolic.factor(lower_values(grid)).pivot_ratio > 0.05

    def test_diagonal_kernel(self):
        symbolic = analyze(sp.eye_array(5))
        with pytest.raises(NotPositiveDefinite) as raised:
            symbolic.factor([1.0, 2.0, 0.0, -1.0, 1.0])
        assert raised.value.column == 2

    def test_nearly_singular_is_reported(self):
        A = sp.csc_array([[1.0, 1.0 - 1e-9], [1.0 - 1e-9, 1.0]])
        assert analyze(A).factor(lower_values(A)).pivot_ratio == pytest.approx(2e-9, rel=1e-3)

    def test_pickled_error_keeps_its_column(self):
        error = pickle.loads(pickle.dumps(NotPositiveDefinite(("x", 3), 1e-17)))
        assert (error.column, error.pivot_ratio) == (("x", 3), 1e-17)


class TestSparseCholesky:
    def test_whole_matrices(self):
        A = with_random_values(PATTERNS["grid"](), np.random.default_rng(0))
        cholesky = SparseCholesky(A)
        for scale in (1.0, 3.0):
            assert_close(
                cholesky.factor(scale * A).solve(np.ones(A.shape[0])),
                np.linalg.solve(scale * A.toarray(), np.ones(221)),
            )

    def test_entries_within_and_outside_the_pattern(self):
        A = with_random_values(PATTERNS["grid"](), np.random.default_rng(0))
        diagonal = sp.csc_array(sp.diags_array(A.diagonal()))
        assert_close(SparseCholesky(A).factor(diagonal).logdet(), np.log(A.diagonal()).sum())
        with pytest.raises(ValueError, match="entries outside the pattern"):
            SparseCholesky(diagonal).factor(A)


class TestErrors:
    def test_of_the_pattern(self):
        with pytest.raises(TypeError, match="pattern must be a scipy sparse matrix, got ndarray"):
            analyze(np.eye(3))
        with pytest.raises(ValueError, match=r"square, got shape \(3, 2\)"):
            analyze(sp.csc_array(np.ones((3, 2))))
        with pytest.raises(ValueError, match="symmetric, or hold its lower triangle only"):
            analyze(sp.csc_array([[1.0, 1.0], [0.0, 1.0]]))
        with pytest.raises(ValueError, match=r"whole diagonal.* column 1"):
            analyze(sp.csc_array([[1.0, 1.0], [1.0, 0.0]]))

    def test_of_the_choices(self):
        A = sp.csc_array(np.ones((3, 3)))
        with pytest.raises(ValueError, match=r"ordering must be .* 'rcm'"):
            analyze(A, "rcm")
        with pytest.raises(ValueError, match=r"permutation of 0\.\.2"):
            analyze(A, [0, 1, 1])
        with pytest.raises(ValueError, match="kernel must be"):
            analyze(A, kernel="gpu")
        with pytest.raises(ValueError, match="needs a diagonal pattern"):
            analyze(A, kernel="diagonal")

    def test_of_the_values(self):
        symbolic = analyze(sp.csc_array(np.ones((3, 3))))
        with pytest.raises(ValueError, match=r"values must have shape \(6,\).*got \(3,\)"):
            symbolic.factor(np.ones(3))
        with pytest.raises(ValueError, match="values must be finite, got 1 NaN or infinite entries, the first at 4"):
            symbolic.factor([1, 2, 3, 4, np.nan, 5])
        factor = symbolic.factor([2.0, 1.0, 1.0, 2.0, 1.0, 2.0])
        with pytest.raises(ValueError, match=r"right-hand side must have shape \(3,\)"):
            factor.solve(np.ones(4))


def test_a_given_permutation_is_used():
    A = with_random_values(PATTERNS["crossed"](), np.random.default_rng(0))
    perm = np.random.default_rng(1).permutation(A.shape[0])
    symbolic = analyze(A, perm, "supernodal")
    assert symbolic.ordering == "given"
    assert_close(
        symbolic.factor(lower_values(A)).solve(np.ones(len(perm))), np.linalg.solve(A.toarray(), np.ones(len(perm)))
    )
