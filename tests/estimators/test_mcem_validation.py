"""Monte Carlo EM with NUTS against exact maximum likelihood: published data, and simulated data of every family.

All of it is slow; `pytest -m slow tests/estimators/test_mcem_validation.py` takes some minutes.
"""

import time
from importlib.util import find_spec

import numpy as np
import pymc as pm
import pytest

import hlik
from models import lip_cancer, salamander
from tests.estimators.test_mcem import simulated
from tests.reference_models import bacteria, seeds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("nutpie") is None, reason="needs nutpie"),
]
NUTS = hlik.MCEM(sampler="nutpie")


def fitted(model, estimator, seed=1, **arguments):
    return hlik.fit(model, estimator, progressbar=False, random_seed=seed, **arguments)


def variances(found, names):
    """(estimate, Monte Carlo error, standard error) of the parameters; standard deviations as variances."""
    columns = []
    for name in names:
        at = np.ravel(found.estimates[name])
        scale = 2 * at if name.startswith("sigma") else np.ones_like(at)
        errors = [scale * np.ravel(found[group][name]) for group in ("monte_carlo_errors", "standard_errors")]
        columns.append([at**2 if name.startswith("sigma") else at, *errors])
    return tuple(np.concatenate([column[k] for column in columns]) for k in range(3))


def test_salamander(shared, reference):
    """The issue's figures; the exact values have Monte Carlo errors of 0.0004 at the most."""
    model = salamander.build(salamander.load(shared / "data" / "salamander_mcemGLM.csv"))
    record = reference("truth/salamander_exact")
    begin = time.process_time()
    found = fitted(model, NUTS)
    seconds = time.process_time() - begin
    assert found.fit.attrs["status"] == "converged"
    estimate, error, spread = variances(found, ("beta", "sigma_female", "sigma_male"))
    assert np.all(np.abs(estimate - record["estimates"]) < 4 * error)
    assert np.all(error <= 0.05 * np.array(record["se"]))
    np.testing.assert_allclose(spread, record["se"], rtol=0.05)
    assert seconds < 60  # of one core, compilation included
    assert int(found.em["n_compilations"]) == 1


@pytest.mark.parametrize(
    ("case", "build", "names"),
    [
        ("seeds_binomial_normal", seeds("normal"), ("beta", "sigma_u")),
        ("seeds_binomial_beta", seeds("beta"), ("beta", "lam")),
        ("bacteria_binomial_normal", bacteria, ("beta", "sigma_u")),
    ],
)
def test_published_data_against_quadrature(case, build, names, shared, reference):
    found = fitted(build(shared / "data"), NUTS)
    assert found.fit.attrs["status"] == "converged"
    record = reference("truth/exact_quadrature")[case]
    estimate, error, spread = variances(found, names)
    exact, exact_spread = (np.array(list(record[key].values())) for key in ("estimates", "se"))
    # the last Newton step may be 0.1 standard errors long, and leaves about its square
    assert np.all(np.abs(estimate - exact) < 4 * error + 0.01 * exact_spread)
    assert np.all(error < 0.055 * spread)
    np.testing.assert_allclose(spread, exact_spread, rtol=0.12)  # they follow the estimate, and have errors of 5 %
    log_error = float(found.fit["log_likelihood_mcse"])
    assert abs(float(found.fit["log_likelihood"]) - record["loglik"]) < 4 * log_error + 2e-3


@pytest.mark.parametrize("family", ["bernoulli", "binomial", "poisson", "negative binomial", "gamma"])
def test_families_against_quadrature(family):
    """The shapes of negative binomial and gamma responses are estimated."""
    model = simulated(family)
    exact, found = fitted(model, hlik.AGQ()), fitted(model, NUTS)
    assert found.fit.attrs["status"] == "converged"
    agree(found, exact)


def agree(found, exact, part=0.01):
    """All parameters, within four Monte Carlo errors of both and a part of a standard error."""
    names = list(found.monte_carlo_errors)
    assert names
    for name in names:
        error = found.monte_carlo_errors[name].values ** 2
        if "monte_carlo_errors" in exact.groups():
            error = error + exact.monte_carlo_errors[name].values ** 2
        difference = np.abs(found.estimates[name] - exact.estimates[name]).values
        assert np.all(difference < 4 * np.sqrt(error) + part * exact.standard_errors[name].values), name


def crossed_gamma():
    """Positive responses with crossed random effects and an estimated shape: no quadrature serves."""
    rng = np.random.default_rng(11)
    row, column, x = np.repeat(np.arange(12), 12), np.tile(np.arange(12), 12), rng.normal(size=144)
    mean = np.exp(0.5 + 0.4 * x + rng.normal(0, 0.5, 12)[row] + rng.normal(0, 0.7, 12)[column])
    with pm.Model() as model:
        beta, shape = pm.Normal("beta", 0, 5, shape=2), pm.HalfNormal("shape", 10)
        u = pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=12)
        w = pm.Normal("w", 0, pm.HalfNormal("sigma_w", 1), shape=12)
        mu = pm.math.exp(beta[0] + beta[1] * x + u[row] + w[column])
        pm.Gamma("y", alpha=shape, beta=shape / mu, observed=rng.gamma(3.0, mean / 3.0))
    return model


def test_gamma_response_against_laplace_and_importance_sampling():
    model = crossed_gamma()
    found = fitted(model, NUTS)
    assert found.fit.attrs["status"] == "converged"
    agree(found, fitted(model, hlik.MCLA()), 0.02)
    agree(found, fitted(model, hlik.Laplace()), 0.1)  # Laplace's own error: twelve responses an effect
    likelihood = fitted(model, hlik.MCLA()).fit
    error = np.hypot(found.fit["log_likelihood_mcse"], likelihood["log_likelihood_mcse"])
    assert abs(float(found.fit["log_likelihood"] - likelihood["log_likelihood"])) < 4 * float(error) + 2e-3


def test_correlated_slopes_of_counts():
    """Two correlated effects a group, so that quadrature serves."""
    rng = np.random.default_rng(6)
    group, x = np.repeat(np.arange(30), 6), rng.normal(size=180)
    effects = rng.multivariate_normal([0, 0], [[0.5, 0.15], [0.15, 0.25]], size=30)
    rate = np.exp(0.6 + 0.3 * x + effects[group, 0] + effects[group, 1] * x)
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 5, shape=2)
        chol, _, _ = pm.LKJCholeskyCov("chol", n=2, eta=2.0, sd_dist=pm.HalfNormal.dist(1))
        u = pm.MvNormal("u", mu=np.zeros(2), chol=chol, shape=(30, 2))
        pm.Poisson("y", pm.math.exp(beta[0] + beta[1] * x + u[group, 0] + u[group, 1] * x), observed=rng.poisson(rate))
    found = fitted(model, NUTS)
    assert found.fit.attrs["status"] == "converged"
    agree(found, fitted(model, hlik.AGQ(points=9)), 0.02)


def test_neighbours_against_quasi_monte_carlo(shared, reference):
    """Lip cancer with CAR effects; the record is by quasi-Monte Carlo, with Monte Carlo errors of its own."""
    record = reference("truth/lipcancer_CAR")["lipcancer_CAR"]
    model = lip_cancer.build_car(
        lip_cancer.load(), lip_cancer.neighbours(shared / "data" / "lipcancer_nbr_triplets.csv")
    )
    found = fitted(model, NUTS)
    assert found.fit.attrs["status"] == "converged"
    error = np.hypot(4 * found.monte_carlo_errors["beta"].values, 4 * np.array(record["mc_se"][:2]))
    difference = np.abs(found.estimates["beta"].values - np.array(record["estimates"][:2]))
    assert np.all(difference < error + 0.01 * np.array(record["se"][:2]))


@pytest.mark.parametrize(
    "settings",
    [
        hlik.MCEM(sampler="nutpie", mcse=0.2, draws=200),
        hlik.MCEM(sampler="importance", rule="mcemGLM", mcse=0.2, draws=200),
        hlik.SAEM(sampler="importance", mcse=0.2),
    ],
    ids=["nutpie", "mcemGLM's rule", "SAEM"],
)
def test_monte_carlo_errors_predict_the_spread(settings):
    """Over twenty seeds."""
    model = simulated("poisson")
    fits = [fitted(model, settings, seed, draws=0) for seed in range(20)]
    estimates, errors = (
        np.array([np.concatenate([np.ravel(f[group][name]) for name in ("beta", "sigma")]) for f in fits])
        for group in ("estimates", "monte_carlo_errors")
    )
    ratio = np.sqrt((errors**2).mean(axis=0)) / estimates.std(axis=0, ddof=1)
    # a deviation of 20 values has an error of 16 %; of three of them, not independent, about 12 %
    assert 0.7 < np.exp(np.mean(np.log(ratio))) < 1.4
