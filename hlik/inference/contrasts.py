"""Tests of linear functions of the parameters: one at a time, or jointly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import arviz as az
import numpy as np
import pandas as pd
from scipy import stats

from hlik.delta_method import delta_variance
from hlik.errors import ModelError
from hlik.inference.linear import ParameterNames

COLUMNS = ("estimate", "se", "statistic", "df", "p_value", "lower", "upper")
ADJUSTMENTS = ("none", "bonferroni", "sidak", "holm", "fdr")


def contrasts(
    idata: az.InferenceData,
    contrasts: Mapping[str, Mapping[str, float]] | np.ndarray | Sequence[Sequence[float]],
    adjust: str = "none",
    *,
    level: float = 0.95,
    df: float | None = None,
) -> pd.DataFrame:
    """Linear combinations of parameters with Wald tests, adjusted for their number.

    Parameters
    ----------
    idata
        A result of `hlik.fit`.
    contrasts
        ``{"RR - RW": {"RR": 1, "RW": -1}, ...}``: a name, then weights by label, those of ``idata.fit.parameter``;
        a label of a fixed effect may be written without the name of its variable where that is clear. Or a matrix with
        a row a contrast and a column a fixed effect.
    adjust
        ``"none"``, ``"bonferroni"``, ``"sidak"``, ``"holm"`` or ``"fdr"`` (Benjamini & Hochberg).
    level
        Coverage of the intervals: of all together with "bonferroni" and "sidak", of each one otherwise.
    df
        Degrees of freedom of the t distribution; None for the residual ones, as in `hlik.summary`; ``numpy.inf`` for
        the normal distribution.

    Returns
    -------
    pandas.DataFrame
        A row a contrast; columns ``estimate``, ``se``, ``statistic`` (estimate / se), ``df``, ``p_value`` (two-sided,
        adjusted), ``lower``, ``upper``.

    Raises
    ------
    ModelError
        Where a label does not exist or the matrix has the wrong number of columns.

    Notes
    -----
    ``c'psi`` has variance ``c' cov(psi) c`` with the covariance of ``idata.fit``; its square divided by that is the
    Wald statistic that R's mcemGLM prints. Dispersion parameters stand there on their unconstrained scale.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> y = np.array([1.1, 0.7, 1.4, 2.9, 3.3, 2.6, 0.2, -0.3, 0.4, 1.9, 2.2, 1.6])
    >>> with pm.Model(coords={"dose": ["low", "mid", "high"]}) as model:
    ...     dose = pm.Normal("dose_mean", 0, 10, dims="dose")
    ...     u = pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=4)
    ...     mu = dose[np.tile([0, 1, 2], 4)] + u[np.repeat(np.arange(4), 3)]
    ...     _ = pm.Normal("y", mu, pm.HalfNormal("sigma", 1), observed=y)
    >>> idata = hlik.fit(model, progressbar=False)
    >>> pairs = {"mid - low": {"mid": 1, "low": -1}, "high - low": {"high": 1, "low": -1}}
    >>> hlik.contrasts(idata, pairs, adjust="bonferroni")["estimate"].round(3).tolist()
    [-0.05, -0.025]
    """
    names = ParameterNames(idata)
    labels, rows = names.rows(contrasts, "contrasts")
    _check(adjust, level)
    estimate = rows @ idata["fit"]["mean_vector"].values
    error = np.sqrt(delta_variance(rows, idata["fit"]["covariance_matrix"].values))
    freedom = residual_df(idata) if df is None else float(df)
    spread = stats.t(freedom) if np.isfinite(freedom) else stats.norm()
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = estimate / error
    count = len(labels)
    tail = {"bonferroni": (1 - level) / count, "sidak": 1 - level ** (1 / count)}.get(adjust, 1 - level) / 2
    half = error * spread.isf(tail)
    return pd.DataFrame(
        {
            "estimate": estimate,
            "se": error,
            "statistic": statistic,
            "df": freedom,
            "p_value": adjusted(2 * spread.sf(np.abs(statistic)), adjust),
            "lower": estimate - half,
            "upper": estimate + half,
        },
        index=pd.Index(labels, name="contrast"),
    )


def _check(adjust: str, level: float) -> None:
    if adjust not in ADJUSTMENTS:
        raise ModelError(f"adjust={adjust!r}: expected one of {', '.join(map(repr, ADJUSTMENTS))}.")
    if not 0 < level < 1:
        raise ModelError(f"level must lie between 0 and 1; got {level}.")


def residual_df(idata: az.InferenceData) -> float:
    """Residual degrees of freedom of a fit; infinite where it has none."""
    df = float(idata["fit"]["df_residual"]) if "df_residual" in idata["fit"] else np.inf
    return df if df > 0 else np.inf


def adjusted(p_values: np.ndarray, adjust: str) -> np.ndarray:
    """P-values adjusted for their number."""
    p = np.asarray(p_values, dtype=float)
    m = p.size
    if adjust == "bonferroni":
        return np.minimum(m * p, 1.0)
    if adjust == "sidak":
        return -np.expm1(m * np.log1p(-p))
    if adjust == "holm":
        order = np.argsort(p)
        steps = np.minimum(np.maximum.accumulate((m - np.arange(m)) * p[order]), 1.0)
        return steps[np.argsort(order)]
    if adjust == "fdr":
        return stats.false_discovery_control(p)
    return p


def wald_test(
    idata: az.InferenceData,
    hypothesis: Mapping[str, Mapping[str, float]] | Sequence[str] | np.ndarray,
    value: float | Sequence[float] = 0.0,
    *,
    df: float | None = None,
) -> pd.Series:
    r"""Joint Wald test that linear combinations of parameters have given values.

    Parameters
    ----------
    idata
        A result of `hlik.fit`.
    hypothesis
        Labels, each of which has the value; or linear combinations, by name or as a matrix, as in `hlik.contrasts`.
    value
        Their values under the hypothesis, one for all or one each.
    df
        Denominator degrees of freedom; None for the residual ones, ``numpy.inf`` for the chi-squared test.

    Returns
    -------
    pandas.Series
        ``statistic`` (F), ``chi_squared`` (the Wald statistic), ``df`` (the rank), ``df_residual``, ``p_value``.

    Raises
    ------
    ModelError
        Where a label does not exist, or the hypothesis is about a parameter without covariance (at a boundary).

    Notes
    -----
    .. math:: W = (L\psi - c)' (L\,\mathrm{cov}(\psi) L')^{-} (L\psi - c), \qquad F = W / \mathrm{rank}(L),

    with the F distribution, or chi-squared for W where `df` is infinite. Do not test variances with it: zero is at the
    end of their range.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> y = np.array([1.1, 0.7, 1.4, 2.9, 3.3, 2.6, 0.2, -0.3, 0.4, 1.9, 2.2, 1.6])
    >>> with pm.Model(coords={"dose": ["low", "mid", "high"]}) as model:
    ...     dose = pm.Normal("dose_mean", 0, 10, dims="dose")
    ...     u = pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=4)
    ...     mu = dose[np.tile([0, 1, 2], 4)] + u[np.repeat(np.arange(4), 3)]
    ...     _ = pm.Normal("y", mu, pm.HalfNormal("sigma", 1), observed=y)
    >>> idata = hlik.fit(model, progressbar=False)
    >>> test = hlik.wald_test(idata, {"mid": {"mid": 1, "low": -1}, "high": {"high": 1, "low": -1}})
    >>> int(test["df"]), round(float(test["statistic"]), 2)
    (2, 0.02)
    """
    names = ParameterNames(idata)
    _, rows = names.rows(hypothesis, "hypothesis")
    values = np.broadcast_to(np.asarray(value, dtype=float), (len(rows),))
    return pd.Series(joint_test(idata, rows, values, df), name="wald_test")


def joint_test(idata: az.InferenceData, rows: np.ndarray, values: np.ndarray, df: float | None) -> dict[str, float]:
    """The numbers of `wald_test` for rows over the parameter vector."""
    covariance = idata["fit"]["covariance_matrix"].values
    moved = np.any(rows != 0, axis=0)
    if not np.all(np.isfinite(np.diag(covariance)[moved])):
        raise ModelError("The hypothesis is about a parameter at a boundary, which has no standard error.")
    spread = rows[:, moved] @ covariance[np.ix_(moved, moved)] @ rows[:, moved].T
    away = rows @ idata["fit"]["mean_vector"].values - values
    rank = int(np.linalg.matrix_rank(rows))
    wald = float(away @ np.linalg.pinv(spread, hermitian=True, rcond=1e-12) @ away)
    freedom = residual_df(idata) if df is None else float(df)
    p_value = stats.f(rank, freedom).sf(wald / rank) if np.isfinite(freedom) else stats.chi2(rank).sf(wald)
    return {
        "statistic": wald / rank,
        "chi_squared": wald,
        "df": rank,
        "df_residual": freedom,
        "p_value": float(p_value),
    }
