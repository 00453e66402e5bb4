"""Diagnostics of responses whose families are not hlik's own: what PyMC knows of their distributions, at the fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import arviz as az
import numpy as np
import xarray as xr

from hlik.graph.distribution_at import distribution_at
from hlik.graph.read import as_pymc
from hlik.inference.latent_variance import latent_variance
from hlik.model import HierarchicalModel, Response


def add_distributions(
    model: Any, read: HierarchicalModel, idata: az.InferenceData, fixed: Mapping[str, Any] | None
) -> None:
    """Put ``<response>_fitted``, ``_cdf`` and ``_cdf_below`` among the diagnostics where hlik has none of its own.

    That is so of families that are not hlik's, and with random effects whose densities are not. So residuals and their
    plots can be made from the result alone; P(Y <= y) and P(Y < y) are all that they need.
    """
    known = idata["diagnostics"] if "diagnostics" in idata.groups() else {}
    responses = [r for r in read.responses if f"{r.name}_fitted" not in known and f"{r.name}_prior_weight" not in known]
    if not responses:
        return
    unconstrained = idata["unconstrained_estimates"]
    variables = {p.name: p.variable.value_name for p in read.parameters}
    variables |= {e.name: e.variable.value_name for e in read.random_effects}
    values = {name: unconstrained[value_name].values for name, value_name in variables.items()}
    found: dict[str, xr.DataArray] = {}
    for response in responses:
        y = idata["observed_data"][response.name]
        if response.family is None:
            _add_latent_variance(model, read, idata, response, fixed)
        for key, value in distribution_at(as_pymc(model), response.name, values, fixed or {}).items():
            shaped = np.broadcast_to(value, y.size).reshape(y.shape)
            found[f"{response.name}_{key}"] = xr.DataArray(shaped, dims=y.dims, coords=y.coords)
    if "diagnostics" in idata.groups():
        idata["diagnostics"].update(found)
    elif found:  # ArviZ leaves out groups without variables, as that of a model without random effects was
        idata.add_groups({"diagnostics": xr.Dataset(found, attrs=idata.attrs)}, warn_on_custom_groups=False)


def _add_latent_variance(
    model: Any, read: HierarchicalModel, idata: az.InferenceData, response: Response, fixed: Mapping[str, Any] | None
) -> None:
    """Put the response's variance on the link scale among the components of `hlik.variance_partition`."""
    fit, at = idata["fit"], [r.name for r in read.responses].index(response.name)
    psi = fit["mean_vector"].values
    held = {name: np.asarray(value, float) for name, value in (fixed or {}).items()}
    found = latent_variance(as_pymc(model), read, response, psi[: read.n_beta], psi[read.n_beta :], held)
    if found is not None:
        fit["variance_components"].values[at, -1], fit["variance_gradient"].values[at, -1] = found
