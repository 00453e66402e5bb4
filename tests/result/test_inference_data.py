"""The result: groups, dims, draws, NetCDF, and ArviZ's own functions on it."""

from __future__ import annotations

import arviz as az
import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import hlik


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    group, x = np.repeat(np.arange(6), 5), rng.normal(size=30)
    y = rng.poisson(np.exp(1 + 0.3 * x + rng.normal(0, 0.5, 6)[group]))
    with pm.Model(coords={"coef": ["one", "x"], "group": list("abcdef"), "obs": np.arange(30)}) as built:
        covariate = pm.Data("covariate", x, dims="obs")
        beta = pm.Normal("beta", 0, 5, dims="coef")
        sigma = pm.HalfNormal("sigma", 1)
        z = pm.Normal("z", 0, 1, dims="group")
        u = pm.Deterministic("u", sigma * z, dims="group")
        pm.Deterministic("slope_ratio", beta[1] / beta[0])
        pm.Deterministic("variance", sigma**2)
        pm.Poisson("y", pt.exp(beta[0] + beta[1] * covariate + u[group]), observed=y, dims="obs")
    return built


@pytest.fixture(scope="module")
def idata(model):
    return hlik.fit(model, draws=4000, random_seed=3, progressbar=False)


def test_groups_names_and_dims(idata):
    assert set(idata.groups()) == {
        "posterior", "estimates", "standard_errors", "unconstrained_estimates", "unconstrained_standard_errors",
        "fit", "history", "diagnostics", "observed_data", "constant_data",
    }  # fmt: skip
    assert set(idata["estimates"]) == {"beta", "sigma", "z", "u", "slope_ratio", "variance"}
    assert set(idata["unconstrained_estimates"]) == {"beta", "sigma_log__", "z"}
    assert idata["estimates"]["u"].dims == ("group",)
    assert list(idata["estimates"]["beta"].coords["coef"].values) == ["one", "x"]
    assert idata["posterior"]["z"].dims == ("chain", "draw", "group")
    assert idata["posterior"].sizes["chain"] == 4
    assert idata["diagnostics"]["y_fitted"].dims == ("obs",)
    assert idata["constant_data"]["covariate"].dims == ("obs",)
    assert list(idata["fit"].coords["parameter"].values) == ["beta[one]", "beta[x]", "sigma_log__"]


def test_estimates_are_consistent(idata):
    estimates, errors = idata["estimates"], idata["standard_errors"]
    sigma = float(estimates["sigma"])
    np.testing.assert_allclose(np.log(sigma), float(idata["unconstrained_estimates"]["sigma_log__"]), rtol=1e-12)
    np.testing.assert_allclose(estimates["u"], sigma * estimates["z"], rtol=1e-12)
    np.testing.assert_allclose(float(estimates["variance"]), sigma**2, rtol=1e-12)
    np.testing.assert_allclose(float(errors["variance"]), 2 * sigma * float(errors["sigma"]), rtol=1e-9)
    np.testing.assert_allclose(idata["diagnostics"]["z_v"], estimates["u"], rtol=1e-12)
    b0, b1 = estimates["beta"].values
    np.testing.assert_allclose(float(estimates["slope_ratio"]), b1 / b0, rtol=1e-12)
    gradient = np.array([-b1 / b0**2, 1 / b0])
    covariance = idata["fit"]["covariance_matrix"].values[:2, :2]
    np.testing.assert_allclose(float(errors["slope_ratio"]), np.sqrt(gradient @ covariance @ gradient), rtol=1e-8)


def test_draws_follow_the_normal_approximation(idata):
    """Means and covariances within four Monte Carlo standard errors of 4,000 independent draws."""
    draws = idata["posterior"].stack(sample=("chain", "draw"))
    beta = draws["beta"].transpose("coef", "sample").values
    covariance = idata["fit"]["covariance_matrix"].values[:2, :2]
    tolerance = 4 / np.sqrt(4000)
    scale = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(beta.mean(axis=1) - idata["estimates"]["beta"].values) < tolerance * scale)
    assert np.all(np.abs(np.cov(beta) - covariance) < 1.5 * tolerance * np.outer(scale, scale))
    log_sigma = np.log(draws["sigma"].values)
    error = float(idata["unconstrained_standard_errors"]["sigma_log__"])
    assert abs(log_sigma.std() / error - 1) < tolerance
    product = (draws["sigma"] * draws["z"]).transpose(*draws["u"].dims)
    np.testing.assert_allclose(draws["u"], product, rtol=1e-10)


def test_arviz_works_on_it(idata):
    import matplotlib.pyplot as plt

    summary = az.summary(idata, var_names=["beta", "sigma"])
    assert list(summary.index) == ["beta[one]", "beta[x]", "sigma"]
    assert np.all(summary["r_hat"] <= 1.01)
    assert az.plot_forest(idata, var_names=["beta"]).size
    assert az.plot_trace(idata, var_names=["sigma"]).size
    path = hlik.history(idata)
    assert path["posterior"].sizes["draw"] == idata["fit"].attrs["n_iterations"]
    assert az.plot_trace(path, var_names=["beta", "step"]).size
    plt.close("all")


def test_netcdf_round_trip(idata, tmp_path):
    idata.to_netcdf(tmp_path / "fit.nc")
    again = az.from_netcdf(tmp_path / "fit.nc")
    assert set(again.groups()) == set(idata.groups())
    for group in idata.groups():
        for name in idata[group]:
            np.testing.assert_array_equal(idata[group][name].values, again[group][name].values)
    assert str(hlik.summary(again)) == str(hlik.summary(idata))
    assert hlik.ranef(again).equals(hlik.ranef(idata))


def test_summary_and_ranef(idata):
    table = hlik.summary(idata)
    assert list(table.index) == ["beta[one]", "beta[x]", "sigma"]
    row = table.loc["beta[x]"]
    assert row["statistic"] == pytest.approx(row["estimate"] / row["se"])
    df = float(idata["fit"]["df_residual"])
    from scipy import stats

    assert row["p_value"] == pytest.approx(2 * stats.t(df).sf(abs(row["statistic"])))
    assert row["lower"] == pytest.approx(row["estimate"] - stats.t(df).ppf(0.975) * row["se"])
    own, error = (float(idata[f"unconstrained_{g}"]["sigma_log__"]) for g in ("estimates", "standard_errors"))
    assert table.loc["sigma", "upper"] == pytest.approx(np.exp(own + stats.norm.ppf(0.975) * error))
    assert "Status: converged" in str(table)
    assert "Fixed effects" in table._repr_html_() or "<pre>hlik EQL()" in table._repr_html_()
    effects = hlik.ranef(idata)
    assert list(effects.index) == [f"z[{k}]" for k in "abcdef"]
    np.testing.assert_allclose(effects["v"], idata["estimates"]["u"], rtol=1e-12)


def test_large_effects_are_not_drawn_unless_asked():
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(2500), 2)
    y = rng.poisson(np.exp(0.5 + rng.normal(0, 0.5, 2500))[group])
    with pm.Model() as big:
        beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma, shape=2500)
        pm.Poisson("y", pt.exp(beta + u[group]), observed=y)
    idata = hlik.fit(big, progressbar=False, draws=40)
    assert "u" not in idata["posterior"]
    assert "u: more than 2000 elements" in idata["posterior"].attrs["not_drawn"]
    assert idata["estimates"]["u"].size == 2500
    drawn = hlik.fit(big, progressbar=False, draws=40, draw_large=True)
    assert drawn["posterior"]["u"].shape == (4, 10, 2500)


def test_not_a_result():
    with pytest.raises(hlik.ModelError, match=r"not a result of hlik\.fit"):
        hlik.summary(az.from_dict({"beta": np.zeros((2, 3))}))
    with pytest.raises(hlik.ModelError, match=r"not a result of hlik\.fit"):
        hlik.history(az.from_dict({"beta": np.zeros((2, 3))}))


def test_history_that_was_taken_out(idata):
    without = az.InferenceData(**{name: idata[name] for name in idata.groups() if name != "history"})
    with pytest.raises(hlik.ModelError, match="no history of iterations"):
        hlik.history(without)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
@pytest.mark.parametrize("table", [hlik.summary, hlik.ranef])
def test_levels_outside_the_unit_interval(idata, table, level):
    with pytest.raises(hlik.ModelError, match=f"level must lie between 0 and 1; got {level}"):
        table(idata, level=level)
