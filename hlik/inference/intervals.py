"""Confidence intervals of parameters: Wald, profile likelihood, bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
from scipy import stats

from hlik.errors import ModelError
from hlik.inference.selection import Selected, select
from hlik.links import LINKS

COLUMNS = ("estimate", "lower", "upper", "level", "method")
METHODS = ("wald", "profile", "percentile", "basic")
SCALES = ("unconstrained", "natural")


def confint(
    model: Any,
    idata: az.InferenceData | None = None,
    *,
    method: str = "wald",
    level: float = 0.95,
    parm: Sequence[str] | str | None = None,
    scale: str | None = None,
) -> pd.DataFrame:
    r"""Confidence intervals of parameters.

    ``confint(idata)`` or ``confint(model, idata, method="profile")``: only profile intervals need the model.

    Parameters
    ----------
    model
        The model that was fitted; left out where the method needs the result alone.
    idata
        A result of `hlik.fit`, or of `hlik.bootstrap` for the last two methods.
    method
        ``"wald"``
            ``estimate -+ q se``; q is Student's t with the residual degrees of freedom for fixed effects, normal for
            others, as in `hlik.summary`.
        ``"profile"``
            ``{c: 2 (l(psi_hat) - max l with psi_k = c) <= z^2}``, l the log-likelihood that the fit maximised, the
            others maximised anew at each c. A variance whose likelihood does not fall towards zero has lower end 0.
        ``"percentile"``, ``"basic"``
            Quantiles of the bootstrap estimates, and those mirrored at the estimate,
            ``2 estimate - (upper quantile, lower quantile)`` on the unconstrained scale.
    level
        Coverage.
    parm
        Names of parameters, or labels of elements (``"beta[x]"``); all by default (of a restricted likelihood, for
        profiles: the dispersion parameters).
    scale
        Of Wald intervals. ``"unconstrained"`` (the default): made on the scale of PyMC's value variable (log of a
        standard deviation) and mapped back. ``"natural"``: symmetric about the estimate. The ends are on the natural
        scale both ways; the other methods do not depend on the scale.

    Returns
    -------
    pandas.DataFrame
        A row an element, indexed by label; columns ``estimate``, ``lower``, ``upper``, ``level``, ``method``. A
        parameter whose natural scale is no elementwise function of its value variable (a Cholesky factor) has rows
        under the name of the value variable, on its scale, except for Wald intervals with ``scale="natural"``. Ends
        that do not exist are infinite; Wald intervals at a boundary are NaN.

    Raises
    ------
    ModelError
        Where the method needs what the result does not have.

    Notes
    -----
    Cost of profiles: five to ten maximisations an element, each from the last one with exact gradients; by Monte Carlo
    EM as many fits, each from the last one's chains (`hlik.profile`). Profile
    intervals follow the likelihood's asymmetry and need no standard error; for few groups they are better than Wald's.
    Where a covariance matrix is estimated singular (a correlation of one), it stays so along the profiles of others.
    The points of the curves are given by `hlik.profile`.

    References
    ----------
    Venzon, D. J. & Moolgavkar, S. H. (1988). Applied Statistics 37, 87-94.
    Davison, A. C. & Hinkley, D. V. (1997). Bootstrap Methods and their Application, section 5.2.

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
    >>> hlik.confint(model, idata, method="profile").loc["sigma_u", ["lower", "upper"]].astype(float).round(3).tolist()
    [0.558, 2.553]
    >>> hlik.confint(idata).loc["sigma_u", ["lower", "upper"]].astype(float).round(3).tolist()
    [0.5, 2.104]
    """
    model, idata = _arguments(model, idata, method, level, scale)
    if method == "wald":
        rows = [row for chosen in select(idata, parm) for row in _wald(idata, chosen, level, scale)]
    elif method == "profile":
        from hlik.inference.profile_table import profile_ends

        rows = profile_ends(model, idata, parm, level)
    else:
        rows = [row for chosen in select(idata, parm) for row in _bootstrap(idata, chosen, level, method)]
    frame = pd.DataFrame(rows, columns=["label", "estimate", "lower", "upper"]).set_index("label")
    frame["level"], frame["method"] = level, method
    return frame[list(COLUMNS)]


def _arguments(model: Any, idata: Any, method: str, level: float, scale: str | None) -> tuple[Any, az.InferenceData]:
    if idata is None:
        model, idata = None, model
    if not isinstance(idata, az.InferenceData):
        raise ModelError(f"confint takes a result of hlik.fit, confint(idata) or confint(model, idata); got {idata!r}.")
    if method not in METHODS:
        raise ModelError(f"method={method!r}: expected one of {', '.join(map(repr, METHODS))}.")
    if not 0 < level < 1:
        raise ModelError(f"level must lie between 0 and 1; got {level}.")
    if method == "profile" and model is None:
        raise ModelError("Profile intervals need the model too: hlik.confint(model, idata, method='profile').")
    if scale is not None and method != "wald":
        raise ModelError(f"scale= is for Wald intervals; those of method={method!r} do not depend on it.")
    if scale not in (None, *SCALES):
        raise ModelError(f"scale={scale!r}: expected 'unconstrained' or 'natural'.")
    if method in ("percentile", "basic") and "bootstrap" not in idata.groups():
        raise ModelError(f"method={method!r} needs a result of hlik.bootstrap(model, idata).")
    return model, idata


def _wald(idata: az.InferenceData, chosen: Selected, level: float, scale: str | None) -> list[tuple]:
    from hlik.inference.tables import labels

    name, value_name = chosen.name, chosen.parameter["value_name"]
    is_fixed = chosen.parameter["role"] == "fixed effect"
    spread = stats.t(float(idata["fit"]["df_residual"])) if is_fixed else stats.norm()
    quantile = float(spread.ppf(0.5 + level / 2))
    if scale == "natural":
        centre, error = idata["estimates"][name], idata["standard_errors"][name].values.ravel()
        names = labels(centre)
        places = chosen.elements if centre.size == len(chosen.labels) else np.arange(centre.size)
        value = centre.values.ravel()
        ends = np.stack([value - quantile * error, value + quantile * error])
    else:
        names, places = chosen.labels, chosen.elements
        own = idata["unconstrained_estimates"][value_name].values.ravel()
        error = idata["unconstrained_standard_errors"][value_name].values.ravel()
        ends = natural_ends(chosen, np.stack([own - quantile * error, own + quantile * error]))
        value = estimates_of(idata, chosen)
    return [(names[k], value[k], ends[0, k], ends[1, k]) for k in places]


def estimates_of(idata: az.InferenceData, chosen: Selected) -> np.ndarray:
    """Estimates of all elements on the scale of the labels, shape (elements,)."""
    if chosen.elementwise:
        return idata["estimates"][chosen.name].values.ravel()
    return idata["unconstrained_estimates"][chosen.parameter["value_name"]].values.ravel()


def natural_ends(chosen: Selected, ends: np.ndarray) -> np.ndarray:
    """Unconstrained ends (2, ...) on the scale of the labels; a decreasing link exchanges them."""
    if not chosen.elementwise:
        return ends
    with np.errstate(all="ignore"):
        mapped = LINKS[chosen.parameter["scale"]].inverse(ends)
    return np.stack([mapped.min(axis=0), mapped.max(axis=0)])


def _bootstrap(idata: az.InferenceData, chosen: Selected, level: float, method: str) -> list[tuple]:
    value_name = chosen.parameter["value_name"]
    own = idata["unconstrained_estimates"][value_name].values.ravel()
    drawn = idata["bootstrap"][value_name].values.reshape(-1, own.size)
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    low, high = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2], axis=0)
    ends = np.stack([low, high] if method == "percentile" else [2 * own - high, 2 * own - low])
    ends, value = natural_ends(chosen, ends), estimates_of(idata, chosen)
    return [(chosen.labels[k], value[k], ends[0, k], ends[1, k]) for k in chosen.elements]
