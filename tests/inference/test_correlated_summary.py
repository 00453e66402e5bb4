"""Correlated effects in the summary: standard deviations and correlations in place of a packed Cholesky factor."""

from __future__ import annotations

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import stats

import hlik

LABELS = ["sd(x|g)[Intercept]", "sd(x|g)[x]", "cor(x|g)[Intercept, x]"]


def data():
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(12), 8), rng.normal(size=96)
    u = rng.multivariate_normal([0, 0], [[1, 0.3], [0.3, 0.5]], 12)
    return pd.DataFrame({"y": 1 + 0.5 * x + u[g, 0] + u[g, 1] * x + rng.normal(0, 0.5, 96), "x": x, "g": g})


@pytest.fixture(scope="module")
def fitted():
    return hlik.fit(hlik.from_formula("y ~ x + (x | g)", data()), progressbar=False, draws=0)


def test_rows_are_functions_of_the_factor_by_differences(fitted):
    packed = fitted["estimates"]["x|g_chol"].values
    named = [str(name) for name in fitted["fit"]["parameter"].values]
    rows = [k for k, name in enumerate(named) if "x|g_chol" in name]
    covariance = fitted["fit"]["covariance_matrix"].values[np.ix_(rows, rows)]

    def scaled(own):  # the diagonal is a log on PyMC's scale: log sds, Fisher's z
        a, b, c = np.exp(own[0]), own[1], np.exp(own[2])
        return np.array([np.log(a), 0.5 * np.log(b**2 + c**2), np.arctanh(b / np.hypot(b, c))])

    own = np.array([np.log(packed[0]), packed[1], np.log(packed[2])])
    move = 1e-5 * np.eye(3)
    jacobian = np.array([(scaled(own + m) - scaled(own - m)) / 2e-5 for m in move]).T
    half = stats.norm.ppf(0.975) * np.sqrt(np.diag(jacobian @ covariance @ jacobian.T))
    table = hlik.summary(fitted).loc[LABELS]
    inverses = (np.exp, np.exp, np.tanh)
    for k, inverse in enumerate(inverses):
        expected = inverse(scaled(own)[k] + np.array([0, -half[k], half[k]]))
        np.testing.assert_allclose(table.iloc[k][["estimate", "lower", "upper"]].astype(float), expected, rtol=1e-7)
    assert set(table["role"]) == {"dispersion parameter"}
    assert not any("chol" in label for label in hlik.summary(fitted).index)


def test_round_trip(fitted, tmp_path):
    fitted.to_netcdf(tmp_path / "fit.nc")
    pd.testing.assert_frame_equal(
        pd.DataFrame(hlik.summary(az.from_netcdf(tmp_path / "fit.nc"))), pd.DataFrame(hlik.summary(fitted))
    )


@pytest.mark.parametrize("estimator", ["eql", "laplace"])
def test_hand_written_model(fitted, estimator):
    d = data()
    with pm.Model() as model:
        b, s = pm.Flat("b", shape=2), pm.HalfFlat("s")
        chol, *_ = pm.LKJCholeskyCov("L", n=2, eta=1, sd_dist=pm.HalfNormal.dist(1, shape=2))
        u = pm.MvNormal("u", 0, chol=chol, shape=(12, 2))
        x, g = d["x"].to_numpy(), d["g"].to_numpy()
        pm.Normal("y", b[0] + b[1] * x + u[g, 0] + u[g, 1] * x, s, observed=d["y"])
    found = hlik.fit(model, estimator, progressbar=False, draws=0)
    table = hlik.summary(found)
    own = ["sd(u)[0]", "sd(u)[1]", "cor(u)[0, 1]"]
    assert list(table.index) == ["b[0]", "b[1]", "s", *own]
    if estimator == "eql":
        columns = ["estimate", "se", "lower", "upper"]
        expected = hlik.summary(fitted).loc[LABELS, columns].to_numpy()
        np.testing.assert_allclose(table.loc[own, columns].to_numpy(), expected, rtol=1e-6)
    assert "cor(u)[0, 1]" in str(table)
