"""One-sided Wald tests of variances: the same however the model is written, and what they say at zero."""

import arviz as az
import numpy as np
import pymc as pm
import pytest
from scipy import stats

import hlik
from models import sleepstudy

GROUP, X = np.repeat(np.arange(15), 5), np.random.default_rng(3).normal(size=75)
EFFECT = np.random.default_rng(8).normal(0, 0.8, 15)
Y = np.random.default_rng(4).poisson(np.exp(0.4 + 0.3 * X + EFFECT[GROUP]))


def counts(way: str) -> pm.Model:
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 5, shape=2)
        if way == "variance":
            u = pm.Normal("u", 0, pm.math.sqrt(pm.HalfNormal("s2", 1)), shape=15)
        elif way == "non-centred":
            u = pm.HalfNormal("sigma", 1) * pm.Normal("u", 0, 1, shape=15)
        else:
            u = pm.Normal("u", 0, pm.HalfNormal("sigma", 1), shape=15)
        slope = 2.0 if way == "doubled" else 1.0
        pm.Poisson("y", pm.math.exp(beta[0] + beta[1] * X + slope * u[GROUP]), observed=Y)
    return model


def fitted(model, estimator="laplace"):
    return hlik.fit(model, estimator, progressbar=False, random_seed=1, draws=0)


@pytest.fixture(scope="module")
def by_variance():
    """With the variance itself a parameter, estimate and error are those of the fit."""
    return fitted(counts("variance"))


@pytest.mark.parametrize("way", ["variance", "centred", "non-centred", "doubled"])
def test_however_written(way, by_variance):
    row = hlik.variance_tests(fitted(counts(way))).loc["u"]
    scale = 0.25 if way == "doubled" else 1.0  # 2 u has four times the variance of u
    estimate, se = (float(by_variance[group]["s2"]) for group in ("estimates", "standard_errors"))
    # optima are found to 1e-6 of a log-likelihood unit, thus to 1e-3 of a standard error
    np.testing.assert_allclose([row["estimate"], row["se"]], [scale * estimate, scale * se], rtol=2e-3)
    assert row["statistic"] == row["estimate"] / row["se"]
    assert np.isclose(row["p_value"], stats.norm.sf(row["statistic"]), rtol=1e-12)


def test_half_of_the_two_sided_test(by_variance):
    table = hlik.variance_tests(by_variance)
    test = hlik.wald_test(by_variance, ["beta[1]"], df=np.inf)
    z = float(by_variance.estimates["beta"][1] / by_variance.standard_errors["beta"][1])
    assert np.isclose(test["p_value"], 2 * stats.norm.sf(abs(z)))  # coefficients: both tails
    assert np.isclose(2 * table.loc["u", "p_value"], stats.chi2(1).sf(table.loc["u", "statistic"] ** 2))


def test_monte_carlo_em(by_variance, tmp_path):
    """As by Laplace's approximation, which is close here; also from a file."""
    found = fitted(counts("centred"), hlik.MCEM(sampler="importance"))
    table = hlik.variance_tests(found)
    sigma, se = float(found.estimates["sigma"]), float(found.standard_errors["sigma"])
    np.testing.assert_allclose(table.loc["u"].iloc[:3], [sigma**2, 2 * sigma * se, sigma / (2 * se)], rtol=1e-6)
    # Louis' standard errors have Monte Carlo errors of 5 %
    np.testing.assert_allclose(
        table.loc["u", "statistic"], hlik.variance_tests(by_variance).loc["u", "statistic"], rtol=0.15
    )
    found.to_netcdf(tmp_path / "fit.nc")
    assert hlik.variance_tests(az.from_netcdf(tmp_path / "fit.nc")).equals(table)


def test_correlated_effects():
    """One row for each; lme4's variances by ML: 565.5 and 32.68."""
    model = hlik.from_formula("Reaction ~ Days + (Days | Subject)", sleepstudy.load())
    found = fitted(model)
    table = hlik.variance_tests(found)
    assert list(table.index) == ["Days|Subject[Intercept]", "Days|Subject[Days]"]
    np.testing.assert_allclose(table["estimate"], [565.5, 32.68], rtol=1e-3)
    errors = hlik.summary(found)["se"].filter(like="sd(").to_numpy()
    np.testing.assert_allclose(table["se"], 2 * np.sqrt(table["estimate"]) * errors, rtol=1e-10)
    assert np.all(table["p_value"].between(1e-6, 0.05))


def test_gamma_effects():
    """Var(log u) = trigamma(1 / lam)."""
    from scipy.special import polygamma

    with pm.Model() as model:
        beta, lam = pm.Normal("beta", 0, 5), pm.HalfNormal("lam", 1)
        u = pm.Gamma("u", 1 / lam, 1 / lam, shape=15)
        pm.Poisson("y", pm.math.exp(beta) * u[GROUP], observed=Y)
    found = fitted(model)
    lam, se = float(found.estimates["lam"]), float(found.standard_errors["lam"])
    row = hlik.variance_tests(found).loc["u"]
    slope = -polygamma(2, 1 / lam) / lam**2
    np.testing.assert_allclose([row["estimate"], row["se"]], [polygamma(1, 1 / lam), slope * se], rtol=1e-6)


def test_t_effects():
    """Var(u) = sigma^2 nu / (nu - 2); mcemGLM tests sigma^2, with the same statistic."""
    with pm.Model() as model:
        beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
        u = pm.StudentT("u", nu=6, mu=0, sigma=sigma, shape=15)
        pm.Poisson("y", pm.math.exp(beta + u[GROUP]), observed=Y)
    found = fitted(model)
    sigma, se = float(found.estimates["sigma"]), float(found.standard_errors["sigma"])
    row = hlik.variance_tests(found).loc["u"]
    np.testing.assert_allclose(row.iloc[:3], [1.5 * sigma**2, 3 * sigma * se, sigma / (2 * se)], rtol=1e-6)


def test_no_test_at_zero():
    y = np.tile([0, 1, 2, 1, 1], 15)
    with pm.Model() as model:
        beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma, shape=15)
        pm.Poisson("y", pm.math.exp(beta + u[GROUP]), observed=y)
    with pytest.warns(hlik.ConvergenceWarning, match="estimated at zero"):
        row = hlik.variance_tests(fitted(model)).loc["u"]
    assert row["estimate"] < 1e-4
    assert np.isnan(row["statistic"])
    assert np.isnan(row["p_value"])


def test_no_random_effects():
    with pm.Model() as model:
        pm.Poisson("y", pm.math.exp(pm.Normal("beta", 0, 5)), observed=Y)
    with pytest.raises(hlik.ModelError, match="no random effects"):
        hlik.variance_tests(fitted(model))
