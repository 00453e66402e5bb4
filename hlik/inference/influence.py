"""What single observations, and whole groups, do to the fixed effects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import scipy.sparse as sp

from hlik.errors import ModelError
from hlik.graph.describe import labels_of
from hlik.hlikelihood import HLikelihood
from hlik.inference.restore import Restored, restore

COLUMNS = ("size", "leverage", "cook", "shift", "parameter")


def influence(
    model: Any, idata: az.InferenceData, group: str | Sequence[Any] | np.ndarray | None = None
) -> pd.DataFrame:
    r"""Leverages and Cook's distances, of observations or of groups.

    Parameters
    ----------
    model
        The model that was fitted.
    idata
        Its result.
    group
        None: every observation. The name of a random effect: for each of its levels, all observations that have it. Or
        a label for each observation, of all responses in turn.

    Returns
    -------
    pandas.DataFrame
        A row an observation or group; columns ``size`` (observations left out), ``leverage`` (the sum of
        ``w t'H^{-1}t`` over them), ``cook`` (Cook's distance), ``shift`` (the coefficient that moves most, how far, in
        its standard errors) and ``parameter`` (which one that is).

    Raises
    ------
    ModelError
        Where the model has no fixed effects, a response has several linear predictors, or `group` does not fit.

    Notes
    -----
    Leaving out rows T of the design with weights W and scores s moves the solution of the mixed-model equations by

    .. math:: \Delta = -H^{-1} T' (I - W T H^{-1} T')^{-1} s, \qquad
              D = \Delta_\beta' \,\mathrm{cov}(\beta)^{-1} \Delta_\beta / p,

    with ``cov(beta)`` the block of ``H^{-1}``. That is exact for normal responses with identity link at the estimated
    dispersions, and one step of Newton's method for others. The dispersions stay as they are. A case costs nothing
    beyond the factor of H, a group a solve for each of its observations.

    References
    ----------
    Cook, R. D. (1977). Technometrics 19, 15-18. Pregibon, D. (1981). Annals of Statistics 9, 705-724.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> y = np.array([1.1, 0.7, 1.4, 2.9, 3.3, 2.6, 0.2, -0.3, 0.4, 1.9, 2.2, 1.6])
    >>> with pm.Model(coords={"g": list("abcd")}) as model:
    ...     mean = pm.Normal("mean", 0, 10)
    ...     u = pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), dims="g")
    ...     _ = pm.Normal("y", mean + u[np.repeat(np.arange(4), 3)], pm.HalfNormal("sigma", 1), observed=y)
    >>> table = hlik.influence(model, hlik.fit(model, progressbar=False), group="u")
    >>> table["cook"].round(2).to_dict()
    {'u[a]': 0.06, 'u[b]': 0.63, 'u[c]': 0.6, 'u[d]': 0.05}
    """
    fitted = restore(model, idata)
    read = fitted.model
    if not read.n_beta:
        raise ModelError("The model has no fixed effects for observations to influence.")
    likelihood = HLikelihood(read)
    point = likelihood.at(fitted.beta, fitted.v, fitted.theta)
    if likelihood.pairs or point is None or read.n_rows != sum(r.size for r in read.responses):
        raise ModelError("Influence is computed for responses with one linear predictor each.")
    if group is None:
        moved, size, leverage, labels = *_cases(fitted, point.score), _case_labels(fitted)
        sizes = np.ones(size.size, dtype=int)
    else:
        labels, members = _groups(fitted, group)
        moved, leverage = _of_groups(fitted, point.score, members)
        sizes = np.array([len(rows) for rows in members])
    return _table(fitted, moved, leverage, sizes, labels)


def _cases(fitted: Restored, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shifts of beta (n, p) by leaving out single rows; their numbers; leverages."""
    information = fitted.information
    leverage = information.leverages()
    Z = fitted.model.Z
    direct = fitted.model.X - (Z @ information.B if Z.shape[1] else 0.0)
    free = np.maximum(1.0 - leverage, 1e-12)
    return -(direct @ information.inverse_x) * (score / free)[:, None], np.arange(score.size), leverage


def _of_groups(fitted: Restored, score: np.ndarray, members: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Shifts of beta (G, p) by leaving out groups of rows, and the sums of their leverages."""
    information, model = fitted.information, fitted.model
    moved, leverage = np.zeros((len(members), model.n_beta)), np.zeros(len(members))
    for k, rows in enumerate(members):
        TX, TZ, w = model.X[rows], sp.csr_array(model.Z[rows]), information.w[rows]
        s_x, s_z = information.solve(TX.T, TZ.T.toarray())
        inner = w[:, None] * (TX @ s_x + TZ @ s_z)
        leverage[k] = np.trace(inner)
        moved[k] = -s_x @ np.linalg.lstsq(np.eye(len(rows)) - inner, score[rows], rcond=None)[0]
    return moved, leverage


def _groups(fitted: Restored, group: str | Sequence[Any] | np.ndarray) -> tuple[list[str], list[np.ndarray]]:
    model = fitted.model
    if isinstance(group, str):
        effect = next((e for e in model.random_effects if e.name == group), None)
        if effect is None:
            raise ModelError(
                f"No random effect is called {group!r}: there are {[e.name for e in model.random_effects]}."
            )
        columns = sp.csc_array(model.Z[:, effect.index])
        members = [columns.indices[columns.indptr[k] : columns.indptr[k + 1]] for k in range(effect.size)]
        labels = labels_of(model.coords, effect.variable, effect.name)
        kept = [k for k, rows in enumerate(members) if len(rows)]
        return [labels[k] for k in kept], [np.sort(members[k]) for k in kept]
    given = np.asarray(group)
    if given.shape != (model.n_rows,):
        raise ModelError(f"group needs a label for each of the {model.n_rows} observations; got shape {given.shape}.")
    codes, levels = pd.factorize(given)
    order = np.argsort(codes, kind="stable")
    return [str(level) for level in levels], np.split(order, np.cumsum(np.bincount(codes))[:-1])


def _case_labels(fitted: Restored) -> list[str]:
    model = fitted.model
    return [label for r in model.responses for label in labels_of(model.coords, r.variable, r.name)]


def _table(
    fitted: Restored, moved: np.ndarray, leverage: np.ndarray, sizes: np.ndarray, labels: list[str]
) -> pd.DataFrame:
    covariance = fitted.information.inverse_x
    cook = np.einsum("ij,ij->i", moved @ np.linalg.inv(covariance), moved) / fitted.model.n_beta
    standard = moved / np.sqrt(np.diag(covariance))
    most = np.argmax(np.abs(standard), axis=1)
    return pd.DataFrame(
        {
            "size": sizes,
            "leverage": leverage,
            "cook": cook,
            "shift": standard[np.arange(len(most)), most],
            "parameter": np.array(fitted.model.X_names, dtype=object)[most],
        },
        index=pd.Index(labels, name="label"),
    )
