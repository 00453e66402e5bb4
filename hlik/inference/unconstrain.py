"""Draws of variables on the scale of PyMC's value variables."""

from __future__ import annotations

import numpy as np
import pymc as pm
import xarray as xr

from hlik.errors import ModelError
from hlik.graph.numeric import Interpreter


def unconstrained_draws(model: pm.Model, posterior: xr.Dataset, name: str) -> np.ndarray:
    """Draws of a free variable through its transform, shape (chains * draws, elements); nothing is compiled.

    Raises
    ------
    ModelError
        Where the posterior does not have the variable.
    """
    if name not in posterior:
        why = posterior.attrs.get("not_drawn")
        raise ModelError(f"The posterior has no draws of {name!r}." + (f" {why}." if why else ""))
    rv = model[name]
    values = posterior[name].values
    values = values.reshape(-1, *values.shape[2:])
    transform = model.rvs_to_transforms.get(rv)
    if transform is None:
        return values.reshape(len(values), -1).astype(float)
    natural = rv.type(name=name)
    function = Interpreter([natural], [transform.forward(natural, *rv.owner.inputs)])
    return np.array([np.ravel(function(value)[0]) for value in values])
