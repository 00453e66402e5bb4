"""Diagnostics of responses of other families in models without random effects."""

from __future__ import annotations

import numpy as np
import pymc as pm
from scipy import stats

import hlik


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
