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


def with_loading(y: np.ndarray, sign: float):
    """Minus the log-likelihood in (beta, log sds, log sigma), the slope being ``sign s1 / s0`` times the intercept."""
    Z, X_all = np.column_stack([np.ones(SIZE), X[:SIZE]]), np.column_stack([np.ones(X.size), X])

    def negative(parameters: np.ndarray) -> float:
        s0, s1, sigma = np.exp(parameters[2:])
        direction = Z @ np.array([s0, sign * s1])
        V = np.outer(direction, direction) + sigma**2 * np.eye(SIZE)
        e = (y - X_all @ parameters[:2]).reshape(GROUPS, SIZE)
        return 0.5 * (GROUPS * np.linalg.slogdet(2 * np.pi * V)[1] + np.sum(e * np.linalg.solve(V, e.T).T))

    return negative


def hessian(function, x: np.ndarray, step: float = 1e-3) -> np.ndarray:
    moves = step * np.eye(x.size)
    return np.array(
        [[sum(i * j * function(x + i * a + j * b) for i in (1, -1) for j in (1, -1)) for b in moves] for a in moves]
    ) / (4 * step**2)


@pytest.mark.parametrize(("correlation", "seed", "sign", "word"), [(1.0, 0, 1, "1"), (-1.0, 1, -1, "-1")])
def test_correlation_at_one(correlation, seed, sign, word):
    y = simulated(correlation, seed)
    with pytest.warns(hlik.ConvergenceWarning, match="correlation of 'u'"):
        idata = hlik.fit(correlated(y), "laplace", progressbar=False, draws=0)
    assert idata.fit.attrs["status"].startswith(f"boundary: correlation of 'u' estimated at {word}")
    negative = with_loading(y, sign)
    exact = optimize.minimize(negative, [0.7, 0.9, 0.0, -1.0, -0.5], method="BFGS")
    # the limit is approached as 1 - |r| goes to zero, which ends at 1e-7
    np.testing.assert_allclose(idata.fit.log_likelihood, -exact.fun, atol=1e-6)
    # standard errors are those of the model with this correlation; second differences have errors of 1e-6 themselves
    covariance = np.linalg.inv(hessian(negative, exact.x))
    errors, sds = idata.standard_errors, np.exp(exact.x[2:])
    found = [*errors["beta"].values, *(errors["chol_stds"].values / sds[:2]), float(errors["sigma"]) / sds[2]]
    np.testing.assert_allclose(found, np.sqrt(np.diag(covariance)), rtol=2e-4)  # gradients there have 4 digits
    assert np.isnan(errors["chol_corr"].values[0, 1])
    table = hlik.summary(idata)
    assert table["se"].isna().sum() == 1


@pytest.mark.parametrize(("correlation", "seed"), [(1.0, 0), (0.6, 2)])
def test_restricted_likelihoods_agree_at_one(correlation, seed):
    """EQL, Laplace and HL are REML for normal responses, also their standard errors of beta."""
    y = simulated(correlation, seed)
    tables = []
    for estimator in ("eql", hlik.Laplace(reml=True), hlik.HL(1, 1)):
        with pytest.warns(hlik.ConvergenceWarning, match="correlation of 'u' estimated at 1"):
            idata = hlik.fit(correlated(y), estimator, progressbar=False, draws=0)
        tables.append(hlik.summary(idata)[["estimate", "se"]].to_numpy())
    for other in tables[1:]:
        np.testing.assert_allclose(tables[0], other, rtol=1e-3)  # EQL ends at 1 - r = 2e-6


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


def limits(kind: str) -> tuple[pm.Model, pm.Model]:
    """A model whose maximum is at the end of a range, and the model of that end."""
    rng = np.random.default_rng(11)
    group, x = np.repeat(np.arange(10), 8), rng.normal(size=80)
    y = 1 + 0.5 * x + np.quantile(rng.normal(size=9999), (np.arange(10) + 0.5) / 10)[group]
    y = y + np.tile(np.quantile(rng.normal(size=9999), (np.arange(8) + 0.5) / 8), 10)
    models = []
    for is_limit in (False, True):
        with pm.Model() as model:
            b, s, sigma = pm.Flat("b", shape=2), pm.HalfFlat("s"), pm.HalfFlat("sigma")
            if kind == "t effects" and not is_limit:
                v = pm.StudentT("v", nu=pm.HalfFlat("nu"), mu=0, sigma=s, shape=10)
            else:
                v = pm.Normal("v", 0, s, shape=10)
            eta = b[0] + b[1] * x + v[group]
            if kind == "a second effect" and not is_limit:
                eta = eta + pm.Normal("w", 0, pm.HalfFlat("s_w"), shape=5)[(np.arange(80) // 3) % 5]
            if kind == "t responses" and not is_limit:
                pm.StudentT("y", nu=pm.HalfFlat("nu"), mu=eta, sigma=sigma, observed=y)
            else:
                pm.Normal("y", eta, sigma, observed=y)
        models.append(model)
    return models[0], models[1]


@pytest.mark.parametrize(
    ("kind", "estimator"),
    [
        ("t effects", "laplace"),
        ("t effects", hlik.AGQ(15)),
        ("t responses", "laplace"),
        ("a second effect", "laplace"),
        ("a second effect", "eql"),
        ("a second effect", hlik.Laplace(reml=True)),
        ("a second effect", hlik.HL(1, 1)),
    ],
)
def test_errors_at_an_end_are_those_of_the_limit(kind, estimator):
    model, limit = limits(kind)
    with pytest.warns(hlik.ConvergenceWarning, match="boundary"):
        found = hlik.fit(model, estimator, progressbar=False, draws=0)
    expected = hlik.fit(limit, estimator, progressbar=False, draws=0)
    for name in ("b", "s", "sigma"):
        for group in ("estimates", "standard_errors"):
            # a t density of 1e5 degrees of freedom or more, a variance of 1e-6 of the others
            np.testing.assert_allclose(found[group][name], expected[group][name], rtol=2e-3)
    np.testing.assert_allclose(found["standard_errors"]["v"], expected["standard_errors"]["v"], rtol=2e-3)
    own = {"t effects": "nu", "t responses": "nu", "a second effect": "s_w"}[kind]
    assert np.isnan(found["standard_errors"][own])


def test_what_follows_a_correlation_at_one():
    """Satterthwaite's df of EQL and REML, profile intervals of what the boundary leaves."""
    y = simulated(1.0, 0)
    model, dfs = correlated(y), []
    for estimator in ("eql", hlik.Laplace(reml=True)):
        with pytest.warns(hlik.ConvergenceWarning, match="correlation"):
            idata = hlik.fit(model, estimator, progressbar=False, draws=0)
        dfs.append(hlik.satterthwaite(model, idata)["df"].to_numpy())
    np.testing.assert_allclose(dfs[0], dfs[1], rtol=1e-3)  # EQL ends at 1 - r = 2e-6
    assert dfs[0][0] == pytest.approx(GROUPS - 1, abs=0.01)  # the mean of balanced groups
    with pytest.warns(hlik.ConvergenceWarning, match="correlation"):
        idata = hlik.fit(model, "laplace", progressbar=False, draws=0)
    ends = hlik.confint(model, idata, method="profile", parm="beta")[["lower", "upper"]].to_numpy(float)
    negative = with_loading(y, 1.0)
    best = optimize.minimize(negative, [0.7, 0.9, 0.0, -1.0, -0.5], method="BFGS")
    for k, row in enumerate(ends):  # along the profile too the correlation stays at one
        for at in row:
            others = [j for j in range(5) if j != k]
            held = optimize.minimize(lambda q, k=k, at=at: negative(np.insert(q, k, at)), best.x[others], method="BFGS")
            assert 2 * (held.fun - best.fun) == pytest.approx(3.8415, abs=2e-3)


def test_covariance_matrix_of_rank_one():
    """Three correlated effects of which one loading vector remains: errors of beta and sigma by dense algebra."""
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(10), 6)
    X3 = np.column_stack([np.ones(60), rng.normal(size=60), rng.normal(size=60)])
    y = X3 @ [1, 1, 0.5] + rng.normal(size=10)[group] + rng.normal(size=60) * 0.7
    with pm.Model() as model:
        b, sigma = pm.Flat("b", shape=3), pm.HalfFlat("sigma")
        chol, _, _ = pm.LKJCholeskyCov("chol", n=3, eta=1, sd_dist=pm.HalfNormal.dist(1), compute_corr=True)
        u = pm.MvNormal("u", 0, chol=chol, shape=(10, 3))
        eta = pm.math.dot(X3, b) + u[group, 0] + u[group, 1] * X3[:, 1] + u[group, 2] * X3[:, 2]
        pm.Normal("y", eta, sigma, observed=y)
    with pytest.warns(hlik.ConvergenceWarning, match="covariance matrix of 'u' estimated singular"):
        idata = hlik.fit(model, "laplace", progressbar=False, draws=0)
    stds, corr = idata.estimates["chol_stds"].values, idata.estimates["chol_corr"].values

    def negative(parameters: np.ndarray) -> float:
        direction = X3 @ parameters[3:6]
        V = np.outer(direction, direction) * (group[:, None] == group) + np.exp(2 * parameters[6]) * np.eye(60)
        e = y - X3 @ parameters[:3]
        return 0.5 * (np.linalg.slogdet(2 * np.pi * V)[1] + e @ np.linalg.solve(V, e))

    start = np.concatenate([idata.estimates["b"].values, stds * corr[0], [np.log(float(idata.estimates["sigma"]))]])
    exact = optimize.minimize(negative, start, method="BFGS")
    expected = np.sqrt(np.diag(np.linalg.inv(hessian(negative, exact.x))))
    np.testing.assert_allclose(idata.standard_errors["b"], expected[:3], rtol=2e-3)  # gradients of 4 digits
    np.testing.assert_allclose(idata.standard_errors["sigma"] / idata.estimates["sigma"], expected[6], rtol=2e-3)
    np.testing.assert_allclose(idata.standard_errors["chol_stds"].values[0], expected[3], rtol=2e-3)
