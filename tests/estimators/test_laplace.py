"""Laplace: published and R's results, dense algebra, boundaries, arguments, and what the result holds."""

from functools import cache

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import optimize, stats

import hlik
from hlik.estimators.base import RUNNING
from hlik.graph.read import read_model
from models import sleepstudy
from tests import reference_models
from tests.likelihoods import COUNT, GROUP, GROUPS, KINDS, REAL, X

ML, REML = hlik.Laplace(), hlik.Laplace(reml=True)


def fit(model, estimator=ML, **arguments):
    return hlik.fit(model, estimator, progressbar=False, **{"draws": 0, **arguments})


def salamander(shared):
    frame = pd.read_csv(shared / "data" / "salamander_mcemGLM.csv")
    cross = pd.factorize(frame.Cross, sort=True)[0]
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 10, shape=4)
        female = pm.Normal("female", 0, pm.HalfNormal("sigma_f", 1), shape=60)
        male = pm.Normal("male", 0, pm.HalfNormal("sigma_m", 1), shape=60)
        eta = beta[cross] + female[frame.Female.to_numpy() - 1] + male[frame.Male.to_numpy() - 1]
        pm.Bernoulli("mate", logit_p=eta, observed=frame.Mate.to_numpy())
    return model


def epilepsy(shared, effect):
    frame = pd.read_csv(shared / "data" / "epilepsy.csv")
    columns = [np.ones(len(frame)), frame.base, frame.group, frame.age, frame.visit, frame.base * frame.group]
    design, subject = np.column_stack(columns), pd.factorize(frame.id)[0]
    with pm.Model() as model:
        beta, alpha = pm.Normal("beta", 0, 10, shape=6), pm.Exponential("alpha", 0.1)
        u = effect(pm.HalfNormal("sigma", 1))
        mu = pt.exp(design @ beta + u[subject])
        pm.NegativeBinomial("y", mu=mu, alpha=alpha, observed=frame["count"].to_numpy())
    return model


# ---------------------------------------------------------------- against R


@pytest.fixture(scope="module")
def salamander_fit(shared):
    return fit(salamander(shared))


def test_salamander_ml(salamander_fit):
    """lme4 stops at a gradient that leaves 5e-5 in the estimates: ours may differ by that, and must not be lower."""
    idata = salamander_fit
    assert idata.fit.attrs["status"] == "converged"
    np.testing.assert_allclose(idata.estimates.beta, [1.00821, 0.30618, -1.89596, 0.99040], atol=5e-5)
    np.testing.assert_allclose(idata.estimates.sigma_f, 1.08367, atol=5e-5)
    np.testing.assert_allclose(idata.estimates.sigma_m, 1.02028, atol=5e-5)
    np.testing.assert_allclose(idata.fit.log_likelihood, -209.27659, atol=1e-4)
    assert float(idata.fit.log_likelihood) >= -209.27659


def test_salamander_reml(shared):
    idata = fit(salamander(shared), REML)
    np.testing.assert_allclose(idata.estimates.sigma_f, 1.13064, atol=5e-5)
    np.testing.assert_allclose(idata.estimates.sigma_m, 1.06346, atol=5e-5)
    assert idata.fit.attrs["likelihood"] == "p_bv_h"


def assert_agrees_with_reference(idata, record, sd, extra=None):
    """Coefficients, their standard errors, the sd with its own, and the log-likelihood of glmmTMB (exact gradients)."""
    table = np.array(record["cond"]["values"])
    np.testing.assert_allclose(idata.estimates.beta, table[:, 0], rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(idata.standard_errors.beta, table[:, 1], rtol=1e-4)
    log_sd = record["par"]["theta"]
    np.testing.assert_allclose(np.log(idata.estimates[sd]), log_sd, atol=2e-5)
    se = idata.unconstrained_standard_errors[f"{sd}_log__"]
    np.testing.assert_allclose(se, record["sdr_se"][-1], rtol=1e-4)
    np.testing.assert_allclose(idata.fit.log_likelihood, record["logLik"], atol=1e-6)
    if extra:
        np.testing.assert_allclose(idata.estimates[extra], record["sigma"], rtol=2e-5)
        np.testing.assert_allclose(
            idata.unconstrained_standard_errors[f"{extra}_log__"], record["sdr_se"][-2], rtol=1e-4
        )


def test_bacteria(shared, reference):
    assert_agrees_with_reference(
        fit(reference_models.bacteria(shared / "data")),
        reference("truth/bacteria_laplace_aghq")["glmmTMB_laplace"],
        "sigma_u",
    )


def test_seeds(shared, reference):
    idata = fit(reference_models.seeds("normal")(shared / "data"))
    record = reference("truth/seeds_laplace_aghq")["glmmTMB_laplace"]
    assert_agrees_with_reference(idata, record, "sigma_u")
    np.testing.assert_allclose(idata.estimates.u, record["ranef"]["plate"]["(Intercept)"], atol=1e-5)


def test_lip_cancer(shared, reference):
    """lme4 stopped 5e-4 from the maximum: its log-likelihood is lower than ours."""
    idata = fit(reference_models.lip_cancer(shared / "data"))
    record = reference("truth/lipcancer_iid_laplace")["glmer_laplace"]
    np.testing.assert_allclose(idata.estimates.beta, list(record["fixef"].values()), atol=1e-3)
    np.testing.assert_allclose(idata.estimates.sigma_u, record["varcorr"]["district"]["sd"]["(Intercept)"], atol=1e-3)
    np.testing.assert_allclose(idata.fit.log_likelihood, record["logLik"], atol=2e-3)
    assert float(idata.fit.log_likelihood) >= record["logLik"] - 1e-9


def test_epilepsy_negative_binomial(shared, reference):
    """A likelihood without closed form: coefficients, shape, standard errors, log-likelihood, modes."""
    idata = fit(epilepsy(shared, lambda s: pm.Normal("u", 0, s, shape=59)))
    record = reference("truth/epilepsy_negbin_laplace")["glmmTMB_laplace"]
    assert_agrees_with_reference(idata, record, "sigma", "alpha")
    np.testing.assert_allclose(idata.estimates.u, record["ranef"]["id"]["(Intercept)"], atol=2e-5)


def test_epilepsy_t_effects(shared):
    """Independent t effects with ten degrees of freedom: 0.185115 by Monte Carlo EM, Laplace within its bias."""
    idata = fit(epilepsy(shared, lambda s: pm.StudentT("u", nu=10, sigma=s, shape=59)))
    assert idata.fit.attrs["status"] == "converged"
    np.testing.assert_allclose(float(idata.estimates.sigma) ** 2, 0.185115, rtol=0.05)


def test_sleepstudy_with_independent_slopes():
    """lme4's (1 | Subject) + (0 + Days | Subject): REML criterion 1743.669, sd 25.051, 5.988, 25.565."""
    idata = fit(sleepstudy.build(sleepstudy.load()), REML)
    np.testing.assert_allclose(-2 * idata.fit.log_likelihood, 1743.669, atol=1e-3)
    found = [float(idata.estimates[name]) for name in ("sigma_intercept", "sigma_slope", "sigma")]
    np.testing.assert_allclose(found, [25.051, 5.988, 25.565], atol=2e-3)
    np.testing.assert_allclose(idata.estimates.beta, [251.405, 10.467], atol=1e-3)


# ---------------------------------------------------------------- against dense algebra


def gaussian(y=REAL):
    with pm.Model() as model:
        beta, sigma = pm.Normal("beta", 0, 1, shape=2), pm.HalfNormal("sigma")
        u = pm.Normal("u", 0, pm.HalfNormal("sigma_u"), shape=GROUPS)
        pm.Deterministic("icc", model["sigma_u"] ** 2 / (model["sigma_u"] ** 2 + sigma**2))
        pm.Deterministic("mixed", beta[0] * sigma)
        pm.Normal("y", beta[0] + beta[1] * X + u[GROUP], sigma, observed=y)
    return model


CLEAR = REAL + np.random.default_rng(8).normal(size=GROUPS)[GROUP]
DESIGN, INCIDENCE = np.column_stack([np.ones(X.size), X]), np.eye(GROUPS)[GROUP]


def dense(log_sds, reml, y=CLEAR):
    """(log-likelihood, beta, its covariance) of the Gaussian model, profiled over beta."""
    sigma_u, sigma = np.exp(log_sds)
    V = sigma_u**2 * INCIDENCE @ INCIDENCE.T + sigma**2 * np.eye(X.size)
    inner = DESIGN.T @ np.linalg.solve(V, DESIGN)
    beta = np.linalg.solve(inner, DESIGN.T @ np.linalg.solve(V, y))
    value = stats.multivariate_normal(DESIGN @ beta, V).logpdf(y)
    correction = 0.5 * np.linalg.slogdet(inner / (2 * np.pi))[1] if reml else 0.0
    return value - correction, beta, np.linalg.inv(inner)


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_gaussian_equals_dense_algebra(reml):
    idata = fit(gaussian(CLEAR), hlik.Laplace(reml=reml))
    at = np.log([float(idata.estimates.sigma_u), float(idata.estimates.sigma)])
    value, beta, covariance = dense(at, reml)
    np.testing.assert_allclose(idata.fit.log_likelihood, value, rtol=1e-10)
    np.testing.assert_allclose(idata.estimates.beta, beta, rtol=1e-7)
    # ML's Hessian has the observed derivatives across beta and theta as well, which are zero on average only.
    if reml:  # beta moves with the dispersions
        names = ["sigma_u_log__", "sigma_log__"]
        spread = idata.fit.covariance_matrix.sel(parameter=names, parameter_2=names).values
        moves = 1e-4 * np.eye(2)
        slopes = np.column_stack([(dense(at + m, reml)[1] - dense(at - m, reml)[1]) / 2e-4 for m in moves])
        covariance = covariance + slopes @ spread @ slopes.T
    np.testing.assert_allclose(idata.standard_errors.beta, np.sqrt(np.diag(covariance)), rtol=1e-6 if reml else 0.05)
    best = optimize.minimize(
        lambda t: -dense(t, reml)[0], at + 0.01, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12}
    )
    np.testing.assert_allclose(idata.fit.log_likelihood, -best.fun, rtol=1e-10)
    np.testing.assert_allclose(at, best.x, atol=1e-5)


# ---------------------------------------------------------------- covariance of beta and theta


@cache
def curved():
    """A fit in which intercept and shape are correlated: the growth curve's kind of model."""
    return fit(KINDS["weibull"].build(), draws=4000, random_seed=1)


def test_covariance_of_beta_and_theta_is_reported():
    covariance = curved().fit.covariance_matrix
    assert np.abs(covariance.values[:2, 2:]).max() > 1e-4
    np.testing.assert_allclose(covariance.values, covariance.values.T, atol=1e-12)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)[:2]), curved().standard_errors.beta, rtol=1e-8)


def test_draws_have_the_reported_covariance():
    posterior = curved().posterior
    draws = np.column_stack([*posterior.beta.values.reshape(-1, 2).T, np.log(posterior.alpha.values.ravel())])
    labels = list(curved().fit.parameter.values)
    place = [labels.index("beta[0]"), labels.index("beta[1]"), labels.index("alpha_log__")]
    expected = curved().fit.covariance_matrix.values[np.ix_(place, place)]
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(np.cov(draws.T) / scale, expected / scale, atol=0.08)  # five standard errors of 4,000


def test_error_of_a_quantity_of_both_uses_their_covariance():
    """d(beta_0 sigma) = sigma d beta_0 + beta_0 sigma d log sigma."""
    idata = fit(gaussian(CLEAR))
    labels = list(idata.fit.parameter.values)
    place = [labels.index("beta[0]"), labels.index("sigma_log__")]
    covariance = idata.fit.covariance_matrix.values[np.ix_(place, place)]
    beta, sigma = float(idata.estimates.beta[0]), float(idata.estimates.sigma)
    slope = np.array([sigma, beta * sigma])
    np.testing.assert_allclose(idata.standard_errors.mixed, np.sqrt(slope @ covariance @ slope), rtol=1e-7)
    assert float(idata.standard_errors.icc) > 0


# ---------------------------------------------------------------- convergence


@pytest.mark.parametrize("name", KINDS)
def test_a_few_dozen_evaluations_and_no_gradient_left(name):
    """Every kind of likelihood: converged or at a boundary, in at most forty iterations."""
    read = read_model(KINDS[name].build())
    state = ML.prepare(read, {}, np.random.default_rng(0))
    for _ in range(40):
        state, _ = ML.step(state)
        if ML.status(state) != RUNNING:
            break
    status = ML.status(state)
    assert status == "converged" or status.startswith(("boundary: ", "stopped: the likelihood is flat in")), status
    if status == "converged":
        hessian_step = np.linalg.solve(state.hessian, state.objective.gradient(state.psi))
        assert np.sqrt(state.objective.gradient(state.psi) @ hessian_step) < 1e-3


def test_a_flat_direction_is_told():
    """An intercept beside free cutpoints: only their difference is known."""
    with pytest.warns(hlik.ConvergenceWarning, match="likelihood is flat in '(cut|beta)'"):
        fit(KINDS["ordered_logistic"].build())


def test_variance_at_zero_is_told():
    """Counts less spread than Poisson's: no group effects."""
    with pm.Model() as model:
        beta = pm.Normal("beta")
        u = pm.Normal("u", 0, pm.HalfNormal("sigma"), shape=GROUPS)
        pm.Poisson("y", pt.exp(beta + u[GROUP]), observed=np.tile([2, 3, 3, 2, 3], GROUPS))
    with pytest.warns(hlik.ConvergenceWarning, match="sd of 'u' estimated at zero"):
        idata = fit(model)
    assert idata.fit.attrs["status"] == "boundary: sd of 'u' estimated at zero (sigma)"
    assert float(idata.estimates.sigma) < 1e-2
    assert np.isnan(idata.standard_errors.sigma)
    np.testing.assert_allclose(idata.standard_errors.beta, 1 / np.sqrt(2.6 * 60), rtol=1e-3)


# ---------------------------------------------------------------- arguments


def negative_binomial():
    return KINDS["negative_binomial"].build()


def test_start_does_not_move_the_estimate():
    with pm.Model() as model:
        beta = pm.Normal("beta", shape=2)
        u = pm.Normal("u", 0, pm.HalfNormal("sigma"), shape=GROUPS)
        pm.Poisson("y", pt.exp(beta[0] + beta[1] * X + u[GROUP]), observed=COUNT + 3 * (GROUP % 3))
    one = fit(model)
    other = fit(model, start={"beta": [0.5, 0.3], "sigma": 2.0})
    np.testing.assert_allclose(one.estimates.beta, other.estimates.beta, atol=1e-6)
    np.testing.assert_allclose(one.fit.log_likelihood, other.fit.log_likelihood, rtol=1e-10)


def test_fixed_parameters_stay():
    idata = fit(gaussian(CLEAR), fixed={"sigma": 1.3})
    assert "sigma" not in idata.estimates or float(idata.estimates.sigma) == 1.3
    best = optimize.minimize_scalar(lambda t: -dense([t, np.log(1.3)], False)[0])
    np.testing.assert_allclose(idata.fit.log_likelihood, -best.fun, rtol=1e-9)


def test_max_iterations_is_told(shared):
    with pytest.warns(hlik.ConvergenceWarning, match="max_iterations=1"):
        fit(salamander(shared), hlik.Laplace(max_iterations=1))


@pytest.mark.parametrize("bad", [{"tol": 0.0}, {"max_iterations": 0}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(hlik.ModelError, match="tol and max_iterations must be positive"):
        hlik.Laplace(**bad)


def test_random_seed_repeats_the_draws():
    first, second = (fit(gaussian(CLEAR), draws=40, random_seed=5).posterior for _ in range(2))
    assert first.equals(second)


def test_the_lower_case_name():
    np.testing.assert_allclose(
        fit(gaussian(CLEAR), "laplace").fit.log_likelihood, fit(gaussian(CLEAR)).fit.log_likelihood
    )


# ---------------------------------------------------------------- what the result holds


def test_result_survives_netcdf_and_makes_tables(tmp_path):
    idata = fit(KINDS["student_t"].build(), draws=100, random_seed=2)
    idata.to_netcdf(tmp_path / "fit.nc")
    again = az.from_netcdf(tmp_path / "fit.nc")
    for name in ("estimates", "standard_errors", "fit", "posterior"):
        assert idata[name].equals(again[name]), name
    table = hlik.summary(again)
    assert {"beta[0]", "beta[1]"} <= set(table.index)
    assert len(hlik.ranef(again)) >= 1
    assert hlik.history(again).posterior.sizes["draw"] == again.fit.attrs["n_iterations"]


def test_inspect_says_which_estimators_apply():
    estimators = hlik.inspect(negative_binomial()).estimators
    assert estimators["Laplace"] == []
    assert estimators["EQL"]

    with pm.Model() as model:
        u = pm.Normal("u", 0, pm.HalfNormal("sigma"), shape=GROUPS)
        matrix = pt.eye(GROUPS) + u[:, None] * u[None, :]
        pm.Normal("y", pt.linalg.solve(matrix, u)[GROUP], 1.0, observed=REAL)
    (reason,) = hlik.inspect(model).estimators["Laplace"]
    assert "'y'" in reason and "Solve" in reason and "EQL" not in reason


def test_a_potential_counts():
    """A potential that is a normal density of the fixed effect: a penalty with known effect on the maximum."""

    def build(potential):
        with pm.Model() as model:
            beta = pm.Normal("beta", shape=2)
            u = pm.Normal("u", 0, pm.HalfNormal("sigma_u"), shape=GROUPS)
            if potential:
                pm.Potential("pull", -0.5 * ((beta[1] - 1.0) / 0.1) ** 2)
            pm.Normal("y", beta[0] + beta[1] * X + u[GROUP], 1.0, observed=CLEAR)
        return model

    free, pulled = fit(build(False)), fit(build(True))
    precision = 1 / float(free.standard_errors.beta[1]) ** 2
    expected = (precision * float(free.estimates.beta[1]) + 100) / (precision + 100)
    np.testing.assert_allclose(pulled.estimates.beta[1], expected, atol=0.02)  # the other parameters move a little
    assert float(pulled.fit.log_likelihood) < float(free.fit.log_likelihood)
    assert any("pull" in reason for reason in hlik.inspect(build(True)).estimators["EQL"])


@pytest.mark.filterwarnings("ignore:Data in y contains missing values:UserWarning")
def test_masked_responses_are_left_out():
    kept = np.arange(X.size) % 7 != 0

    def build(y, x, group):
        with pm.Model() as model:
            beta = pm.Normal("beta", shape=2)
            u = pm.Normal("u", 0, pm.HalfNormal("sigma"), shape=GROUPS)
            pm.NegativeBinomial("y", mu=pt.exp(beta[0] + beta[1] * x + u[group]), alpha=5.0, observed=y)
        return model

    counts = COUNT + 3 * (GROUP % 3)
    masked = fit(build(np.ma.masked_array(counts, ~kept), X, GROUP))
    short = fit(build(counts[kept], X[kept], GROUP[kept]))
    np.testing.assert_allclose(masked.fit.log_likelihood, short.fit.log_likelihood, rtol=1e-9)
    np.testing.assert_allclose(masked.estimates.beta, short.estimates.beta, atol=1e-6)


def test_criteria_with_a_lifted_density_of_effects():
    """Effects without closed form are no responses: all criteria are those of normal effects written as such."""
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(15), 6)
    y = rng.poisson(np.exp(0.5 + 0.6 * rng.normal(size=15)[group]))
    scalars = []
    for is_mixture in (False, True):
        with pm.Model() as model:
            b, s = pm.Flat("b"), pm.HalfFlat("s")
            if is_mixture:  # of two equal normal densities
                v = pm.NormalMixture("v", w=[0.5, 0.5], mu=[0, 0], sigma=pm.math.stack([s, s]), shape=15)
            else:
                v = pm.Normal("v", 0, s, shape=15)
            pm.Poisson("y", pm.math.exp(b + v[group]), observed=y)
        fit = hlik.fit(model, "laplace", progressbar=False, draws=0).fit
        names = ("conditional_log_likelihood", "df_effective", "caic", "aic", "p_v_h", "p_bv_h")
        scalars.append([float(fit[name]) for name in names])
    np.testing.assert_allclose(scalars[1], scalars[0], rtol=1e-6)  # both at the maximum to 1e-5 standard errors
