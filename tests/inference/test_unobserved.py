"""Missing responses: predicted as from a fit without their rows, with their own variance in the error."""

from __future__ import annotations

import arviz as az
import numpy as np
import pymc as pm
import pytest

import hlik

pytestmark = pytest.mark.filterwarnings("ignore:.*contains missing values")

GROUP = np.repeat(np.arange(8), 5)
X = np.linspace(-1, 1, 40)[np.random.default_rng(1).permutation(40)]
EFFECT = np.random.default_rng(2).normal(0, 0.6, 8)[GROUP]
TRIALS = np.arange(10, 50)
MISSING = np.isin(np.arange(40), [3, 10, 11, 39])


def responses(family: str) -> np.ndarray:
    rng, eta = np.random.default_rng(3), 0.7 + 0.5 * X + EFFECT
    if family == "normal":
        return eta + rng.normal(0, 0.5, 40)
    if family == "binomial":
        return rng.binomial(TRIALS, 1 / (1 + np.exp(-eta))).astype(float)
    if family == "zero-inflated":
        return rng.poisson(np.exp(eta)) * rng.binomial(1, 0.7, 40).astype(float)
    return rng.poisson(np.exp(eta) * rng.gamma(3, 1 / 3, 40 if family == "negative binomial" else 1)).astype(float)


def build(family: str, rows: np.ndarray, masked: bool) -> pm.Model:
    """The rows alone, or all of them with those outside of `rows` masked."""
    y = responses(family)
    kept = np.ones(40, bool) if masked else rows
    observed = np.ma.masked_array(y, ~rows) if masked else y[rows]
    with pm.Model(coords={"obs": [f"o{k}" for k in np.flatnonzero(kept)]}) as model:
        beta = pm.Normal("beta", 0, 5, shape=2)
        sigma = pm.HalfNormal("sigma_u", 1)
        u = pm.Normal("u", 0, sigma, shape=8)
        eta = beta[0] + beta[1] * pm.Data("x", X[kept]) + u[pm.Data("group", GROUP[kept])]
        if family == "normal":
            pm.Normal("y", eta, pm.HalfNormal("sigma", 1), observed=observed, dims="obs")
        elif family == "poisson":
            pm.Poisson("y", pm.math.exp(eta), observed=observed, dims="obs")
        elif family == "binomial":
            pm.Binomial("y", n=TRIALS[kept], logit_p=eta, observed=observed, dims="obs")
        elif family == "zero-inflated":
            pm.ZeroInflatedPoisson("y", psi=pm.Beta("psi", 1, 1), mu=pm.math.exp(eta), observed=observed, dims="obs")
        else:
            alpha = pm.HalfNormal("alpha", 5)
            pm.NegativeBinomial("y", mu=pm.math.exp(eta), alpha=alpha, observed=observed, dims="obs")
    return model


def own_variance(family: str, mean: np.ndarray, estimates) -> np.ndarray:
    if family == "normal":
        return np.full(mean.size, float(estimates["sigma"]) ** 2)
    if family == "poisson":
        return mean
    if family == "binomial":
        return mean * (1 - mean / TRIALS[MISSING])
    if family == "zero-inflated":  # psi mu (1 + (1 - psi) mu), mean = psi mu
        psi = float(estimates["psi"])
        return mean * (1 + (1 - psi) * mean / psi)
    return mean + mean**2 / float(estimates["alpha"])


@pytest.mark.parametrize(
    ("family", "estimator"),
    [
        ("normal", "eql"),
        ("normal", "laplace"),
        ("poisson", "eql"),
        ("poisson", "laplace"),
        ("binomial", "laplace"),
        ("negative binomial", "laplace"),
        ("zero-inflated", "laplace"),
    ],
)
def test_missing_rows_are_those_of_predict(family, estimator, tmp_path):
    masked = build(family, ~MISSING, masked=True)
    full = hlik.fit(masked, estimator, progressbar=False, draws=0)
    dropped = build(family, ~MISSING, masked=False)
    short = hlik.fit(dropped, estimator, progressbar=False, draws=0)
    np.testing.assert_allclose(full.fit.log_likelihood, short.fit.log_likelihood, rtol=1e-8)
    # both fits stop within their tolerance of the maximum: 1e-6 standard errors
    new = {"x": np.tile(X[MISSING], 9), "group": np.tile(GROUP[MISSING], 9)}  # PyMC gives mixtures their 36 rows
    expected = hlik.predict(dropped, short, new, kind="response")[:4]
    scale = TRIALS[MISSING] if family == "binomial" else 1.0
    mean = full.estimates["y_unobserved"].values
    np.testing.assert_allclose(mean, scale * expected["estimate"], rtol=1e-5)
    variance = own_variance(family, mean, full.estimates)
    np.testing.assert_allclose(full.diagnostics["y_unobserved_sd"].values ** 2, variance, rtol=1e-6)
    total = (scale * expected["se"].to_numpy()) ** 2 + variance
    np.testing.assert_allclose(full.standard_errors["y_unobserved"].values ** 2, total, rtol=1e-4)
    assert list(full.estimates["y_unobserved_dim_0"].values) == ["o3", "o10", "o11", "o39"]
    full.to_netcdf(tmp_path / "masked.nc")
    again = az.from_netcdf(tmp_path / "masked.nc")
    np.testing.assert_array_equal(again.standard_errors["y_unobserved"], full.standard_errors["y_unobserved"])
    for table in (hlik.summary(full), hlik.summary(again)):
        assert table.heading.splitlines()[1].startswith("Response y: ")
        assert table.heading.endswith("36 observations, 4 of 40 missing")


@pytest.fixture(scope="module")
def masked():
    model = build("poisson", ~MISSING, masked=True)
    return model, hlik.fit(model, "laplace", progressbar=False, draws=0)


def test_all_rows_of_a_masked_response_are_predicted(masked):
    """Those of the parts, each in its place; at other data without the mask."""
    model, idata = masked
    whole = hlik.predict(model, idata, response="y")
    assert list(whole.index[:4]) == ["y[o0]", "y[o1]", "y[o2]", "y[o3]"]
    for part, rows in (("y_observed", ~MISSING), ("y_unobserved", MISSING)):
        np.testing.assert_allclose(hlik.predict(model, idata, response=part), whole[rows], rtol=1e-10)
    np.testing.assert_allclose(hlik.predict(model, idata), whole, rtol=0)
    new = hlik.predict(model, idata, {"x": X[:3], "group": GROUP[:3]})
    np.testing.assert_allclose(new, whole[:3], rtol=1e-10)


def test_inspect_names_the_missing_values(masked):
    text = str(hlik.inspect(masked[0]))
    assert "y: Poisson, link log, 36 observations, 4 of 40 missing" in text
    assert "Predicted (missing values of responses)\n  y_unobserved" in text
    assert "Left out" not in text


def test_pictures_call_the_response_by_its_name(masked):
    axes = hlik.plot_diagnostics(masked[1], response="y")
    titles = [text for axis in np.ravel(axes) for text in (axis.get_title(), axis.get_xlabel(), axis.get_ylabel())]
    assert not any("y_observed" in text for text in titles)


def test_a_response_of_two_axes_keeps_its_labels():
    rng = np.random.default_rng(5)
    values = rng.normal(size=(6, 4)) + np.arange(6)[:, None]
    y = np.ma.masked_array(values, np.zeros((6, 4), bool))
    y[2, 1] = y[5, 3] = np.ma.masked
    with pm.Model(coords={"row": list("abcdef"), "time": [1, 2, 3, 4]}) as model:
        mean, sigma_u, sigma = pm.Normal("mean"), pm.HalfNormal("sigma_u"), pm.HalfNormal("sigma")
        u = pm.Normal("u", 0, sigma_u, dims="row")
        pm.Normal("y", mean + u[:, None], sigma, observed=y, dims=("row", "time"))
    idata = hlik.fit(model, "laplace", progressbar=False, draws=0)
    assert list(idata.estimates["y_unobserved_dim_0"].values) == ["c, 2", "f, 4"]
    expected = (idata.estimates["mean"] + idata.estimates["u"]).values[[2, 5]]
    np.testing.assert_allclose(idata.estimates["y_unobserved"], expected, atol=1e-10)
