"""A variance that Monte Carlo EM estimates at zero: the fit without that term, in few steps."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pymc as pm
import pytest

import hlik
from hlik.estimators.agq_profile import QuadratureProfile
from hlik.estimators.mcem_boundary import _at_zero
from hlik.estimators.mcem_state import EMState
from hlik.graph.read import read_model
from hlik.hlikelihood import HLikelihood
from hlik.samplers.base import Draws

GROUP, COLUMN = np.repeat(np.arange(15), 6), np.tile(np.arange(6), 15)
needs_nutpie = pytest.mark.skipif(find_spec("nutpie") is None, reason="needs nutpie")


def crossed(way: str) -> pm.Model:
    """Counts that vary between columns, and between groups less than Poisson counts would without any effect."""
    rng = np.random.default_rng(0)
    rates = np.exp(1 + rng.normal(0, 0.7, 6)[COLUMN])
    y = np.round(rates + rng.choice([-0.7, 0.0, 0.7], 90)).astype(int).clip(0)
    with pm.Model() as model:
        eta, tau = pm.Normal("beta", 0, 5), pm.HalfNormal("tau", 1)
        eta = eta + pm.Normal("w", 0, tau, shape=6)[COLUMN]
        if way != "without":
            sigma = pm.HalfNormal("sigma", 1)
            if way == "centred":
                u = pm.Normal("u", 0, sigma, shape=15)
            elif way == "non-centred":
                u = sigma * pm.Normal("u", 0, 1, shape=15)
            elif way == "gamma":
                u = pm.math.log(pm.Gamma("u", alpha=1 / sigma, beta=1 / sigma, shape=15))
            elif way == "beta":
                u = pm.math.logit(pm.Beta("u", alpha=0.5 / sigma, beta=0.5 / sigma, shape=15))
            elif way == "t":
                u = pm.StudentT("u", nu=5, mu=0, sigma=sigma, shape=15)
            elif way == "multivariate t":
                u = pm.MvStudentT("u", nu=5, mu=np.zeros(15), scale=sigma**2 * np.eye(15))
            else:
                u = pm.MvNormal("u", mu=np.zeros(15), cov=sigma**2 * np.eye(15))
            eta = eta + u[GROUP]
        pm.Poisson("y", pm.math.exp(eta), observed=y)
    return model


def fitted(model, estimator):
    return hlik.fit(model, estimator, progressbar=False, random_seed=1)


def check(found, exact):
    assert found.fit.attrs["status"].startswith("boundary: ")
    assert "'u' estimated at zero" in found.fit.attrs["status"]
    assert float(found.estimates["sigma"]) < 1e-3
    assert np.isnan(found.standard_errors["sigma"])
    for name in ("beta", "tau"):
        difference = abs(float(found.estimates[name] - exact.estimates[name]))
        # the last Newton step is up to 0.1 standard errors long, in a likelihood of six columns that is not quadratic
        assert difference < 4 * float(found.monte_carlo_errors[name]) + 0.02 * float(exact.standard_errors[name])
    error = float(found.fit["log_likelihood_mcse"])
    assert abs(float(found.fit["log_likelihood"] - exact.fit["log_likelihood"])) < 4 * error + 0.01


@pytest.fixture(scope="module")
def exact():
    return fitted(crossed("without"), hlik.AGQ())


def fast_only(*ways):
    return [way if way in ("centred", "joint", "gamma") else pytest.param(way, marks=pytest.mark.slow) for way in ways]


WAYS = ("centred", "non-centred", "joint", "gamma", "beta", "t", "multivariate t")


@pytest.mark.parametrize("way", fast_only(*WAYS))
def test_zero_variance_beside_another(way, exact):
    with pytest.warns(hlik.ConvergenceWarning, match="'u' estimated at zero"):
        found = fitted(crossed(way), hlik.MCEM(sampler="importance"))
    check(found, exact)
    assert len(found.history["iteration"]) < 25


@pytest.mark.slow
@pytest.mark.parametrize("way", ["centred", "gamma", "multivariate t"])
def test_stochastic_approximation_at_zero(way, exact):
    with pytest.warns(hlik.ConvergenceWarning, match="'u' estimated at zero"):
        check(fitted(crossed(way), hlik.SAEM(sampler="importance")), exact)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [pytest.param("nutpie", marks=needs_nutpie), "pymc", "metropolis"])
@pytest.mark.parametrize("way", ["centred", "non-centred", "gamma", "t"])
def test_zero_variance_by_markov_chains(sampler, way, exact):
    """The chains go on without the term: one more compilation, and no density a thousand times longer than wide."""
    with pytest.warns(hlik.ConvergenceWarning, match="'u' estimated at zero"):
        found = fitted(crossed(way), hlik.MCEM(sampler=sampler))
    check(found, exact)
    assert float(found.em["n_compilations"]) == 2
    assert len(found.history["iteration"]) < 30
    drawn = found.posterior["u"].values
    if way == "centred":  # given the responses it has its density, whose deviation is that of v
        np.testing.assert_allclose(drawn.std(axis=(0, 1)), float(found.estimates["sigma"]), rtol=0.2)


def test_all_variances_at_zero():
    """Nothing is left to draw, and the fit is that of the fixed effects alone."""
    y = np.tile([2, 3, 4, 3, 2, 4], 8)
    with pm.Model() as model:
        mean, sigma = pm.Normal("mean"), pm.HalfNormal("sigma")
        u = pm.Normal("u", 0, sigma, shape=8)
        pm.Poisson("y", pm.math.exp(mean + u[np.repeat(np.arange(8), 6)]), observed=y)
    with pytest.warns(hlik.ConvergenceWarning, match="'u' estimated at zero"):
        found = fitted(model, hlik.MCEM(sampler="pymc", draws=100, tune=20))
    assert found.fit.attrs["status"] == "boundary: sd of 'u' estimated at zero (sigma)"
    np.testing.assert_allclose(found.estimates["mean"], np.log(3), atol=1e-3)
    np.testing.assert_allclose(found.standard_errors["mean"], 1 / 12, rtol=1e-2)


@pytest.mark.parametrize("way", ["centred", "gamma", "beta", "t", "multivariate t"])
def test_slope_at_zero(way):
    """The derivative of the log-likelihood by the dispersion, by quadrature close to zero, against the rule."""
    group = np.repeat(np.arange(6), 4)
    y = np.random.default_rng(1).poisson(np.exp(1 + 0.3 * np.random.default_rng(2).normal(size=6)[group]))
    with pm.Model() as model:
        beta, lam = pm.Normal("beta", 0, 5), pm.HalfNormal("lam", 1)
        if way == "centred":
            u = pm.Normal("u", 0, pm.math.sqrt(lam), shape=6)
        elif way == "gamma":
            u = pm.math.log(pm.Gamma("u", alpha=1 / lam, beta=1 / lam, shape=6))
        elif way == "beta":
            u = pm.math.logit(pm.Beta("u", alpha=0.5 / lam, beta=0.5 / lam, shape=6))
        elif way == "t":
            u = pm.StudentT("u", nu=50, mu=0, sigma=pm.math.sqrt(lam), shape=6)
        else:
            u = pm.MvStudentT("u", nu=50, mu=np.zeros(2), scale=lam * np.eye(2), shape=(3, 2)).ravel()
        pm.Poisson("y", pm.math.exp(beta + u[group]), observed=y)
    likelihood = HLikelihood(read_model(model))
    profile, small = QuadratureProfile(likelihood, 15), 1e-6

    def value(lam):
        return profile.mode(np.array([1.0, np.log(lam)]), np.array([1.0]), likelihood.start_v()).value

    slope = (value(2 * small) - value(small)) / small
    state = EMState(None, likelihood, None, None, np.array([1.0]), np.log([small]), 1)
    state = replace(state, draws=Draws(np.zeros((1, 1, 6))))
    score, _ = _at_zero(state, likelihood.model.random_effects[0])
    # by the curvature at the mode: of a t density that is (nu + k) / nu of what its variance, nu / (nu - 2), would say
    factor = {"t": 51 / 48, "multivariate t": 52 / 48}.get(way, 1.0)
    np.testing.assert_allclose(score * factor / small, slope, rtol=2e-3)  # the second derivative times 1e-6
