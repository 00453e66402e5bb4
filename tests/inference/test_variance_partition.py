"""Variance components and their ratios against formulas written out, and differences; criteria."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest
from scipy import special

import hlik
from models import sleepstudy

GROUP = np.repeat(np.arange(10), 8)
RNG = np.random.default_rng(4)
X = RNG.normal(size=80)
ETA = 0.3 + 0.5 * X + RNG.normal(0, 0.8, 10)[GROUP]


def model_of(family, link="log"):
    rng = np.random.default_rng(1)
    with pm.Model() as model:
        beta, s = pm.Normal("beta", 0, 5, shape=2), pm.HalfNormal("s", 1)
        eta = beta[0] + beta[1] * X + pm.Normal("u", 0, s, shape=10)[GROUP]
        if family == "normal":
            pm.Normal("y", eta, pm.HalfNormal("sigma", 1), observed=rng.normal(ETA, 0.7))
        elif family == "poisson":
            pm.Poisson("y", pm.math.exp(eta), observed=rng.poisson(np.exp(ETA)))
        elif family == "gamma":
            shape = pm.HalfNormal("shape", 5)
            pm.Gamma("y", shape, shape / pm.math.exp(eta), observed=rng.gamma(2, np.exp(ETA) / 2))
        elif family == "binomial":
            p = pm.math.sigmoid(eta) if link == "logit" else pm.math.invprobit(eta)
            pm.Binomial("y", 5, p, observed=rng.binomial(5, special.expit(ETA)))
        elif family == "negative binomial":
            alpha = pm.HalfNormal("alpha", 5)
            counts = rng.negative_binomial(3, 3 / (3 + np.exp(ETA)))
            pm.NegativeBinomial("y", mu=pm.math.exp(eta), alpha=alpha, observed=counts)
        elif family == "beta":
            kappa, p = pm.HalfNormal("kappa", 50), special.expit(ETA)
            pm.Beta("y", mu=pm.math.sigmoid(eta), nu=kappa, observed=rng.beta(5 * p, 5 * (1 - p)))
        elif family == "beta-binomial":
            p, y = pm.math.sigmoid(eta), rng.binomial(6, special.expit(ETA))
            pm.BetaBinomial("y", n=6, alpha=5 * p, beta=5 * (1 - p), observed=y)
        else:
            pm.StudentT("y", nu=5, mu=eta, sigma=pm.HalfNormal("sigma", 1), observed=rng.normal(ETA, 0.7))
    return model


def fit(model):
    return hlik.fit(model, "laplace", progressbar=False, draws=0)


def mean_of(psi, inverse):
    """The mean response, over normal random effects and over the observations."""
    x, w = special.roots_hermitenorm(64)
    eta = psi[0] + psi[1] * X
    return float(np.mean(inverse(eta[:, None] + np.exp(psi[2]) * x) @ w) / w.sum())


def components(psi, family):
    """F, V, E at psi = (beta, log s, log of the family's own parameter)."""
    fixed, effect = np.var(psi[1] * X, ddof=1), np.exp(2 * psi[2])
    rest = {
        "normal": lambda: np.exp(2 * psi[3]),
        "poisson": lambda: special.polygamma(1, np.mean(np.exp(psi[0] + psi[1] * X + effect / 2))),
        "gamma": lambda: special.polygamma(1, np.exp(psi[3])),
        "logit": lambda: np.pi**2 / 3,
        "probit": lambda: 1.0,
        "t": lambda: np.exp(2 * psi[3]) * 5 / 3,
        "negative binomial": lambda: special.polygamma(1, 1 / (1 / mean_of(psi, np.exp) + np.exp(-psi[3]))),
        "beta": lambda: 1 / ((np.exp(psi[3]) + 1) * (m := mean_of(psi, special.expit)) * (1 - m)),
    }[family]()
    return fixed, effect, rest


@pytest.mark.parametrize("family", ["normal", "poisson", "gamma", "logit", "probit", "t", "negative binomial", "beta"])
def test_ratios_and_their_errors_by_differences(family):
    is_binomial = family in ("logit", "probit")
    idata = fit(model_of("binomial" if is_binomial else family, family))
    psi, covariance = idata["fit"]["mean_vector"].values, idata["fit"]["covariance_matrix"].values
    functions = {
        "variance[fixed]": lambda f, v, e: f,
        "variance[u]": lambda f, v, e: v,
        "variance[residual]": lambda f, v, e: e,
        "icc[u]": lambda f, v, e: v / (v + e),
        "icc": lambda f, v, e: v / (v + e),
        "r2_marginal": lambda f, v, e: f / (f + v + e),
        "r2_conditional": lambda f, v, e: (f + v) / (f + v + e),
    }
    found = hlik.variance_partition(idata)
    assert list(found.index) == list(functions)
    for key, function in functions.items():
        assert found.loc[key, "estimate"] == pytest.approx(function(*components(psi, family)), rel=1e-10)
        steps = 1e-5 * np.eye(psi.size)
        ends = [[function(*components(psi + sign * step, family)) for step in steps] for sign in (1, -1)]
        gradient = (np.array(ends[0]) - ends[1]) / 2e-5
        assert found.loc[key, "se"] == pytest.approx(np.sqrt(gradient @ covariance @ gradient), rel=1e-6, abs=1e-12)


def test_random_slopes():
    """The mean over the observations of z' Sigma z (Johnson 2014), correlated effects of the sleep study."""
    frame = sleepstudy.load()
    idata = fit(hlik.from_formula("Reaction ~ Days + (Days | Subject)", frame))
    found = hlik.variance_partition(idata)["estimate"]
    cholesky = np.zeros((2, 2))
    cholesky[np.tril_indices(2)] = idata["estimates"]["Days|Subject_chol"].values
    covariance, z = cholesky @ cholesky.T, np.column_stack([np.ones(180), frame["Days"]])
    assert found["variance[Days|Subject]"] == pytest.approx(np.mean(np.sum(z @ covariance * z, axis=1)), rel=1e-9)


def test_intervals_stay_inside_their_ranges():
    found = hlik.variance_partition(fit(model_of("normal")), level=0.9)
    assert ((found["lower"] > 0) & (found["lower"] < found["estimate"])).all()
    ratios = found[found.index.str.startswith(("icc", "r2"))]
    assert (ratios["upper"] < 1).all()
    logit = special.logit(ratios[["lower", "estimate", "upper"]].to_numpy())
    np.testing.assert_allclose(logit[:, 1] - logit[:, 0], logit[:, 2] - logit[:, 1], rtol=1e-8)


def test_what_has_no_formula_is_left_out():
    with pytest.warns(hlik.DataWarning, match=r"'y' \(BetaBinomial\) .* no formula"):
        table = hlik.variance_partition(fit(model_of("beta-binomial")))
    assert list(table.index) == ["variance[fixed]", "variance[u]"]


def test_criteria():
    model = model_of("poisson")
    fits = {name: hlik.fit(model, name, progressbar=False, draws=0) for name in ("eql", "laplace")}
    table = hlik.criteria(fits)
    row, fit_group = table.loc["laplace"], fits["laplace"]["fit"]
    assert row["aic"] == pytest.approx(-2 * row["p_v_h"] + 2 * 3, rel=1e-12)
    assert row["bic"] == pytest.approx(-2 * row["p_v_h"] + 3 * np.log(80), rel=1e-12)
    assert row["caic"] == pytest.approx(-2 * row["conditional_log_likelihood"] + 2 * row["df_effective"], rel=1e-12)
    assert row["log_likelihood"] == float(fit_group["p_v_h"])
    assert row["n_parameters"] == 3
    assert table.loc["laplace", "p_v_h"] >= table.loc["eql", "p_v_h"]
    assert list(hlik.criteria(fits["eql"]).index) == ["EQL"]
    with pytest.raises(hlik.ModelError, match="not comparable"):
        hlik.criteria({"a": fits["eql"], "b": fit(model_of("normal"))})
