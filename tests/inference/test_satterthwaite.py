"""Satterthwaite's degrees of freedom: lmerTest's published figures, balanced designs, dense algebra."""

import numpy as np
import pymc as pm
import pytest
from scipy import stats

import hlik
from hlik.inference.satterthwaite import satterthwaite
from models import sleepstudy
from tests.inference.test_intervals import cbpp, fit

DATA = sleepstudy.load()
SUBJECT, DAYS, REACTION = DATA.Subject.astype("category").cat.codes.to_numpy(), DATA.Days.to_numpy(), DATA.Reaction


def intercepts(rows=slice(None)):
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 1, shape=2)
        u = pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=18)
        eta = beta[0] + beta[1] * DAYS[rows] + u[SUBJECT[rows]]
        pm.Normal("y", eta, pm.HalfNormal("sigma", 1), observed=REACTION.to_numpy()[rows])
    return model


@pytest.mark.parametrize("estimator", ["eql", hlik.Laplace(reml=True)])
def test_random_intercepts(estimator):
    """Balanced: within subjects 180 - 18 - 1; lmerTest prints 22.8102 for the intercept and 161 for Days."""
    model = intercepts()
    table = satterthwaite(model, fit(model, estimator))
    np.testing.assert_allclose(table.df, [22.8102, 161.0], rtol=2e-5)


def test_independent_slopes_by_dense_algebra():
    """df by a dense REML likelihood and its differences; 1e-3 is what these leave."""
    model = sleepstudy.build(DATA)
    idata = fit(model, hlik.Laplace(reml=True))
    X = np.column_stack([np.ones(180), DAYS])
    same = SUBJECT[:, None] == SUBJECT
    parts = [same, same * np.outer(DAYS, DAYS), np.eye(180)]
    at = np.log([float(idata.estimates[name]) for name in ("sigma_intercept", "sigma_slope", "sigma")])

    def inner(theta):
        V = sum(np.exp(2 * t) * part for t, part in zip(theta, parts, strict=True))
        return V, np.linalg.inv(X.T @ np.linalg.solve(V, X))

    def value(theta):
        V, C = inner(theta)
        beta = C @ X.T @ np.linalg.solve(V, REACTION.to_numpy())
        return stats.multivariate_normal(X @ beta, V).logpdf(REACTION) + 0.5 * np.linalg.slogdet(C)[1]

    e, H, g = 1e-3 * np.eye(3), np.zeros((3, 3)), np.zeros((2, 3))
    for i in range(3):
        g[:, i] = (np.diag(inner(at + e[i])[1]) - np.diag(inner(at - e[i])[1])) / 2e-3
        for j in range(i + 1):
            a, b = e[i], e[j]
            H[i, j] = H[j, i] = (value(at + a + b) - value(at + a - b) - value(at - a + b) + value(at - a - b)) / 4e-6
    spread = np.einsum("ij,jk,ik->i", g, np.linalg.inv(-H), g)
    expected = 2 * np.diag(inner(at)[1]) ** 2 / spread
    np.testing.assert_allclose(satterthwaite(model, idata).df, expected, rtol=1e-3)


def test_random_slope_alone_has_the_subjects_degrees():
    """Correlated intercepts and slopes, balanced: 17, as lmerTest prints for (Days | Subject)."""
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 1, shape=2)
        chol, _, _ = pm.LKJCholeskyCov("chol", eta=1, n=2, sd_dist=pm.HalfNormal.dist(1), compute_corr=True)
        u = pm.MvNormal("u", np.zeros(2), chol=chol, shape=(18, 2))
        eta = beta[0] + beta[1] * DAYS + u[SUBJECT, 0] + u[SUBJECT, 1] * DAYS
        pm.Normal("y", eta, pm.HalfNormal("sigma", 1), observed=REACTION.to_numpy())
    table = satterthwaite(model, fit(model, hlik.Laplace(reml=True)))
    np.testing.assert_allclose(table.df, 17.0, rtol=1e-4)


def test_table():
    model = intercepts()
    table = satterthwaite(model, fit(model, "eql"))
    assert list(table.columns) == ["estimate", "se", "df", "statistic", "p_value", "lower", "upper"]
    assert list(table.index) == ["beta[0]", "beta[1]"]
    np.testing.assert_allclose(table.p_value, 2 * stats.t.sf(abs(table.statistic), table.df))


def test_other_families_are_refused():
    model = cbpp()
    with pytest.raises(hlik.ModelError, match="need normal responses; 'y' is Binomial"):
        satterthwaite(model, fit(model))
