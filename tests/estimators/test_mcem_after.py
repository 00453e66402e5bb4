"""The shared functions after the fit, on a result of Monte Carlo EM."""

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytest
from scipy import stats

import hlik

GROUP = np.repeat(np.arange(12), 5)


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(4)
    x = rng.normal(size=60)
    rate = np.exp(0.5 + 0.4 * x + rng.normal(0, 0.7, 12)[GROUP])
    with pm.Model() as model:
        beta, sigma = pm.Normal("beta", 0, 5, shape=2), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma, shape=12)
        pm.Poisson("y", pm.math.exp(beta[0] + beta[1] * x + u[GROUP]), observed=rng.poisson(rate))
    return model, hlik.fit(model, hlik.MCEM(sampler="importance"), progressbar=False, random_seed=1)


def test_functions_after_the_fit(fit):
    model, idata = fit
    estimate, error = idata.estimates["beta"].values, idata.standard_errors["beta"].values
    test = hlik.wald_test(idata, ["beta[1]"], df=np.inf)
    assert np.isclose(test["chi_squared"], (estimate[1] / error[1]) ** 2)
    assert np.isclose(test["p_value"], stats.chi2(1).sf((estimate[1] / error[1]) ** 2))
    table = hlik.contrasts(idata, np.eye(2), adjust="bonferroni", df=np.inf)
    np.testing.assert_allclose(table["estimate"], estimate)
    np.testing.assert_allclose(table["p_value"], np.minimum(4 * stats.norm.sf(np.abs(estimate / error)), 1))
    limits = hlik.confint(idata, parm="beta", level=0.95)
    assert np.all(limits["lower"] < estimate)
    assert np.all(estimate < limits["upper"])
    link, response = (hlik.predict(model, idata, kind=kind) for kind in ("link", "response"))
    np.testing.assert_allclose(response["estimate"], np.exp(link["estimate"]), rtol=1e-6)
    np.testing.assert_allclose(response["se"], np.exp(link["estimate"]) * link["se"], rtol=1e-6)
    assert np.all(link["se"] > 0)
    y, mean = idata.observed_data["y"].values, response["estimate"].to_numpy()
    # residuals and predictions are at the same predicted effects: the conditional means of v
    np.testing.assert_allclose(hlik.residuals(idata, "pearson").values, (y - mean) / np.sqrt(mean), rtol=1e-8)
    np.testing.assert_allclose(hlik.residuals(idata, "response").values, y - mean, rtol=1e-8, atol=1e-10)
    ranef = hlik.ranef(idata)
    np.testing.assert_allclose(ranef["estimate"], idata.estimates["u"].values)


@pytest.mark.parametrize("kind", ["link", "response"])
@pytest.mark.parametrize("random", ["conditional", "zero", "marginal"])
def test_errors_of_predictions(fit, kind, random):
    """Against quadrature, whose standard errors are without Monte Carlo error; also for rows that are new."""
    model, idata = fit
    exact = hlik.fit(model, hlik.AGQ(), progressbar=False)
    found, wanted = (hlik.predict(model, result, random=random, kind=kind) for result in (idata, exact))
    # Louis' standard errors, and variances of v given y, have Monte Carlo errors of up to 5 %; AGQ's errors of v are
    # those of the normal approximation at the mode
    np.testing.assert_allclose(found["se"], wanted["se"], rtol=0.12)
    assert np.max(np.abs(found["estimate"] - wanted["estimate"]) / wanted["se"]) < 0.3  # means of v, and modes


def test_adjusted_p_values(fit):
    _, idata = fit
    plain, holm, bonferroni = (
        hlik.contrasts(idata, np.array([[1, 0], [0, 1], [1, 1], [1, -1]]), adjust=how)["p_value"].to_numpy()
        for how in ("none", "holm", "bonferroni")
    )
    np.testing.assert_allclose(bonferroni, np.minimum(4 * plain, 1))
    order = np.argsort(plain)
    wanted = np.minimum(np.maximum.accumulate(plain[order] * np.array([4, 3, 2, 1])), 1)
    np.testing.assert_allclose(holm[order], wanted)


def test_pictures(fit):
    _, idata = fit
    assert az.plot_trace(hlik.history(idata), var_names=["beta"]).shape == (1, 2)
    assert az.plot_autocorr(idata, var_names=["u"], combined=True, max_lag=5).size >= 12
    assert az.plot_ess(idata, var_names=["u"], kind="quantile", coords={"u_dim_0": [0, 1]}).size == 2
    plt.close("all")


def test_profile_intervals(fit):
    """From the scores of fits with the parameter held, against those by quadrature."""
    model, idata = fit
    exact = hlik.confint(
        model, hlik.fit(model, hlik.AGQ(), progressbar=False, draws=0), method="profile", parm=["beta[1]"], level=0.8
    )
    found = hlik.confint(model, idata, method="profile", parm=["beta[1]"], level=0.8)
    assert list(found.index) == ["beta[1]"]
    assert found["method"].iloc[0] == "profile"
    error = float(idata.monte_carlo_errors["beta"][1])
    np.testing.assert_allclose(found[["lower", "upper"]], exact[["lower", "upper"]], atol=4 * error + 1e-3)
    with pytest.raises(hlik.ModelError, match="no parameters of this result"):
        hlik.profile(model, idata, "gamma")
