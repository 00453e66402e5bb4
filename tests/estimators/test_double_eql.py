"""EQL of double HGLMs: the hglm tutorial's figures, its two halves as models of their own, what it refuses."""

import json

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest

import hlik
from hlik.graph.read import read_model

GROUPS, EACH = 30, 20
GROUP = np.repeat(np.arange(GROUPS), EACH)
_rng = np.random.default_rng(7)
X = _rng.normal(size=GROUP.size)
_u, _w = 0.8 * _rng.normal(size=GROUPS), 0.6 * _rng.normal(size=GROUPS)
NORMAL = 1 + 0.5 * X + _u[GROUP] + np.exp(0.5 * (-0.4 + 0.3 * X + _w[GROUP])) * _rng.normal(size=GROUP.size)
_shape = np.exp(1.2 - 0.3 * X - _w[GROUP])
GAMMA = _rng.gamma(_shape, np.exp(0.5 + 0.2 * X + 0.5 * _u[GROUP]) / _shape)


def fit(model, estimator=None, **arguments):
    return hlik.fit(model, estimator or hlik.EQL(), progressbar=False, draws=0, **arguments)


def tutorial(shared):
    frame = pd.read_csv(shared / "data" / "tut_dhglm.csv")
    group = frame.ID.to_numpy() - 1
    with pm.Model() as model:
        b, c = pm.Normal("b", 0, 10), pm.Normal("c", 0, 10)
        u = pm.Normal("u", 0, pm.HalfNormal("sigma_u"), shape=10)
        w = pm.Normal("w", 0, pm.HalfNormal("sigma_w"), shape=10)
        pm.Normal("y", b + u[group], pt.exp(0.5 * (c + w[group])), observed=frame.y.to_numpy())
    return model


def test_tutorial_as_r_computes_it(shared):
    """R alternates three times; its record is 5e-5 from the fixed point in the variance of w."""
    record = json.loads((shared / "reference" / "seeds" / "tut_dhglm.json").read_text())["got"]
    found = fit(tutorial(shared), hlik.EQL(dispersion={"y_dispersion": "estimate"})).estimates
    assert float(found.sigma_u) ** 2 == pytest.approx(record["varRanef_mean"], rel=1e-5)
    assert float(found.sigma_w) ** 2 == pytest.approx(record["varRanef_disp"], rel=1e-4)
    assert float(found.b) == pytest.approx(record["mean_model"]["fixef"]["X.1"], rel=1e-4)
    assert float(found.c) == pytest.approx(record["disp_model"]["fixef"]["X.1"], rel=1e-4)
    np.testing.assert_allclose(found.w, record["disp_model"]["ranef"], atol=1e-4)


def test_tutorial_beside_laplace(shared):
    """With the dispersion of the squared residuals at 1, EQL is next to restricted Laplace, not to plain Laplace."""
    model = tutorial(shared)
    eql, reml = fit(model).estimates, fit(model, hlik.Laplace(reml=True)).estimates
    for name, tolerance in (("sigma_u", 0.002), ("sigma_w", 0.002), ("c", 0.2)):
        assert float(eql[name]) == pytest.approx(float(reml[name]), rel=tolerance)


def test_estimated_effects_may_be_fixed_instead(shared):
    """The tutorial's model with ID fixed in the dispersion is no double HGLM, and R's record is the fixed point."""
    frame = pd.read_csv(shared / "data" / "tut_dhglm.csv")
    record = json.loads((shared / "reference" / "seeds" / "tut_dhglm_fixed_Xdisp.json").read_text())["got"]
    group = frame.ID.to_numpy() - 1
    with pm.Model() as model:
        b, w = pm.Normal("b", 0, 10), pm.Normal("w", 0, 1, shape=10)
        u = pm.Normal("u", 0, pm.HalfNormal("sigma_u"), shape=10)
        pm.Normal("y", b + u[group], pt.exp(0.5 * w[group]), observed=frame.y.to_numpy())
    found = fit(model).estimates
    assert float(found.sigma_u) ** 2 == pytest.approx(record["varRanef"][0], rel=1e-5)
    np.testing.assert_allclose(found.w, [row[0] for row in record["disp_model"]["values"]], atol=1e-4)


def double(kind, effects=True):
    with pm.Model() as model:
        beta, gamma = pm.Normal("beta", 0, 1, shape=2), pm.Normal("gamma", 0, 1, shape=2)
        u = pm.Normal("u", 0, pm.HalfNormal("sigma_u"), shape=GROUPS)
        w = pm.Normal("w", 0, pm.HalfNormal("sigma_w"), shape=GROUPS)
        eta, spread = beta[0] + beta[1] * X + u[GROUP], gamma[0] + gamma[1] * X + w[GROUP]
        if kind == "normal":
            pm.Normal("y", eta, pt.exp(0.5 * spread), observed=NORMAL)
        else:
            pm.Gamma("y", alpha=pt.exp(-spread), beta=pt.exp(-spread - eta), observed=GAMMA)
    return model


@pytest.mark.parametrize("kind", ["normal", "gamma"])
def test_halves_as_models_of_their_own(kind):
    """At the solution each half, written as a model with the other's numbers as data, has the same estimates."""
    idata = fit(double(kind))
    assert idata.fit.attrs["status"] == "converged"
    found, diagnostics = idata.estimates, idata.diagnostics
    leverage, deviance = diagnostics["y_leverage"].to_numpy(), diagnostics["y_deviance"].to_numpy()
    phi = diagnostics["y_dispersion"].to_numpy()
    with pm.Model() as means:
        beta = pm.Normal("beta", 0, 1, shape=2)
        eta = beta[0] + beta[1] * X + pm.Normal("u", 0, pm.HalfNormal("sigma_u"), shape=GROUPS)[GROUP]
        if kind == "normal":
            pm.Normal("y", eta, np.sqrt(phi), observed=NORMAL)
        else:
            pm.Gamma("y", alpha=1 / phi, beta=pt.exp(-eta) / phi, observed=GAMMA)
    with pm.Model() as spread:
        gamma = pm.Normal("gamma", 0, 1, shape=2)
        w = pm.Normal("w", 0, pm.HalfNormal("sigma_w"), shape=GROUPS)
        eta = gamma[0] + gamma[1] * X + w[GROUP]
        pm.Gamma("d", alpha=1, beta=pt.exp(-eta), observed=deviance / (1 - leverage))
    alone = fit(means).estimates
    np.testing.assert_allclose(found.beta, alone.beta, atol=1e-6)  # the turns end 1e-7 standard errors apart
    assert float(found.sigma_u) == pytest.approx(float(alone.sigma_u), rel=1e-6)
    alone = fit(spread, weights={"d": (1 - leverage) / 2}).estimates
    np.testing.assert_allclose(found.gamma, alone.gamma, atol=1e-6)
    np.testing.assert_allclose(found.w, alone.w, atol=1e-6)
    assert float(found.sigma_w) == pytest.approx(float(alone.sigma_w), rel=1e-6)


def test_covariance_and_likelihoods():
    idata = fit(double("normal"))
    assert all(np.all(np.isfinite(idata.standard_errors[name])) for name in ("beta", "gamma", "sigma_u", "sigma_w"))
    best, found = float(fit(double("normal"), "laplace").fit["p_v_h"]), float(idata.fit["p_v_h"])
    assert best - 1.5 < found < best  # the same function, near its maximum: REML's variances are not ML's


def test_random_effects_in_the_variance_of_random_effects():
    """Regions differ in the variance of their districts: h of each half is that of the other's numbers again."""
    regions, districts, each = 12, 15, 4
    rng = np.random.default_rng(3)
    region = np.repeat(np.arange(regions), districts)
    w = 0.8 * rng.normal(size=regions)
    u = np.exp(0.5 * w[region]) * rng.normal(size=region.size)
    district = np.repeat(np.arange(region.size), each)
    y = 0.5 + u[district] + 0.5 * rng.normal(size=district.size)
    with pm.Model() as model:
        b, g = pm.Normal("b", 0, 10), pm.Normal("g", 0, 10)
        spread = pm.Normal("w", 0, pm.HalfNormal("sigma_w"), shape=regions)
        effect = pm.Normal("u", 0, pt.exp(0.5 * (g + spread[region])), shape=region.size)
        pm.Normal("y", b + effect[district], pm.HalfNormal("sigma"), observed=y)
    eql, reml = fit(model), fit(model, hlik.Laplace(reml=True))
    assert eql.fit.attrs["status"] == "converged"
    for name in ("g", "sigma_w", "sigma"):
        error = float(reml.standard_errors[name])
        assert abs(float(eql.estimates[name]) - float(reml.estimates[name])) < 0.5 * error, name
    assert np.corrcoef(eql.estimates.w, w)[0, 1] > 0.7


def test_shared_variables_are_refused():
    with pm.Model() as model:
        b, c = pm.Normal("b", 0, 10), pm.Normal("c", 0, 10)
        u = pm.Normal("u", 0, pm.HalfNormal("sigma_u"), shape=GROUPS)
        pm.Normal("y", b + u[GROUP], pt.exp(c + 0.2 * u[GROUP]), observed=NORMAL)
    assert read_model(model).double is None
    with pytest.raises(hlik.ModelError, match=r"dispersion of 'y'.*depends on 'u'"):
        fit(model)
    assert fit(model, "laplace").fit.attrs["status"] == "converged"


def test_wrong_setting_is_refused():
    with pytest.raises(hlik.ModelError, match="y_dispersion"):
        fit(double("normal"), hlik.EQL(dispersion="estimate"))


def test_start_values_are_used():
    idata = fit(double("normal"), start={"sigma_w": 0.6, "beta": np.array([1.0, 0.5])})
    other = fit(double("normal"))
    np.testing.assert_allclose(idata.estimates.sigma_w, other.estimates.sigma_w, rtol=1e-6)


def test_inspection_names_the_second_predictor():
    text = str(hlik.inspect(double("normal")))
    assert "dispersion: link log, predictor gamma + w" in text
