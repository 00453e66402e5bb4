"""Randomised quantile residuals: by SciPy's distribution functions, PyMC's, or simulation."""

from __future__ import annotations

from typing import Any

import arviz as az
import numpy as np
import xarray as xr

from hlik.errors import ModelError
from hlik.inference.cdf import Limits, limits, normal_scores
from hlik.inference.tables import model_of

SIMULATIONS = 1000


def quantile_residuals(idata: az.InferenceData, name: str, model: Any, rng: np.random.Generator) -> xr.DataArray:
    """Randomised quantile residuals of one response, in its shape; see `hlik.residuals`."""
    y = idata["observed_data"][name]
    found = _limits(idata, name, y)
    if found is None and model is None:
        raise ModelError(f"PyMC has no distribution function for response {name!r}: pass model=, and it is simulated.")
    if found is None:
        found = _simulated(model, idata, name, y.values, rng)
    scores = normal_scores(found, rng.uniform(size=y.shape))
    return xr.DataArray(scores, dims=y.dims, coords=y.coords, name=name)


def _limits(idata: az.InferenceData, name: str, y: xr.DataArray) -> Limits | None:
    diagnostics = idata["diagnostics"]
    if f"{name}_cdf" in diagnostics:
        at, below = diagnostics[f"{name}_cdf"].values, diagnostics[f"{name}_cdf_below"].values
        return Limits(below, at, 1 - below, 1 - at)
    family = next(r["family"] for r in model_of(idata)["responses"] if r["name"] == name)
    if family is None or f"{name}_fitted" not in diagnostics:
        return None
    phi = diagnostics[f"{name}_dispersion"].values
    trials = diagnostics.get(f"{name}_trials")
    weight = diagnostics.get(f"{name}_prior_weight")
    if family in ("binomial", "bernoulli", "poisson") and (np.any(phi != 1) or weight is not None):
        raise ModelError(
            f"Response {name!r} was fitted by quasi-likelihood (a dispersion or prior weights of a {family} response), "
            f"which has no distribution: quantile residuals do not exist; kind='studentised' does."
        )
    mean, values = diagnostics[f"{name}_fitted"].values, y.values
    if trials is not None:
        return limits(family, values / trials.values, mean, phi, trials.values)
    return limits(family, values, mean, phi, np.ones(()) if weight is None else weight.values)


def _simulated(model: Any, idata: az.InferenceData, name: str, y: np.ndarray, rng: np.random.Generator) -> Limits:
    """The empirical distribution function of draws given the predicted effects, kept off 0 and 1."""
    from hlik.inference.simulate import simulate

    drawn = simulate(model, idata, SIMULATIONS, random="conditional", random_seed=rng)[name].values
    below, at = (drawn < y).sum(axis=0), (drawn <= y).sum(axis=0)
    total = SIMULATIONS + 1  # as if the observation were one more draw
    return Limits(below / total, (at + 1) / total, 1 - below / total, 1 - (at + 1) / total)
