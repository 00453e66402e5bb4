"""The printed summary: sections, random effects with their spread, in text and HTML."""

from __future__ import annotations

import arviz as az
import numpy as np
import pytest

import hlik
from models import seeds, sleepstudy


@pytest.fixture(scope="module")
def fitted():
    return hlik.fit(seeds.build(seeds.load()), progressbar=False, draws=0)


def test_sections(fitted):
    text = str(hlik.summary(fitted))
    order = ["hlik EQL()", "Response r: Binomial, link logit, 21 obs", "Fixed effects", "Dispersion parameters",
             "Random effects", "h = ", "Status: converged"]  # fmt: skip
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)


def test_spread_of_beta_effects(fitted, tmp_path):
    """Var(logit u) = 2 psi'(1 / (2 lam))."""
    from scipy import special

    lam = float(fitted["estimates"]["lam"])
    line = next(line for line in str(hlik.summary(fitted)).splitlines() if line.startswith("u "))
    assert line.split() == ["u", "Beta", "21", "logit", f"{np.sqrt(2 * special.polygamma(1, 0.5 / lam)):.4g}"]
    fitted.to_netcdf(tmp_path / "fit.nc")
    again = hlik.summary(az.from_netcdf(tmp_path / "fit.nc"))
    assert line in str(again)
    assert line in again._repr_html_()


def test_correlated_effects():
    model = hlik.from_formula("Reaction ~ Days + (Days | Subject)", sleepstudy.load())
    idata = hlik.fit(model, "laplace", progressbar=False, draws=0)
    covariance = idata["fit"]["Days|Subject_covariance"].values
    text = str(hlik.summary(idata))
    assert f"{np.sqrt(covariance[0, 0]):.4g}, {np.sqrt(covariance[1, 1]):.4g}; correlation 0.08" in text
    # lme4: Std.Dev. 23.780 and 5.717, Corr 0.08 by ML
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), [23.780, 5.717], rtol=1e-3)


def test_no_random_effects_no_section():
    import pymc as pm

    y = np.random.default_rng(0).poisson(3.0, 40)
    with pm.Model() as model:
        pm.Poisson("y", pm.math.exp(pm.Normal("beta", 0, 5)), observed=y)
    assert "Random effects" not in str(hlik.summary(hlik.fit(model, progressbar=False, draws=0)))
