"""The group `history` of a result, a row an iteration, and `history`, which gives it to ArviZ as a chain."""

from __future__ import annotations

from typing import Any

import arviz as az
import numpy as np
import xarray as xr

from hlik.loop import Fit
from hlik.result.arrays import attributes


def history_group(fit: Fit) -> xr.Dataset:
    """One row an iteration: the unconstrained parameters, and what the estimator told of its steps."""
    model = fit.estimate.model
    iteration = np.arange(1, len(fit.history) + 1)
    variables: dict[str, Any] = {}
    for parameter in model.parameters:
        path = fit.beta_path if parameter.natural is None else fit.theta_path
        variable = parameter.variable
        dims = tuple(f"{variable.value_name}_dim_{k}" for k in range(len(variable.unconstrained_shape)))
        part = path[:, parameter.index].reshape((len(path), *variable.unconstrained_shape))
        variables[variable.value_name] = (("iteration", *dims), part)
    for key in fit.history[0] if fit.history else ():
        variables[key] = ("iteration", np.array([row[key] for row in fit.history]))
    return xr.Dataset(variables, coords={"iteration": iteration}, attrs=attributes())


def history(idata: az.InferenceData) -> az.InferenceData:
    """The path of a fit as an InferenceData, one chain, a draw an iteration, for `az.plot_trace`.

    Parameters
    ----------
    idata
        A result of `hlik.fit`.

    Returns
    -------
    arviz.InferenceData
        Group ``posterior`` with dims chain (one) and draw (iterations).

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)]), observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> idata = hlik.fit(model, progressbar=False)
    >>> hlik.history(idata).posterior.sizes["draw"] == idata.fit.attrs["n_iterations"]
    True
    """
    path = idata["history"]
    data = path.rename({"iteration": "draw"}).expand_dims(chain=[0]).transpose("chain", "draw", ...)
    return az.InferenceData(posterior=data)
