"""Random effects whose density has a kink at zero, by AGQ: against a fine rule on both sides of it."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest
from scipy import stats

import hlik
from hlik.estimators.kinked_profile import KinkedProfile
from hlik.graph.read import read_model
from hlik.hlikelihood import HLikelihood

RNG = np.random.default_rng(3)
GROUPS, SIZE = 12, 5
GROUP, X = np.repeat(np.arange(GROUPS), SIZE), RNG.normal(size=GROUPS * SIZE)
EFFECTS = RNG.laplace(0, 0.6, GROUPS)
COUNTS = RNG.poisson(np.exp(0.7 + 0.3 * X + EFFECTS[GROUP]))
BINARY = RNG.binomial(1, 1 / (1 + np.exp(-0.5 - X - EFFECTS[GROUP])))


def model_of(response: str, density: str) -> pm.Model:
    with pm.Model() as model:
        b, slope, s = pm.Flat("b"), pm.Flat("slope"), pm.HalfFlat("s")
        if density == "asymmetric":
            v = pm.AsymmetricLaplace("v", b=1 / s, kappa=0.7, mu=0, shape=GROUPS)
        else:
            v = pm.Laplace("v", 0, s, shape=GROUPS)
        eta = b + slope * X + v[GROUP]
        if response == "Poisson":
            pm.Poisson("y", pm.math.exp(eta), observed=COUNTS)
        elif response == "NegativeBinomial":
            pm.NegativeBinomial("y", pm.math.exp(eta), alpha=pm.HalfFlat("alpha"), observed=COUNTS)
        else:
            pm.Bernoulli("y", logit_p=eta, observed=BINARY)
    return model


def log_density(response: str, density: str, k: int, parameters: dict[str, float]):
    """The log integrand of group k."""
    own, s = GROUP == k, parameters["s"]

    def value(v: np.ndarray) -> np.ndarray:
        eta = parameters["b"] + parameters["slope"] * X[own, None] + v
        if response == "Poisson":
            total = stats.poisson.logpmf(COUNTS[own, None], np.exp(eta)).sum(axis=0)
        elif response == "NegativeBinomial":
            alpha = parameters["alpha"]
            total = stats.nbinom.logpmf(COUNTS[own, None], alpha, alpha / (alpha + np.exp(eta))).sum(axis=0)
        else:
            total = stats.bernoulli.logpmf(BINARY[own, None], 1 / (1 + np.exp(-eta))).sum(axis=0)
        if density == "asymmetric":
            return total + stats.laplace_asymmetric.logpdf(v, 0.7, scale=s)
        return total + stats.laplace.logpdf(v, scale=s)

    return value


def moments(function) -> np.ndarray:
    """Integral, mean and variance of exp(function), by 200 nodes on each of 36 intervals, two of which meet at zero."""
    ends = np.concatenate([[-40, -20], np.arange(-8, 8.5, 0.5), [20, 40]])
    assert 0.0 in ends
    nodes, weights = np.polynomial.legendre.leggauss(200)
    half = np.diff(ends)[:, None] / 2
    v = (ends[:-1, None] + half * (1 + nodes)).ravel()
    found = function(v)
    terms = (half * weights).ravel() * np.exp(found - found.max())
    total, first, second = (float(terms @ v**power) for power in (0, 1, 2))
    return np.array([np.log(total) + found.max(), first / total, second / total - (first / total) ** 2])


CASES = [("Poisson", "symmetric"), ("Bernoulli", "asymmetric"), ("NegativeBinomial", "symmetric")]


@pytest.mark.parametrize(("response", "density"), CASES)
def test_against_quadrature(response, density):
    """Value, posterior means and variances."""
    values = {"b": 0.4, "slope": 0.5, "s": 0.6, "alpha": 2.0}
    read = read_model(model_of(response, density))
    profile = KinkedProfile(HLikelihood(read), 25)
    psi = unconstrained(read, values)
    found = profile.mode(psi, psi[:2], np.zeros(GROUPS))
    exact = np.array([moments(log_density(response, density, k, values)) for k in range(GROUPS)])
    np.testing.assert_allclose(found.value, exact[:, 0].sum(), rtol=1e-10)
    np.testing.assert_allclose(found.point.v, exact[:, 1], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.bordered.inverse_diagonal()[1], exact[:, 2], rtol=1e-7)


def unconstrained(read, values: dict[str, float]) -> np.ndarray:
    psi = np.zeros(read.n_beta + read.n_theta)
    for p in read.parameters:
        place = p.index.start + (0 if p.natural is None else read.n_beta)
        psi[place] = values[p.name] if p.natural is None else np.log(values[p.name])
    return psi


@pytest.mark.parametrize(("response", "density"), CASES)
def test_gradient(response, density):
    read = read_model(model_of(response, density))
    profile = KinkedProfile(HLikelihood(read), 25)
    psi = unconstrained(read, {"b": 0.4, "slope": 0.5, "s": 0.6, "alpha": 2.0})
    exact = profile.gradient(profile.mode(psi, psi[:2], np.zeros(GROUPS)))
    for k, move in enumerate(1e-3 * np.eye(psi.size)):
        low2, low1, high1, high2 = (
            profile.mode(psi + step * move, psi[:2], np.zeros(GROUPS)).value for step in (-2, -1, 1, 2)
        )
        # differences of fourth order: 1e-12 of truncation, 1e-11 of rounding
        assert exact[k] == pytest.approx((low2 - 8 * low1 + 8 * high1 - high2) / 12e-3, rel=1e-7, abs=1e-8)


def test_normal_responses_in_closed_form():
    """The sum of a normal and a Laplace variable: two normal tails."""
    y = RNG.normal(1 + RNG.laplace(0, 2, 30), 1)
    with pm.Model() as model:
        v = pm.Laplace("v", 0, pm.HalfFlat("s"), shape=30)
        pm.Normal("y", pm.Flat("b") + v, 1.0, observed=y)
    idata = hlik.fit(model, "agq", progressbar=False, draws=0)
    b, s = float(idata.estimates["b"]), float(idata.estimates["s"])

    def log_likelihood(b: float, s: float) -> float:
        e = y - b
        up = stats.norm.logcdf(e - 1 / s) - e / s
        down = stats.norm.logcdf(-e - 1 / s) + e / s
        return float(np.sum(np.logaddexp(up, down) + 0.5 / s**2 - np.log(2 * s)))

    assert float(idata.fit["log_likelihood"]) == pytest.approx(log_likelihood(b, s), abs=1e-9)
    for move in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        assert log_likelihood(b + move[0], s + move[1]) < log_likelihood(b, s)
    for k, step in enumerate(np.eye(2) * 1e-4):  # the maximum, to 1e-6 standard errors
        slope = (log_likelihood(b + step[0], s + step[1]) - log_likelihood(b - step[0], s - step[1])) / 2e-4
        error = float(idata.standard_errors[("b", "s")[k]])
        assert abs(slope * error) < 1e-5
    predicted = hlik.predict(model, idata)
    np.testing.assert_allclose(np.ravel(predicted["estimate"]), b + idata.estimates["v"].values, rtol=1e-10)
    again = hlik.confint(model, idata, method="profile", parm="s")
    ends = again.loc["s", ["lower", "upper"]].astype(float)
    assert ends["lower"] < s < ends["upper"]


def test_three_ways_of_writing_a_model():
    """About zero, about its mean, and non-centred (where z must be named): one likelihood."""
    found = []
    for kind in ("about zero", "about its mean", "non-centred"):
        with pm.Model() as model:
            b, s = pm.Flat("b"), pm.HalfFlat("s")
            if kind == "about zero":
                eta = b + pm.Laplace("v", 0, s, shape=GROUPS)[GROUP]
            elif kind == "about its mean":
                eta = pm.Laplace("v", b, s, shape=GROUPS)[GROUP]
            else:
                eta = b + s * pm.Laplace("v", 0, 1, shape=GROUPS)[GROUP]
            pm.Poisson("y", pm.math.exp(eta), observed=COUNTS)
        idata = hlik.fit(model, "agq", random=["v"], progressbar=False, draws=0)
        assert idata.fit.attrs["status"] == "converged"
        numbers = [idata.estimates["b"], idata.estimates["s"], idata.standard_errors["b"], idata.standard_errors["s"]]
        found.append([*map(float, numbers), float(idata.fit["log_likelihood"])])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-5)


def test_what_is_refused():
    with pm.Model() as model:
        s = pm.HalfFlat("s")
        v, w = pm.Laplace("v", 0, s, shape=GROUPS), pm.Laplace("w", 0, s, shape=GROUPS)
        pm.Poisson("y", pm.math.exp(pm.Flat("b") + v[GROUP] + w[GROUP] * X), observed=COUNTS)
    with pytest.raises(hlik.ModelError, match="one random effect an observation"):
        hlik.fit(model, "agq", progressbar=False)
    with pm.Model() as model:
        s = pm.HalfFlat("s")
        v, w = pm.Laplace("v", 0, s, shape=GROUPS), pm.Normal("w", 0, s, shape=GROUPS)
        pm.Poisson("y", pm.math.exp(pm.Flat("b") + v[GROUP] + w[GROUP] * X), observed=COUNTS)
    with pytest.raises(hlik.ModelError, match="models of either kind"):
        hlik.fit(model, "agq", progressbar=False)
    with pytest.raises(hlik.ModelError, match=r"use hlik.AGQ\(\)"):
        hlik.fit(model_of("Poisson", "symmetric"), "laplace", progressbar=False)
