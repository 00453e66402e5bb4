"""Parametric bootstrap: the same numbers on any executor and after interruptions, and against theory."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import arviz as az
import numpy as np
import pymc as pm
import pytest
from scipy import stats

import hlik
from hlik.inference import bootstrap as module
from hlik.inference.bootstrap import bootstrap
from tests.inference.test_intervals import fit

GROUP = np.repeat(np.arange(6), 4)


def balanced():
    rng = np.random.default_rng(2)
    with pm.Model() as model:
        mean, sigma = pm.Normal("mean", 0, 10), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=6)
        pm.Normal("y", mean + u[GROUP], sigma, observed=3 * rng.normal(size=6)[GROUP] + rng.normal(size=24))
    return model


def counts(y=None):
    rng = np.random.default_rng(1)
    if y is None:
        y = rng.poisson(np.exp(2 + np.linspace(-2, 2, 6)[GROUP]) * rng.gamma(0.6, 1 / 0.6, 24))
    with pm.Model() as model:
        beta, alpha = pm.Normal("beta", 0, 1), pm.HalfNormal("alpha", 1)
        u = pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=6)
        pm.NegativeBinomial("y", mu=pm.math.exp(beta + u[GROUP]), alpha=alpha, observed=y)
    return model


@pytest.fixture(scope="module")
def fitted():
    model = balanced()
    idata = fit(model)
    return model, idata, bootstrap(model, idata, n=14, random_seed=7, progressbar=False)


def test_any_executor_gives_the_same_numbers(fitted):
    model, idata, one = fitted
    with ThreadPoolExecutor(2) as executor:
        other = bootstrap(model, idata, n=14, random_seed=7, executor=executor, progressbar=False)
    assert other["bootstrap"].equals(one["bootstrap"])


@pytest.mark.slow
@pytest.mark.parametrize("build", [balanced, counts])
def test_processes_give_the_same_numbers(build):
    """Models of known families travel as numbers, others as PyMC models."""
    model = build()
    idata = fit(model)
    here = bootstrap(model, idata, n=20, random_seed=7, progressbar=False)
    with ProcessPoolExecutor(2) as executor:
        there = bootstrap(model, idata, n=20, random_seed=7, executor=executor, progressbar=False)
    assert here["bootstrap"].equals(there["bootstrap"])


def test_carried_on_it_is_the_same(fitted, tmp_path):
    """From an incomplete block, and through a file."""
    model, idata, whole = fitted
    part = bootstrap(model, idata, n=7, random_seed=7, progressbar=False)
    part.to_netcdf(tmp_path / "part.nc")
    again = bootstrap(model, idata, n=14, resume=az.from_netcdf(tmp_path / "part.nc"), progressbar=False)
    assert again["bootstrap"].equals(whole["bootstrap"])
    shorter = bootstrap(model, idata, n=7, resume=whole, progressbar=False)
    assert shorter["bootstrap"].equals(part["bootstrap"])


def test_interruption_returns_what_is_there(fitted, monkeypatch):
    model, idata, whole = fitted
    calls = []

    def interrupted(task, responses):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(1)
        return module_refit(task, responses)

    module_refit = module.refit
    monkeypatch.setattr(module, "refit", interrupted)
    with pytest.warns(hlik.DataWarning, match="interrupted after 10 of 14"):
        part = bootstrap(model, idata, n=14, random_seed=7, progressbar=False)
    monkeypatch.undo()
    assert part["bootstrap"].sizes["replicate"] == 10
    done = bootstrap(model, idata, n=14, resume=part, progressbar=False)
    assert done["bootstrap"].equals(whole["bootstrap"])


@pytest.mark.slow
def test_distribution_in_a_balanced_design():
    """ML of a balanced one-way layout in closed form: SSW/sigma^2 is chi2(18), the mean normal (400 replicates)."""
    model = balanced()
    idata = fit(model)
    boot = bootstrap(model, idata, n=400, random_seed=11, progressbar=False)["bootstrap"]
    sigma, sigma_u = float(idata.estimates.sigma), float(idata.estimates.sigma_u)
    inside = boot.sigma_u.values > 0.05  # else sigma is the total standard deviation
    assert inside.mean() > 0.98
    within = 18 * (boot.sigma.values[inside] / sigma) ** 2
    assert stats.kstest(within, stats.chi2(18).cdf).pvalue > 1e-3
    error = np.sqrt(sigma_u**2 / 6 + sigma**2 / 24)
    assert stats.kstest((boot["mean"].values - float(idata.estimates["mean"])) / error, "norm").pvalue > 1e-3


def test_intervals(fitted):
    _, idata, boot = fitted
    own = boot["bootstrap"].sigma_log__.values
    low, high = np.quantile(own, [0.05, 0.95])
    centre = float(idata.unconstrained_estimates.sigma_log__)
    percentile = hlik.confint(boot, method="percentile", level=0.9).loc["sigma"]
    basic = hlik.confint(boot, method="basic", level=0.9).loc["sigma"]
    np.testing.assert_allclose([percentile.lower, percentile.upper], np.exp([low, high]))
    np.testing.assert_allclose([basic.lower, basic.upper], np.exp([2 * centre - high, 2 * centre - low]))
    np.testing.assert_allclose(boot["bootstrap"].sigma, np.exp(own))


@pytest.mark.filterwarnings("ignore::hlik.ConvergenceWarning")
def test_replicates_are_fits():
    """The first replicate of a lifted model is what hlik.fit makes of the same responses."""
    model = counts()
    idata = fit(model)
    boot = bootstrap(model, idata, n=1, random_seed=5, progressbar=False)["bootstrap"]
    rng = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(0,)))
    y = hlik.simulate(model, idata, module.BLOCK, random_seed=rng)["y"].values[0]
    fresh = fit(counts(y.astype(int)))
    np.testing.assert_allclose(boot.alpha[0], fresh.estimates.alpha, rtol=1e-4)
    np.testing.assert_allclose(boot.beta[0], fresh.estimates.beta, atol=1e-4)


def test_what_is_refused(fitted):
    model, idata, boot = fitted
    with pytest.raises(hlik.ModelError, match="whole number, 1 or more"):
        bootstrap(model, idata, n=0)
    with pytest.raises(hlik.ModelError, match=r"takes what hlik\.bootstrap returned"):
        bootstrap(model, idata, resume=idata)
    with pytest.raises(hlik.ModelError, match="random_seed=7"):
        bootstrap(model, idata, resume=boot, random_seed=8)
    with pytest.raises(hlik.ModelError, match="executor must be"):
        bootstrap(model, idata, executor=4)
