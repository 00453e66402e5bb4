"""Predictions against glmmTMB, against the fit's own numbers, closed forms and differences."""

from __future__ import annotations

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import integrate, stats

import hlik
from models import sleepstudy

GROUP = np.repeat(np.arange(8), 6)
X = np.array(
    "-0.802 -1.324 -0.248 0.420 1.136 0.110 -0.553 -0.785 0.749 1.635 0.273 -1.233 -0.958 1.600 0.203 -1.732 "
    "-0.084 -1.163 -0.629 -0.488 -0.713 0.553 -0.063 -0.589 0.410 0.830 -1.643 -0.257 -0.981 -0.173 -1.289 0.021 "
    "-0.038 -0.304 -1.048 -0.396 -1.091 -1.355 0.225 -1.109 1.170 0.717 -1.998 0.272 -1.102 0.033 0.044 -1.988".split(),
    dtype=float,
)
Y = np.array([
    1, 2, 1, 1, 4, 2, 4, 1, 3, 3, 0, 0, 5, 6, 4, 2, 1, 1, 2, 0, 1, 0, 1, 1, 3, 1, 0, 1, 1, 3, 1, 1, 1, 1, 1, 1, 0, 1,
    0, 1, 1, 2, 1, 1, 1, 1, 0, 3,
])  # fmt: skip


def poisson(effect="centred"):
    with pm.Model(coords={"g": np.arange(8)}) as model:
        beta, s = pm.Normal("beta", 0, 5, shape=2), pm.HalfNormal("s", 1)
        x, group = pm.Data("x", X), pm.Data("group", GROUP)
        if effect == "centred":
            u = pm.Normal("u", 0, s, dims="g")
        elif effect == "non-centred":
            u = s * pm.Normal("u", 0, 1, dims="g")
        else:
            u = pm.math.log(pm.Gamma("u", 1 / s**2, 1 / s**2, dims="g"))
        eta = pm.Deterministic("eta", beta[0] + beta[1] * x + u[group])
        pm.Poisson("y", pm.math.exp(eta), observed=Y)
    return model


def fit(model, estimator="eql"):
    return hlik.fit(model, estimator, progressbar=False, draws=0)


@pytest.fixture(scope="module")
def laplace():
    model = poisson()
    return model, fit(model, "laplace")


NEW = {"x": np.array([-1, 0.5, 1.2, 0]), "group": np.array([0, 3, 7, 8])}
COORDS = {"g": [*range(8), 99]}


def test_glmmtmb(laplace):
    """
    library(glmmTMB); m <- glmmTMB(y ~ x + (1 | g), data = d, family = poisson)
    nd <- data.frame(g = factor(c(0, 3, 7, 99)), x = c(-1, 0.5, 1.2, 0))
    predict(m, nd, se.fit = TRUE, type = "link", allow.new.levels = TRUE)      # and type = "response"
    """
    link = hlik.predict(*laplace, NEW, coords=COORDS)
    response = hlik.predict(*laplace, NEW, kind="response", coords=COORDS)
    # glmmTMB stops a little before the maximum (its log-likelihood agrees to 1e-8), with differences of 2e-6
    np.testing.assert_allclose(link["estimate"], [0.255363859, 0.377918421, 0.708420303, 0.430553251], atol=3e-6)
    np.testing.assert_allclose(link["se"], [0.266425183, 0.307887321, 0.322275792, 0.338825793], atol=3e-6)
    np.testing.assert_allclose(response["estimate"], [1.29093125, 1.45924389, 2.03078071, 1.53810825], atol=5e-6)
    np.testing.assert_allclose(response["se"], [0.343936595, 0.449282693, 0.654471459, 0.521150748], atol=5e-6)


def test_intervals_of_the_response_are_those_of_the_link_mapped(laplace):
    link = hlik.predict(*laplace, interval=0.9)
    response = hlik.predict(*laplace, kind="response", interval=0.9)
    np.testing.assert_allclose(response[["lower", "upper"]], np.exp(link[["lower", "upper"]]), rtol=1e-12)
    half = stats.norm.ppf(0.95) * link["se"]
    np.testing.assert_allclose(link["upper"] - link["estimate"], half, rtol=1e-12)
    assert list(hlik.predict(*laplace, se=False).columns) == ["estimate"]
    assert list(hlik.predict(*laplace, interval=None).columns) == ["estimate", "se"]


@pytest.mark.parametrize("effect", ["centred", "non-centred", "gamma"])
def test_at_the_data_of_the_fit(effect):
    """EQL: the errors of the Deterministic eta in the result are those of the joint (beta, v)."""
    model = poisson(effect)
    idata = fit(model)
    found = hlik.predict(model, idata)
    np.testing.assert_allclose(found["estimate"], idata["diagnostics"]["y_linear_predictor"], rtol=1e-10)
    by_name = hlik.predict(model, idata, response="eta")
    np.testing.assert_allclose(by_name, found, rtol=1e-12)
    if effect != "non-centred":  # there the Deterministic depends on the scale, whose error is counted too
        np.testing.assert_allclose(found["se"], idata["standard_errors"]["eta"], rtol=1e-9)
    mean = hlik.predict(model, idata, kind="response")
    np.testing.assert_allclose(mean["estimate"], idata["diagnostics"]["y_fitted"], rtol=1e-10)


def test_new_data_equal_to_the_old_change_nothing(laplace):
    same = hlik.predict(*laplace, {"x": X, "group": GROUP})
    np.testing.assert_allclose(same, hlik.predict(*laplace), rtol=1e-10)


def test_levels_are_known_by_their_labels(laplace):
    """A subset of the levels in another order."""
    found = hlik.predict(*laplace, {"x": np.zeros(2), "group": [0, 1]}, coords={"g": [7, 2]})
    expected = hlik.predict(*laplace, {"x": np.zeros(2), "group": [7, 2]})
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_dense_algebra(laplace):
    """Variance of x'beta + v by the partitioned inverse of the observed information in (v, beta, theta)."""
    model, idata = laplace
    zero = hlik.predict(model, idata, random="zero")
    design = np.column_stack([np.ones(48), X])
    covariance = idata["fit"]["covariance_matrix"].values[:2, :2]
    np.testing.assert_allclose(zero["se"], np.sqrt(np.diag(design @ covariance @ design.T)), rtol=1e-10)
    new = hlik.predict(model, idata, random="new")
    variance = float(idata["estimates"]["s"]) ** 2
    np.testing.assert_allclose(new["se"] ** 2, zero["se"] ** 2 + variance, rtol=1e-10)
    np.testing.assert_allclose(new["estimate"], design @ idata["estimates"]["beta"].values, rtol=1e-12)


def test_marginal_mean_of_the_log_normal(laplace):
    """E exp(eta + u) = exp(eta + s^2/2); its error by the gradient of that in (beta, log s)."""
    model, idata = laplace
    found = hlik.predict(model, idata, random="marginal", kind="response")
    design, s = np.column_stack([np.ones(48), X]), float(idata["estimates"]["s"])
    mean = np.exp(design @ idata["estimates"]["beta"].values + s**2 / 2)
    np.testing.assert_allclose(found["estimate"], mean, rtol=1e-12)
    gradient = np.column_stack([design, np.full(48, s**2)]) * mean[:, None]
    covariance = idata["fit"]["covariance_matrix"].values
    error = np.sqrt(np.einsum("ij,jk,ik->i", gradient, covariance, gradient))
    np.testing.assert_allclose(found["se"], error, rtol=1e-6)  # central differences in log s
    link = hlik.predict(model, idata, random="marginal")
    np.testing.assert_allclose(np.exp(link["estimate"]), mean, rtol=1e-12)


def test_marginal_mean_with_gamma_effects():
    """E exp(eta) u = exp(eta), whatever lam is."""
    model = poisson("gamma")
    idata = fit(model)
    found = hlik.predict(model, idata, random="marginal", kind="response")
    design = np.column_stack([np.ones(48), X])
    mean = np.exp(design @ idata["estimates"]["beta"].values)
    np.testing.assert_allclose(found["estimate"], mean, rtol=1e-10)
    error = np.sqrt(np.diag(design @ idata["fit"]["covariance_matrix"].values[:2, :2] @ design.T))
    np.testing.assert_allclose(found["se"], mean * error, rtol=1e-8)


def binomial(kind):
    r, n = [10, 23, 23, 26, 17, 8, 3, 22], [39, 62, 81, 51, 39, 16, 5, 30]
    with pm.Model() as model:
        beta, s = pm.Normal("beta", 0, 5), pm.HalfNormal("s", 1)
        u = pm.Normal("u", 0, s, shape=8) if kind == "normal" else None
        if u is None:
            u = pm.math.logit(pm.Beta("u", 1 / (2 * s), 1 / (2 * s), shape=8))
        pm.Binomial("r", n=np.array(n), logit_p=beta + u, observed=r)
    return model


@pytest.mark.parametrize("kind", ["normal", "beta"])
def test_marginal_probability_by_adaptive_quadrature(kind):
    model = binomial(kind)
    idata = fit(model)
    found = hlik.predict(model, idata, random="marginal", kind="response")
    beta, s = float(idata["estimates"]["beta"]), float(idata["estimates"]["s"])

    def mean(s):
        if kind == "normal":
            density, ends = stats.norm(0, s).pdf, (-12 * s, 12 * s)
            return integrate.quad(lambda v: density(v) / (1 + np.exp(-beta - v)), *ends, epsabs=1e-13)[0]
        density = stats.beta(1 / (2 * s), 1 / (2 * s)).pdf
        return integrate.quad(lambda u: density(u) * u / (u + np.exp(-beta) * (1 - u)), 0, 1, epsabs=1e-13)[0]

    np.testing.assert_allclose(found["estimate"], mean(s), rtol=1e-9)


def test_user_model_and_data_stay_as_they_are(laplace):
    model, _ = laplace
    before = {v.name: v.get_value().copy() for v in model.data_vars}, dict(model.coords)
    hlik.predict(*laplace, NEW, coords=COORDS)
    after = {v.name: v.get_value() for v in model.data_vars}, dict(model.coords)
    assert before[1] == after[1]
    for name, value in before[0].items():
        np.testing.assert_array_equal(value, after[0][name])


def test_frame_and_netcdf(laplace, tmp_path):
    model, idata = laplace
    idata.to_netcdf(tmp_path / "fit.nc")
    again = az.from_netcdf(tmp_path / "fit.nc")
    frame = pd.DataFrame({"x": NEW["x"], "group": NEW["group"], "else": "a"})
    found = hlik.predict(model, again, frame, coords=COORDS)
    np.testing.assert_allclose(found, hlik.predict(model, idata, NEW, coords=COORDS), rtol=1e-12)


def test_mean_of_several_predictors():
    """Zero-inflated Poisson: mean psi exp(eta); its errors by the delta method in (beta, psi)."""
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(6), 12)
    y = rng.binomial(1, 0.7, 72) * rng.poisson(np.exp(1 + rng.normal(0, 0.4, 6)[group]))
    with pm.Model() as model:
        beta, s, psi = pm.Normal("beta", 0, 5), pm.HalfNormal("s", 1), pm.Beta("psi", 1, 1)
        u = pm.Normal("u", 0, s, shape=6)
        pm.ZeroInflatedPoisson("y", psi, pm.math.exp(beta + u[group]), observed=y)
    idata = fit(model, "laplace")
    found = hlik.predict(model, idata, random="zero", kind="response").iloc[0]
    b, p = float(idata["estimates"]["beta"]), float(idata["estimates"]["psi"])
    assert found["estimate"] == pytest.approx(p * np.exp(b), rel=1e-10)
    names = list(idata["fit"]["parameter"].values)
    place = [names.index("beta"), names.index("psi_logodds__")]
    covariance = idata["fit"]["covariance_matrix"].values[np.ix_(place, place)]
    gradient = np.exp(b) * np.array([p, p * (1 - p)])
    assert found["se"] == pytest.approx(np.sqrt(gradient @ covariance @ gradient), rel=1e-8)
    conditional = hlik.predict(model, idata, kind="response")["estimate"]
    u = idata["estimates"]["u"].values[group]
    np.testing.assert_allclose(conditional, p * np.exp(b + u), rtol=1e-10)
    with pytest.raises(hlik.ModelError, match="kind='response'"):
        hlik.predict(model, idata)


def test_prior_weights_and_quasi_dispersion_are_restored():
    model = binomial("normal")
    weighted = hlik.fit(model, weights={"r": np.arange(1.0, 9.0)}, progressbar=False, draws=0)
    found = hlik.predict(model, weighted)
    np.testing.assert_allclose(found["estimate"], weighted["diagnostics"]["r_linear_predictor"], rtol=1e-10)
    error = float(weighted["standard_errors"]["beta"])
    assert hlik.predict(model, weighted, random="zero")["se"].iloc[0] == pytest.approx(error, rel=1e-9)
    poisson_model = poisson()
    quasi = hlik.fit(poisson_model, hlik.EQL(dispersion="estimate"), progressbar=False, draws=0)
    found = hlik.predict(poisson_model, quasi)
    np.testing.assert_allclose(found["se"], quasi["standard_errors"]["eta"], rtol=1e-8)


def test_correlated_slopes_by_formula_against_glmmtmb():
    """
    m <- glmmTMB(Reaction ~ Days + (Days | Subject), data = sleepstudy)
    predict(m, nd, se.fit = TRUE, allow.new.levels = TRUE)    # rows: 308, 308, 310 and a new subject
    """
    frame = sleepstudy.load()
    model = hlik.from_formula("Reaction ~ Days + (Days | Subject)", frame)
    idata = fit(model, "laplace")
    new = pd.DataFrame({"Days": [0, 5, 9, 5], "Subject": [308, 308, 310, 999]})
    found = hlik.predict(model, idata, new)
    # both stop near the maximum of a likelihood that is flat in the correlation: 1e-5 of an error apart
    np.testing.assert_allclose(found["estimate"], [254.220897, 351.934895, 257.557089, 303.741497], atol=3e-4)
    np.testing.assert_allclose(found["se"], [12.94513478, 8.04856611, 14.07398860, 39.74706885], rtol=1e-5)
    anew = hlik.predict(model, idata, new[:3], random="new")
    assert anew["se"].iloc[1] == pytest.approx(found["se"].iloc[3], rel=1e-10)
    again = hlik.predict(model, idata, random="new")  # the levels of the fit, by the factor of their precision
    assert again["se"].iloc[5] == pytest.approx(found["se"].iloc[3], rel=1e-8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"random": "some"}, "expected one of"),
        ({"kind": "mean"}, "'link' or 'response'"),
        ({"interval": 2}, "between 0 and 1"),
        ({"data": {"z": [1.0]}}, "does not have as pm.Data"),
        ({"data": {"x": np.ones((2, 2))}}, "axes"),
        ({"data": {"x": np.array([np.nan])}}, "missing or infinite"),
        ({"data": {"x": np.ones(3)}}, "cannot be computed"),
        ({"coords": {"h": [1]}}, "the model's dims"),
        ({"response": "z"}, "No response"),
        ({"data": pd.DataFrame({"a": [1]})}, "No column"),
    ],
)
def test_errors(laplace, arguments, message):
    with pytest.raises(hlik.ModelError, match=message):
        hlik.predict(*laplace, **arguments)


def test_another_model_is_refused(laplace):
    _, idata = laplace
    other = poisson()
    with pytest.raises(hlik.ModelError, match="not of this model"):
        hlik.predict(binomial("normal"), idata)
    with other:
        pm.set_data({"x": X + 1})
    with pytest.raises(hlik.ModelError, match="'x' holds other data"):
        hlik.predict(other, idata)
    with pytest.raises(hlik.ModelError, match="not of this model"):
        hlik.predict(poisson("non-centred"), fit(poisson("gamma")))
