"""Likelihoods and information criteria of one fit or of several side by side."""

from __future__ import annotations

from collections.abc import Mapping

import arviz as az
import numpy as np
import pandas as pd

from hlik.errors import ModelError
from hlik.inference.tables import model_of

CRITERIA = (
    "h",
    "p_v_h",
    "p_bv_h",
    "log_likelihood",
    "log_likelihood_mcse",
    "conditional_log_likelihood",
    "caic",
    "aic",
    "bic",
    "df_effective",
    "df_residual",
)
COLUMNS = (*CRITERIA, "n_parameters", "likelihood")


def criteria(idata: az.InferenceData | Mapping[str, az.InferenceData]) -> pd.DataFrame:
    """Log-likelihoods, information criteria and degrees of freedom.

    Parameters
    ----------
    idata
        A result of `hlik.fit`, or several by name.

    Returns
    -------
    pandas.DataFrame
        A row a fit (one fit is called by its estimator) and columns

        ``h``
            ``log f(y | v) + log f(v)`` at the estimates
        ``p_v_h``
            ``h - log|C/2pi|/2``: Laplace's approximation of the marginal log-likelihood
        ``p_bv_h``
            ``h - log|H/2pi|/2``: of the restricted one
        ``log_likelihood``, ``log_likelihood_mcse``
            what the estimator maximised (the column ``likelihood`` says which), and its Monte Carlo error
        ``conditional_log_likelihood``
            ``log f(y | v)``
        ``caic``
            conditional AIC, ``-2 log f(y | v) + 2 df_effective``: for predictions of the same groups (Vaida & Blanchard
            2005, Ha, Lee & MacKenzie 2007)
        ``aic``, ``bic``
            marginal, ``-2 l + 2 k`` and ``-2 l + k log n``, l the marginal log-likelihood, k ``n_parameters``
        ``df_effective``, ``df_residual``
            trace of the hat matrix of the observations, and n minus it
        ``n_parameters``
            fixed effects and dispersion parameters

    Raises
    ------
    ModelError
        Where the fits have different observations, so that their likelihoods cannot be compared.

    Notes
    -----
    Restricted likelihoods (``p_bv_h``) compare dispersions of models with the same fixed effects only. h itself is no
    criterion: it grows without bound as variances go to zero.

    References
    ----------
    Ha, I. D., Lee, Y. & MacKenzie, G. (2007). Model selection for multi-component frailty models. Stat. Med. 26.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> y = np.array([1.1, 0.7, 1.4, 2.9, 3.3, 2.6, 0.2, -0.3, 0.4, 1.9, 2.2, 1.6])
    >>> with pm.Model() as model:
    ...     mean, s_u, s = pm.Normal("mean", 0, 10), pm.HalfNormal("s_u", 1), pm.HalfNormal("s", 1)
    ...     u = pm.Normal("u", 0, s_u, shape=4)
    ...     _ = pm.Normal("y", mean + u[np.repeat(np.arange(4), 3)], s, observed=y)
    >>> fits = {name: hlik.fit(model, name, progressbar=False) for name in ("eql", "laplace")}
    >>> hlik.criteria(fits)[["p_v_h", "p_bv_h"]].round(2).to_dict("index")
    {'eql': {'p_v_h': -10.88, 'p_bv_h': -10.47}, 'laplace': {'p_v_h': -10.8, 'p_bv_h': -10.53}}
    """
    if isinstance(idata, az.InferenceData):  # itself a mapping, of groups
        idata = {str(idata["fit"].attrs.get("estimator_name", "fit")): idata}
    fits: dict[str, az.InferenceData] = dict(idata)
    observations = {name: _observations(found) for name, found in fits.items()}
    if len(set(observations.values())) > 1:
        raise ModelError(f"These fits have different responses, and are not comparable: {observations}.")
    return pd.DataFrame([_row(found) for found in fits.values()], index=pd.Index(fits, name="fit"), columns=COLUMNS)


def _observations(idata: az.InferenceData) -> tuple[tuple[str, int, float], ...]:
    """Name, number and sum of the responses: the same data have the same."""
    found = []
    for response in model_of(idata)["responses"]:
        y = idata["observed_data"][response["name"]].values
        found.append((response["name"], int(y.size), round(float(np.sum(y)), 8)))
    return tuple(found)


def _row(idata: az.InferenceData) -> dict[str, object]:
    fit = idata["fit"]
    row: dict[str, object] = {key: float(fit[key]) if key in fit else np.nan for key in CRITERIA}
    row["n_parameters"] = int(np.sum(np.isfinite(fit["mean_vector"].values)))
    row["likelihood"] = fit.attrs["likelihood"]
    return row
