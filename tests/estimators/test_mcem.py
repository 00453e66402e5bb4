"""Monte Carlo EM against adaptive quadrature, which is exact for one effect a group; starts, ends and results."""

import json

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytest

import hlik
from hlik.batch import Batch
from hlik.blocks import Blocks
from hlik.estimators.agq_profile import QuadratureProfile
from hlik.estimators.mcem_expect import Expected
from hlik.estimators.mcem_louis import following, louis_at
from hlik.graph.read import read_model
from hlik.hlikelihood import HLikelihood
from hlik.samplers.choose import sampler_for

GROUPS, SIZE = 25, 6
FAMILIES = (
    pytest.param("bernoulli", marks=pytest.mark.slow),
    "binomial",
    "poisson",
    "negative binomial",
    "gamma",
    "poisson t",
)


def simulated(family: str, seed: int = 3) -> pm.Model:
    """One covariate, a random intercept, and a shape where the family has one."""
    rng = np.random.default_rng(seed)
    group, x = np.repeat(np.arange(GROUPS), SIZE), rng.normal(size=GROUPS * SIZE)
    eta = 0.4 + 0.5 * x + rng.normal(0, 0.8, GROUPS)[group]
    with pm.Model() as model:
        beta, sigma = pm.Normal("beta", 0, 5, shape=2), pm.HalfNormal("sigma", 1)
        if family == "poisson t":
            u = pm.StudentT("u", nu=6, mu=0, sigma=sigma, shape=GROUPS)
        else:
            u = pm.Normal("u", 0, sigma, shape=GROUPS)
        linear = beta[0] + beta[1] * x + u[group]
        if family == "bernoulli":
            pm.Bernoulli("y", logit_p=linear, observed=rng.binomial(1, 1 / (1 + np.exp(-eta))))
        elif family == "binomial":
            pm.Binomial("y", n=8, logit_p=linear, observed=rng.binomial(8, 1 / (1 + np.exp(-eta))))
        elif family == "negative binomial":
            mu = np.exp(eta)
            alpha = pm.HalfNormal("alpha", 10)
            y = rng.negative_binomial(3.0, 3.0 / (3.0 + mu))
            pm.NegativeBinomial("y", mu=pm.math.exp(linear), alpha=alpha, observed=y)
        elif family == "gamma":
            shape = pm.HalfNormal("shape", 10)
            y = rng.gamma(4.0, np.exp(eta) / 4.0)
            pm.Gamma("y", alpha=shape, beta=shape / pm.math.exp(linear), observed=y)
        else:
            pm.Poisson("y", pm.math.exp(linear), observed=rng.poisson(np.exp(eta)))
    return model


def fitted(model, estimator, **arguments):
    return hlik.fit(model, estimator, progressbar=False, random_seed=1, **arguments)


def parameters(idata):
    """Names of the parameters' value variables in the order of Louis' information."""
    described = json.loads(idata.fit.attrs["model"])["parameters"]
    ordered = sorted(described, key=lambda parameter: parameter["role"] != "fixed effect")
    return [parameter["value_name"] for parameter in ordered]


@pytest.fixture(scope="module")
def poisson():
    model = simulated("poisson")
    return model, fitted(model, hlik.MCEM(sampler="importance"))


@pytest.mark.parametrize("family", FAMILIES)
def test_agrees_with_quadrature(family):
    model = simulated(family)
    exact, found = fitted(model, hlik.AGQ()), fitted(model, hlik.MCEM(sampler="importance"))
    assert found.fit.attrs["status"] == "converged"
    for name in exact.estimates:
        if name not in found.monte_carlo_errors:
            continue  # random effects
        difference = np.abs(found.estimates[name] - exact.estimates[name]).values
        # 4 Monte Carlo errors, and the curvature that one Newton step of up to 0.1 standard errors leaves: 0.01 of one
        allowed = 4 * found.monte_carlo_errors[name].values + 0.01 * exact.standard_errors[name].values
        assert np.all(difference < allowed), name
    own = np.concatenate([np.ravel(found.unconstrained_standard_errors[n]) for n in parameters(found)])
    reference = np.concatenate([np.ravel(exact.unconstrained_standard_errors[n]) for n in parameters(exact)])
    # 4 Monte Carlo errors of the standard errors, known from 16 parts of the draws; 3 % for where they are taken
    assert np.all(np.abs(own - reference) < 4 * found.em["standard_error_mcse"].values + 0.03 * reference)
    error = float(found.fit["log_likelihood_mcse"])
    assert error < 0.05
    assert abs(float(found.fit["log_likelihood"] - exact.fit["log_likelihood"])) < 4 * error + 1e-3


def test_random_effects_are_conditional_means(poisson):
    model, found = poisson
    exact = fitted(model, hlik.AGQ())
    scale = found.standard_errors["u"].values
    # of some 2,000 draws the mean has an error of 2 % of the deviation; AGQ reports modes or means: within 10 %
    assert np.max(np.abs(found.estimates["u"].values - exact.estimates["u"].values) / scale) < 0.15


def test_result_groups(poisson, tmp_path):
    _, found = poisson
    chains, draws = found.posterior["u"].shape[:2]
    assert chains == 8
    assert found.sample_stats["r_hat"].shape == (GROUPS,)
    assert float(found.sample_stats["r_hat"].max()) < 1.05
    assert found.sample_stats["pareto_k"].shape == (chains, draws)
    assert {"objective", "objective_mcse", "delta_Q", "draws", "beta", "sigma_log__"} <= set(found.history)
    found.to_netcdf(tmp_path / "fit.nc")
    again = az.from_netcdf(tmp_path / "fit.nc")
    assert hlik.summary(again).equals(hlik.summary(found))
    assert float(found.em["n_compilations"]) == 0
    axes = az.plot_trace(hlik.history(again), var_names=["beta", "objective"])
    assert axes.shape == (2, 2)
    plt.close("all")
    panels = hlik.plot_em(again)
    assert [ax.get_title() for ax in panels][:-1] == ["beta[0]", "beta[1]", "sigma_log__"]
    assert panels[-1].get_title().startswith("Q, 5")
    for ax, name in zip(panels, ["beta", "beta", "sigma_log__"], strict=False):
        assert len(ax.collections) == 1  # the band
        last = ax.lines[0].get_ydata()[-1]
        assert np.any(np.isclose(last, np.ravel(found.history[name].values[-1])))
    plt.close("all")
    with pytest.raises(hlik.ModelError, match="MCEM or SAEM"):
        hlik.plot_em(fitted(simulated("poisson"), hlik.Laplace()))


def test_posterior_means_are_the_chains(poisson):
    _, found = poisson
    mean = found.posterior["u"].mean(("chain", "draw")).values
    # the estimate adds the last Newton step's move, below 0.1 standard errors of the parameters
    np.testing.assert_allclose(mean, found.estimates["u"].values, atol=0.1)
    assert np.std(found.posterior["u"].values[:, :, 0]) > 0.05


def test_goes_on_from_a_result(poisson, tmp_path):
    model, found = poisson
    found.to_netcdf(tmp_path / "fit.nc")
    again = fitted(model, hlik.MCEM(sampler="importance"), start=az.from_netcdf(tmp_path / "fit.nc"))
    assert again.history["draws"].values[0] >= found.history["draws"].values[-1] / 2
    first = again.history["sigma_log__"].values[0] - found.unconstrained_estimates["sigma_log__"].values
    assert abs(first) < 0.25 * float(found.unconstrained_standard_errors["sigma_log__"])
    assert again.fit.attrs["status"] == "converged"


def test_start_from_another_estimator(poisson):
    model, found = poisson
    again = fitted(model, hlik.MCEM(sampler="importance"), start=fitted(model, hlik.Laplace()))
    difference = np.abs(again.estimates["sigma"] - found.estimates["sigma"])
    assert difference < 6 * found.monte_carlo_errors["sigma"] + 0.01


def test_interruption_returns_the_fit_so_far(monkeypatch, tmp_path):
    calls = []
    step = hlik.MCEM.step

    def interrupted(self, state):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return step(self, state)

    monkeypatch.setattr(hlik.MCEM, "step", interrupted)
    model = simulated("poisson")
    with pytest.warns(hlik.ConvergenceWarning, match="interrupted after 1 steps"):
        found = fitted(model, hlik.MCEM(sampler="importance", initial="none"))
    assert len(found.history["iteration"]) == 1
    assert np.all(np.isfinite(found.standard_errors["beta"]))
    likelihood = HLikelihood(read_model(model))
    psi = np.concatenate([np.ravel(found.unconstrained_estimates[name]) for name in ("beta", "sigma_log__")])
    exact = QuadratureProfile(likelihood, 25).mode(psi, psi[:2], likelihood.start_v()).value
    error = float(found.fit["log_likelihood_mcse"])
    assert abs(float(found.fit["log_likelihood"]) - exact) < 4 * error + 1e-3 < 0.5
    monkeypatch.undo()
    found.to_netcdf(tmp_path / "fit.nc")
    again = fitted(model, hlik.MCEM(sampler="importance"), start=az.from_netcdf(tmp_path / "fit.nc"))
    assert again.fit.attrs["status"] == "converged"
    first = again.history["sigma_log__"].values[0] - found.unconstrained_estimates["sigma_log__"].values
    assert abs(first) < 2 * float(found.unconstrained_standard_errors["sigma_log__"])


def test_rules_and_stochastic_approximation_agree(poisson):
    model, found = poisson
    for estimator in (hlik.MCEM(sampler="importance", rule="mcemGLM"), hlik.SAEM(sampler="importance")):
        other = fitted(model, estimator)
        assert other.fit.attrs["status"] == "converged"
        for name in ("beta", "sigma"):
            error = np.sqrt(other.monte_carlo_errors[name] ** 2 + found.monte_carlo_errors[name] ** 2)
            allowed = 4 * error + 0.02 * found.standard_errors[name]
            assert np.all(np.abs(other.estimates[name] - found.estimates[name]) < allowed)


def test_q_rises_with_every_em_step(poisson):
    _, found = poisson
    rows = found.history.where(found.history["delta_Q_mcse"] > 0, drop=True)
    assert rows.sizes["iteration"] >= 1
    assert np.all(rows["delta_Q"] + 3 * rows["delta_Q_mcse"] > 0)


@pytest.mark.slow
def test_monte_carlo_error_predicts_the_spread(poisson):
    model, _ = poisson
    settings = hlik.MCEM(sampler="importance", mcse=0.2, draws=200)
    fits = [hlik.fit(model, settings, progressbar=False, random_seed=seed, draws=0) for seed in range(20)]
    ratios = []
    for name in ("beta", "sigma"):
        values = np.array([np.atleast_1d(f.estimates[name].values) for f in fits])
        errors = np.array([np.atleast_1d(f.monte_carlo_errors[name].values) for f in fits])
        ratios.append(np.sqrt((errors**2).mean(axis=0)) / values.std(axis=0, ddof=1))
    ratio = np.exp(np.mean(np.log(np.concatenate(ratios))))
    # a deviation of 20 values has an error of 16 %; of three of them, not independent, about 12 %
    assert 0.7 < ratio < 1.4


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("family", ["negative binomial", "poisson t"])
def test_derivatives_of_q_by_differences(family, follow):
    model = read_model(simulated(family))
    likelihood = HLikelihood(model)
    columns = np.random.default_rng(0).normal(size=(model.n_random, 11))
    beta, theta = np.array([0.3, 0.4]), np.linspace(-0.2, 0.7, model.n_theta)
    shift = following(likelihood, columns.mean(axis=1), beta - 0.1, theta) if follow else None
    expected = Expected(likelihood, columns, shift)
    gradient, hessian = expected.derivatives(beta, theta)
    p, psi = beta.size, np.concatenate([beta, theta])
    step = 1e-5

    def q(at):
        return expected.values(at[:p], at[p:]).mean()

    def slope(at):
        return expected.gradient(at[:p], at[p:])

    unit = np.eye(psi.size)
    by_value = [(q(psi + step * e) - q(psi - step * e)) / (2 * step) for e in unit]
    np.testing.assert_allclose(gradient, by_value, rtol=1e-6, atol=1e-6)
    by_slope = np.array([(slope(psi + step * e) - slope(psi - step * e)) / (2 * step) for e in unit])
    np.testing.assert_allclose(hessian, by_slope, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(expected.scores(beta, theta).mean(axis=1), gradient, rtol=1e-10, atol=1e-10)


def test_following_draws_have_the_same_score_and_information():
    """E(dh/dpsi) and Louis' information do not depend on the completion; their errors do, by far for the intercept."""
    rng = np.random.default_rng(7)
    group = np.repeat(np.arange(25), 40)
    with pm.Model() as graph:
        beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma, shape=25)
        rate = np.exp(2 + rng.normal(0, 0.5, 25)[group])
        pm.Poisson("y", pm.math.exp(beta + u[group]), observed=rng.poisson(rate))
    likelihood = HLikelihood(read_model(graph))
    beta, theta = np.array([2.0]), np.log([0.5])
    draws = sampler_for("importance", likelihood, np.zeros((8, 25)), 0).draw(beta, theta, 4096, rng)
    found = louis_at(likelihood, draws, beta, theta, np.ones(2, bool))
    plain = [Expected(likelihood, part) for part in np.array_split(draws.columns, 16, axis=1)]
    blocks = Blocks.of(likelihood)
    own = []
    for part in plain:
        first, second = part.block_moments(beta, theta, blocks.case_sums(), blocks.level_sums())
        own.append(-part.derivatives(beta, theta)[1] - second + first @ first.T)
    error = np.std(own, axis=0, ddof=1) / 4
    assert np.all(np.abs(found.information - np.mean(own, axis=0)) < 4.5 * error + 1e-6)
    assert found.information_mcse[0, 0] < 0.05 * error[0, 0]
    score = Expected(likelihood, draws.columns).scores(beta, theta)
    step = np.linalg.solve(found.information, score.mean(axis=1))
    noise = np.sqrt(np.diag(draws.mean_covariance(np.linalg.solve(found.information, score))))
    assert np.all(np.abs(step - found.step) < 4 * noise)
    # v given y is almost known here: what is left of the error is the third derivative of h
    assert found.mcse[0] < 0.2 * noise[0]


def test_chunks_do_not_matter():
    likelihood = HLikelihood(read_model(simulated("gamma")))
    columns = np.random.default_rng(0).normal(size=(GROUPS, 23))
    whole, parts = Expected(likelihood, columns), Expected(likelihood, columns)
    parts.chunk = 5
    beta, theta = np.array([0.3, 0.4]), np.array([-0.2, 0.7])
    np.testing.assert_allclose(parts.values(beta, theta), whole.values(beta, theta), rtol=1e-12)
    np.testing.assert_allclose(parts.values(beta, theta), Batch.at(likelihood, beta, columns, theta).total())
    for one, other in zip(parts.derivatives(beta, theta), whole.derivatives(beta, theta), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": "gibbs"}, "sampler must be one of"),
        ({"rule": "booth"}, "rule must be one of"),
        ({"draws": 0}, "draws must be a whole number"),
        ({"mcse": 0.0}, "expected mcse > 0"),
        ({"tol": -1.0}, "tol must be positive"),
        ({"initial": "glm"}, "initial must be one of"),
        ({"max_draws": 10}, "max_draws >= draws"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(hlik.ModelError, match=message):
        hlik.MCEM(**arguments)


def test_refusals():
    with pm.Model() as plain:
        beta = pm.Normal("beta", 0, 1)
        pm.Poisson("y", pm.math.exp(beta), observed=[1, 2, 3])
    with pytest.raises(hlik.ModelError, match="no random effects"):
        fitted(plain, hlik.MCEM())
    model = simulated("poisson")
    weights = {"y": np.full(GROUPS * SIZE, 2.0)}
    with pytest.raises(hlik.ModelError, match="prior weights"):
        fitted(model, hlik.MCEM(sampler="pymc"), weights=weights)
    with pytest.raises(hlik.ModelError, match="expected values by name"):
        fitted(model, hlik.MCEM(sampler="importance"), start=az.from_dict({"beta": np.zeros((1, 4))}))


def test_too_few_draws_are_told():
    model = simulated("poisson")
    settings = hlik.MCEM(sampler="importance", draws=64, max_draws=256, mcse=1e-3)
    with pytest.warns(hlik.ConvergenceWarning, match="stopped at max_draws=256: the Monte Carlo errors are up to"):
        fitted(model, settings)


def pairs() -> pm.Model:
    """Two binary answers of each of 15: the log of sigma has a standard error of 2.9."""
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(15), 2)
    y = rng.binomial(1, 1 / (1 + np.exp(-(0.3 + 1.5 * rng.normal(size=15)[group]))))
    with pm.Model() as model:
        u = pm.Normal("u", 0, pm.HalfNormal("sigma", 1), shape=15)
        pm.Bernoulli("y", logit_p=pm.Normal("beta", 0, 5) + u[group], observed=y)
    return model


def test_an_information_that_is_not_positive_definite_is_told():
    settings = hlik.MCEM(sampler="importance", draws=64, max_draws=128)
    with pytest.warns(hlik.ConvergenceWarning, match="not positive definite with 128 draws"):
        found = fitted(pairs(), settings)
    assert "draws would tell whether it is singular: raise max_draws" in found.fit.attrs["status"]
    assert np.isnan(found.standard_errors["sigma"])
    assert np.linalg.eigvalsh(found.em["information"].values)[0] < 0


@pytest.mark.slow
def test_draws_that_an_information_would_need():
    """With that many, the Monte Carlo error of the least eigenvalue is half of what it was found to be."""
    likelihood = HLikelihood(read_model(pairs()))
    sampler, active = sampler_for("importance", likelihood, np.zeros((8, 15)), 0), np.ones(2, bool)
    beta, theta = np.array([0.4]), np.log([0.47])
    ratios = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found = louis_at(likelihood, sampler.draw(beta, theta, 128, rng), beta, theta, active)
        if found.draws_needed is None:
            assert np.all(np.isfinite(found.standard_errors))
            continue
        if found.draws_needed > 3_000 or len(ratios) == 5:  # for the time that it would take
            continue
        least = np.linalg.eigvalsh(found.information)[0]
        draws = sampler.draw(beta, theta, found.draws_needed, rng)
        then = louis_at(likelihood, draws, beta, theta, active)
        scaled = then.information_mcse[1, 1] * np.sqrt(draws.count / found.draws_needed)  # a power of two was drawn
        ratios.append(scaled / abs(least))
    assert len(ratios) == 5
    # errors from 16 parts are known to a fifth, those of 128 draws and of a chosen eigenvalue less well
    assert 0.35 < np.exp(np.mean(np.log(ratios))) < 0.7


def test_prior_weights_with_importance():
    """An observation of weight two counts as two."""
    model, weights = simulated("poisson"), {"y": np.full(GROUPS * SIZE, 2.0)}
    exact = fitted(model, hlik.AGQ(), weights=weights)
    found = fitted(model, hlik.MCEM(sampler="importance"), weights=weights)
    difference = np.abs(found.estimates["sigma"] - exact.estimates["sigma"])
    assert difference < 4 * found.monte_carlo_errors["sigma"] + 0.01 * exact.standard_errors["sigma"]
