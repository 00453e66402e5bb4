"""Every method of `Bordered` against the dense matrix H, on every kind of design."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp

from hlik.linalg import BorderedSystem, NotPositiveDefinite, lower_values, products

from .problems import DESIGNS, indicator, with_random_values


@dataclass
class Case:
    """A factorised system beside its dense twin."""

    system: BorderedSystem
    bordered: object
    rows: np.ndarray
    H: np.ndarray
    w: np.ndarray

    @property
    def p(self):
        return self.system.p

    @property
    def inverse(self):
        return np.linalg.inv(self.H)

    @property
    def C(self):
        return self.H[self.p :, self.p :]


def make_case(name: str, kernel: str = "auto") -> Case:
    rng = np.random.default_rng(0)
    X, Z, D = DESIGNS[name](rng)
    n, q = Z.shape
    w = rng.gamma(2.0, size=n)
    if D is None:
        d = rng.gamma(2.0, size=q) + 0.3
        prior = np.diag(d)
    else:
        matrix = with_random_values(D, rng)
        d, prior = lower_values(matrix), matrix.toarray()
    system = BorderedSystem(X, Z, D, kernel=kernel)
    rows = np.hstack([X, Z.toarray()])
    H = rows.T @ (w[:, None] * rows)
    H[X.shape[1] :, X.shape[1] :] += prior
    return Case(system, system.factor(w, d), rows, H, w)


def assert_close(actual, expected, scale=1.0):
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12 * scale)


@pytest.fixture(params=sorted(DESIGNS))
def name(request):
    return request.param


@pytest.fixture(params=["auto", "dense", "simplicial", "supernodal"])
def case(request, name, monkeypatch):
    """Compiled kernels for the rows too, except with "auto", where small systems never load them."""
    if request.param != "auto":
        monkeypatch.setattr(products, "WORK_FOR_NUMBA", 0)
    return make_case(name, request.param)


def test_solve(case):
    rng = np.random.default_rng(5)
    size = len(case.H)
    for shape in ((size,), (size, 3)):
        r = rng.normal(size=shape)
        s_x, s_z = case.bordered.solve(r[: case.p], r[case.p :])
        assert_close(np.concatenate([s_x, s_z]), case.inverse @ r)


def test_determinants(case):
    assert_close(case.bordered.logdet(), np.linalg.slogdet(case.H)[1])
    assert_close(case.bordered.logdet_z(), np.linalg.slogdet(case.C)[1])


def test_leverages(case):
    assert_close(case.bordered.leverages(), case.w * np.einsum("ij,jk,ik->i", case.rows, case.inverse, case.rows))
    z = case.rows[:, case.p :]
    assert_close(case.bordered.leverages_z(), case.w * np.einsum("ij,jk,ik->i", z, np.linalg.inv(case.C), z))


def test_inverse_parts(case):
    p, pattern = case.p, case.system.pattern
    rows, columns = pattern.indices, pattern.columns()
    assert_close(np.concatenate(case.bordered.inverse_diagonal()), case.inverse.diagonal())
    assert_close(case.bordered.inverse_x, case.inverse[:p, :p])
    assert_close(case.bordered.inverse_pattern(), case.inverse[p:, p:][rows, columns])
    assert_close(case.bordered.selected_inverse_z(), np.linalg.inv(case.C)[rows, columns])
    rows, columns = case.system.prior_pattern.indices, case.system.prior_pattern.columns()
    assert_close(case.bordered.inverse_prior_pattern(), case.inverse[p:, p:][rows, columns])


def test_quadratic_of_rows_inside_and_outside_the_pattern(case):
    rng = np.random.default_rng(3)
    outside = rng.normal(size=(9, len(case.H))) * (rng.random((9, len(case.H))) < 0.5)
    for T in (case.rows, outside):
        TX, TZ = T[:, : case.p], sp.csr_array(T[:, case.p :])
        assert_close(case.bordered.quadratic(TX, TZ), np.einsum("ij,jk,ik->i", T, case.inverse, T))


def test_sample_is_a_linear_map_of_noise_with_the_right_covariance(case):
    size = len(case.H)
    x, z = case.bordered.sample(IdentityNoise(), size)
    root = np.hstack([x, z])
    assert_close(root.T @ root, case.inverse)


class IdentityNoise:
    """Stands in for a generator: consecutive calls give consecutive rows of one identity matrix."""

    def __init__(self):
        self.start = 0

    def standard_normal(self, shape):
        out = np.eye(*shape, k=self.start)
        self.start += shape[0]
        return out


def test_moments_of_samples():
    """20,000 draws of x and z together; five standard errors of a covariance as in `test_cholesky`."""
    case = make_case("random_intercept")
    x, z = case.bordered.sample(np.random.default_rng(1), 20_000)
    scale = np.sqrt(case.inverse.diagonal())
    correlation = np.cov(np.hstack([x, z]).T) / np.outer(scale, scale)
    np.testing.assert_allclose(correlation, case.inverse / np.outer(scale, scale), atol=0.05)


def test_prior_of_the_border():
    case = make_case("crossed")
    system, p = case.system, case.p
    d = np.ones(system.q)
    root = np.random.default_rng(2).normal(size=(p, p))
    for S_prior, added in ((np.arange(1.0, p + 1), np.diag(np.arange(1.0, p + 1))), (root @ root.T, root @ root.T)):
        H = case.rows.T @ (case.w[:, None] * case.rows) + np.diag(np.r_[np.zeros(p), d])
        H[:p, :p] += added
        assert_close(system.factor(case.w, d, S_prior).logdet(), np.linalg.slogdet(H)[1])


def test_weights_that_vanish_or_are_negative():
    case = make_case("crossed")
    system = BorderedSystem(case.rows[:, : case.p], case.system.Z, weights_may_be_negative=True)
    w = case.w.copy()
    w[:30] = 0.0
    w[30:60] *= -0.01
    H = case.rows.T @ (w[:, None] * case.rows) + np.diag(np.r_[np.zeros(case.p), np.full(system.q, 3.0)])
    bordered = system.factor(w, np.full(system.q, 3.0))
    assert_close(bordered.logdet(), np.linalg.slogdet(H)[1])
    quadratics = np.einsum("ij,jk,ik->i", case.rows, np.linalg.inv(H), case.rows)
    assert_close(bordered.row_quadratics(), quadratics)
    assert_close(bordered.leverages(), w * quadratics)
    assert not bordered.leverages()[:30].any()


def test_duplicates_are_summed_and_explicit_zeros_kept():
    rows, columns = np.array([0, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 1])
    Z = sp.coo_array((np.array([1.0, 2.0, 0.0, 1.0, 1.0]), (rows, columns)), shape=(3, 2))
    system = BorderedSystem(np.ones((3, 1)), Z)
    assert system.pattern.nnz == 3  # row 1 holds a zero and a one: a pair
    assert_close(system.factor(np.ones(3), np.ones(2)).logdet_z(), np.log(10.0 * 3.0))


@pytest.mark.parametrize("index_type", [np.int32, np.int64])
def test_inputs_of_other_types_and_layouts(index_type):
    rng = np.random.default_rng(0)
    X, Z, _ = DESIGNS["crossed"](rng)
    expected = BorderedSystem(X, Z).factor(np.ones(len(X)), np.ones(Z.shape[1])).leverages()
    Z = Z.copy()
    Z.indices, Z.indptr = Z.indices.astype(index_type), Z.indptr.astype(index_type)
    for array in (Z.data, Z.indices, Z.indptr):
        array.flags.writeable = False
    for given in (Z, sp.csr_matrix(Z), Z.tocsc(), Z.tocoo(), Z.astype(np.float32)):
        system = BorderedSystem(np.asfortranarray(X), given, kernel="supernodal")
        assert_close(system.factor([1] * len(X), np.ones(Z.shape[1])).leverages(), expected)


def test_another_border_keeps_the_analysis(name):
    rng = np.random.default_rng(6)
    X, Z, D = DESIGNS[name](rng)
    system = BorderedSystem(X, Z, D)
    other = 2.0 * X[:, 1:]
    w = rng.gamma(2.0, size=len(X))
    d = np.ones(system.q) if D is None else lower_values(with_random_values(D, rng))
    moved, fresh = system.with_border(other).factor(w, d), BorderedSystem(other, Z, D).factor(w, d)
    assert moved.system.symbolic is system.symbolic
    assert system.p == X.shape[1]
    assert_close(moved.logdet(), fresh.logdet())
    assert_close(moved.leverages(), fresh.leverages())


def test_inputs_are_not_changed():
    rng = np.random.default_rng(0)
    X, Z, D = DESIGNS["random_slopes"](rng)
    w, d = rng.gamma(2.0, size=len(X)), lower_values(with_random_values(D, rng))
    kept = [array.copy() for array in (X, Z.data, Z.indices, D.data, w, d)]
    bordered = BorderedSystem(X, Z, D).factor(w, d)
    bordered.leverages(), bordered.inverse_pattern(), bordered.solve(np.ones(2), np.ones(Z.shape[1]))
    for before, after in zip(kept, (X, Z.data, Z.indices, D.data, w, d), strict=True):
        np.testing.assert_array_equal(before, after)


class TestNotPositiveDefinite:
    def test_border_that_depends_on_itself(self):
        X, Z, _ = DESIGNS["random_intercept"](np.random.default_rng(0))
        X = np.column_stack([X, X[:, 0] - 2 * X[:, 2]])
        with pytest.raises(NotPositiveDefinite) as raised:
            BorderedSystem(X, Z).factor(np.ones(len(X)), np.ones(Z.shape[1]))
        assert raised.value.column == ("x", 3)
        assert "column 3 of X" in str(raised.value)

    def test_a_prior_on_the_border_removes_the_dependence(self):
        X, Z, _ = DESIGNS["random_intercept"](np.random.default_rng(0))
        X = np.column_stack([X, X[:, 0]])
        bordered = BorderedSystem(X, Z).factor(np.ones(len(X)), np.ones(Z.shape[1]), np.ones(4))
        assert bordered.pivot_ratio > 1e-4

    def test_column_of_zeros(self):
        X, Z, _ = DESIGNS["random_intercept"](np.random.default_rng(0))
        with pytest.raises(NotPositiveDefinite) as raised:
            BorderedSystem(0 * X, Z).factor(np.ones(len(X)), np.ones(Z.shape[1]))
        assert raised.value.column == ("x", 0)

    @pytest.mark.parametrize("n", [200, 200_000])
    def test_intercept_with_an_effect_that_has_no_prior(self, n):
        """The intercept is the sum of the indicators: what is left of its pivot is rounding error, growing with n."""
        rng = np.random.default_rng(0)
        Z = indicator(np.arange(n) % 20, 20)
        X = np.column_stack([rng.normal(size=n), np.ones(n)])
        system = BorderedSystem(X, Z)
        with pytest.raises(NotPositiveDefinite) as raised:
            system.factor(rng.gamma(2.0, size=n), np.zeros(20))
        assert raised.value.column == ("x", 1)
        # With a prior, even one of a variance a million times that of an observation, it is determined.
        assert 0 < system.factor(np.ones(n), np.full(20, 1e-6)).pivot_ratio < 1e-6

    @pytest.mark.parametrize("kernel", ["dense", "simplicial", "supernodal"])
    def test_column_of_z(self, kernel):
        X, Z, _ = DESIGNS["crossed"](np.random.default_rng(0))
        d = np.ones(Z.shape[1])
        d[41] = -1e6
        with pytest.raises(NotPositiveDefinite) as raised:
            BorderedSystem(X, Z, kernel=kernel).factor(np.ones(len(X)), d)
        assert raised.value.column == 41


class TestErrors:
    @pytest.fixture
    def system(self):
        return BorderedSystem(*DESIGNS["crossed"](np.random.default_rng(0)), weights_may_vanish=False)

    def test_of_the_design(self):
        X, Z, _ = DESIGNS["crossed"](np.random.default_rng(0))
        with pytest.raises(TypeError, match="Z must be a scipy sparse matrix, got ndarray"):
            BorderedSystem(X, Z.toarray())
        with pytest.raises(ValueError, match=r"X must have shape \(400, p\).*got \(399, 4\)"):
            BorderedSystem(X[1:], Z)
        with pytest.raises(ValueError, match="X must be finite, got 1 NaN"):
            BorderedSystem(np.where(np.arange(1600).reshape(400, 4) == 7, np.nan, X), Z)
        with pytest.raises(ValueError, match="Z must be finite"):
            BorderedSystem(X, Z * np.inf)
        with pytest.raises(ValueError, match=r"D must have shape \(73, 73\).*got \(3, 3\)"):
            BorderedSystem(X, Z, sp.eye_array(3))

    def test_of_the_weights_and_the_prior(self, system):
        w, d = np.ones(400), np.ones(73)
        with pytest.raises(ValueError, match=r"w must have shape \(400,\).*got \(400, 1\)"):
            system.factor(w[:, None], d)
        with pytest.raises(ValueError, match="w must not be negative, got -1 in row 3"):
            system.factor(np.where(np.arange(400) == 3, -1.0, w), d)
        with pytest.raises(ValueError, match="w must not be zero, got 0 in row 5"):
            system.factor(np.where(np.arange(400) == 5, 0.0, w), d)
        with pytest.raises(ValueError, match="w must be finite, got 400 NaN"):
            system.factor(w * np.nan, d)
        with pytest.raises(ValueError, match=r"d must have shape \(73,\).*got \(72,\)"):
            system.factor(w, d[1:])
        with pytest.raises(ValueError, match="d must be finite"):
            system.factor(w, d * np.inf)
        with pytest.raises(ValueError, match=r"S_prior must have shape \(4,\) or \(4, 4\).*got \(3,\)"):
            system.factor(w, d, np.ones(3))

    def test_of_the_right_hand_sides_and_rows(self, system):
        bordered = system.factor(np.ones(400), np.ones(73))
        with pytest.raises(ValueError, match=r"r_z must have shape \(73,\).*got \(72,\)"):
            bordered.solve(np.ones(4), np.ones(72))
        with pytest.raises(ValueError, match=r"r_z must have shape .* same k"):
            bordered.solve(np.ones((4, 2)), np.ones((73, 3)))
        with pytest.raises(ValueError, match="TX must have 4 columns"):
            bordered.quadratic(np.ones((2, 3)), sp.csr_array((2, 73)))
        with pytest.raises(ValueError, match=r"TX must have shape \(2, p\)"):
            bordered.quadratic(np.ones((3, 4)), sp.csr_array((2, 73)))


@pytest.mark.parametrize("kernel", ["dense", "supernodal"])
def test_systems_survive_pickling(kernel):
    case = make_case("crossed", kernel)
    bordered = pickle.loads(pickle.dumps(case.bordered))
    np.testing.assert_array_equal(bordered.leverages(), case.bordered.leverages())
    again = bordered.system.factor(case.w, np.ones(73))
    np.testing.assert_array_equal(again.leverages(), case.system.factor(case.w, np.ones(73)).leverages())


def test_description_and_choices():
    system = make_case("crossed").system
    described = system.describe()
    assert (described["n"], described["p"], described["q"]) == (400, 4, 73)
    assert described["kernel"] == "dense" and described["products"] == "PairProducts"
    assert make_case("random_intercept").system.symbolic.kernel == "diagonal"
