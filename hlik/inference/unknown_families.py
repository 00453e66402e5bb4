"""Diagnostics of responses whose families are not hlik's own: what PyMC knows of their distributions, at the fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import arviz as az
import numpy as np
import xarray as xr

from hlik.graph.at_data import distribution_at
from hlik.graph.read import as_pymc
from hlik.model import HierarchicalModel


def add_distributions(
    model: Any, read: HierarchicalModel, idata: az.InferenceData, fixed: Mapping[str, Any] | None
) -> None:
    """Put ``<response>_fitted``, ``_cdf`` and ``_cdf_below`` among the diagnostics where the family is not hlik's.

    So residuals and their plots can be made from the result alone; P(Y <= y) and P(Y < y) are all that they need.
    """
    responses = [response for response in read.responses if response.family is None]
    if not responses:
        return
    unconstrained = idata["unconstrained_estimates"]
    variables = {p.name: p.variable.value_name for p in read.parameters}
    variables |= {e.name: e.variable.value_name for e in read.random_effects}
    values = {name: unconstrained[value_name].values for name, value_name in variables.items()}
    for response in responses:
        y = idata["observed_data"][response.name]
        found = distribution_at(as_pymc(model), response.name, values, fixed or {})
        for key, value in found.items():
            shaped = xr.DataArray(np.broadcast_to(value, y.size).reshape(y.shape), dims=y.dims, coords=y.coords)
            idata["diagnostics"][f"{response.name}_{key}"] = shaped
