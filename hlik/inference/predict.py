"""Predictions at the data of a fit or at other data, with standard errors and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import scipy.sparse as sp
from scipy import stats

from hlik.errors import ModelError
from hlik.inference.predictor import Predictor
from hlik.inference.read_predictor import read_predictor
from hlik.inference.restore import Restored, restore

RANDOM = ("conditional", "new", "zero", "marginal")
KINDS = ("link", "response")
THETA_STEP = 1e-4  # standard errors of theta, for central differences of averages


def predict(
    model: Any,
    idata: az.InferenceData,
    data: Mapping[str, Any] | pd.DataFrame | pm.Model | None = None,
    random: str = "conditional",
    kind: str = "link",
    se: bool = True,
    interval: float | None = 0.95,
    *,
    coords: Mapping[str, Any] | None = None,
    response: str | None = None,
) -> pd.DataFrame:
    r"""Predict the mean of a response, or a `pm.Deterministic`, at the observed rows or at new ones.

    Parameters
    ----------
    model
        The model that was fitted, with the data of the fit. It is not changed: new data are set in a clone.
    idata
        Its result.
    data
        New values of the model's `pm.Data` containers, by name; those left out keep theirs. A DataFrame is coded by the
        formula of a model from `hlik.from_formula`, and gives its columns to the containers of the same names
        otherwise. A `pm.Model`: the same model built with the new data (its observations do not count), for data that
        are not in containers and for the matrices of fields. None: the data of the fit.
    random
        What the random effects are, in ``eta = x'beta + z'v + offset``:

        ``"conditional"``
            ``eta = x'beta + z'v_hat``: the levels of the fit at their predictions, their errors jointly with those of
            beta. Independent levels that the fit did not have are as with "new". Those of a joint normal density are
            given the others: with the precision Q of all levels there, old o and new n,
            ``v_n = A v_o + e``, ``A = -Q_nn^-1 Q_no``, ``Var(e) = Q_nn^-1``, at the estimates: the conditional
            autoregression given the neighbours, relatives by the pedigree, kriging by a covariance function. Rows of
            terms with more effects than observations, ``u ~ N(0, lam W)``, are ``z'u_hat``, their variance that of the
            scores' part and ``lam (z'Wz - |z'WZ'(U/d)|^2)``.
        ``"new"``
            Levels drawn anew: ``eta = x'beta + z'c``, c the value of v that changes nothing (0; 1 for inverse-gamma
            effects), ``var = x' cov(beta) x + Var(z'v)``, that is ``sum_j z_j^2 Var(v_j)`` for independent effects,
            ``z'Q^-1 z`` for joint normal ones. For densities without a closed form here (skew-normal, mixtures,
            `pm.CustomDist`) c is E v, and both moments come from the density at the estimates by quadrature.
        ``"zero"``
            The typical level: ``eta = x'beta + z'c``, ``var = x' cov(beta) x``.
        ``"marginal"``
            The average over the distribution of the random effects: ``mu = E g^-1(x'beta + z'v)``, by quadrature; on
            the link scale ``g(mu)``. Its error comes from those of beta and of the dispersion parameters.
    kind
        ``"link"``: on the scale of the linear predictor; ``"response"``: the mean (of a Binomial the probability).
    se
        Whether standard errors and intervals are computed.
    interval
        Coverage of the intervals; None for none.
    coords
        New labels of the model's dims, by name: with ``coords={"plate": [...]}`` random effects with dims "plate" have
        these levels. Levels are known by their labels, so that any order and any subset serves.
    response
        An observed variable, or a Deterministic; may be left out where there is one response.

    Returns
    -------
    pandas.DataFrame
        A row a prediction, indexed by label; columns ``estimate``, ``se``, ``lower``, ``upper``. On the response scale
        the error is ``|d mu/d eta| se(eta)`` and the interval that of the link scale, mapped. Intervals are of the
        mean, not of a future observation (see `hlik.simulate`).

    Raises
    ------
    ModelError
        Where names or shapes do not fit the model, or the result is not the model's.

    Notes
    -----
    Errors of v_hat include how it moves with the dispersion parameters where the fit's own do (Laplace and others, as
    in glmmTMB); with EQL the dispersions count as known. Cost: the graph is read twice and H factored once; new levels
    of a field add a factor of Q_nn. A mean of several predictors (zero-inflated, say) is predicted on the response
    scale.

    References
    ----------
    Kristensen, K. et al. (2016). TMB. J. Statistical Software 70(5), section 2.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> group = np.repeat(np.arange(4), 3)
    >>> y = np.array([1.1, 0.7, 1.4, 2.9, 3.3, 2.6, 0.2, -0.3, 0.4, 1.9, 2.2, 1.6])
    >>> with pm.Model(coords={"g": list("abcd")}) as model:
    ...     mean = pm.Normal("mean", 0, 10)
    ...     sigma_u, sigma = pm.HalfNormal("sigma_u", 1), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma_u, dims="g")
    ...     _ = pm.Normal("y", mean + u[pm.Data("group", group)], sigma, observed=y)
    >>> idata = hlik.fit(model, progressbar=False)
    >>> hlik.predict(  # level b, and a new one
    ...     model, idata, {"group": [1, 2]}, coords={"g": ["a", "b", "new"]}
    ... ).round(3)  # doctest: +NORMALIZE_WHITESPACE
          estimate     se  lower  upper
    label
    y[0]     2.895  0.195  2.512  3.278
    y[1]     1.500  1.334 -1.114  4.114
    """
    _check(random, kind, interval)
    fitted = restore(model, idata)
    predictor = read_predictor(model, idata, fitted, data, coords or {}, response)
    if predictor.is_graph and kind == "link":
        raise ModelError(
            f"{predictor.name!r} is no function of a single linear predictor: predict it with kind='response'."
        )
    parts = _marginal(fitted, predictor) if random == "marginal" else _plain(fitted, predictor, random, se)
    return _table(predictor, *parts, kind=kind, se=se, interval=interval)


def _check(random: str, kind: str, interval: float | None) -> None:
    if random not in RANDOM:
        raise ModelError(f"random={random!r}: expected one of {', '.join(map(repr, RANDOM))}.")
    if kind not in KINDS:
        raise ModelError(f"kind={kind!r}: expected 'link' or 'response'.")
    if interval is not None and not 0 < interval < 1:
        raise ModelError(f"interval must lie between 0 and 1, or be None; got {interval}.")


def _plain(fitted: Restored, predictor: Predictor, random: str, se: bool) -> tuple[np.ndarray, np.ndarray]:
    """eta and its variance for given, new or typical levels."""
    ways = {
        "conditional": (lambda: predictor.predicted(fitted), predictor.variance_given_fit),
        "new": (lambda: predictor.drawn(fitted), predictor.variance_drawn),
        "zero": (predictor.typical, predictor.variance_typical),
    }
    value, variance = ways[random]
    at = predictor.at(fitted, value())
    return at.eta, variance(fitted, at) if se else np.full(at.eta.size, np.nan)


def _marginal(fitted: Restored, predictor: Predictor) -> tuple[np.ndarray, np.ndarray]:
    """g(E mu) and its variance by the delta method, through (beta, theta)."""
    if predictor.is_graph:
        raise ModelError(
            f"random='marginal' averages a function of a single linear predictor, which {predictor.name!r} is not: "
            f"average hlik.simulate(model, idata) instead."
        )
    at = predictor.at(fitted, np.zeros(predictor.typical().size))
    mean = predictor.average(at, fitted.theta)
    slope = predictor.average(at, fitted.theta, slope=True)
    by_theta = slope[:, None] * at.T_theta
    errors = np.sqrt(np.diag(fitted.covariance)[fitted.beta.size :])
    for k in np.flatnonzero(np.isfinite(errors) & (errors > 0)):
        step = THETA_STEP * errors[k] * np.eye(fitted.theta.size)[k]
        ends = [predictor.average(at, fitted.theta + sign * step) for sign in (1.0, -1.0)]
        by_theta[:, k] += (ends[0] - ends[1]) / (2 * step[k])
    rows = np.hstack([slope[:, None] * at.TX, by_theta])
    none = sp.csr_array((mean.size, fitted.v.size))
    variance = fitted.variance(rows[:, : fitted.beta.size], none, rows[:, fitted.beta.size :])
    eta = predictor.link(mean)
    return eta, variance / predictor.slope(eta) ** 2


def _table(
    predictor: Predictor, eta: np.ndarray, variance: np.ndarray, *, kind: str, se: bool, interval: float | None
) -> pd.DataFrame:
    error = np.sqrt(variance)
    half = error * (stats.norm.ppf(0.5 + interval / 2) if interval is not None else np.nan)
    lower, upper = eta - half, eta + half
    if kind == "response":
        error = np.abs(predictor.slope(eta)) * error
        with np.errstate(all="ignore"):
            ends = np.stack([predictor.inverse(lower), predictor.inverse(upper)])
        lower, upper = ends.min(axis=0), ends.max(axis=0)
        eta = predictor.inverse(eta)
    columns = {"estimate": eta}
    if se:
        columns["se"] = error
        if interval is not None:
            columns |= {"lower": lower, "upper": upper}
    return pd.DataFrame(columns, index=pd.Index(predictor.labels, name="label"))
