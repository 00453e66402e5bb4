"""`hlik.fit(model, "auto")`: what it does, and that it says so."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import hlik
from models import bacteria, sleepstudy
from tests.likelihoods import COUNT, GROUP, GROUPS, X


def test_normal_models_are_fitted_exactly():
    idata = hlik.fit(sleepstudy.build(sleepstudy.load()), "auto", progressbar=False)
    assert idata.fit.attrs["estimator_name"] == "EQL"
    assert idata.fit.attrs["auto"].startswith("EQL, which is restricted maximum likelihood")


def counts():
    with pm.Model() as model:
        beta, sigma = pm.Normal("beta", 0, 1, shape=2), pm.HalfNormal("sigma")
        u = pm.Normal("u", 0, sigma, shape=GROUPS)
        pm.Poisson("y", pt.exp(beta[0] + beta[1] * X + u[GROUP]), observed=COUNT)
    return model


def test_laplace_stays_where_it_is_right():
    idata = hlik.fit(counts(), "auto", random_seed=1, progressbar=False)
    assert idata.fit.attrs["estimator_name"] == "Laplace"
    assert idata.fit.attrs["auto"] == "Laplace first; Laplace is within 0.1 SE of the maximum-likelihood estimates"
    assert "Chosen by estimator='auto': Laplace first; Laplace is within 0.1 SE" in str(hlik.summary(idata))


def test_it_goes_on_to_maximum_likelihood():
    model = bacteria.build(bacteria.load())
    exact = hlik.fit(model, hlik.AGQ(), progressbar=False)
    idata = hlik.fit(model, "auto", random_seed=1, progressbar=False)
    story = idata.fit.attrs["auto"]
    assert story.startswith("Laplace first; slightly off: Laplace's sigma")
    assert "so MCLA, from there" in story
    assert idata.fit.attrs["estimator_name"] == "MCLA"
    error = float(idata.estimates["sigma"] - exact.estimates["sigma"])
    assert abs(error) <= 4 * float(idata.monte_carlo_errors["sigma"]) + 1e-5
    assert np.isfinite(error)


@pytest.mark.slow
def test_it_goes_on_to_em_where_importance_sampling_fails(monkeypatch):
    """Crossed effects in one block of nine, with the limits set so that their weights count as lost."""
    monkeypatch.setattr("hlik.importance_diagnostics.LARGE", 3)
    monkeypatch.setattr("hlik.importance_diagnostics.LOST", 1e9)
    first, second = np.arange(60) % 5, np.arange(60) % 4
    with pm.Model() as model:
        beta, sigma, tau = pm.Normal("beta", 0, 1), pm.HalfNormal("sigma"), pm.HalfNormal("tau")
        u, w = pm.Normal("u", 0, sigma, shape=5), pm.Normal("w", 0, tau, shape=4)
        rng = np.random.default_rng(4)
        eta = 0.5 + 0.7 * rng.normal(size=5)[first] + 0.6 * rng.normal(size=4)[second]
        pm.Poisson("y", pt.exp(beta + u[first] + w[second]), observed=rng.poisson(np.exp(eta)))
    idata = hlik.fit(model, "auto", random_seed=1, progressbar=False)
    story = idata.fit.attrs["auto"]
    assert idata.fit.attrs["estimator_name"] == "MCEM"
    assert story.startswith(
        "Laplace first; importance sampling fails here: the weights of block 0 with 9 random effects"
    )
    assert story.endswith("so MCEM, from there")
    laplace = hlik.fit(model, "laplace", progressbar=False)
    for name in ("beta", "sigma", "tau"):  # some counts an effect: Laplace is within a fraction of a standard error
        gap = abs(float(idata.estimates[name] - laplace.estimates[name]))
        assert gap <= 0.2 * float(laplace.standard_errors[name]) + 4 * float(idata.monte_carlo_errors[name])


@pytest.mark.slow
def test_it_says_why_a_fit_was_not_checked(monkeypatch):
    monkeypatch.setattr("hlik.estimators.mcla.MAX_ROOTS", 1)
    idata = hlik.fit(counts(), "auto", random_seed=1, progressbar=False)
    assert idata.fit.attrs["estimator_name"] == "Laplace"
    assert "not checked: The accuracy of this Laplace fit cannot be checked" in idata.fit.attrs["auto"]
    assert "linked with each other, too many for importance sampling" in idata.fit.attrs["auto"]
