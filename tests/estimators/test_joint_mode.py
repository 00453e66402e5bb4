"""The joint mode is no estimate of a variance: `pm.find_MAP`, hlik and quadrature for the logit model of the README."""

import numpy as np
import pymc as pm
import pytest
from scipy import optimize

import hlik

RNG = np.random.default_rng(10)
GROUP, X = np.repeat(np.arange(40), 20), RNG.normal(size=800)
LINEAR = -0.5 + X + RNG.normal(0, 0.9, 40)[GROUP]
Y = RNG.binomial(1, 1 / (1 + np.exp(-LINEAR)))


def logit_model(centred: bool) -> pm.Model:
    with pm.Model() as model:
        intercept, slope = pm.Normal("intercept", 0, 10), pm.Normal("slope", 0, 10)
        sigma = pm.HalfNormal("sigma", 5)
        u = pm.Normal("u", 0, sigma, shape=40) if centred else sigma * pm.Normal("z", 0, 1, shape=40)
        pm.Bernoulli("y", logit_p=intercept + slope * X + u[GROUP], observed=Y)
    return model


def by_quadrature() -> np.ndarray:
    """Intercept, slope, sigma that maximise the marginal likelihood, 60 Gauss-Hermite nodes a group."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    log_weights = np.log(weights / weights.sum())

    def negative(at: np.ndarray) -> float:
        eta = (at[0] + at[1] * X)[:, None] + np.exp(at[2]) * nodes
        of_groups = (Y[:, None] * eta - np.logaddexp(0, eta)).reshape(40, 20, -1).sum(axis=1)
        return -float(np.logaddexp.reduce(of_groups + log_weights, axis=1).sum())

    found = optimize.minimize(negative, np.zeros(3), method="BFGS", options={"gtol": 1e-6}).x
    return np.array([found[0], found[1], np.exp(found[2])])


@pytest.mark.parametrize("centred", [pytest.param(True, marks=pytest.mark.slow), False])
def test_joint_mode_is_far_off(centred):
    """Zero where the model is centred, where the prior of sigma stops it where it is not; the truth is 0.9."""
    model, truth = logit_model(centred), by_quadrature()
    estimates = hlik.fit(model, hlik.AGQ(25), progressbar=False, draws=0).estimates
    found = [float(estimates[name]) for name in ("intercept", "slope", "sigma")]
    np.testing.assert_allclose(found, truth, rtol=1e-4)  # BFGS by differences finds its maximum to about 1e-5
    laplace = float(hlik.fit(model, "laplace", progressbar=False, draws=0).estimates["sigma"])
    assert abs(laplace - truth[2]) < 0.05 * truth[2]
    mode = float(pm.find_MAP(model=model, progressbar=False)["sigma"])
    assert mode < 0.1 if centred else mode > 5
