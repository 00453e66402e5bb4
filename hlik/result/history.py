"""The group `history` of a result: a row an iteration."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from hlik.loop import Fit
from hlik.result.arrays import Packer, attributes


def history_group(fit: Fit) -> xr.Dataset:
    """One row an iteration: the unconstrained parameters, and what the estimator told of its steps."""
    model = fit.estimate.model
    packer = Packer(model)
    iteration = np.arange(1, len(fit.history) + 1)
    variables: dict[str, Any] = {}
    for parameter in model.parameters:
        path = fit.beta_path if parameter.natural is None else fit.theta_path
        variable = parameter.variable
        variables[variable.value_name] = packer.array(variable, path[:, parameter.index], ("iteration",))
    for key in fit.history[0] if fit.history else ():
        variables[key] = ("iteration", np.array([row[key] for row in fit.history]))
    return xr.Dataset(variables, coords={"iteration": iteration}, attrs=attributes())
