"""Diagnostics of responses of other families in models without random effects."""

from __future__ import annotations

import numpy as np
import pymc as pm
from scipy import stats

import hlik
from models import sleepstudy


def test_a_model_without_random_effects(tmp_path):
    """ArviZ has no group of diagnostics then: it is made for the fitted means and distribution functions."""
    y = np.random.default_rng(1).negative_binomial(3, 0.4, 40)
    with pm.Model() as model:
        pm.NegativeBinomial("y", mu=pm.math.exp(pm.Normal("b", 0, 5)), alpha=pm.HalfNormal("alpha", 5), observed=y)
    idata = hlik.fit(model, "laplace", progressbar=False, draws=0)
    mean, alpha = float(np.exp(idata.estimates["b"])), float(idata.estimates["alpha"])
    np.testing.assert_allclose(mean, y.mean(), rtol=1e-5)  # the maximum of the likelihood in the mean
    np.testing.assert_allclose(idata.diagnostics["y_fitted"], mean, rtol=1e-6)
    expected = stats.nbinom(alpha, alpha / (alpha + mean)).cdf(y)
    np.testing.assert_allclose(idata.diagnostics["y_cdf"], expected, rtol=1e-6)
    idata.to_netcdf(tmp_path / "fit.nc")
    assert hlik.residuals(idata, "response").shape == (40,)


def test_a_known_response_with_effects_of_another_density():
    """Diagnostics come from PyMC then: the distribution function of the Poisson at the fitted means."""
    rng, group = np.random.default_rng(2), np.repeat(np.arange(10), 6)
    y = rng.poisson(np.exp(1 + (rng.gamma(2, 0.4, 10) - 0.8)[group]))
    with pm.Model() as model:
        b, s = pm.Normal("b", 0, 5), pm.HalfNormal("s", 1)
        u = pm.SkewNormal("u", mu=0, sigma=s, alpha=3, shape=10)
        pm.Poisson("y", pm.math.exp(b + u[group]), observed=y)
    idata = hlik.fit(model, "laplace", progressbar=False, draws=0)
    fitted = np.exp(float(idata.estimates["b"]) + idata.estimates["u"].values[group])
    np.testing.assert_allclose(hlik.residuals(idata, "response"), y - fitted, rtol=1e-8)
    np.testing.assert_allclose(idata.diagnostics["y_cdf"], stats.poisson(fitted).cdf(y), rtol=1e-8)
    assert len(np.ravel(hlik.plot_diagnostics(idata)))


def test_correlated_effects_have_the_diagnostics_of_eql():
    """Normal responses: Laplace's restricted fit is EQL, leverages and residuals included."""
    model = hlik.from_formula("Reaction ~ Days + (Days | Subject)", sleepstudy.load())
    one, other = (hlik.fit(model, name, progressbar=False, draws=0) for name in ("eql", hlik.Laplace(reml=True)))
    for name in ("fitted", "leverage", "deviance", "dispersion", "residual_pearson", "residual_studentised"):
        key = f"Reaction_{name}"
        # both stop near the maximum of a likelihood that is flat in the correlation
        np.testing.assert_allclose(other.diagnostics[key], one.diagnostics[key], rtol=1e-5, atol=1e-6)
