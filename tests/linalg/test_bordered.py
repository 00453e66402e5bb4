"""Every method of `Bordered` against the dense matrix H, on every kind of design."""

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp

from hlik.linalg import BorderedSystem, NotPositiveDefinite, lower_values

from .problems import DESIGNS


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


def make_case(name: str, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    X, Z, D = DESIGNS[name](rng)
    n, q = Z.shape
    w = rng.gamma(2.0, size=n)
    if D is None:
        d = rng.gamma(2.0, size=q) + 0.3
        prior = np.diag(d)
    else:
        prior = dominant_values(D, rng)
        d = lower_values(sp.csc_array(prior) if not np.any(prior == 0) else on_pattern(prior, D))
    system = BorderedSystem(X, Z, D)
    rows = np.hstack([X, Z.toarray()])
    H = rows.T @ (w[:, None] * rows)
    H[X.shape[1] :, X.shape[1] :] += prior
    return Case(system, system.factor(w, d), rows, H, w)


def dominant_values(pattern: sp.csc_array, rng: np.random.Generator) -> np.ndarray:
    """Random symmetric, diagonally dominant values on a pattern."""
    values = rng.normal(size=pattern.shape) * (pattern.toarray() != 0)
    values = np.tril(values, -1)
    values += values.T
    return values + np.diag(np.abs(values).sum(axis=0) + rng.gamma(2.0, size=len(values)))


def on_pattern(full: np.ndarray, pattern: sp.csc_array) -> sp.csc_array:
    coo = pattern.tocoo()
    return sp.csc_array((full[coo.row, coo.col], (coo.row, coo.col)), shape=pattern.shape)


def close(actual, expected, scale=1.0):
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12 * scale)


@pytest.fixture(params=sorted(DESIGNS))
def case(request):
    return make_case(request.param)


def test_solve(case, rng=np.random.default_rng(5)):
    size = len(case.H)
    for shape in ((size,), (size, 3)):
        r = rng.normal(size=shape)
        s_x, s_z = case.bordered.solve(r[: case.p], r[case.p :])
        close(np.concatenate([s_x, s_z]), case.inverse @ r)


def test_determinants(case):
    close(case.bordered.logdet(), np.linalg.slogdet(case.H)[1])
    close(case.bordered.logdet_z(), np.linalg.slogdet(case.C)[1])


def test_leverages(case):
    close(case.bordered.leverages(), case.w * np.einsum("ij,jk,ik->i", case.rows, case.inverse, case.rows))
    z = case.rows[:, case.p :]
    close(case.bordered.leverages_z(), case.w * np.einsum("ij,jk,ik->i", z, np.linalg.inv(case.C), z))


def test_inverse_parts(case):
    p, pattern = case.p, case.system.pattern
    rows, columns = pattern.indices, pattern.columns()
    close(np.concatenate(case.bordered.inverse_diagonal()), case.inverse.diagonal())
    close(case.bordered.inverse_x, case.inverse[:p, :p])
    close(case.bordered.inverse_pattern(), case.inverse[p:, p:][rows, columns])
    close(case.bordered.selected_inverse_z(), np.linalg.inv(case.C)[rows, columns])


def test_quadratic_of_rows_inside_and_outside_the_pattern(case, rng=np.random.default_rng(3)):
    outside = rng.normal(size=(9, len(case.H))) * (rng.random((9, len(case.H))) < 0.5)
    for T in (case.rows, outside):
        TX, TZ = T[:, : case.p], sp.csr_array(T[:, case.p :])
        close(case.bordered.quadratic(TX, TZ), np.einsum("ij,jk,ik->i", T, case.inverse, T))


def test_sample_is_a_linear_map_of_noise_with_the_right_covariance(case):
    size = len(case.H)
    x, z = case.bordered.sample(IdentityNoise(), size)
    root = np.hstack([x, z])
    close(root.T @ root, case.inverse)


class IdentityNoise:
    """Stands in for a generator: consecutive calls give consecutive rows of one identity matrix."""

    def __init__(self):
        self.start = 0

    def standard_normal(self, shape):
        out = np.eye(*shape, k=self.start)
        self.start += shape[0]
        return out


def test_singular_border_names_the_column():
    rng = np.random.default_rng(0)
    X, Z, _ = DESIGNS["random_intercept"](rng)
    X = np.column_stack([X, X[:, 0] - 2 * X[:, 2]])
    with pytest.raises(NotPositiveDefinite) as raised:
        BorderedSystem(X, Z).factor(np.ones(len(X)), np.ones(Z.shape[1]))
    assert raised.value.column == ("x", 3)
    assert "column 3 of X" in str(raised.value)
