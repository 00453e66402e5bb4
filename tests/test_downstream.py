"""One set of functions after the fit for all estimators: directly, and from the file alone."""

from __future__ import annotations

import warnings

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr

import hlik

GROUP = np.repeat(np.arange(12), 5)
RNG = np.random.default_rng(6)
X = RNG.normal(size=60)
Y = RNG.binomial(4, 1 / (1 + np.exp(-0.3 - 0.8 * X - RNG.normal(0, 1, 12)[GROUP])))

ESTIMATORS = {
    "EQL": hlik.EQL(),
    "Laplace": hlik.Laplace(),
    "REML": hlik.Laplace(reml=True),
    "HL": hlik.HL(1, 1),
    "AGQ": hlik.AGQ(9),
    "MCEM": hlik.MCEM(sampler="importance"),
    "SAEM": hlik.SAEM(sampler="importance"),
    "MCLA": hlik.MCLA(),
}
PLACES = np.column_stack(np.divmod(np.arange(12), 4))
NEW = {"x": [0.0, 1.0], "group": [3, 0]}


def build():
    with pm.Model(coords={"coef": ["Intercept", "x"], "g": np.arange(12)}) as model:
        beta, sigma = pm.Normal("beta", 0, 5, dims="coef"), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma, dims="g")
        x, group = pm.Data("x", X), pm.Data("group", GROUP)
        pm.Binomial("y", 4, logit_p=beta[0] + beta[1] * x + u[group], observed=Y)
    return model


MODEL = build()


OFTEN = ("EQL", "Laplace", "MCEM", "MCLA")
PARAMETERS = [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in ESTIMATORS]


@pytest.fixture(scope="module", params=PARAMETERS)
def fits(request, tmp_path_factory):
    """The result of one estimator, as it is and read back from its file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hlik.ConvergenceWarning)  # Monte Carlo estimators may need more draws
        idata = hlik.fit(MODEL, ESTIMATORS[request.param], draws=200, random_seed=1, progressbar=False)
    path = tmp_path_factory.mktemp("fits") / "fit.nc"
    idata.to_netcdf(path)
    return request.param, idata, az.from_netcdf(path)


def few(fit):
    """Five draws of each chain."""
    return fit.isel(draw=slice(0, 5))


TABLES = {
    "summary": lambda f: hlik.summary(f),
    "summary in print": lambda f: str(hlik.summary(f)),
    "ranef": lambda f: hlik.ranef(f),
    "anova": lambda f: hlik.anova(f),
    "contrasts": lambda f: hlik.contrasts(
        f, {"x": {"beta[x]": 1}, "at 1": {"beta[Intercept]": 1, "beta[x]": 1}}, "holm"
    ),
    "wald_test": lambda f: hlik.wald_test(f, ["beta[Intercept]", "beta[x]"]),
    "variance_tests": lambda f: hlik.variance_tests(f),
    "confint": lambda f: hlik.confint(f),
    "vcov": lambda f: hlik.vcov(f),
    "loglik": lambda f: hlik.loglik(f),
    "criteria": lambda f: hlik.criteria(f),
    "variance_partition": lambda f: hlik.variance_partition(f),
    "deviance": lambda f: hlik.residuals(f, "deviance"),
    "pearson": lambda f: hlik.residuals(f, "pearson"),
    "studentised": lambda f: hlik.residuals(f, "studentised"),
    "quantile": lambda f: hlik.residuals(f, "quantile", random_seed=1),
    "response": lambda f: hlik.residuals(f, "response"),
    "residual_tests": lambda f: hlik.residual_tests(MODEL, f, simulations=50, random_seed=1),
    "simulate": lambda f: hlik.simulate(MODEL, f, 3, random_seed=1)["y"],
    "influence": lambda f: hlik.influence(MODEL, f),
    "influence of groups": lambda f: hlik.influence(MODEL, f, group="u"),
    "predict": lambda f: hlik.predict(MODEL, f),
    "predict new": lambda f: hlik.predict(MODEL, f, NEW, coords={"g": [*range(1, 4), "new"]}, kind="response"),
    "predict anew": lambda f: hlik.predict(MODEL, f, random="new"),
    "predict zero": lambda f: hlik.predict(MODEL, f, random="zero"),
    "predict marginal": lambda f: hlik.predict(MODEL, f, random="marginal", kind="response"),
    "compare": lambda f: hlik.compare({"one": f, "other": f}, model=MODEL),
    "pointwise": lambda f: hlik.pointwise_log_likelihood(MODEL, f, posterior=few(f))["log_likelihood"]["y"],
    "pointwise by group": lambda f: hlik.pointwise_log_likelihood(MODEL, f, "marginal", posterior=few(f))[
        "log_likelihood"
    ],
    "warm_start": lambda f: hlik.warm_start(f, random_seed=1)["initvals"][0]["beta"],
    "check_accuracy": lambda f: str(hlik.check_accuracy(MODEL, f, random_seed=1)),
    "history": lambda f: hlik.history(f)["posterior"],
    "az.summary": lambda f: az.summary(f, var_names=["beta", "sigma"], kind="stats"),
}


SLOW = {"check_accuracy"}  # seconds each
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in TABLES]


@pytest.mark.parametrize("name", NAMES)
def test_same_from_the_file(fits, name):
    _, idata, again = fits
    assert_same(TABLES[name](idata), TABLES[name](again))


def assert_same(first, second):
    """Equal, and not empty."""
    if isinstance(first, pd.DataFrame | pd.Series):
        assert len(first)
        kind, equal = (
            (pd.DataFrame, pd.testing.assert_frame_equal)
            if isinstance(first, pd.DataFrame)
            else (pd.Series, pd.testing.assert_series_equal)
        )
        equal(kind(first), kind(second), rtol=1e-10)
    elif isinstance(first, xr.DataArray | xr.Dataset):
        xr.testing.assert_allclose(first, second, rtol=1e-10)
    else:
        assert np.size(first)
        assert np.array_equal(first, second)


PICTURES = {
    "plot_diagnostics": lambda f, axes: hlik.plot_diagnostics(f),
    "plot_ranef": lambda f, axes: hlik.plot_ranef(f, axes=axes[:2]),
    "plot_history": lambda f, axes: hlik.plot_history(f),
    "plot_effects": lambda f, axes: hlik.plot_effects(MODEL, f, "x", ax=axes[0]),
    "plot_compare": lambda f, axes: hlik.plot_compare({"one": f, "other": f}, ax=axes[0]),
    "plot_map": lambda f, axes: hlik.plot_map(f, "u", PLACES, axes=axes[:2]),
}


@pytest.mark.parametrize("name", list(PICTURES))
def test_pictures_from_the_file(fits, name):
    _, idata, again = fits
    given = [plt.subplots(1, 4)[1] for _ in "ab"]
    before = plt.rcParams.copy()
    first, second = (np.ravel(PICTURES[name](f, axes)) for f, axes in zip((idata, again), given, strict=True))
    assert dict(plt.rcParams) == dict(before)
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert [len(line.get_xdata()) for line in one.lines] == [len(line.get_xdata()) for line in other.lines]
    plt.close("all")


def test_functions_of_single_estimators(fits):
    """What belongs to some estimators says so by name for the others."""
    name, _, again = fits
    own = {
        "plot_em": ("MCEM", "SAEM"),
        "plot_importance": ("MCLA",),
        "sandwich": ("EQL", "Laplace", "REML", "AGQ"),
        "profile": ("Laplace", "AGQ", "MCEM", "SAEM"),
    }
    calls = {
        "plot_em": lambda: hlik.plot_em(again),
        "plot_importance": lambda: hlik.plot_importance(again),
        "sandwich": lambda: hlik.sandwich(MODEL, again, GROUP),
        "profile": lambda: hlik.profile(MODEL, again, "beta[x]", points=2),
    }
    if name in ("MCEM", "SAEM"):
        calls.pop("profile")  # minutes: Monte Carlo fits along the curve
    for function, call in calls.items():
        if name in own[function]:
            assert len(call())
        else:
            with pytest.raises(hlik.ModelError):
                call()
    plt.close("all")


@pytest.mark.slow
def test_parametric_bootstrap(fits):
    name, _, again = fits
    if name in ("MCEM", "SAEM"):
        pytest.skip("two Monte Carlo fits: tests/inference/test_bootstrap.py has the mechanism")
    found = hlik.bootstrap(MODEL, again, 2, progressbar=False, random_seed=1)
    assert found["bootstrap"].sizes["replicate"] == 2


def test_every_public_function_is_here():
    """No function after the fit can be added without being tried with every estimator."""
    elsewhere = {
        "fit", "inspect", "from_formula", "from_matrices", "hglm", "hem",  # before or around the fit
        "lr_test", "satterthwaite", "plot_profile",  # two fits; normal responses; a table
    }  # fmt: skip
    used = set(TABLES) | set(PICTURES) | {"plot_em", "plot_importance", "sandwich", "profile", "bootstrap"}
    used |= {"residuals", "pointwise_log_likelihood"}
    functions = {n for n in hlik.__all__ if callable(getattr(hlik, n)) and not isinstance(getattr(hlik, n), type)}
    assert functions - used - elsewhere <= {"reciprocal"}
