"""Where EQL is exact, and where and by how much it is biased: against closed forms and exact likelihoods."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import optimize, special

import hlik
from tests.reference_models import bacteria


def grouped(seed, groups, size):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), size)
    return rng, group, rng.normal(size=groups * size)


def test_poisson_gamma_against_the_negative_binomial():
    """y_ij ~ Poisson(mu_ij u_i), u_i ~ Gamma: the marginal likelihood of a group is closed (Lee & Nelder 1996).

    EQL's equations for beta are those of the marginal likelihood at the same lambda (the conjugate case): exact.
    Its lambda corrects for the estimation of beta, as REML does, and replaces log gamma functions by deviances
    (Stirling's formula): two small biases of opposite sign, together 0.6 % here.
    """
    rng, group, x = grouped(1, 30, 6)
    u = rng.gamma(2.0, 0.5, 30)
    y = rng.poisson(np.exp(0.5 + 0.4 * x) * u[group])
    X = np.column_stack([np.ones(x.size), x])
    total = np.bincount(group, weights=y)

    def negative(t):
        mu = np.exp(X @ t[:2])
        a, m = np.exp(-t[2]), np.bincount(group, weights=mu)
        terms = special.gammaln(total + a) - special.gammaln(a) + a * np.log(a) - (total + a) * np.log(m + a)
        return -(terms.sum() + y @ (X @ t[:2]))

    with pm.Model() as model:
        beta, lam = pm.Normal("beta", 0, 5, shape=2), pm.HalfNormal("lam", 1)
        effect = pm.Gamma("u", 1 / lam, 1 / lam, shape=30)
        pm.Poisson("y", pm.math.exp(X @ beta) * effect[group], observed=y)
    idata = hlik.fit(model, progressbar=False, draws=0)
    lam_hat = float(idata["estimates"]["lam"])
    at_lambda = optimize.minimize(lambda b: negative([*b, np.log(lam_hat)]), [0.0, 0.0], tol=1e-12).x
    np.testing.assert_allclose(idata["estimates"]["beta"], at_lambda, atol=2e-6)  # of the minimiser's differences
    best = optimize.minimize(negative, [0.0, 0.0, 0.0], tol=1e-10).x
    assert 1.0 < lam_hat / np.exp(best[2]) < 1.02


def test_binomial_beta_against_the_beta_binomial():
    """With one count a group the beta effects give EQL's slopes close to those of the beta-binomial."""
    rng, _, x = grouped(2, 60, 1)
    probability = 1 / (1 + np.exp(-(0.2 + 0.8 * x + rng.logistic(0, 0.3, 60))))
    n = np.full(60, 20)
    r = rng.binomial(n, probability)
    X = np.column_stack([np.ones(60), x])
    nodes, weights = special.roots_legendre(400)
    t = 0.5 * (nodes + 1)  # integrate over u in (0, 1): smooth for lam < 1/2

    def negative(p):
        lam = np.exp(p[2])
        eta = (X @ p[:2])[:, None] + special.logit(t)[None, :]
        log_density = (0.5 / lam - 1) * np.log(t * (1 - t)) - special.betaln(0.5 / lam, 0.5 / lam)
        log_terms = r[:, None] * eta - n[:, None] * np.logaddexp(0, eta) + log_density
        top = log_terms.max(axis=1)
        return -np.sum(top + np.log(np.exp(log_terms - top[:, None]) @ (0.5 * weights)))

    with pm.Model() as model:
        beta, lam = pm.Normal("beta", 0, 5, shape=2), pm.HalfNormal("lam", 1)
        effect = pm.Beta("u", 1 / (2 * lam), 1 / (2 * lam), shape=60)
        pm.Binomial("y", n=n, logit_p=X @ beta + pm.math.logit(effect), observed=r)
    idata = hlik.fit(model, progressbar=False, draws=0)
    best = optimize.minimize(negative, [0.2, 0.8, -2.0], tol=1e-10).x
    np.testing.assert_allclose(idata["estimates"]["beta"], best[:2], rtol=0.05)  # the bias of h in beta, found: 1-3 %
    assert 0.9 < float(idata["estimates"]["lam"]) / np.exp(best[2]) < 1.2


def test_bacteria_bias(shared):
    """Binary data in groups of 2 to 5: EQL's variance is 1.026, exact maximum likelihood 1.839."""
    idata = hlik.fit(bacteria(shared / "data"), progressbar=False, draws=0)
    np.testing.assert_allclose(float(idata["estimates"]["sigma_u"]) ** 2, 1.0263, atol=5e-5)


def test_salamander_bias(shared, reference):
    """Crossed binary data: EQL's variances are 0.72 and 0.63, exact ones 1.3842 and 1.2386."""
    frame = pd.read_csv(shared / "data" / "salamander_mcemGLM.csv")
    cross = pd.factorize(frame.Cross, sort=True)[0]
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 5, shape=4)
        female = pm.Normal("female", 0, pm.HalfNormal("s_f", 1), shape=60)
        male = pm.Normal("male", 0, pm.HalfNormal("s_m", 1), shape=60)
        eta = beta[cross] + female[frame.Female.to_numpy() - 1] + male[frame.Male.to_numpy() - 1]
        pm.Bernoulli("y", logit_p=eta, observed=frame.Mate.to_numpy())
    estimates = hlik.fit(model, progressbar=False, draws=0)["estimates"]
    found = np.array([float(estimates["s_f"]), float(estimates["s_m"])]) ** 2
    np.testing.assert_allclose(found, (0.72, 0.63), atol=0.006)
    exact = np.array(reference("truth/salamander_exact")["estimates"][4:])
    assert np.all(found / exact < 0.55)


@pytest.mark.parametrize("phi", ["model", "estimate"])
def test_glm_without_random_effects(phi):
    """No random effects: the GLM, with its quasi-dispersion X2-free: deviance over residual degrees of freedom."""
    rng, _, x = grouped(4, 50, 2)
    y = rng.poisson(np.exp(1 + 0.5 * x))
    X = np.column_stack([np.ones(100), x])
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 5, shape=2)
        pm.Poisson("y", pm.math.exp(X @ beta), observed=y)
    idata = hlik.fit(model, hlik.EQL(dispersion=phi), progressbar=False, draws=0)
    best = optimize.minimize(lambda b: np.sum(np.exp(X @ b) - y * (X @ b)), [1.0, 0.0], tol=1e-12).x
    np.testing.assert_allclose(idata["estimates"]["beta"], best, atol=1e-6)
    mu = np.exp(X @ idata["estimates"]["beta"].values)
    scale = 2 * np.sum(special.xlogy(y, y / mu) - (y - mu)) / 98 if phi == "estimate" else 1.0
    if phi == "estimate":
        np.testing.assert_allclose(float(idata["estimates"]["y_dispersion"]), scale, rtol=1e-8)
    covariance = scale * np.linalg.inv(X.T @ (mu[:, None] * X))
    np.testing.assert_allclose(idata["standard_errors"]["beta"], np.sqrt(np.diag(covariance)), rtol=1e-7)
