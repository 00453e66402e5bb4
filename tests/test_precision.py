"""Precisions and joint normal terms of h against dense algebra and differences."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from hlik.block_effects import BlockRoot, block_precision
from hlik.determinants import IntrinsicDeterminant
from hlik.distributions.structure import PrecisionStructure
from hlik.linalg import LowerPattern, lower_pattern, lower_values
from hlik.precision import PriorPattern, matrix_precision
from hlik.structured_terms import StructuredTerm
from hlik.student_terms import StudentTerm


class Covariance:
    """``[[exp(2a), c exp(a)], [c exp(a), 1 + c^2]]``, positive definite for all (a, c)."""

    size = 4

    def value(self, theta):
        a, c = theta
        return np.array([np.exp(2 * a), c * np.exp(a), c * np.exp(a), 1 + c**2])

    def jacobian(self, theta):
        a, c = theta
        e = np.exp(a)
        return np.array([[2 * np.exp(2 * a), 0.0], [c * e, e], [c * e, e], [0.0, 2 * c]])


class Coefficients:
    """``(exp(a), -c exp(a))``."""

    size = 2

    def value(self, theta):
        return np.array([np.exp(theta[0]), -theta[1] * np.exp(theta[0])])

    def jacobian(self, theta):
        e = np.exp(theta[0])
        return np.array([[e, 0.0], [-theta[1] * e, -e]])


THETA = np.array([0.3, 0.2])
BLOCKS = np.array([[0, 3], [1, 4], [2, 5]])  # effects of a block are not next to each other
NEIGHBOURS = sp.csc_array(np.diag(np.ones(5), 1) + np.diag(np.ones(5), -1))


def precisions():
    structure = PrecisionStructure([sp.eye_array(6), NEIGHBOURS])
    columns = sp.csc_array(structure.values.T)
    return {
        "blocks": block_precision(Covariance(), BLOCKS, ""),
        "matrices": matrix_precision(structure.pattern, columns, Coefficients(), structure, ""),
    }


def covariance_of(name, theta):
    if name == "matrices":
        c = Coefficients().value(theta)
        return np.linalg.inv(c[0] * np.eye(6) + c[1] * NEIGHBOURS.toarray())
    inner, whole = Covariance().value(theta).reshape(2, 2), np.zeros((6, 6))
    for block in BLOCKS:
        whole[np.ix_(block, block)] = inner
    return whole


KINDS = ["blocks", "matrices"]
V = np.random.default_rng(2).normal(size=6)


@pytest.mark.parametrize("kind", KINDS)
def test_density_is_that_of_a_multivariate_normal(kind):
    term = StructuredTerm(precisions()[kind])
    exact = stats.multivariate_normal(np.zeros(6), covariance_of(kind, THETA))
    assert term.value(V, THETA) == pytest.approx(exact.logpdf(V), abs=1e-12)
    value, score, weight = term.local(V, THETA)
    Q = np.linalg.inv(covariance_of(kind, THETA))
    pattern = term.precision.pattern
    assert value == pytest.approx(exact.logpdf(V), abs=1e-12)
    np.testing.assert_allclose(score, -Q @ V, rtol=1e-12)
    np.testing.assert_allclose(weight, Q[pattern.indices, pattern.columns()], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_cases_add_up(kind):
    term = StructuredTerm(precisions()[kind])
    columns = np.random.default_rng(3).normal(size=(6, 4))
    found = term.cases(columns, THETA, order=2, with_theta=True)
    exact = stats.multivariate_normal(np.zeros(6), covariance_of(kind, THETA))
    np.testing.assert_allclose(found.value.sum(axis=0), exact.logpdf(columns.T), rtol=1e-12)
    np.testing.assert_allclose(found.score[0], np.column_stack([term.local(v, THETA)[1] for v in columns.T]))
    slopes = sum(
        part.sum(axis=0)[:, None] * s for part, s in zip(found.by_dispersion, found.dispersion_slopes, strict=True)
    )
    expected = [term.theta_score(v, THETA, np.zeros(6)) for v in columns.T]
    np.testing.assert_allclose(slopes, expected, rtol=1e-11)


def differences(function):
    """Central differences by theta, of fourth order."""
    columns = []
    for move in 1e-3 * np.eye(2):
        near, far = (
            function(THETA + move) - function(THETA - move),
            function(THETA + 2 * move) - function(THETA - 2 * move),
        )
        columns.append((8 * near - far) / 12e-3)
    return np.array(columns).T


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives(kind):
    term = StructuredTerm(precisions()[kind])
    c, kappa = np.random.default_rng(4).normal(size=(2, 6))
    K = np.outer(kappa, kappa) + np.eye(6)
    own = K[term.precision.pattern.indices, term.precision.pattern.columns()]

    def dense(theta):
        return np.linalg.inv(covariance_of(kind, theta))

    by_theta = term.theta_score(V, THETA, c)
    np.testing.assert_allclose(by_theta, differences(lambda t: term.value(V, t) - c @ dense(t) @ V), rtol=1e-9)
    slope, by_theta = term.curvature_slopes(V, THETA, own)
    assert not slope.any()
    np.testing.assert_allclose(by_theta, differences(lambda t: -0.5 * np.sum(K * dense(t))), rtol=1e-9)
    for found, _ in term.precision.variances:
        np.testing.assert_allclose(found.jacobian(THETA), differences(found.value), rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_out_of_range_is_no_number(kind):
    term = StructuredTerm(precisions()[kind])
    bad = np.array([np.nan, 0.2]) if kind == "blocks" else np.array([0.3, 0.8])  # 2 cos(pi/7) 0.8 > 1
    assert term.value(V, bad) == -np.inf
    assert term.local(V, bad) is None
    assert np.isnan(term.cases(V[:, None], bad).value).all()


def test_a_root_undoes_itself():
    root = BlockRoot(Covariance(), BLOCKS)
    L = Covariance().value(THETA).reshape(2, 2)
    z = np.random.default_rng(5).normal(size=6)
    v = np.empty(6)
    v[BLOCKS] = z[BLOCKS] @ L.T
    np.testing.assert_allclose(root.whitened(v, THETA), z, rtol=1e-12)
    np.testing.assert_allclose(root.slopes(z, THETA), differences(lambda t: root.whitened(v, t)), rtol=1e-9)


def graph(edges, n):
    rows, columns = np.array(edges).T
    W = sp.coo_array((np.ones(len(edges)), (rows, columns)), shape=(n, n)).toarray()
    W = W + W.T
    return sp.csc_array(np.diag(W.sum(axis=0)) - W)


@pytest.mark.parametrize("edges", [[(0, 1), (1, 2), (2, 3), (3, 0), (3, 4)], [(0, 1), (2, 3), (3, 4)]])
def test_generalised_determinants(edges):
    L = graph(edges, 5)
    determinant = IntrinsicDeterminant(L)
    eigenvalues = np.linalg.eigvalsh(L.toarray())
    expected = np.log(2.5 * eigenvalues[eigenvalues > 1e-10]).sum()
    assert determinant.logdet(np.array([2.5])) == pytest.approx(expected, abs=1e-12)
    assert determinant.logdet(np.array([-1.0])) == -np.inf
    np.testing.assert_allclose(determinant.logdet_gradient(np.array([2.5])), [determinant.rank / 2.5])


def test_generalised_determinant_with_a_constraint():
    L = graph([(0, 1), (1, 2), (2, 3), (3, 0), (3, 4)], 5)
    c = np.array([2.5, 40.0])
    whole = c[0] * L.toarray() + c[1] * np.ones((5, 5))
    assert IntrinsicDeterminant(L).logdet(c) == pytest.approx(np.linalg.slogdet(whole)[1], abs=1e-11)
    inverse = np.linalg.inv(whole)
    traces = [np.trace(inverse @ L.toarray()), inverse.sum()]
    np.testing.assert_allclose(IntrinsicDeterminant(L).logdet_gradient(c), traces, rtol=1e-10)


def test_prior_patterns_stand_one_after_the_other():
    own = sp.csc_array([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [1.0, 0.0, 4.0]])
    prior = PriorPattern.of([2, 3, 1], [None, lower_pattern(own), None])
    values = np.concatenate([[5.0, 6.0], lower_values(own), [7.0]])
    assert prior.matrix is not None
    lower = sp.csc_array((values, prior.matrix.indices, prior.matrix.indptr), shape=(6, 6)).toarray()
    expected = np.zeros((6, 6))
    expected[:2, :2], expected[2:5, 2:5], expected[5, 5] = np.diag([5.0, 6.0]), np.tril(own.toarray()), 7.0
    np.testing.assert_array_equal(lower, expected)
    np.testing.assert_array_equal(values[prior.diagonal], [5, 6, 2, 3, 4, 7])
    np.testing.assert_array_equal(values[prior.entries[1]], lower_values(own))


def test_diagonal_priors_need_no_pattern():
    prior = PriorPattern.of([2, 3], [None, None])
    assert prior.matrix is None
    assert (prior.nnz, prior.entries) == (5, (slice(0, 2), slice(2, 5)))
    np.testing.assert_array_equal(prior.diagonal, LowerPattern.diagonal(5).diagonal_positions())


# ------------------------------------------------------------ multivariate t


class Known:
    """A map of the third element: ``nu = 2 + exp(theta_2)``."""

    size = 1

    def value(self, theta):
        return np.array([2.0 + np.exp(theta[2])])

    def jacobian(self, theta):
        return np.array([[0.0, 0.0, np.exp(theta[2])]])


class Padded(Covariance):
    """The covariance with a third parameter that it does not depend on."""

    def value(self, theta):
        return super().value(theta[:2])

    def jacobian(self, theta):
        return np.hstack([super().jacobian(theta[:2]), np.zeros((4, 1))])


T_THETA = np.array([0.3, 0.2, 0.7])


def student():
    return StudentTerm(block_precision(Padded(), BLOCKS, ""), Known(), BLOCKS)


def exact_student(v, theta):
    scale = Padded().value(theta).reshape(2, 2)
    return sum(stats.multivariate_t(np.zeros(2), scale, df=Known().value(theta)[0]).logpdf(v[b]) for b in BLOCKS)


def by_argument(function, at, step=1e-3):
    """Central differences of fourth order by a vector."""
    columns = []
    for move in step * np.eye(at.size):
        near = function(at + move) - function(at - move)
        columns.append((8 * near - function(at + 2 * move) + function(at - 2 * move)) / (12 * step))
    return np.array(columns).T


def dense(term, values):
    pattern = term.precision.pattern
    matrix = np.zeros((6, 6))
    matrix[pattern.indices, pattern.columns()] = values
    return matrix + np.tril(matrix, -1).T


def test_student_density_and_its_derivatives():
    term = student()
    value, score, weight = term.local(V, T_THETA)
    assert value == pytest.approx(exact_student(V, T_THETA), abs=1e-12)
    assert term.value(V, T_THETA) == pytest.approx(value, abs=1e-13)
    np.testing.assert_allclose(score, by_argument(lambda v: exact_student(v, T_THETA), V), rtol=1e-8)
    hessian = by_argument(lambda v: term.local(v, T_THETA)[1], V)
    np.testing.assert_allclose(dense(term, weight), -hessian, atol=1e-9)
    assert np.linalg.eigvalsh(dense(term, term.positive_weight(V, T_THETA))).min() > 0


def test_student_slopes():
    term = student()
    c, kappa = np.random.default_rng(4).normal(size=(2, 6))
    K = np.outer(kappa, kappa) + np.eye(6)
    own = K[term.precision.pattern.indices, term.precision.pattern.columns()]
    for block in BLOCKS:  # only entries within blocks count
        K[np.ix_(block, np.setdiff1d(np.arange(6), block))] = 0.0

    def trace(v, theta):
        return -0.5 * np.sum(K * dense(term, term.local(v, theta)[2]))

    by_v, by_theta = term.curvature_slopes(V, T_THETA, own)
    np.testing.assert_allclose(by_v, by_argument(lambda v: trace(v, T_THETA), V), rtol=1e-8)
    np.testing.assert_allclose(by_theta, by_argument(lambda t: trace(V, t), T_THETA), rtol=1e-8)
    expected = by_argument(lambda t: term.value(V, t) + c @ term.local(V, t)[1], T_THETA)
    np.testing.assert_allclose(term.theta_score(V, T_THETA, c), expected, rtol=1e-8)


def test_student_cases_add_up():
    term = student()
    columns = np.random.default_rng(3).normal(size=(6, 4))
    found = term.cases(columns, T_THETA, order=2, with_theta=True)
    np.testing.assert_allclose(found.value.sum(axis=0), [exact_student(v, T_THETA) for v in columns.T], rtol=1e-12)
    parts = zip(found.by_dispersion, found.dispersion_slopes, strict=True)
    slopes = sum(part.sum(axis=0)[:, None] * slope for part, slope in parts)
    expected = [term.theta_score(v, T_THETA, np.zeros(6)) for v in columns.T]
    np.testing.assert_allclose(slopes, expected, rtol=1e-11)
    np.testing.assert_allclose(
        found.weight[0], np.column_stack([np.diag(dense(term, term.local(v, T_THETA)[2])) for v in columns.T])
    )
