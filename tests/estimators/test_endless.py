"""Likelihoods that rise towards the end of a parameter's range, and densities with a kink: told by name."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest

import hlik

RNG = np.random.default_rng(0)
GROUP, EFFECTS, X = np.repeat(np.arange(20), 10), RNG.normal(0, 0.5, 20), RNG.normal(size=200)
COUNTS = RNG.poisson(np.exp(1 + 0.3 * X + EFFECTS[GROUP]))  # by chance no negative binomial fits better than Poisson


def effects():
    v = pm.Normal("v", 0, pm.HalfFlat("s"), shape=20)
    return pm.math.exp(pm.Flat("b") + pm.Flat("slope") * X + v[GROUP])


def test_negative_binomial_on_poisson_data():
    y = COUNTS
    with pm.Model() as model:
        pm.NegativeBinomial("y", effects(), alpha=pm.HalfFlat("alpha"), observed=y)
    with pytest.warns(hlik.ConvergenceWarning, match="'alpha'"):
        found = hlik.fit(model, "laplace", progressbar=False, draws=0)
    assert found.fit.attrs["status"].startswith("boundary: 'alpha' runs to the upper end")
    with pm.Model() as limit:
        pm.Poisson("y", effects(), observed=y)
    poisson = hlik.fit(limit, "laplace", progressbar=False, draws=0)
    # the log-likelihood of the limit, to its order 1 / alpha; all else has the errors of the limit
    assert float(found.fit["log_likelihood"]) == pytest.approx(float(poisson.fit["log_likelihood"]), abs=1e-3)
    assert np.isnan(found["standard_errors"]["alpha"])
    for name in ("b", "slope", "s"):
        for group in ("estimates", "standard_errors"):
            assert float(found[group][name]) == pytest.approx(float(poisson[group][name]), rel=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Scan return signature:DeprecationWarning")
@pytest.mark.parametrize("kind", [pm.ZeroInflatedNegativeBinomial, pm.HurdleNegativeBinomial])
def test_mixtures_on_poisson_data(kind):
    y = COUNTS.copy()
    y[np.random.default_rng(1).random(y.size) < 0.2] = 0
    with pm.Model() as model:
        kind("y", psi=pm.Beta("psi", 1, 1), mu=effects(), alpha=pm.HalfFlat("alpha"), observed=y)
    with pytest.warns(hlik.ConvergenceWarning, match="'alpha'"):
        found = hlik.fit(model, "laplace", progressbar=False, draws=0)
    assert "'alpha' runs to the upper end" in found.fit.attrs["status"]
    assert np.isfinite(found["standard_errors"]["psi"])


@pytest.mark.parametrize("estimator", ["laplace", "hl", "mcem", "mcla"])
def test_kinked_density(estimator):
    with pm.Model() as model:
        v = pm.Laplace("v", 0, pm.HalfFlat("s"), shape=20)
        pm.Poisson("y", pm.math.exp(pm.Flat("b") + v[GROUP]), observed=COUNTS)
    with pytest.raises(hlik.ModelError, match=r"'v' \(Laplace\) has a kink"):
        hlik.fit(model, estimator, progressbar=False)
