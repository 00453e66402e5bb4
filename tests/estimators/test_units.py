"""The unit of the response, or of a covariate, changes estimates and errors by its factor and nothing else."""

import numpy as np
import pymc as pm
import pytest

import hlik

R = np.random.default_rng(3)
GROUP = np.repeat(np.arange(8), 8)
X = R.normal(size=64)
Y = 1 + 0.5 * X + R.normal(0, 0.7, 8)[GROUP] + R.normal(0, 0.5, 64)


def fitted(y, x, estimator, group=GROUP):
    with pm.Model() as model:
        beta = pm.Normal("beta", shape=2)
        sigma, sigma_u = pm.HalfNormal("sigma"), pm.HalfNormal("sigma_u")
        u = pm.Normal("u", 0, sigma_u, shape=int(group.max()) + 1)
        pm.Normal("y", beta[0] + beta[1] * x + u[group], sigma, observed=y)
    return hlik.fit(model, estimator, progressbar=False, draws=0)


def figures(idata):
    """Estimates and standard errors of beta, sigma and sigma_u, shape (8,)."""
    groups = (idata.estimates, idata.standard_errors)
    return np.concatenate([np.ravel(group[name]) for group in groups for name in ("beta", "sigma", "sigma_u")])


@pytest.mark.parametrize("estimator", [hlik.EQL(), hlik.Laplace(), hlik.Laplace(reml=True), hlik.AGQ(5)], ids=str)
def test_the_unit_of_the_response(estimator):
    one = fitted(Y, X, estimator)
    for factor in (1e-9, 1e3, 1e9):
        other = fitted(factor * Y, X, estimator)
        assert other.fit.attrs["status"] == "converged"
        # EQL's theta is good to its tolerance, a part of a standard error;
        # Laplace's errors are differences of gradients
        np.testing.assert_allclose(figures(other), factor * figures(one), rtol=1e-5)
        shift = float(one.fit["p_v_h"] - other.fit["p_v_h"])
        np.testing.assert_allclose(shift, 64 * np.log(factor), rtol=1e-8)


@pytest.mark.parametrize("estimator", [hlik.EQL(), hlik.Laplace(), hlik.Laplace(reml=True)], ids=str)
def test_the_unit_of_a_covariate(estimator):
    one = figures(fitted(Y, X, estimator))
    for factor in (1e-8, 1e8):
        other = fitted(Y, factor * X, estimator)
        assert other.fit.attrs["status"] == "converged"
        unit = np.ones(8)
        unit[[1, 5]] = 1 / factor
        np.testing.assert_allclose(figures(other), unit * one, rtol=1e-5)


def test_one_observation_a_group():
    """Only the sum of the two variances is known: both parameters are named."""
    with pytest.warns(hlik.ConvergenceWarning, match="flat in 'sigma(_u)?', 'sigma(_u)?': fix one of them"):
        fitted(Y, X, "laplace", group=np.arange(64))
