"""Contrasts, joint tests and tables of terms: against algebra, R's aov and the record of mcemGLM."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import stats

import hlik
from hlik.inference.contrasts import adjusted

CROSSES = ["RR", "RW", "WR", "WW"]


@pytest.fixture(scope="module")
def balanced():
    """A balanced split plot: the F test of a within-group factor is that of classical analysis of variance."""
    rng = np.random.default_rng(2)
    group, dose = np.repeat(np.arange(6), 6), np.tile([0, 1, 2], 12)
    y = 1 + np.array([0.0, 0.4, 0.9])[dose] + rng.normal(0, 1, 6)[group] + rng.normal(0, 0.5, 36)
    with pm.Model(coords={"dose": ["low", "mid", "high"]}) as model:
        mean = pm.Normal("mean", 0, 10, dims="dose")
        u = pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=6)
        pm.Normal("y", mean[dose] + u[group], pm.HalfNormal("sigma", 1), observed=y)
    return hlik.fit(model, progressbar=False, draws=0), y, group, dose


PAIRS = {f"{a} - {b}": {a: 1, b: -1} for a, b in combinations(["low", "mid", "high"], 2)}


def test_classical_analysis_of_variance(balanced):
    """F = (SS_dose / 2) / (SS_residual / 28) in the additive two-way layout, REML being exact there."""
    idata, y, group, dose = balanced
    frame = pd.DataFrame({"y": y, "g": group, "d": dose})
    total = y.mean()
    between = sum(12 * (part.mean() - total) ** 2 for _, part in frame.groupby("d")["y"])
    fitted = frame.groupby("g")["y"].transform("mean") + frame.groupby("d")["y"].transform("mean") - total
    residual = np.sum((y - fitted) ** 2) / 28
    test = hlik.wald_test(idata, {k: PAIRS[k] for k in list(PAIRS)[:2]}, df=28)
    assert test["statistic"] == pytest.approx(between / 2 / residual, rel=1e-5)  # EQL stops at 1e-6 standard errors
    assert test["p_value"] == pytest.approx(stats.f(2, 28).sf(between / 2 / residual), rel=1e-4)
    redundant = hlik.wald_test(idata, PAIRS, df=28)
    np.testing.assert_allclose(redundant, test, rtol=1e-8)


def test_contrasts_by_algebra(balanced):
    idata = balanced[0]
    found = hlik.contrasts(idata, PAIRS)
    mean = idata["estimates"]["mean"].values
    covariance = idata["fit"]["covariance_matrix"].values[:3, :3]
    matrix = np.array([[1, -1, 0], [1, 0, -1], [0, 1, -1.0]])
    np.testing.assert_allclose(found["estimate"], matrix @ mean, rtol=1e-12)
    np.testing.assert_allclose(found["se"], np.sqrt(np.diag(matrix @ covariance @ matrix.T)), rtol=1e-10)
    df = float(idata["fit"]["df_residual"])
    np.testing.assert_allclose(found["p_value"], 2 * stats.t(df).sf(np.abs(found["statistic"])), rtol=1e-12)
    by_matrix = hlik.contrasts(idata, matrix)
    assert by_matrix.index[0] == "mean[low] - mean[mid]"
    np.testing.assert_allclose(by_matrix, found, rtol=1e-12)
    one = hlik.contrasts(idata, {"low": {"mean[low]": 1}}).iloc[0]
    table = hlik.summary(idata).loc["mean[low]"]
    assert one["p_value"] == pytest.approx(table["p_value"], rel=1e-10)
    assert one["lower"] == pytest.approx(table["lower"], rel=1e-10)


@pytest.mark.parametrize("adjust", ["none", "bonferroni", "sidak", "holm", "fdr"])
def test_adjustments(adjust):
    """R: p.adjust(c(0.01, 0.04, 0.03, 0.2), ...); Sidak by hand."""
    expected = {
        "none": [0.01, 0.04, 0.03, 0.2],
        "bonferroni": [0.04, 0.16, 0.12, 0.8],
        "sidak": 1 - (1 - np.array([0.01, 0.04, 0.03, 0.2])) ** 4,
        "holm": [0.04, 0.09, 0.09, 0.2],
        "fdr": [0.04, 0.16 / 3, 0.16 / 3, 0.2],
    }[adjust]
    np.testing.assert_allclose(adjusted(np.array([0.01, 0.04, 0.03, 0.2]), adjust), expected, rtol=1e-12)


def test_simultaneous_intervals_agree_with_adjusted_p_values(balanced):
    """An adjusted p-value is below 0.05 exactly where the simultaneous 95% interval leaves out zero."""
    idata = balanced[0]
    for adjust in ("bonferroni", "sidak"):
        found = hlik.contrasts(idata, PAIRS, adjust)
        outside = (found["lower"] > 0) | (found["upper"] < 0)
        assert (outside == (found["p_value"] < 0.05)).all()


def test_terms(balanced):
    idata = balanced[0]
    whole = hlik.anova(idata, {"all": ["low", "mid", "high"]})
    np.testing.assert_allclose(whole.loc["all"], hlik.wald_test(idata, ["low", "mid", "high"]), rtol=1e-12)
    assert list(hlik.anova(idata).index) == ["mean[low]", "mean[mid]", "mean[high]"]
    chi = hlik.anova(idata, df=np.inf)
    np.testing.assert_allclose(chi["p_value"], stats.chi2(1).sf(chi["chi_squared"]), rtol=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i: hlik.contrasts(i, {"a": {"middle": 1}}), "No parameter is called 'middle'"),
        (lambda i: hlik.contrasts(i, [[1, 2]]), "a column for each of the 3"),
        (lambda i: hlik.contrasts(i, PAIRS, "tukey"), "expected one of"),
        (lambda i: hlik.contrasts(i, PAIRS, level=95), "between 0 and 1"),
    ],
)
def test_errors(balanced, call, message):
    with pytest.raises(hlik.ModelError, match=message):
        call(balanced[0])


def test_salamander_pairs(shared, reference):
    """The six pairs of mcemGLM's example from our fit: beside exact likelihood and mcemGLM."""
    frame = pd.read_csv(shared / "data" / "salamander_mcemGLM.csv")
    cross = pd.Categorical(frame["Cross"], CROSSES).codes
    with pm.Model(coords={"cross": CROSSES}) as model:
        beta = pm.Normal("beta", 0, 5, dims="cross")
        female = pm.Normal("female", 0, pm.HalfNormal("sigma_f", 2), shape=60)
        male = pm.Normal("male", 0, pm.HalfNormal("sigma_m", 2), shape=60)
        eta = beta[cross] + female[frame["Female"].to_numpy() - 1] + male[frame["Male"].to_numpy() - 1]
        pm.Bernoulli("mate", logit_p=eta, observed=frame["Mate"].to_numpy())
    idata = hlik.fit(model, "laplace", progressbar=False, draws=0)
    pairs = {f"{a} - {b}": {a: 1, b: -1} for a, b in combinations(CROSSES, 2)}
    found = hlik.contrasts(idata, pairs, adjust="bonferroni", df=np.inf)
    record = reference("seeds/mcemglm_salamander")["published"]["contrasts"]
    exact = reference("truth/salamander_exact")
    matrix = np.array([[1, -1, 0, 0], [1, 0, -1, 0], [1, 0, 0, -1], [0, 1, -1, 0], [0, 1, 0, -1], [0, 0, 1, -1]])
    truth = matrix @ np.array(exact["estimates"][:4])
    error = np.sqrt(np.diag(matrix @ np.array(exact["cov"])[:4, :4] @ matrix.T))
    # Laplace's approximation lies within 0.15 standard errors of maximum likelihood here
    assert np.all(np.abs(found["estimate"] - truth) < 0.15 * error)
    np.testing.assert_allclose(found["se"], error, rtol=0.1)
    published = np.array(record["values"])
    assert list(found.index) == record["rows"]
    # mcemGLM's are Monte Carlo estimates whose t random effects differ: same signs, same decisions at 5%
    np.testing.assert_array_equal(np.sign(found["estimate"]), np.sign(published[:, 0]))
    np.testing.assert_array_equal(found["p_value"] < 0.05, published[:, 3] < 0.05)
    np.testing.assert_allclose(
        found["p_value"], np.minimum(6 * stats.chi2(1).sf(found["statistic"] ** 2), 1), rtol=1e-9
    )
