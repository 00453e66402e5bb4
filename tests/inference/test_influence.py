"""Leverages and Cook's distances against actually leaving out."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest

import hlik

RNG = np.random.default_rng(3)
GROUP = np.repeat(np.arange(6), 5)
X = RNG.normal(size=30)
NORMAL = 1 + 0.5 * X + RNG.normal(0, 0.8, 6)[GROUP] + RNG.normal(0, 0.6, 30)
COUNTS = RNG.poisson(np.exp(0.8 + 0.4 * X + RNG.normal(0, 0.5, 6)[GROUP]))


def build(keep=None, family="normal"):
    keep = np.arange(30) if keep is None else keep
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 10, shape=2)
        u = pm.Normal("u", 0, pm.HalfNormal("s", 1), shape=6)
        eta = beta[0] + beta[1] * X[keep] + u[GROUP[keep]]
        if family == "normal":
            pm.Normal("y", eta, pm.HalfNormal("sigma", 1), observed=NORMAL[keep])
        else:
            pm.Poisson("y", pm.math.exp(eta), observed=COUNTS[keep])
    return model


def fit(model, fixed=None):
    return hlik.fit(model, fixed=fixed, draws=0, progressbar=False)


@pytest.fixture(scope="module")
def fitted():
    model = build()
    return model, fit(model)


def left_out(idata, rows, family="normal"):
    """(Cook's distance, largest shift) by fitting the other rows with the same dispersions."""
    names = ("s", "sigma") if family == "normal" else ("s",)
    fixed = {name: float(idata["estimates"][name]) for name in names}
    beta = idata["estimates"]["beta"].values
    away = fit(build(np.setdiff1d(np.arange(30), rows), family), fixed)["estimates"]["beta"].values - beta
    covariance = idata["fit"]["covariance_matrix"].values[:2, :2]
    standard = away / np.sqrt(np.diag(covariance))
    return away @ np.linalg.solve(covariance, away) / 2, standard[np.argmax(np.abs(standard))]


@pytest.mark.parametrize("case", [0, 7, 19, 29])
def test_cases_of_a_normal_model_exactly(fitted, case):
    _, idata = fitted
    row = hlik.influence(*fitted).iloc[case]
    cook, shift = left_out(idata, [case])
    assert row["cook"] == pytest.approx(cook, rel=1e-6)
    assert row["shift"] == pytest.approx(shift, rel=1e-6)


@pytest.mark.filterwarnings("ignore::hlik.DataWarning")  # the level left out has no observation: that is the point
@pytest.mark.parametrize("group", [0, 3, 5])
def test_groups_of_a_normal_model_exactly(fitted, group):
    _, idata = fitted
    row = hlik.influence(*fitted, group="u").iloc[group]
    cook, shift = left_out(idata, np.flatnonzero(GROUP == group))
    assert row["cook"] == pytest.approx(cook, rel=1e-6)
    assert row["shift"] == pytest.approx(shift, rel=1e-6)
    assert row["size"] == 5


def test_leverages_and_labels(fitted):
    model, idata = fitted
    cases = hlik.influence(model, idata)
    np.testing.assert_allclose(cases["leverage"], idata["diagnostics"]["y_leverage"], rtol=1e-9)
    groups = hlik.influence(model, idata, group=np.array(list("abcdef"))[GROUP])
    assert list(groups.index) == list("abcdef")
    np.testing.assert_allclose(groups["leverage"], cases["leverage"].to_numpy().reshape(6, 5).sum(axis=1), rtol=1e-9)
    by_name = hlik.influence(model, idata, group="u")
    np.testing.assert_allclose(groups["cook"], by_name["cook"], rtol=1e-9)
    alone = hlik.influence(model, idata, group=np.arange(30))
    np.testing.assert_allclose(alone["cook"], cases["cook"], rtol=1e-8)


@pytest.mark.filterwarnings("ignore::hlik.DataWarning")
def test_counts_to_first_order():
    """One Newton step: near the refit where leverages are moderate, in size and order."""
    model = build(family="poisson")
    idata = fit(model)
    found = hlik.influence(model, idata, group="u")
    exact = [left_out(idata, np.flatnonzero(GROUP == g), "poisson") for g in range(6)]
    np.testing.assert_allclose(found["shift"], [shift for _, shift in exact], atol=0.25)
    assert np.argmax(found["cook"]) == np.argmax([cook for cook, _ in exact])


def test_errors(fitted):
    with pytest.raises(hlik.ModelError, match="No random effect"):
        hlik.influence(*fitted, group="w")
    with pytest.raises(hlik.ModelError, match="each of the 30"):
        hlik.influence(*fitted, group=[1, 2])
