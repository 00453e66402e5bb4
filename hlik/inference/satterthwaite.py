r"""Satterthwaite's degrees of freedom of fixed effects in Gaussian models."""

from __future__ import annotations

from typing import Any

import arviz as az
import numpy as np
import pandas as pd
from scipy import stats

from hlik.adjusted_profile import Profile
from hlik.errors import ModelError
from hlik.estimators.boundary import held_parameters, less_singular
from hlik.estimators.laplace_objective import Objective, active_parameters, differenced_hessian
from hlik.hlikelihood import HLikelihood
from hlik.inference.restore import restore
from hlik.model import HierarchicalModel
from hlik.penalty import unpenalised

STEP = 1e-3  # standard errors of theta, for central differences of the covariance of beta


def satterthwaite(model: Any, idata: az.InferenceData, level: float = 0.95) -> pd.DataFrame:
    r"""Table of the fixed effects with Satterthwaite's degrees of freedom.

    Parameters
    ----------
    model
        The model that was fitted: normal responses with identity link, normal random effects.
    idata
        Its result, by EQL or `hlik.Laplace` (REML or ML).
    level
        Coverage of the intervals.

    Returns
    -------
    pandas.DataFrame
        A row a fixed effect, indexed by label; columns ``estimate``, ``se`` (with the dispersions as known),
        ``df``, ``statistic``, ``p_value`` (two-sided, t), ``lower``, ``upper``.

    Raises
    ------
    ModelError
        For models with other families or links.

    Notes
    -----
    With ``f(theta) = (X'V^-1 X)^-1_kk``, its gradient g and the covariance A of theta,

    .. math:: \mathrm{df} = 2 f^2 / (g' A g)

    (Satterthwaite 1946; Giesbrecht & Burns 1985; Kuznetsova et al. 2017: lmerTest). A is the inverse Hessian of the
    restricted log-likelihood at the estimates (of the likelihood for fits by ML); g and the Hessian come from central
    differences. Variances at zero count as known. df does not depend on the scale of theta.

    References
    ----------
    Satterthwaite, F. E. (1946). Biometrics Bulletin 2, 110-114.
    Giesbrecht, F. G. & Burns, J. C. (1985). Biometrics 41, 477-486.
    Kuznetsova, A., Brockhoff, P. B. & Christensen, R. H. B. (2017). J. Statistical Software 82(13).

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> group = np.repeat(np.arange(4), 3)
    >>> y = np.array([1.1, 0.7, 1.4, 2.9, 3.3, 2.6, 0.2, -0.3, 0.4, 1.9, 2.2, 1.6])
    >>> with pm.Model() as model:
    ...     mean = pm.Normal("mean", 0, 10)
    ...     sigma_u, sigma = pm.HalfNormal("sigma_u", 1), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma_u, shape=4)
    ...     _ = pm.Normal("y", mean + u[group], sigma, observed=y)
    >>> table = hlik.satterthwaite(model, hlik.fit(model, progressbar=False))
    >>> round(float(table.loc["mean", "df"]), 3)  # four balanced groups
    3.0
    """
    if not 0 < level < 1:
        raise ModelError(f"level must lie between 0 and 1; got {level}.")
    fitted = restore(model, idata)
    read = unpenalised(fitted.model)
    _check_gaussian(read)
    restricted = Profile(HLikelihood(read), integrate_beta=True)
    A, active = _theta_covariance(read, fitted.beta, fitted.v, fitted.theta, idata)

    def covariance(theta: np.ndarray) -> np.ndarray:
        return restricted.mode(theta, fitted.beta, fitted.v).bordered.inverse_x

    at = covariance(fitted.theta)
    gradient = np.zeros((read.n_beta, read.n_theta))
    for k in np.flatnonzero(active):
        move = np.zeros(read.n_theta)
        move[k] = STEP * np.sqrt(A[k, k])
        difference = np.diag(covariance(fitted.theta + move)) - np.diag(covariance(fitted.theta - move))
        gradient[:, k] = difference / (2 * move[k])
    variance = np.diag(at)
    spread = np.einsum("ij,jk,ik->i", gradient, A, gradient)
    with np.errstate(divide="ignore"):
        df = np.where(spread > 0, 2 * variance**2 / spread, np.inf)
    return _table(read, fitted.beta, np.sqrt(variance), df, level)


def _check_gaussian(read: HierarchicalModel) -> None:
    for response in read.responses:
        if response.family is None or response.family.name != "normal" or response.link is None:
            raise ModelError(f"Satterthwaite's df need normal responses; {response.name!r} is {response.distribution}.")
        if response.link.name != "identity":
            raise ModelError(
                f"Satterthwaite's df need the identity link; {response.name!r} has the link {response.link.name}."
            )
    for effect in read.random_effects:
        if effect.distribution not in ("Normal", "MvNormal", "ZeroSumNormal") and (
            effect.family is None or effect.family.name != "normal"
        ):
            raise ModelError(
                f"Satterthwaite's df need normal random effects; {effect.name!r} is {effect.distribution}."
            )
    if read.theta_design is not None and np.any(read.theta_design):
        raise ModelError("Satterthwaite's df need dispersion parameters that are no part of the mean.")


def _theta_covariance(
    read: HierarchicalModel, beta: np.ndarray, v: np.ndarray, theta: np.ndarray, idata: az.InferenceData
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse Hessian of the likelihood that was maximised, block of theta; zero for variances at zero."""
    is_restricted = idata["fit"].attrs["likelihood"] == "p_bv_h"
    likelihood = HLikelihood(read)
    objective = Objective(Profile(likelihood, integrate_beta=is_restricted), beta, v)
    held = held_parameters(likelihood, theta)
    if held.any():  # next to a singular covariance matrix second derivatives are all rounding
        theta = less_singular(read, theta, held)
    psi = theta if is_restricted else np.concatenate([beta, theta])
    active = active_parameters(objective, psi)
    active[psi.size - theta.size :] &= ~held
    own = np.diag(idata["fit"]["covariance_matrix"].values)[read.n_beta if is_restricted else 0 :]
    scale = np.diag(np.where(np.isfinite(own) & (own > 0), own, 1.0))
    hessian = differenced_hessian(objective, psi, scale, active)
    result, part = np.zeros_like(hessian), np.ix_(active, active)
    result[part] = np.linalg.inv(hessian[part])
    start = psi.size - theta.size
    return result[start:, start:], active[start:]


def _table(read: HierarchicalModel, beta: np.ndarray, se: np.ndarray, df: np.ndarray, level: float) -> pd.DataFrame:
    statistic = beta / se
    half = stats.t(df).ppf(0.5 + level / 2) * se
    return pd.DataFrame(
        {
            "estimate": beta,
            "se": se,
            "df": df,
            "statistic": statistic,
            "p_value": 2 * stats.t(df).sf(np.abs(statistic)),
            "lower": beta - half,
            "upper": beta + half,
        },
        index=pd.Index(read.X_names, name="label"),
    )
