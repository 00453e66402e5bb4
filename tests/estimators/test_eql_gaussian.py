"""Gaussian responses with Gaussian effects: EQL is restricted maximum likelihood, by dense linear algebra."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import linalg, optimize

import hlik

Covariance = Callable[[np.ndarray], np.ndarray]


def restricted(y: np.ndarray, X: np.ndarray, V: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The restricted log-likelihood with beta integrated under a flat prior, beta, and its covariance."""
    lower = linalg.cholesky(V, lower=True)
    WX, Wy = linalg.solve_triangular(lower, X, lower=True), linalg.solve_triangular(lower, y, lower=True)
    information = WX.T @ WX
    beta = np.linalg.solve(information, WX.T @ Wy)
    residual = Wy - WX @ beta
    n, p = X.shape
    value = -0.5 * (
        residual @ residual
        + 2 * np.log(np.diag(lower)).sum()
        + np.linalg.slogdet(information)[1]
        + (n - p) * np.log(2 * np.pi)
    )
    return value, beta, np.linalg.inv(information)


def maximise(y: np.ndarray, X: np.ndarray, covariance: Covariance, start: np.ndarray) -> np.ndarray:
    """REML on log variances: Nelder-Mead, then Newton steps on central differences until they are below 1e-10."""

    def negative(t: np.ndarray) -> float:
        return -restricted(y, X, covariance(np.exp(t)))[0]

    t = optimize.minimize(negative, np.log(start), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12}).x
    for _ in range(3):
        t = t - np.linalg.solve(second_difference(negative, t), first_difference(negative, t))
    return np.exp(t)


def first_difference(f, t, h=1e-3):
    e = np.eye(t.size) * h
    return np.array([(8 * (f(t + d) - f(t - d)) - (f(t + 2 * d) - f(t - 2 * d))) / (12 * h) for d in e])


def second_difference(f, t, h=1e-3):
    e = np.eye(t.size) * h
    return np.array([(first_difference(f, t + d, h) - first_difference(f, t - d, h)) / (2 * h) for d in e])


def problem(kind: str):
    """Data, the PyMC model, its covariance as a function of variances, and the names of the standard deviations."""
    rng = np.random.default_rng(sum(map(ord, kind)))
    n = 60
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    a, b = rng.permutation(np.arange(n) % 8), rng.integers(0, 5, n)
    A, B = np.eye(8)[a], np.eye(5)[b]
    x = 50 * X[:, 1]
    nested = a * 3 + np.argsort(np.argsort(a, kind="stable"), kind="stable") % 3
    N = np.eye(24)[nested]
    wide = rng.normal(size=(n, 90)) / 9
    designs = {
        "one term": [A],
        "crossed": [A, B],
        "nested": [A, N],
        "slopes": [A, A * x[:, None]],
        "more effects than rows": [wide],
        "equal components": [np.hstack([A, B])],
    }[kind]
    sizes = {"slopes": [0.8, 0.02], "nested": [1.6, 0.4]}.get(kind, [0.8, 0.6])[: len(designs)]
    y = X @ (1.0, -0.5) + sum(Z @ rng.normal(0, s, Z.shape[1]) for Z, s in zip(designs, sizes, strict=True))
    y = y + rng.normal(0, 0.5, n)
    with pm.Model() as model:
        beta, sigma = pm.Normal("beta", 0, 10, shape=2), pm.HalfNormal("sigma", 1)
        eta = X @ beta
        if kind == "equal components":
            s0 = pm.HalfNormal("s0", 1)
            eta += pm.Normal("u0", 0, s0, shape=8)[a] + pm.Normal("u1", 0, s0, shape=5)[b]
        else:
            index = {"one term": [a], "crossed": [a, b], "nested": [a, nested], "slopes": [a, a]}.get(kind)
            for k, Z in enumerate(designs):
                u = pm.Normal(f"u{k}", 0, pm.HalfNormal(f"s{k}", 1), shape=Z.shape[1])
                term = Z @ u if index is None else u[index[k]]
                eta += term * x if kind == "slopes" and k == 1 else term
        pm.Normal("y", eta, sigma, observed=y)
    grams = [Z @ Z.T for Z in designs]

    def covariance(v: np.ndarray) -> np.ndarray:
        return v[0] * np.eye(n) + sum(s * G for s, G in zip(v[1:], grams, strict=True))

    return model, y, X, covariance, np.array([0.25, *(s**2 for s in sizes)])


KINDS = ["one term", "crossed", "nested", "slopes", "more effects than rows", "equal components"]


@pytest.mark.parametrize("kind", KINDS)
def test_is_reml(kind):
    model, y, X, covariance, start = problem(kind)
    idata = hlik.fit(model, progressbar=False, draws=0)
    assert idata["fit"].attrs["status"] == "converged"
    names = ["sigma", *(f"s{k}" for k in range(len(start) - 1))]
    variances = np.array([float(idata["estimates"][name]) for name in names]) ** 2
    expected = maximise(y, X, covariance, start)
    # the dense maximum is itself known to about 1e-9: its gradient comes from differences
    np.testing.assert_allclose(variances, expected, rtol=1e-8, atol=1e-10)
    value, beta, beta_covariance = restricted(y, X, covariance(variances))
    np.testing.assert_allclose(float(idata["fit"]["p_bv_h"]), value, rtol=1e-10)
    np.testing.assert_allclose(idata["estimates"]["beta"], beta, rtol=1e-9)
    np.testing.assert_allclose(idata["standard_errors"]["beta"], np.sqrt(np.diag(beta_covariance)), rtol=1e-8)


def test_profile_is_the_marginal_likelihood():
    """p_v(h) at EQL's estimates is the Gaussian log-likelihood there."""
    model, y, X, covariance, _ = problem("crossed")
    idata = hlik.fit(model, progressbar=False, draws=0)
    variances = np.array([float(idata["estimates"][name]) for name in ("sigma", "s0", "s1")]) ** 2
    V, residual = covariance(variances), y - X @ idata["estimates"]["beta"].values
    expected = -0.5 * (residual @ np.linalg.solve(V, residual) + np.linalg.slogdet(2 * np.pi * V)[1])
    np.testing.assert_allclose(float(idata["fit"]["p_v_h"]), expected, rtol=1e-11)


def test_prediction_errors_of_the_effects():
    """Best linear unbiased predictions and their error variances (Henderson 1975), dense."""
    model, y, X, _, _ = problem("one term")
    idata = hlik.fit(model, progressbar=False, draws=0)
    s2, su2 = (float(idata["estimates"][name]) ** 2 for name in ("sigma", "s0"))
    rng = np.random.default_rng(sum(map(ord, "one term")))
    rng.normal(size=60)
    Z = np.eye(8)[rng.permutation(np.arange(60) % 8)]
    H = np.block([[X.T @ X, X.T @ Z], [Z.T @ X, Z.T @ Z + s2 / su2 * np.eye(8)]]) / s2
    solution = np.linalg.solve(H, np.concatenate([X.T @ y, Z.T @ y]) / s2)
    np.testing.assert_allclose(idata["estimates"]["u0"], solution[2:], rtol=1e-9)
    np.testing.assert_allclose(idata["standard_errors"]["u0"], np.sqrt(np.diag(np.linalg.inv(H))[2:]), rtol=1e-9)


def test_residual_variance_with_covariates_and_fixed_parameters():
    rng = np.random.default_rng(3)
    n, group = 80, np.repeat(np.arange(10), 8)
    x = rng.normal(size=n)
    y = 1 + rng.normal(0, 0.7, 10)[group] + rng.normal(size=n) * np.exp(0.3 * x)
    with pm.Model() as model:
        beta, gamma = pm.Normal("beta", 0, 5), pm.Normal("gamma", 0, 1, shape=2)
        u = pm.Normal("u", 0, pm.HalfNormal("s", 1), shape=10)
        pm.Normal("y", beta + u[group], pt.exp(gamma[0] + gamma[1] * x), observed=y)
    G = np.eye(10)[group] @ np.eye(10)[group].T

    def value(t):
        return restricted(y, np.ones((n, 1)), np.diag(np.exp(2 * (t[0] + t[1] * x))) + np.exp(2 * t[2]) * G)[0]

    free = hlik.fit(model, progressbar=False, draws=0)
    t = np.array([*free["estimates"]["gamma"].values, np.log(float(free["estimates"]["s"]))])
    assert np.max(np.abs(first_difference(value, t))) < 1e-6  # a gradient in log-likelihood units; rounding is 1e-9
    held = hlik.fit(model, fixed={"s": 0.5}, progressbar=False, draws=0)
    t = np.array([*held["estimates"]["gamma"].values, np.log(0.5)])
    assert np.max(np.abs(first_difference(value, t)[:2])) < 1e-6
    assert "s" not in held["estimates"]


def test_weights_and_offset():
    """A weight divides the variance; an offset is subtracted from the response."""
    rng = np.random.default_rng(5)
    group, w, offset = np.repeat(np.arange(6), 5), rng.uniform(0.5, 3, 30), rng.normal(size=30)
    y = 2 + rng.normal(0, 1, 6)[group] + rng.normal(size=30) / np.sqrt(w)

    def model(scaled, shift):
        with pm.Model() as built:
            beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
            u = pm.Normal("u", 0, pm.HalfNormal("s", 1), shape=6)
            deviation = sigma / np.sqrt(w) if scaled else sigma
            pm.Normal("y", beta + u[group] + shift, deviation, observed=y + shift)
        return built

    stated = hlik.fit(model(True, 0.0), progressbar=False, draws=0)["estimates"]
    weighted = hlik.fit(model(False, offset), weights={"y": w}, progressbar=False, draws=0)["estimates"]
    for name in ("beta", "sigma", "s", "u"):
        np.testing.assert_allclose(stated[name], weighted[name], rtol=1e-8)
