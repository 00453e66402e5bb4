"""`summary`: the table of the parameters."""

from __future__ import annotations

from typing import Any

import arviz as az
import numpy as np
import pandas as pd
from scipy import stats

from hlik.errors import ModelError
from hlik.inference.correlated import correlated_rows, is_packed
from hlik.inference.summary_text import Summary, closing_text, effects_text, heading_text
from hlik.inference.tables import labels, model_of
from hlik.links import LINKS

COLUMNS = ("role", "estimate", "se", "statistic", "df", "p_value", "lower", "upper")


def summary(idata: az.InferenceData, level: float = 0.95) -> pd.DataFrame:
    """Table of the parameters.

    Parameters
    ----------
    idata
        A result of `hlik.fit`, also one read back from NetCDF.
    level
        Coverage of the intervals.

    Returns
    -------
    pandas.DataFrame
        A row a parameter element, indexed by label; columns ``role``, ``estimate``, ``se`` (natural scale, delta
        method), ``statistic`` (estimate / se; fixed effects only: a variance of zero is on the boundary), ``df``,
        ``p_value`` (two-sided, t with the residual degrees of freedom), ``lower``, ``upper`` (Wald; for dispersion
        parameters on the scale of the value variable, mapped back, where that scale is a log, logit or other link;
        else on the natural scale). A packed Cholesky factor of `pymc.LKJCholeskyCov` shows as the standard deviations
        ``sd(x|g)[...]`` (interval on the log scale) and correlations ``cor(x|g)[..., ...]`` (on Fisher's z) of the
        effects that it belongs to. It prints with the model and its likelihoods.

    Raises
    ------
    ModelError
        Where `idata` is not a result of `hlik.fit`, or `level` is no number between 0 and 1.

    Notes
    -----
    The residual degrees of freedom are n - trace(hat matrix); R's hglm rounds them, hlik does not.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)]), observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> table = hlik.summary(hlik.fit(model, progressbar=False))
    >>> list(table.index), list(table.columns)  # doctest: +NORMALIZE_WHITESPACE
    (['beta', 'sigma'],
     ['role', 'estimate', 'se', 'statistic', 'df', 'p_value', 'lower', 'upper'])
    """
    if not 0 < level < 1:
        raise ModelError(f"level must lie between 0 and 1; got {level}.")
    described = model_of(idata)
    df = float(idata["fit"]["df_residual"])
    rows: list[dict[str, Any]] = []
    for parameter in described["parameters"]:
        if is_packed(idata, parameter):
            rows += correlated_rows(idata, parameter, level)
            continue
        rows += _parameter_rows(idata, parameter, level, df)
    frame = pd.DataFrame(rows, columns=["label", *COLUMNS]).set_index("label")
    table = Summary(frame)
    table.heading, table.effects = heading_text(idata, described), effects_text(idata)
    table.closing = closing_text(idata)
    return table


def _parameter_rows(idata: az.InferenceData, parameter: dict[str, Any], level: float, df: float) -> list[dict]:
    name = parameter["name"]
    estimate, error = idata["estimates"][name], idata["standard_errors"][name]
    is_fixed = parameter["role"] == "fixed effect"
    spread = stats.t(df) if is_fixed else stats.norm()
    lower, upper = _interval(idata, parameter, float(spread.ppf(0.5 + level / 2)))
    rows = []
    for position, label in enumerate(labels(estimate)):
        value, se = float(estimate.values.flat[position]), float(error.values.flat[position])
        statistic = value / se if is_fixed and se > 0 else np.nan
        rows.append(
            {
                "label": label,
                "role": parameter["role"],
                "estimate": value,
                "se": se,
                "statistic": statistic,
                "df": df if is_fixed else np.nan,
                "p_value": float(2 * spread.sf(abs(statistic))) if is_fixed else np.nan,
                "lower": float(lower.flat[position]),
                "upper": float(upper.flat[position]),
            }
        )
    return rows


def _interval(idata: az.InferenceData, parameter: dict[str, Any], quantile: float) -> tuple[np.ndarray, np.ndarray]:
    """Wald interval on the scale of the value variable, mapped back by its link; natural scale where it has none."""
    scale, value_name, name = parameter["scale"], parameter["value_name"], parameter["name"]
    natural = idata["estimates"][name].values
    own = idata["unconstrained_estimates"][value_name].values
    if scale == "identity" or own.shape != natural.shape:
        half = quantile * idata["standard_errors"][name].values
        return natural - half, natural + half
    half = quantile * idata["unconstrained_standard_errors"][value_name].values
    inverse = LINKS[scale].inverse
    ends = np.stack([inverse(own - half), inverse(own + half)])
    return ends.min(axis=0), ends.max(axis=0)
