"""Residuals, simulated responses and the tests made of both."""

from __future__ import annotations

import arviz as az
import numpy as np
import pymc as pm
import pytest
from scipy import integrate, special, stats

import hlik
from hlik.inference.cdf import limits, normal_scores

GROUP = np.repeat(np.arange(10), 8)


def model_of(y, family, spread=True):
    with pm.Model() as model:
        beta, s = pm.Normal("beta", 0, 5), pm.HalfNormal("s", 1)
        eta = beta + pm.Normal("u", 0, s, shape=10)[GROUP]
        mean = pm.math.exp(eta)
        if family == "Poisson":
            pm.Poisson("y", mean, observed=y)
        elif family == "NegativeBinomial":
            pm.NegativeBinomial("y", mu=mean, alpha=pm.HalfNormal("alpha", 5), observed=y)
        elif family == "Normal":
            pm.Normal("y", eta, pm.HalfNormal("sigma", 1), observed=y)
        elif family == "Gamma":
            shape = pm.HalfNormal("shape", 5)
            pm.Gamma("y", alpha=shape, beta=shape / mean, observed=y)
        elif family == "Binomial":
            pm.Binomial("y", n=np.full(80, 6), logit_p=eta, observed=y)
        elif family == "Wald":
            pm.Wald("y", mu=mean, lam=pm.HalfNormal("lam", 5), observed=y)
    return model


def data(family, seed=0):
    rng = np.random.default_rng(seed)
    eta = 0.7 + rng.normal(0, 0.5, 10)[GROUP]
    return {
        "Poisson": lambda: rng.poisson(np.exp(eta)),
        "NegativeBinomial": lambda: rng.negative_binomial(2.0, 2 / (2 + np.exp(eta))),
        "Normal": lambda: rng.normal(eta, 0.8),
        "Gamma": lambda: rng.gamma(3.0, np.exp(eta) / 3),
        "Binomial": lambda: rng.binomial(6, special.expit(eta)),
        "Wald": lambda: rng.wald(np.exp(eta), 4.0),
    }[family]()


FAMILIES = ["Poisson", "Normal", "Gamma", "Binomial", "Wald", "NegativeBinomial"]


def fitted(family, seed=0):
    model = model_of(data(family, seed), family)
    return model, hlik.fit(model, "laplace", progressbar=False, draws=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_quantile_residuals_are_the_distribution_function_of_pymc(family):
    """With U = 0 and U = 1 the residuals are the normal quantiles of P(Y < y) and P(Y <= y)."""
    _, idata = fitted(family)
    y, found = data(family), hlik.residuals(idata, "quantile", random_seed=1).values
    eta = float(idata["estimates"]["beta"]) + idata["estimates"]["u"].values[GROUP]
    mean, e = np.exp(eta), {name: float(v) for name, v in idata["estimates"].items() if v.ndim == 0}
    distribution = {
        "Poisson": lambda: pm.Poisson.dist(mean),
        "Normal": lambda: pm.Normal.dist(eta, e["sigma"]),
        "Gamma": lambda: pm.Gamma.dist(alpha=e["shape"], beta=e["shape"] / mean),
        "Binomial": lambda: pm.Binomial.dist(6, logit_p=eta),
        "Wald": lambda: pm.Wald.dist(mu=mean, lam=e["lam"]),
        "NegativeBinomial": lambda: pm.NegativeBinomial.dist(mu=mean, alpha=e["alpha"]),
    }[family]()
    at = np.exp(pm.logcdf(distribution, y).eval())
    if (
        family == "Wald"
    ):  # PyMC 5.28's own function is wrong: at 1.2 for mu = 1.7, lam = 4 it is 0.739, its density's 0.398
        density = np.exp(pm.logp(distribution, (grid := np.linspace(1e-9, 1, 4001))[:, None] * y).eval())
        at = integrate.simpson(density * y, x=grid, axis=0)
    is_count = family in ("Poisson", "Binomial", "NegativeBinomial")
    below = np.exp(pm.logcdf(distribution, y - 1).eval()) if is_count else at
    uniform = np.random.default_rng(1).uniform(size=80)
    np.testing.assert_allclose(found, special.ndtri(below + uniform * (at - below)), atol=1e-6)


@pytest.mark.parametrize("family", ["Poisson", "NegativeBinomial"])
def test_from_netcdf_alone(family, tmp_path):
    _, idata = fitted(family)
    idata.to_netcdf(tmp_path / "fit.nc")
    again = az.from_netcdf(tmp_path / "fit.nc")
    first, second = (hlik.residuals(i, "quantile", random_seed=2) for i in (idata, again))
    np.testing.assert_array_equal(first, second)


def test_other_kinds():
    _, idata = fitted("Binomial")
    y, mu = data("Binomial") / 6, idata["diagnostics"]["y_fitted"].values
    np.testing.assert_allclose(hlik.residuals(idata, "response"), y - mu, rtol=1e-12)
    np.testing.assert_allclose(hlik.residuals(idata, "pearson"), (y - mu) / np.sqrt(mu * (1 - mu) / 6), rtol=1e-10)
    deviance = 12 * (special.xlogy(y, y / mu) + special.xlogy(1 - y, (1 - y) / (1 - mu)))
    np.testing.assert_allclose(hlik.residuals(idata) ** 2, deviance, rtol=1e-8, atol=1e-12)
    leverage = idata["diagnostics"]["y_leverage"].values
    np.testing.assert_allclose(hlik.residuals(idata, "studentised") ** 2, deviance / (1 - leverage), rtol=1e-8)
    _, unknown = fitted("NegativeBinomial")
    mean = np.exp(float(unknown["estimates"]["beta"]) + unknown["estimates"]["u"].values[GROUP])
    np.testing.assert_allclose(hlik.residuals(unknown, "response"), data("NegativeBinomial") - mean, rtol=1e-10)
    with pytest.raises(hlik.ModelError, match="quantile"):
        hlik.residuals(unknown, "deviance")
    with pytest.raises(hlik.ModelError, match="expected one of"):
        hlik.residuals(idata, "raw")


def test_far_tails_keep_their_size():
    """Twenty standard deviations out on both sides, where P(Y <= y) is 1 in double precision."""
    y = np.array([-20.0, 20.0])
    found = normal_scores(limits("normal", y, np.zeros(2), np.ones(2), np.ones(2)), np.full(2, 0.5))
    np.testing.assert_allclose(found, y, rtol=1e-10)
    count = normal_scores(limits("poisson", np.array([80.0]), np.ones(1), np.ones(1), np.ones(1)), np.full(1, 0.5))
    tail = 0.5 * stats.poisson(1).pmf(80) + stats.poisson(1).sf(80)
    assert count[0] == pytest.approx(-special.ndtri(tail), rel=1e-9)


def test_quasi_likelihood_has_no_distribution():
    model = model_of(data("Poisson"), "Poisson")
    idata = hlik.fit(model, hlik.EQL(dispersion="estimate"), progressbar=False, draws=0)
    with pytest.raises(hlik.ModelError, match="quasi-likelihood"):
        hlik.residuals(idata, "quantile")
    with pytest.raises(hlik.ModelError, match="quasi-likelihood"):
        hlik.simulate(model, idata)


@pytest.mark.parametrize("family", ["Poisson", "Gamma", "Binomial"])
def test_simulated_moments(family):
    """Marginal mean by `predict`, within four Monte Carlo errors; effects differ between sets, not within groups."""
    model, idata = fitted(family)
    drawn = hlik.simulate(model, idata, 4000, random_seed=1)["y"].values
    mean = hlik.predict(model, idata, random="marginal", kind="response")["estimate"].iloc[0]
    scale = 6 if family == "Binomial" else 1
    error = drawn.mean(axis=1).std() / np.sqrt(4000)
    assert abs(drawn.mean() - scale * mean) < 4 * error
    groups = drawn.reshape(4000, 10, 8)
    correlation = np.corrcoef(groups[:, 0, 0], groups[:, 0, 1])[0, 1]
    assert correlation > 0.1
    assert abs(np.corrcoef(groups[:, 0, 0], groups[:, 1, 0])[0, 1]) < 4 / np.sqrt(4000)
    conditional = hlik.simulate(model, idata, 2000, random="conditional", random_seed=1)["y"].values
    fitted_mean = scale * idata["diagnostics"]["y_fitted"].values
    assert np.all(np.abs(conditional.mean(axis=0) - fitted_mean) < 5 * conditional.std(axis=0) / np.sqrt(2000))


@pytest.mark.parametrize(("kind", "lam"), [("gamma", 0.6), ("beta", 0.4), ("inverse_gamma", 0.3), ("gamma", 50.0)])
def test_draws_of_effects(kind, lam):
    """Moments of v of 200,000 draws within five Monte Carlo errors of their closed forms."""
    from hlik.inference.averages import variance_of_v
    from hlik.inference.simulate import draw_v
    from hlik.maps import ConstantMap
    from hlik.model import RandomEffect, Variable
    from hlik.random_families import RANDOM_FAMILIES

    size = 200_000
    variable = Variable("u", "u", (size,), ("d",), (size,))
    effect = RandomEffect(variable, slice(0, size), RANDOM_FAMILIES[kind], ConstantMap(np.array([lam]), 0), kind)
    v = draw_v(effect, np.zeros(0), np.random.default_rng(0))
    mean = {"gamma": special.digamma(1 / lam) + np.log(lam), "beta": 0.0, "inverse_gamma": 1 + lam}[kind]
    assert abs(v.mean() - mean) < 5 * v.std() / np.sqrt(size)
    spread = np.std((v - v.mean()) ** 2) / np.sqrt(size)
    assert abs(v.var() - variance_of_v(RANDOM_FAMILIES[kind], np.array(lam))) < 5 * spread


def test_simulation_by_pymc():
    """A family that only PyMC knows: the same moments."""
    model, idata = fitted("NegativeBinomial", 3)
    drawn = hlik.simulate(model, idata, 1000, random="conditional", random_seed=1)["y"].values
    mean = np.exp(float(idata["estimates"]["beta"]) + idata["estimates"]["u"].values[GROUP])
    assert np.all(np.abs(drawn.mean(axis=0) - mean) < 5 * drawn.std(axis=0) / np.sqrt(1000))
    again = hlik.simulate(model, idata, 1000, random="conditional", random_seed=1)["y"].values
    np.testing.assert_array_equal(drawn, again)
    anew = hlik.simulate(model, idata, 1000, random_seed=1)["y"].values
    between = anew.reshape(1000, 10, 8).mean(axis=2).var(axis=0).mean()
    assert between > 1.15 * drawn.reshape(1000, 10, 8).mean(axis=2).var(axis=0).mean()  # effects differ between sets


def test_tests_of_a_true_and_of_a_wrong_model():
    true, wrong = fitted("NegativeBinomial")[1], data("NegativeBinomial")
    model = model_of(wrong, "NegativeBinomial")
    assert (hlik.residual_tests(model, true, random_seed=0)["p_value"] > 0.05).all()
    poisson = model_of(wrong, "Poisson")
    table = hlik.residual_tests(poisson, hlik.fit(poisson, progressbar=False, draws=0), random_seed=0)
    assert table.loc["dispersion", "p_value"] < 0.01
    assert table.loc["dispersion", "statistic"] > 1.3
    assert table.loc["zeros", "p_value"] < 0.05


@pytest.mark.slow
def test_uniform_over_200_sets():
    """Kolmogorov-Smirnov at 5%: at most as many rejections as the level says where the model holds, most where not."""
    rejected = {"Poisson": 0, "NegativeBinomial": 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(10), 30)
        eta = 0.7 + rng.normal(0, 0.5, 10)[group]
        for true in rejected:
            y = rng.poisson(np.exp(eta)) if true == "Poisson" else rng.negative_binomial(2.0, 2 / (2 + np.exp(eta)))
            with pm.Model() as model:
                beta, s = pm.Normal("beta", 0, 5), pm.HalfNormal("s", 1)
                pm.Poisson("y", pm.math.exp(beta + pm.Normal("u", 0, s, shape=10)[group]), observed=y)
            idata = hlik.fit(model, progressbar=False, draws=0)
            scores = hlik.residuals(idata, "quantile", random_seed=rng).values
            rejected[true] += stats.kstest(scores, "norm").pvalue < 0.05
    assert rejected["Poisson"] <= 10 + 4 * np.sqrt(200 * 0.05 * 0.95)
    assert rejected["NegativeBinomial"] > 150
