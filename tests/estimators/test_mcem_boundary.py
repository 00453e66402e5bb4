"""A variance that Monte Carlo EM estimates at zero: the fit without that term, in few steps."""

from importlib.util import find_spec

import numpy as np
import pymc as pm
import pytest

import hlik

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


@pytest.mark.parametrize("way", ["centred", "non-centred", "joint"])
def test_zero_variance_beside_another(way, exact):
    with pytest.warns(hlik.ConvergenceWarning, match="'u' estimated at zero"):
        found = fitted(crossed(way), hlik.MCEM(sampler="importance"))
    check(found, exact)
    assert len(found.history["iteration"]) < 25


@pytest.mark.slow
def test_stochastic_approximation_at_zero(exact):
    with pytest.warns(hlik.ConvergenceWarning, match="'u' estimated at zero"):
        check(fitted(crossed("centred"), hlik.SAEM(sampler="importance")), exact)


@pytest.mark.slow
@needs_nutpie
def test_zero_variance_by_nutpie(exact):
    with pytest.warns(hlik.ConvergenceWarning, match="'u' estimated at zero"):
        check(fitted(crossed("centred"), hlik.MCEM(sampler="nutpie")), exact)
