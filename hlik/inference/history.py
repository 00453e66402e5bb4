"""`history`: the path of a fit as a chain that ArviZ draws."""

from __future__ import annotations

import arviz as az

from hlik.errors import ModelError
from hlik.inference.tables import model_of


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

    Raises
    ------
    ModelError
        Where `idata` is not a result of `hlik.fit`, or has no history.

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
    model_of(idata)
    path = idata["history"] if "history" in idata.groups() else None
    if path is None or not path.data_vars:
        raise ModelError("This result has no history of iterations.")
    data = path.rename({"iteration": "draw"}).expand_dims(chain=[0]).transpose("chain", "draw", ...)
    return az.InferenceData(posterior=data)
