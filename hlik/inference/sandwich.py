r"""Cluster-robust (sandwich) standard errors by groups of observations."""

from __future__ import annotations

from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike

from hlik.adjusted_profile import Mode, Profile
from hlik.batch import Batch
from hlik.errors import ModelError
from hlik.hlikelihood import HLikelihood
from hlik.inference.restore import restore

STEP = 1e-3  # standard errors, for central differences of the groups' log-likelihoods


def sandwich(model: Any, idata: az.InferenceData, group: ArrayLike) -> pd.DataFrame:
    r"""Covariance matrix of the estimates that does not trust the model within groups.

    Parameters
    ----------
    model
        The model that was fitted, with one response.
    idata
        Its result by `hlik.Laplace` (maximum likelihood).
    group
        A label for every observation, in the order of the response. Observations of different groups must share no
        random effect.

    Returns
    -------
    pandas.DataFrame
        Shape (parameters, parameters), on the unconstrained scale, labelled as `hlik.vcov`; standard errors are the
        roots of its diagonal.

    Raises
    ------
    ModelError
        Where groups share random effects, the labels do not fit the response, or the fit is not by maximum likelihood.

    Notes
    -----
    .. math:: A^{-1} \Big(\sum_g s_g s_g'\Big) A^{-1}

    with A the negative Hessian of p_v(h) and s_g the score of group g's part of it (White 1982; Liang & Zeger 1986),
    for all parameters at once. It is right in large numbers of groups also where variances or correlations within
    groups are not those of the model, as long as what the parameters mean is; it is too small for few groups (no
    correction for them is made). Cost: two Newton searches a parameter, no loop over groups.

    References
    ----------
    White, H. (1982). Econometrica 50, 1-25.
    Liang, K.-Y. & Zeger, S. L. (1986). Biometrika 73, 13-22.

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
    >>> idata = hlik.fit(model, "laplace", progressbar=False)
    >>> float(np.sqrt(hlik.sandwich(model, idata, group).loc["mean", "mean"]).round(3))
    0.522
    """
    if idata["fit"].attrs["likelihood"] != "p_v_h" or idata["fit"].attrs["estimator_name"] != "Laplace":
        raise ModelError("sandwich needs a fit by hlik.Laplace(): scores of other likelihoods are not by group.")
    fitted = restore(model, idata)
    likelihood = HLikelihood(fitted.model)
    case_sums, level_sums, row_sums = _sums(likelihood, np.asarray(group))
    profile = Profile(likelihood)
    psi = np.concatenate([fitted.beta, fitted.theta])
    centre = profile.mode(psi, fitted.beta, fitted.v)
    kappa, kappa_v = centre.bordered.row_quadratics(), centre.bordered.inverse_diagonal()[1]
    errors = np.sqrt(np.diag(fitted.covariance))
    active = np.isfinite(errors) & (errors > 0)
    scores = np.zeros((psi.size, case_sums.shape[0]))
    for k in np.flatnonzero(active):
        ends: list[Mode] = []
        for sign in (1.0, -1.0):
            moved = psi.copy()
            moved[k] += sign * STEP * errors[k]
            ends.append(profile.mode(moved, fitted.beta, fitted.v))
        values = [_group_values(likelihood, end, case_sums, level_sums) for end in ends]
        weight, random_weight = (
            getattr(ends[0].point, part) - getattr(ends[1].point, part) for part in ("weight", "random_weight")
        )
        log_det = row_sums @ (kappa * weight) + level_sums @ (kappa_v * random_weight)
        scores[k] = (values[0] - values[1] - 0.5 * log_det) / (2 * STEP * errors[k])
    bread = np.where(np.outer(active, active), fitted.covariance, 0.0)
    covariance = bread @ scores @ scores.T @ bread
    covariance[~active, :], covariance[:, ~active] = np.nan, np.nan
    labels = [str(label) for label in idata["fit"]["parameter"].values]
    return pd.DataFrame(covariance, index=labels, columns=labels)


def _group_values(likelihood: HLikelihood, mode: Mode, case_sums: sp.csr_array, level_sums: sp.csr_array) -> np.ndarray:
    """h of every group, shape (groups,)."""
    point = mode.point
    batch = Batch.at(likelihood, point.beta, point.v[:, None], point.theta)
    levels = batch.level_values()
    total = case_sums @ batch.case_values()[:, 0]
    return total + level_sums @ levels[:, 0] if levels.size else total


def _sums(likelihood: HLikelihood, group: np.ndarray) -> tuple[sp.csr_array, sp.csr_array, sp.csr_array]:
    """Sums over groups of cases, of levels, and of the design's rows, as 0-1 matrices."""
    model = likelihood.model
    if len(model.responses) != 1 or model.extra_terms or likelihood.prior_pattern is not None:
        raise ModelError("sandwich takes models with one response and independent random effects of known families.")
    response = model.responses[0]
    if group.shape != response.variable.shape and group.shape != (response.size,):
        raise ModelError(
            f"group has shape {group.shape}; the response {response.name!r} has {response.variable.shape}."
        )
    _, member = np.unique(group.ravel(), return_inverse=True)
    rows = np.tile(member, likelihood.Z.shape[0] // response.size)
    touched = sp.coo_array(likelihood.Z)
    row, column = touched.coords
    low, high = np.full(model.n_random, rows.size), np.full(model.n_random, -1)
    np.minimum.at(low, column, rows[row])
    np.maximum.at(high, column, rows[row])
    shared = (high >= 0) & (low != high)
    if shared.any():
        effect = next(e for e in model.random_effects if shared[e.index].any())
        raise ModelError(
            f"Levels of the random effect {effect.name!r} belong to several groups, which are then not independent: "
            f"pass larger groups."
        )
    count = int(member.max()) + 1
    levels = np.where(high >= 0, low, 0)
    return tuple(
        sp.csr_array((np.ones(index.size), (index, np.arange(index.size))), shape=(count, index.size))
        for index in (member, levels, rows)
    )  # type: ignore[return-value]
