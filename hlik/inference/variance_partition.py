"""Shares of variance: intraclass correlations, heritabilities, R squared, with standard errors."""

from __future__ import annotations

import warnings

import arviz as az
import numpy as np
import pandas as pd
from scipy import special, stats

from hlik.delta_method import delta_variance
from hlik.errors import DataWarning, ModelError
from hlik.inference.residuals import chosen_response
from hlik.inference.tables import model_of

COLUMNS = ("estimate", "se", "lower", "upper")


def variance_partition(idata: az.InferenceData, *, response: str | None = None, level: float = 0.95) -> pd.DataFrame:
    r"""Variance components of a response on the link scale, and ratios of them.

    Parameters
    ----------
    idata
        A result of `hlik.fit`.
    response
        Name of the response; may be left out where there is one.
    level
        Coverage of the intervals.

    Returns
    -------
    pandas.DataFrame
        Columns ``estimate``, ``se`` (delta method), ``lower``, ``upper`` (made on the log scale for variances, on the
        logit scale for ratios). Rows, with F the variance of the fixed part, V_k that of random effect k, E the rest:

        ``variance[fixed]``, ``variance[<effect>]``, ``variance[residual]``
            F, V_k, E.
        ``icc[<effect>]``
            ``V_k / (sum V + E)``: the correlation of two observations that share the level of this effect only. For
            additive genetic effects it is the heritability.
        ``icc``
            ``sum V / (sum V + E)``.
        ``r2_marginal``, ``r2_conditional``
            ``F / (F + sum V + E)`` and ``(F + sum V) / (F + sum V + E)`` (Nakagawa & Schielzeth 2013).

    Raises
    ------
    ModelError
        Where the response has several linear predictors, or a random effect has no variance in closed form.

    Warns
    -----
    DataWarning
        Where the variance on the link scale has no formula here: residual variance and ratios are then left out.

    Notes
    -----
    V_k is the mean over the observations of ``Var(z'v)``: with random slopes it depends on the covariate, for related
    individuals on their inbreeding. E is phi for normal responses with identity link; pi^2/3, 1, pi^2/6 for binary
    and binomial ones with logit, probit, complementary log-log link; ``trigamma(mu/phi)`` for Poisson and
    ``trigamma(1/phi)`` for gamma responses with log link; 1/4 for Poisson with square-root link. For other
    distributions of one linear predictor, with V(m) their variance at the mean response m (averaged over random effects
    and observations): V for identity links, ``trigamma(m^2 / V(m))`` for log links (for the negative binomial
    ``trigamma(1 / (1/m + 1/alpha))``), ``V(m) g'(m)^2`` for others. These are variances on the link scale: of the
    latent variable for binary data.

    References
    ----------
    Nakagawa, S., Johnson, P. C. D. & Schielzeth, H. (2017). J. Royal Society Interface 14, 20170213.
    Johnson, P. C. D. (2014). Methods in Ecology and Evolution 5, 944-946.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> y = np.array([1.1, 0.7, 1.4, 2.9, 3.3, 2.6, 0.2, -0.3, 0.4, 1.9, 2.2, 1.6])
    >>> with pm.Model() as model:
    ...     mean, s_u, s = pm.Normal("mean", 0, 10), pm.HalfNormal("s_u", 1), pm.HalfNormal("s", 1)
    ...     u = pm.Normal("u", 0, s_u, shape=4)
    ...     _ = pm.Normal("y", mean + u[np.repeat(np.arange(4), 3)], s, observed=y)
    >>> table = hlik.variance_partition(hlik.fit(model, "laplace", progressbar=False))
    >>> table.loc["icc[u]"].round(3).to_dict()
    {'estimate': 0.9, 'se': 0.081, 'lower': 0.608, 'upper': 0.981}
    """
    if not 0 < level < 1:
        raise ModelError(f"level must lie between 0 and 1; got {level}.")
    name = chosen_response(idata, response)
    fit = idata["fit"]
    names = [str(n) for n in fit["component"].values]
    at = [r["name"] for r in model_of(idata)["responses"]].index(name)
    value = fit["variance_components"].values[at]
    gradient = fit["variance_gradient"].values[at]
    if not np.all(np.isfinite(value[:-1])):
        raise ModelError(
            f"The variances of response {name!r} are not known here: it has several linear predictors, or a random "
            f"effect without closed form."
        )
    rows = {f"variance[{n}]": (v, g, "log") for n, v, g in zip(names, value, gradient, strict=True) if np.isfinite(v)}
    if not np.isfinite(value[-1]):
        described = model_of(idata)["responses"][at]
        warnings.warn(
            f"The variance of response {name!r} ({described['distribution']}) around its mean on the link scale has no "
            f"formula here: the table has no residual variance and no ratios.",
            DataWarning,
            stacklevel=2,
        )
    else:
        rows |= _ratios(names, value, gradient)
    table = {key: _row(*row, fit["covariance_matrix"].values, level) for key, row in rows.items()}
    return pd.DataFrame.from_dict(table, orient="index", columns=list(COLUMNS)).rename_axis("quantity")


def _ratios(names: list[str], value: np.ndarray, gradient: np.ndarray) -> dict[str, tuple[float, np.ndarray, str]]:
    """Ratios of sums of components: value and gradient each."""
    count = len(names)
    fixed, effects = np.eye(count)[0], np.ones(count) - np.eye(count)[0] - np.eye(count)[-1]
    everything = np.ones(count)
    wanted = {f"icc[{n}]": (np.eye(count)[k], everything - fixed) for k, n in enumerate(names) if 0 < k < count - 1}
    if effects.any():
        wanted["icc"] = (effects, everything - fixed)
    wanted |= {"r2_marginal": (fixed, everything), "r2_conditional": (fixed + effects, everything)}
    found = {}
    for key, (top, bottom) in wanted.items():
        a, b = top @ value, bottom @ value
        found[key] = (a / b, (top @ gradient - (a / b) * (bottom @ gradient)) / b, "logit")
    return found


def _row(value: float, gradient: np.ndarray, scale: str, covariance: np.ndarray, level: float) -> tuple[float, ...]:
    error = float(np.sqrt(delta_variance(gradient[None, :], covariance)[0]))
    quantile = stats.norm.ppf(0.5 + level / 2)
    if not (value > 0 and np.isfinite(error)) or (scale == "logit" and value >= 1):
        return value, error, np.nan, np.nan
    if scale == "log":
        half = quantile * error / value
        return value, error, value * np.exp(-half), value * np.exp(half)
    half = quantile * error / (value * (1 - value))
    middle = special.logit(value)
    return value, error, float(special.expit(middle - half)), float(special.expit(middle + half))
