"""Likelihood-ratio tests: statistics of lme4, mixtures at the boundary, what does not compare."""

import warnings

import numpy as np
import pymc as pm
import pytest
from scipy import stats

import hlik
from hlik.inference.lr_test import chi_bar_sf
from models import sleepstudy

LOG_LIKELIHOODS = np.array([-897.0393215, -876.0016276])  # of lme4: without and with random slopes


def model(slopes=True, days=True, columns=None):
    data = sleepstudy.load() if columns is None else columns
    subject, x = data["Subject"].astype("category").cat.codes.to_numpy(), data["Days"].to_numpy(float)
    with pm.Model() as built:
        eta = pm.Normal("intercept", 0, 10) + (pm.Normal("slope", 0, 10) * x if days else 0 * x)
        eta = eta + pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=18)[subject]
        if slopes:
            eta = eta + pm.Normal("w", 0, pm.HalfNormal("sigma_w", 1), shape=18)[subject] * x
        pm.Normal("y", eta, pm.HalfNormal("sigma", 1), observed=data["Reaction"].to_numpy())
    return built


def fit(built, estimator="laplace", **arguments):
    return hlik.fit(built, estimator, progressbar=False, draws=0, **arguments)


@pytest.fixture(scope="module")
def larger():
    return fit(model())


@pytest.fixture(scope="module")
def smaller():
    return fit(model(slopes=False))


def test_a_random_slope(smaller, larger):
    """R: anova(lmer(Reaction ~ Days + (1 | Subject), REML = FALSE), lmer(... (Days || Subject), REML = FALSE)).

    R's p-value is that of chi2(1), twice as large: it leaves the boundary out.
    """
    table = hlik.lr_test(smaller, larger)
    np.testing.assert_allclose(table.log_likelihood, LOG_LIKELIHOODS, rtol=1e-8)
    row = table.loc["alternative"]
    np.testing.assert_allclose(row.statistic, 2 * (LOG_LIKELIHOODS[1] - LOG_LIKELIHOODS[0]), rtol=1e-6)
    assert (row.df, row.boundary) == (1, 1)
    np.testing.assert_allclose(row.p_value, 0.5 * stats.chi2(1).sf(row.statistic))
    np.testing.assert_allclose(table.aic, table.n_parameters * 2 - 2 * table.log_likelihood)


def test_a_fixed_effect(larger):
    row = hlik.lr_test(fit(model(days=False)), larger).loc["alternative"]
    assert (row.df, row.boundary) == (1, 0)
    np.testing.assert_allclose(row.p_value, stats.chi2(1).sf(row.statistic))


def test_restricted_likelihoods(larger):
    reml = hlik.Laplace(reml=True)
    full = fit(model(), reml)
    assert hlik.lr_test(fit(model(slopes=False), reml), full).loc["alternative", "boundary"] == 1
    with pytest.raises(hlik.ModelError, match="other fixed effects do not compare"):
        hlik.lr_test(fit(model(days=False), reml), full)
    with pytest.raises(hlik.ModelError, match="another estimator"):
        hlik.lr_test(full, larger)


@pytest.mark.parametrize(("m", "k"), [(0, 1), (1, 1), (0, 3), (2, 2)])
def test_mixture_by_simulation(m, k):
    """Normal estimates, k of them cut at zero: the statistic is the squared length of what is left."""
    rng = np.random.default_rng(5)
    z = rng.standard_normal((200_000, m + k))
    z[:, m:] = np.maximum(z[:, m:], 0)
    simulated = (z**2).sum(axis=1)
    for value in (0.5, 2.7, 6.0):
        share = np.mean(simulated >= value)
        error = np.sqrt(share * (1 - share) / simulated.size)
        assert abs(chi_bar_sf(value, m, k) - share) < 4 * error
    assert chi_bar_sf(0.0, m, k) == pytest.approx(1.0)


@pytest.mark.slow
def test_level_under_the_null():
    """No variance between groups: p-values below 0.05 in 5 % of 400 data sets, and of one half in half of them."""
    rng = np.random.default_rng(8)
    group, p_values = np.repeat(np.arange(25), 4), []
    for _ in range(400):
        y = rng.normal(size=100)
        fits = []
        for with_effect in (False, True):
            with pm.Model() as built:
                eta, sigma = pm.Normal("mean", 0, 10) * np.ones(100), pm.HalfNormal("sigma", 1)
                if with_effect:
                    eta = eta + pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=25)[group]
                pm.Normal("y", eta, sigma, observed=y)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", hlik.ConvergenceWarning)
                fits.append(fit(built))
        p_values.append(hlik.lr_test(*fits).loc["alternative", "p_value"])
    p_values = np.array(p_values)
    assert abs(np.mean(p_values < 0.05) - 0.05) < 3.5 * np.sqrt(0.05 * 0.95 / 400)
    assert abs(np.mean(p_values > 0.5) - 0.5) < 4.5 * 0.5 / 20  # 25 groups: the asymptotic half is a little more


def test_what_does_not_compare(smaller, larger):
    other = sleepstudy.load().assign(Reaction=lambda d: d.Reaction + 1)
    with pytest.raises(hlik.ModelError, match="other data of response 'y'"):
        hlik.lr_test(fit(model(slopes=False, columns=other)), larger)
    with pytest.raises(hlik.ModelError, match="must be of the larger model"):
        hlik.lr_test(larger, smaller)
    with pytest.raises(hlik.ModelError, match="whole number from 0 to 1"):
        hlik.lr_test(smaller, larger, boundary=2)


def test_accessors(larger):
    matrix = hlik.vcov(larger)
    assert list(matrix.index) == ["intercept", "slope", "sigma_u_log__", "sigma_w_log__", "sigma_log__"]
    np.testing.assert_allclose(
        np.sqrt(np.diag(matrix)[:2]), [float(larger.standard_errors[name]) for name in ("intercept", "slope")]
    )
    assert list(hlik.vcov(larger, "dispersion parameter").columns) == list(matrix.index[2:])
    assert hlik.loglik(larger) == float(larger.fit.log_likelihood)
    with pytest.raises(hlik.ModelError, match="this result has"):
        hlik.loglik(larger, "deviance")
