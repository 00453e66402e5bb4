"""Numbers of a result by short names: covariance matrix, log-likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import arviz as az
import pandas as pd

from hlik.errors import ModelError
from hlik.inference.tables import model_of

if TYPE_CHECKING:
    from hlik.accuracy import LogLikelihood


def vcov(idata: az.InferenceData, role: str | None = None) -> pd.DataFrame:
    """Covariance matrix of the parameter estimates, on the unconstrained scale.

    Parameters
    ----------
    idata
        A result of `hlik.fit`.
    role
        ``"fixed effect"`` or ``"dispersion parameter"``: only these. All by default.

    Returns
    -------
    pandas.DataFrame
        Rows and columns by the labels of the value variables (``sigma_log__``); NaN for parameters without standard
        error (at a boundary).

    Raises
    ------
    ModelError
        For another role.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)]), observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> list(hlik.vcov(hlik.fit(model, progressbar=False)).columns)
    ['beta', 'sigma_log__']
    """
    matrix = idata["fit"]["covariance_matrix"].to_pandas() if model_of(idata) else None
    assert isinstance(matrix, pd.DataFrame)
    matrix.index.name = matrix.columns.name = None
    if role is None:
        return matrix
    parameters = model_of(idata)["parameters"]
    if role not in {"fixed effect", "dispersion parameter"}:
        raise ModelError(f"role={role!r}: expected 'fixed effect' or 'dispersion parameter'.")
    chosen: list[int] = []
    start = {"fixed effect": 0, "dispersion parameter": 0}
    sizes = [(p["role"], int(idata["unconstrained_estimates"][p["value_name"]].size)) for p in parameters]
    start["dispersion parameter"] = sum(size for kind, size in sizes if kind == "fixed effect")
    for kind, size in sizes:
        if kind == role:
            chosen += range(start[kind], start[kind] + size)
        start[kind] += size
    labels = matrix.index[chosen]
    return matrix.loc[labels, labels]


@overload
def loglik(idata: az.InferenceData, kind: str | None = None) -> float: ...


@overload
def loglik(idata: Any, kind: az.InferenceData, **settings: Any) -> LogLikelihood: ...


def loglik(idata: Any, kind: Any = None, **settings: Any) -> Any:
    """Log-likelihood of a fit: ``loglik(idata)`` as it was fitted, ``loglik(model, idata)`` by importance sampling.

    ``loglik(model, idata, settings=None, tol=0.01, random_seed=None)`` is the marginal log-likelihood at the estimate
    of any estimator, with its Monte Carlo error (`hlik.accuracy.LogLikelihood`), so that fits by EQL, Laplace,
    MCEM and MCLA compare on one scale. It takes the draws that an error of `tol` needs, as `hlik.MCLA` makes them.

    Parameters
    ----------
    idata
        A result of `hlik.fit`.
    kind
        ``"h"``, ``"p_v_h"`` (Laplace's approximation of the marginal log-likelihood), ``"p_bv_h"`` (restricted),
        ``"conditional_log_likelihood"`` (given the random effects), or another scalar of the group ``fit``. By default
        the one that the estimator maximises, which ``idata.fit.attrs["likelihood"]`` names.
    **settings
        With a model: ``settings`` (an `hlik.MCLA`), ``tol``, ``random_seed``.

    Returns
    -------
    float, or LogLikelihood with a model

    Raises
    ------
    ModelError
        Where the result has no number of that name; where importance sampling cannot serve the model.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)]), observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> idata = hlik.fit(model, "laplace", progressbar=False)
    >>> hlik.loglik(idata) == hlik.loglik(idata, "p_v_h") < hlik.loglik(idata, "conditional_log_likelihood")
    True
    >>> found = hlik.loglik(model, idata, random_seed=1)
    >>> abs(found.value + 18.83) < 0.05, found.mcse < 0.01
    (True, True)
    """
    if isinstance(kind, az.InferenceData):
        from hlik.accuracy import importance_log_likelihood

        return importance_log_likelihood(idata, kind, **settings)
    model_of(idata)
    scalars = [str(name) for name, values in idata["fit"].data_vars.items() if values.ndim == 0]
    name = "log_likelihood" if kind is None else kind
    if name not in scalars:
        raise ModelError(f"kind={kind!r}: this result has {sorted(scalars)}.")
    return float(idata["fit"][name])
