"""Densities of parameters as a penalty: dense algebra, roles, boundaries, separation, and what the result says."""

import numpy as np
import pymc as pm
import pytest
from scipy import optimize, stats

import hlik
from tests.inference.test_intervals import GROUP, Y, dense, fit

ML, REML = hlik.Laplace(), hlik.Laplace(reml=True)


def one_way(y=Y, sigma_u=lambda: pm.Gamma("sigma_u", 2, 0.5)):
    with pm.Model() as model:
        mean, scale, sigma = pm.Normal("mean", 0, 1), sigma_u(), pm.HalfNormal("sigma", 0.5)
        u = pm.Normal("u", 0, scale, shape=4)
        pm.Normal("y", mean + u[GROUP], sigma, observed=y)
    return model


def log_prior(mean, sigma_u, sigma):
    """On the natural scale, without Jacobian."""
    densities = stats.gamma(2, scale=2).logpdf(sigma_u), stats.halfnorm(scale=0.5).logpdf(sigma)
    return stats.norm.logpdf(mean) + sum(densities)


def test_maximum_of_the_penalised_likelihood():
    """By a dense likelihood, densities of SciPy and a simplex search (good to its own tolerance)."""
    idata = fit(one_way(), ML, priors="penalise")
    best = optimize.minimize(
        lambda x: -dense(*x) - log_prior(x[0], *np.exp(x[1:])),
        [1.0, 0.0, -1.0],
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-12, "maxfev": 2000},
    )
    at = [float(idata.estimates[name]) for name in ("mean", "sigma_u", "sigma")]
    np.testing.assert_allclose(at, [best.x[0], *np.exp(best.x[1:])], rtol=1e-6)
    np.testing.assert_allclose(idata.fit.log_likelihood, -best.fun, rtol=1e-11)
    np.testing.assert_allclose(idata.fit.log_prior, log_prior(*at), rtol=1e-10)
    np.testing.assert_allclose(idata.fit.unpenalised_log_likelihood, dense(at[0], *np.log(at[1:])), rtol=1e-11)
    np.testing.assert_allclose(idata.fit.p_v_h, idata.fit.unpenalised_log_likelihood, rtol=1e-11)
    np.testing.assert_allclose(idata.fit.aic, 6 - 2 * idata.fit.unpenalised_log_likelihood, rtol=1e-11)
    assert idata.fit.attrs["priors"] == "penalise"
    assert list(hlik.summary(idata)["role"]) == ["fixed effect", "dispersion parameter", "dispersion parameter"]


def test_standard_errors_are_those_of_the_penalised_likelihood():
    """The inverse Hessian by central differences of the dense one; 1e-5 is their error."""
    idata = fit(one_way(), ML, priors="penalise")
    psi = idata.fit.mean_vector.values
    H, step = np.zeros((3, 3)), 1e-4 * np.eye(3)

    def value(x):
        return dense(*x) + log_prior(x[0], *np.exp(x[1:]))

    for i in range(3):
        for j in range(3):
            a, b = step[i], step[j]
            H[i, j] = (value(psi + a + b) - value(psi + a - b) - value(psi - a + b) + value(psi - a - b)) / 4e-8
    np.testing.assert_allclose(idata.fit.covariance_matrix, np.linalg.inv(-H), rtol=1e-4, atol=1e-7)


def test_restricted_likelihood_integrates_the_prior_of_beta_too():
    """Normal prior, normal model: the marginal over the mean is normal too."""
    idata = fit(one_way(), REML, priors="penalise")
    sigma_u, sigma = float(idata.estimates.sigma_u), float(idata.estimates.sigma)
    covariance = sigma_u**2 * (GROUP[:, None] == GROUP) + sigma**2 * np.eye(12) + 1.0
    marginal = stats.multivariate_normal(np.zeros(12), covariance).logpdf(Y)
    penalised = marginal + log_prior(0, sigma_u, sigma) - stats.norm.logpdf(0)
    np.testing.assert_allclose(idata.fit.log_likelihood, penalised, rtol=1e-10)
    plain = fit(one_way(), REML, fixed={"sigma_u": sigma_u, "sigma": sigma})
    np.testing.assert_allclose(idata.fit.unpenalised_log_likelihood, plain.fit.log_likelihood, rtol=1e-10)


def test_a_gamma_prior_keeps_a_variance_off_zero():
    """Chung et al. (2013): a Gamma(2, small rate) prior of the standard deviation has density zero at zero."""
    y = np.tile([0.1, 1.0, 1.8], 4) + 0.01 * np.array([1, -1, 0, 0, 1, -1, -1, 0, 1, 1, 0, -1])
    model = one_way(y, lambda: pm.Gamma("sigma_u", 2, 0.01))
    with pytest.warns(hlik.ConvergenceWarning, match="boundary"):
        fit(model, ML)
    idata = fit(model, ML, priors="penalise")
    assert idata.fit.attrs["status"] == "converged"
    assert float(idata.estimates.sigma_u) > 0.05


def test_flat_priors_change_nothing():
    with pm.Model() as model:
        mean, scale, sigma = pm.Flat("mean"), pm.HalfFlat("sigma_u"), pm.HalfFlat("sigma")
        u = pm.Normal("u", 0, scale, shape=4)
        pm.Normal("y", mean + u[GROUP], sigma, observed=Y)
    by = [fit(model, ML, priors=priors) for priors in ("ignore", "penalise")]
    np.testing.assert_allclose(*(idata.fit.log_likelihood for idata in by), rtol=1e-12)
    np.testing.assert_allclose(*(idata.estimates.sigma_u for idata in by), rtol=1e-6)


def test_separated_data_with_a_prior():
    """Refused without priors, finite with them: the mode by a direct search."""
    x, y = np.array([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0]), np.array([0, 0, 0, 1, 1, 1])
    with pm.Model() as model:
        slope = pm.Normal("slope", 0, 2)
        pm.Bernoulli("y", logit_p=slope * x, observed=y)
    with pytest.raises(hlik.ModelError, match="separated"):
        fit(model, ML)
    best = optimize.minimize_scalar(lambda b: np.logaddexp(0, -(2 * y - 1) * b * x).sum() + b**2 / 8, bounds=(0, 9))
    np.testing.assert_allclose(fit(model, ML, priors="penalise").estimates.slope, best.x, rtol=1e-4)


def test_profiles_and_predictions_work_on_penalised_fits():
    model = one_way()
    idata = fit(model, ML, priors="penalise")
    ends = hlik.confint(model, idata, method="profile", parm="sigma_u")
    assert 0 < ends.lower.iloc[0] < float(idata.estimates.sigma_u) < ends.upper.iloc[0]
    np.testing.assert_allclose(hlik.predict(model, idata).estimate, idata.diagnostics.y_fitted, rtol=1e-10)


def test_what_is_refused():
    for name in ("eql", "mcem"):
        with pytest.raises(hlik.ModelError, match=f"(?i)priors='penalise' is for .* not for {name}"):
            fit(one_way(), name, priors="penalise")
    with pytest.raises(hlik.ModelError, match="expected 'ignore' or 'penalise'"):
        fit(one_way(), ML, priors="keep")
