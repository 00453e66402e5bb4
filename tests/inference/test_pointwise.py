"""Pointwise log-likelihoods against PyMC and quadrature; starts for pm.sample."""

from __future__ import annotations

import arviz as az
import numpy as np
import pymc as pm
import pytest
from scipy import integrate, special

import hlik

GROUP = np.repeat(np.arange(8), 6)
RNG = np.random.default_rng(6)
X = RNG.normal(size=48)
Y = RNG.poisson(np.exp(0.8 + 0.5 * X + RNG.normal(0, 0.6, 8)[GROUP]))


def build(effect="centred", y=Y):
    with pm.Model(coords={"g": list("abcdefgh")}) as model:
        beta, s = pm.Normal("beta", 0, 5, shape=2), pm.HalfNormal("s", 1)
        u = pm.Normal("u", 0, s, dims="g") if effect == "centred" else s * pm.Normal("u", 0, 1, dims="g")
        pm.Poisson("y", pm.math.exp(beta[0] + beta[1] * X + u[GROUP]), observed=y)
    return model


@pytest.fixture(scope="module")
def fitted():
    model = build()
    return model, hlik.fit(model, "laplace", draws=200, random_seed=1, progressbar=False)


@pytest.mark.parametrize("effect", ["centred", "non-centred"])
def test_conditional_is_what_pymc_computes(effect):
    model = build(effect)
    idata = hlik.fit(model, "laplace", draws=20, random_seed=1, progressbar=False)
    found = hlik.pointwise_log_likelihood(model, idata)["log_likelihood"]["y"]
    with model:
        expected = pm.compute_log_likelihood(az.InferenceData(posterior=idata["posterior"]), progressbar=False)
    np.testing.assert_allclose(found, expected["log_likelihood"]["y"], rtol=1e-9)


def test_marginal_by_quadrature(fitted):
    """Each group's integral at each of three draws, by SciPy's adaptive quadrature."""
    model, idata = fitted
    few = az.InferenceData(posterior=idata["posterior"].isel(chain=[0], draw=slice(0, 3)))
    found = hlik.pointwise_log_likelihood(model, idata, "marginal", posterior=few, points=25)
    found = found["log_likelihood"]["marginal"]
    assert list(found["group"].values[:2]) == ["u[a]", "u[b]"]
    for draw in range(3):
        beta, s = (few["posterior"][name].values[0, draw] for name in ("beta", "s"))
        for g in range(8):
            rows = GROUP == g

            def density(v, rows=rows, beta=beta, s=s):
                eta = beta[0] + beta[1] * X[rows] + v
                normal = -0.5 * (v / s) ** 2 - np.log(s * np.sqrt(2 * np.pi))
                return np.exp(np.sum(Y[rows] * eta - np.exp(eta) - special.gammaln(Y[rows] + 1)) + normal)

            exact = np.log(integrate.quad(density, -8 * s - 1, 8 * s + 1, epsabs=0, epsrel=1e-10)[0])
            assert found.values[0, draw, g] == pytest.approx(exact, abs=1e-8)
    laplace = hlik.pointwise_log_likelihood(model, idata, "marginal", posterior=few, points=1)
    np.testing.assert_allclose(laplace["log_likelihood"]["marginal"], found, atol=0.02)  # counts near 2


@pytest.mark.filterwarnings("ignore")  # of ArviZ: eight groups of which each matters, and pandas 4
def test_loo_and_compare(fitted):
    """A model without the covariate is worse by leave-one-group-out."""
    model, idata = fitted
    with pm.Model() as smaller:
        beta, s = pm.Normal("beta", 0, 5), pm.HalfNormal("s", 1)
        pm.Poisson("y", pm.math.exp(beta + pm.Normal("u", 0, s, shape=8)[GROUP]), observed=Y)
    other = hlik.fit(smaller, "laplace", draws=200, random_seed=1, progressbar=False)
    both = {
        "with": hlik.pointwise_log_likelihood(model, idata, "marginal"),
        "without": hlik.pointwise_log_likelihood(smaller, other, "marginal"),
    }
    loo = az.loo(both["with"], var_name="marginal")
    assert loo.n_data_points == 8
    table = az.compare(both, var_name="marginal")
    assert list(table.index) == ["with", "without"]
    assert loo.elpd_loo < float(idata["fit"]["p_v_h"])  # leaving out costs about a unit a parameter


def test_crossed_effects_are_one_group():
    with pm.Model() as model:
        s = pm.HalfNormal("s", 1)
        u, w = pm.Normal("u", 0, s, shape=8), pm.Normal("w", 0, s, shape=6)
        pm.Poisson("y", pm.math.exp(pm.Normal("b") + u[GROUP] + w[np.tile(np.arange(6), 8)]), observed=Y)
    idata = hlik.fit(model, "laplace", draws=8, progressbar=False)
    with pytest.raises(hlik.ModelError, match="one group"):
        hlik.pointwise_log_likelihood(model, idata, "marginal")
    with pytest.raises(hlik.ModelError, match="no draws"):
        hlik.pointwise_log_likelihood(model, hlik.fit(model, "laplace", draws=0, progressbar=False))


def test_warm_start(fitted):
    """Chains start at different draws, the mass matrix at the variances of the fit; a short run reaches the mode."""
    model, idata = fitted
    start = hlik.warm_start(idata, model, chains=2, random_seed=1)
    first, second = start["initvals"]
    assert set(first) == {"beta", "s", "u"}
    assert not np.array_equal(first["u"], second["u"])
    variance = np.concatenate(
        [np.ravel(idata["unconstrained_standard_errors"][v.name].values) ** 2 for v in model.value_vars]
    )
    np.testing.assert_allclose(start["step"].potential._var, variance, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_sampling_from_a_warm_start(fitted):
    model, idata = fitted
    start = hlik.warm_start(idata, model, chains=2, random_seed=1)
    posterior = pm.sample(model=model, tune=200, draws=400, cores=1, random_seed=1, progressbar=False, **start)
    table = az.summary(posterior, var_names=["beta", "s"])
    assert (table["r_hat"] < 1.05).all()
    assert np.all(np.abs(table["mean"][:2] - idata["estimates"]["beta"].values) < 3 * table["sd"][:2])


def test_warm_start_errors(fitted):
    model, idata = fitted
    with pytest.raises(hlik.ModelError, match="chains must lie"):
        hlik.warm_start(idata, chains=4000)
    with model.copy() as larger:
        pm.Normal("extra")
    with pytest.raises(hlik.ModelError, match="extra"):
        hlik.warm_start(idata, larger)
