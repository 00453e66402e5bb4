"""Estimates on the boundary, in words; singular covariance matrices against the model of one effect with a loading."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest
from scipy import optimize

import hlik

GROUPS, SIZE = 12, 5
GROUP, X = np.repeat(np.arange(GROUPS), SIZE), np.tile(np.linspace(-1, 1, SIZE), GROUPS)


def simulated(correlation: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(GROUPS, 2))
    slope = 0.3 * (correlation * z[:, 0] + np.sqrt(1 - correlation**2) * z[:, 1])
    return 1 + X + z[GROUP, 0] + slope[GROUP] * X + rng.normal(size=X.size) * 0.6


def correlated(y: np.ndarray) -> pm.Model:
    with pm.Model() as model:
        beta, sigma = pm.Normal("beta", 0, 5, shape=2), pm.HalfNormal("sigma", 1)
        chol, _, _ = pm.LKJCholeskyCov("chol", n=2, eta=1, sd_dist=pm.HalfNormal.dist(1), compute_corr=True)
        u = pm.MvNormal("u", 0, chol=chol, shape=(GROUPS, 2))
        pm.Normal("y", beta[0] + beta[1] * X + u[GROUP, 0] + u[GROUP, 1] * X, sigma, observed=y)
    return model


def largest_with_loading(y: np.ndarray, sign: float) -> float:
    """Maximum of the log-likelihood where the slope is ``sign s1 / s0`` times the intercept, by dense algebra."""
    Z, X_all = np.column_stack([np.ones(SIZE), X[:SIZE]]), np.column_stack([np.ones(X.size), X])
    rows = [GROUP == k for k in range(GROUPS)]

    def negative(logs: np.ndarray) -> float:
        s0, s1, sigma = np.exp(logs)
        direction = Z @ np.array([s0, sign * s1])
        V = np.outer(direction, direction) + sigma**2 * np.eye(SIZE)
        inverse = np.linalg.inv(V)
        left = sum(X_all[r].T @ inverse @ X_all[r] for r in rows)
        beta = np.linalg.solve(left, sum(X_all[r].T @ inverse @ y[r] for r in rows))
        e = y - X_all @ beta
        return 0.5 * (GROUPS * np.linalg.slogdet(2 * np.pi * V)[1] + sum(e[r] @ inverse @ e[r] for r in rows))

    return -optimize.minimize(negative, [0.0, -1.0, -0.5], method="BFGS").fun


@pytest.mark.parametrize(("correlation", "seed", "sign", "word"), [(1.0, 0, 1, "1"), (-1.0, 1, -1, "-1")])
def test_correlation_at_one(correlation, seed, sign, word):
    y = simulated(correlation, seed)
    with pytest.warns(hlik.ConvergenceWarning, match="correlation of 'u'"):
        idata = hlik.fit(correlated(y), "laplace", progressbar=False, draws=0)
    assert idata.fit.attrs["status"].startswith(f"boundary: correlation of 'u' estimated at {word}")
    # the limit is approached as 1 - |r| goes to zero, which ends at 1e-7
    np.testing.assert_allclose(idata.fit.log_likelihood, largest_with_loading(y, sign), atol=1e-6)


def test_correlation_at_one_by_eql():
    with pytest.warns(hlik.ConvergenceWarning, match="correlation of 'u'"):
        idata = hlik.fit(correlated(simulated(1.0, 0)), progressbar=False, draws=0)
    assert idata.fit.attrs["status"] == "boundary: correlation of 'u' estimated at 1"


@pytest.mark.parametrize("estimator", ["laplace", "agq"])
def test_one_wording_for_a_deviation_at_zero(estimator):
    """Equal groups: the parameter is named, as the deviation that it is."""
    y = np.tile([2, 3, 4, 3, 2, 4], 8)
    with pm.Model() as model:
        mean, sigma_u = pm.Normal("mean"), pm.HalfNormal("sigma_u")
        pm.Poisson("y", pm.math.exp(mean + pm.Normal("u", 0, sigma_u, shape=8)[np.repeat(np.arange(8), 6)]), observed=y)
    with pytest.warns(hlik.ConvergenceWarning, match="estimated at zero"):
        idata = hlik.fit(model, estimator, progressbar=False, draws=0, random_seed=1)
    assert idata.fit.attrs["status"] == "boundary: sd of 'u' estimated at zero (sigma_u)"
    assert np.isnan(idata.standard_errors["sigma_u"])


def test_gamma_effects_have_a_dispersion():
    y = np.tile([2, 3, 4, 3, 2, 4], 8)
    with pm.Model() as model:
        mean, lam = pm.Normal("mean"), pm.HalfNormal("lam")
        u = pm.Gamma("u", 1 / lam, 1 / lam, shape=8)
        pm.Poisson("y", pm.math.exp(mean) * u[np.repeat(np.arange(8), 6)], observed=y)
    with pytest.warns(hlik.ConvergenceWarning, match="dispersion of 'u' estimated at zero .lam."):
        hlik.fit(model, "laplace", progressbar=False, draws=0)
