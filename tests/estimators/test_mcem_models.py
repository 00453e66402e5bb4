"""Monte Carlo EM beyond one random intercept: two effects, correlated slopes, a neighbourhood structure; coverage."""

import numpy as np
import pymc as pm
import pytest

import hlik
from models import lip_cancer


def fitted(model, estimator, **arguments):
    return hlik.fit(model, estimator, progressbar=False, random_seed=1, **arguments)


def assert_agree(found, exact, names, curvature=0.01):
    """Within four Monte Carlo errors, and what one Newton step of up to 0.1 standard errors leaves."""
    assert found.fit.attrs["status"] == "converged"
    for name in names:
        difference = np.abs(found.estimates[name] - exact.estimates[name]).values
        error = found.monte_carlo_errors[name].values ** 2
        if name in getattr(exact, "monte_carlo_errors", {}):
            error = error + exact.monte_carlo_errors[name].values ** 2
        assert np.all(difference < 4 * np.sqrt(error) + curvature * exact.standard_errors[name].values), name


def two_effects(seed: int = 2) -> pm.Model:
    """Counts with an intercept and a slope of every group, independent: two effects a group, so quadrature serves."""
    rng = np.random.default_rng(seed)
    group, x = np.repeat(np.arange(20), 6), rng.normal(size=120)
    rate = np.exp(0.6 + 0.3 * x + rng.normal(0, 0.6, 20)[group] + rng.normal(0, 0.4, 20)[group] * x)
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 5, shape=2)
        u = pm.Normal("u", 0, pm.HalfNormal("sigma", 1), shape=20)
        w = pm.Normal("w", 0, pm.HalfNormal("tau", 1), shape=20)
        eta = beta[0] + beta[1] * x + u[group] + w[group] * x
        pm.Poisson("y", pm.math.exp(eta), observed=rng.poisson(rate))
    return model


@pytest.fixture(scope="module")
def two():
    model = two_effects()
    return model, fitted(model, hlik.MCEM(sampler="importance"))


def test_poisson_with_two_effects_against_quadrature(two):
    model, found = two
    assert_agree(found, fitted(model, hlik.AGQ(points=9)), ("beta", "sigma", "tau"))


def test_poisson_with_two_effects_against_laplace(two):
    """Laplace's own error is some hundredths of a standard error here: counts of about two, six in each group."""
    model, found = two
    assert_agree(found, fitted(model, hlik.Laplace()), ("beta", "sigma", "tau"), curvature=0.2)


@pytest.mark.slow
def test_poisson_with_two_effects_against_importance_sampled_likelihood(two):
    model, found = two
    assert_agree(found, fitted(model, hlik.MCLA()), ("beta", "sigma", "tau"))


@pytest.mark.slow
def test_correlated_slopes_of_a_normal_model_against_laplace():
    """Laplace's approximation is exact there."""
    rng = np.random.default_rng(5)
    group, x = np.repeat(np.arange(25), 6), rng.normal(size=150)
    effects = rng.multivariate_normal([0, 0], [[1.0, 0.3], [0.3, 0.5]], size=25)
    y = 1 + 0.5 * x + effects[group, 0] + effects[group, 1] * x + rng.normal(0, 0.7, 150)
    with pm.Model() as model:
        beta, residual = pm.Normal("beta", 0, 5, shape=2), pm.HalfNormal("residual", 1)
        chol, _, _ = pm.LKJCholeskyCov("chol", n=2, eta=2.0, sd_dist=pm.HalfNormal.dist(1))
        u = pm.MvNormal("u", mu=np.zeros(2), chol=chol, shape=(25, 2))
        pm.Normal("y", beta[0] + beta[1] * x + u[group, 0] + u[group, 1] * x, residual, observed=y)
    exact, found = fitted(model, hlik.Laplace()), fitted(model, hlik.MCEM(sampler="importance"))
    assert_agree(found, exact, ("beta", "residual", "chol"))
    error = float(found.fit["log_likelihood_mcse"])
    assert abs(float(found.fit["log_likelihood"] - exact.fit["log_likelihood"])) < 4 * error + 2e-3


@pytest.mark.slow
def test_neighbours_against_quasi_monte_carlo(shared, reference):
    """Lip cancer with CAR effects; the record is by quasi-Monte Carlo, with Monte Carlo errors of its own."""
    record = reference("truth/lipcancer_CAR")["lipcancer_CAR"]
    model = lip_cancer.build_car(
        lip_cancer.load(), lip_cancer.neighbours(shared / "data" / "lipcancer_nbr_triplets.csv")
    )
    found = fitted(model, hlik.MCEM(sampler="importance"))
    assert found.fit.attrs["status"] == "converged"
    error = np.hypot(4 * found.monte_carlo_errors["beta"].values, 4 * np.array(record["mc_se"][:2]))
    difference = np.abs(found.estimates["beta"].values - np.array(record["estimates"][:2]))
    assert np.all(difference < error + 0.01 * np.array(record["se"][:2]))


COVERAGE = 200


@pytest.mark.slow
def test_intervals_cover():
    """95 % intervals of 200 data sets: within three binomial errors of 0.0154."""
    truth, group = np.array([0.4, 0.5, 0.7]), np.repeat(np.arange(60), 5)
    covered = []
    for seed in range(COVERAGE):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=group.size)
        rate = np.exp(0.4 + 0.5 * x + rng.normal(0, 0.7, 60)[group])
        with pm.Model() as model:
            beta, sigma = pm.Normal("beta", 0, 5, shape=2), pm.HalfNormal("sigma", 1)
            u = pm.Normal("u", 0, sigma, shape=60)
            pm.Poisson("y", pm.math.exp(beta[0] + beta[1] * x + u[group]), observed=rng.poisson(rate))
        settings = hlik.MCEM(sampler="importance", draws=200, mcse=0.1)
        found = hlik.fit(model, settings, progressbar=False, random_seed=seed, draws=0)
        table = hlik.confint(found).loc[["beta[0]", "beta[1]", "sigma"]]
        covered.append(((table["lower"] <= truth) & (truth <= table["upper"])).to_numpy())
    share = np.mean(covered, axis=0)
    assert np.all(np.abs(share - 0.95) < 3 * np.sqrt(0.95 * 0.05 / COVERAGE)), share
