"""Fits side by side, of likelihood and of Bayes, and what explains their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
from scipy import stats

from hlik.errors import ModelError
from hlik.graph.prior_gradient import prior_gradient
from hlik.graph.read import as_pymc
from hlik.inference.tables import labels, model_of, summary

COLUMNS = (
    "estimate",
    "se",
    "lower",
    "upper",
    "difference",
    "distance",
    "overlap",
    "skewness",
    "prior_pull",
    "explanation",
)
FAR = 0.25  # standard errors from which a difference is explained
SKEWED = 0.5  # absolute skewness from which means and intervals are those of a skewed distribution


@dataclass(frozen=True)
class _Marginal:
    """One parameter in one fit."""

    estimate: float
    se: float
    lower: float
    upper: float
    mode: float
    skewness: float
    at_boundary: bool = False


def compare(
    fits: Mapping[str, az.InferenceData],
    *,
    model: Any = None,
    reference: str | None = None,
    var_names: Sequence[str] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Compare fits of the same model: likelihood fits with each other, and with posteriors by `pm.sample`.

    Parameters
    ----------
    fits
        Results of `hlik.fit` and of `pm.sample`, by name; at least one of `hlik.fit`, which says what the parameters
        are.
    model
        The model, for the pull of its priors to first order; needless where one of `fits` is a fit with
        ``priors="penalise"`` beside one without.
    reference
        The fit that the others are compared with; None for the first.
    var_names
        Parameters to compare; None for all that every fit has.
    level
        Coverage of the intervals.

    Returns
    -------
    pandas.DataFrame
        Rows indexed by ``parameter`` and ``fit``; columns

        ``estimate``, ``se``
            maximum-likelihood estimate and standard error; posterior mean and standard deviation
        ``lower``, ``upper``
            Wald interval of `hlik.summary`; equal-tailed posterior interval
        ``difference``
            estimate less that of the reference
        ``distance``
            the difference in standard errors: the larger of the two fits'
        ``overlap``
            length of the common part of the two intervals over the length of the shorter one
        ``skewness``
            of the draws; 0 for the normal approximation on the natural scale where there are none
        ``prior_pull``
            for posteriors, where the model is given: how far the priors move the maximum of the likelihood, to first
            order, in standard errors on the unconstrained scale; ``cov grad log p(psi)`` at the first likelihood fit.
            Where the fits hold a penalised and an unpenalised one, the difference of these two maxima itself, for the
            posteriors and the penalised fits; the unpenalised one has the same estimator as the penalised one, else
            it is the first. 0 where the reference is penalised too
        ``explanation``
            what accounts for a distance above 0.25, and for intervals that overlap by less than a half:

            "boundary"
                one fit has the parameter at the end of its range, where it has no standard error;
            "skewness"
                the posterior's mode is within 0.25 standard errors of the estimate where its mean is not: the mean of
                a skewed distribution lies off its maximum;
            "prior"
                the pull of the prior has the direction of the difference and at least half of its size;
            "approximation of the likelihood"
                neither: the reference, or the fit, maximises an approximation (EQL, Laplace) that is biased here;
            "prior, or approximation of the likelihood"
                the same where the model was not given.

    Raises
    ------
    ModelError
        Where there is no result of `hlik.fit`, no common parameter, or an unknown name.

    Notes
    -----
    Posterior modes are half-sample modes (Bickel & Fruehwirth 2006). Signs of `prior_pull` are those of the natural
    scale wherever that rises with the unconstrained one, as with PyMC's logs and log-odds.

    References
    ----------
    Bickel, D. R. & Fruehwirth, R. (2006). Comp. Statistics & Data Analysis 50, 3500-3530.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)]), observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> fits = {name: hlik.fit(model, name, progressbar=False) for name in ("eql", "laplace")}
    >>> table = hlik.compare(fits, reference="laplace")
    >>> table.loc[("sigma", "eql"), "explanation"]
    'approximation of the likelihood'
    """
    if not 0 < level < 1:
        raise ModelError(f"level must lie between 0 and 1; got {level}.")
    given: Any = fits
    if isinstance(given, az.InferenceData) or not isinstance(given, Mapping) or not given:
        raise ModelError("compare takes a dictionary of fits by name: hlik.compare({'EQL': idata, 'NUTS': posterior}).")
    first = next(iter(fits)) if reference is None else reference
    if first not in fits:
        raise ModelError(f"reference={first!r} is none of the fits {list(fits)}.")
    names = _common(fits, var_names)
    pulls = _penalised_pulls(fits)
    if not pulls and model is not None:
        pulls = _prior_pulls(model, fits)
    marginals = {fit: _marginals(idata, names, level) for fit, idata in fits.items()}
    rows = {}
    for parameter in marginals[first]:
        for fit, idata in fits.items():
            other = marginals[fit].get(parameter)
            if other is not None:
                free = _is_likelihood(idata) and not is_penalised(idata)
                pull = np.nan if free else pulls.get(parameter, np.nan)
                if not free and is_penalised(fits[first]):
                    pull = 0.0  # both have the priors
                explains = free and _is_likelihood(fits[first]) and not is_penalised(fits[first])
                rows[parameter, fit] = _row(other, marginals[first][parameter], fit == first, explains, pull)
    index = pd.MultiIndex.from_tuples(list(rows), names=["parameter", "fit"])
    return pd.DataFrame(list(rows.values()), index=index, columns=list(COLUMNS))


def _is_likelihood(idata: az.InferenceData) -> bool:
    return "fit" in idata.groups() and "model" in idata["fit"].attrs


def is_penalised(idata: az.InferenceData) -> bool:
    """Whether a result is a fit with ``priors="penalise"``."""
    return _is_likelihood(idata) and "unpenalised_log_likelihood" in idata["fit"]


def _penalised_pulls(fits: Mapping[str, az.InferenceData]) -> dict[str, float]:
    """Penalised less unpenalised estimate, in standard errors of the latter, by label, on the unconstrained scale."""
    penalised = next((found for found in fits.values() if is_penalised(found)), None)
    plain = [found for found in fits.values() if _is_likelihood(found) and not is_penalised(found)]
    if penalised is None or not plain:
        return {}
    wanted = penalised["fit"].attrs["estimator"]
    free = next((found for found in plain if found["fit"].attrs["estimator"] == wanted), plain[0])
    found: dict[str, float] = {}
    for parameter in model_of(free)["parameters"]:
        value_name, own = parameter["value_name"], labels(free["estimates"][parameter["name"]])
        if value_name not in penalised["unconstrained_estimates"]:
            continue
        ends = [np.ravel(idata["unconstrained_estimates"][value_name].values) for idata in (penalised, free)]
        errors = np.ravel(free["unconstrained_standard_errors"][value_name].values)
        if len(own) == ends[0].size == ends[1].size:
            with np.errstate(all="ignore"):
                found |= dict(zip(own, ((ends[0] - ends[1]) / errors).tolist(), strict=True))
    return found


def _common(fits: Mapping[str, az.InferenceData], var_names: Sequence[str] | None) -> list[str]:
    own = next((idata for idata in fits.values() if _is_likelihood(idata)), None)
    if own is None:
        raise ModelError("None of the fits is a result of hlik.fit: there is nothing to compare the posteriors with.")
    names = [p["name"] for p in model_of(own)["parameters"]] if var_names is None else list(var_names)

    def there(idata: az.InferenceData, name: str) -> bool:
        group = "estimates" if _is_likelihood(idata) else "posterior"
        return group in idata.groups() and name in idata[group]

    common = [name for name in names if all(there(idata, name) for idata in fits.values())]
    if var_names is not None and (lost := [name for name in names if name not in common]):
        raise ModelError(f"Not every fit has {lost}.")
    if not common:
        raise ModelError(f"The fits have no parameter in common; of {names} each lacks some.")
    return common


def _marginals(idata: az.InferenceData, names: list[str], level: float) -> dict[str, _Marginal]:
    if _is_likelihood(idata):
        return _of_likelihood(idata, names, level)
    found = {}
    for name in names:
        draws = idata["posterior"][name].stack(sample=("chain", "draw")).transpose(..., "sample")
        values = draws.values.reshape(-1, draws.sizes["sample"])
        for label, own in zip(labels(idata["posterior"][name].isel(chain=0, draw=0)), values, strict=True):
            lower, upper = np.quantile(own, [0.5 - level / 2, 0.5 + level / 2])
            found[label] = _Marginal(
                float(own.mean()),
                float(own.std(ddof=1)),
                float(lower),
                float(upper),
                half_sample_mode(own),
                _skewness(own),
            )
    return found


def _of_likelihood(idata: az.InferenceData, names: list[str], level: float) -> dict[str, _Marginal]:
    table, found = summary(idata, level), {}
    posterior = idata["posterior"] if "posterior" in idata.groups() else None
    for name in names:
        own = labels(idata["estimates"][name])
        if posterior is not None and name in posterior:
            draws = posterior[name].stack(sample=("chain", "draw")).transpose(..., "sample").values
            skewness = np.array([_skewness(values) for values in draws.reshape(len(own), -1)])
        else:
            skewness = np.zeros(len(own))
        values, errors = (np.ravel(idata[group][name].values) for group in ("estimates", "standard_errors"))
        half = stats.norm.ppf(0.5 + level / 2) * errors
        for k, label in enumerate(own):
            row: Any = table.loc[label] if label in table.index else None
            lower, upper = (
                (row["lower"], row["upper"]) if row is not None else (values[k] - half[k], values[k] + half[k])
            )
            found[label] = _Marginal(
                float(values[k]),
                float(errors[k]),
                float(lower),
                float(upper),
                float(values[k]),
                float(skewness[k]),
                at_boundary=not np.isfinite(errors[k]),
            )
    return found


def _prior_pulls(model: Any, fits: Mapping[str, az.InferenceData]) -> dict[str, float]:
    """``cov grad log p(psi)`` in standard errors, by label, at the first likelihood fit."""
    idata = next(found for found in fits.values() if _is_likelihood(found))
    pymc_model, described = as_pymc(model), model_of(idata)["parameters"]
    free = {rv.name for rv in pymc_model.free_RVs}
    ordered = sorted(described, key=lambda p: p["role"] != "fixed effect")  # as in the covariance matrix
    values = {p["name"]: idata["unconstrained_estimates"][p["value_name"]].values for p in ordered if p["name"] in free}
    gradient = prior_gradient(pymc_model, values)
    covariance = idata["fit"]["covariance_matrix"].values
    known = np.isfinite(np.diag(covariance))
    flat = np.concatenate(
        [np.ravel(gradient.get(p["name"], np.zeros(idata["estimates"][p["name"]].shape))) for p in ordered]
    )
    shift = np.full(flat.size, np.nan)
    shift[known] = covariance[np.ix_(known, known)] @ flat[known] / np.sqrt(np.diag(covariance)[known])
    found: dict[str, float] = {}
    start = 0
    for p in ordered:
        size = idata["unconstrained_estimates"][p["value_name"]].size
        own = labels(idata["estimates"][p["name"]])
        if len(own) == size:
            found |= dict(zip(own, shift[start : start + size].tolist(), strict=True))
        start += size
    return found


def _row(own: _Marginal, other: _Marginal, is_reference: bool, is_likelihood: bool, pull: float) -> dict[str, Any]:
    scale = np.nanmax([own.se, other.se]) if np.isfinite([own.se, other.se]).any() else np.nan
    distance = (own.estimate - other.estimate) / scale
    common = min(own.upper, other.upper) - max(own.lower, other.lower)
    shorter = min(own.upper - own.lower, other.upper - other.lower)
    overlap = float(np.clip(common / shorter, 0, 1)) if shorter > 0 else np.nan
    return {
        "estimate": own.estimate,
        "se": own.se,
        "lower": own.lower,
        "upper": own.upper,
        "difference": own.estimate - other.estimate,
        "distance": distance,
        "overlap": overlap,
        "skewness": own.skewness,
        "prior_pull": pull,
        "explanation": "" if is_reference else _explanation(own, other, scale, overlap, is_likelihood, pull),
    }


def _explanation(
    own: _Marginal, other: _Marginal, scale: float, overlap: float, is_likelihood: bool, pull: float
) -> str:
    if own.at_boundary or other.at_boundary:
        return "boundary"
    away = own.estimate - other.estimate
    if abs(away) <= FAR * scale and not overlap < 0.5:
        return ""
    modes_agree = abs(own.mode - other.mode) <= FAR * scale
    if not is_likelihood and max(abs(own.skewness), abs(other.skewness)) > SKEWED and modes_agree:
        return "skewness"
    if is_likelihood:
        return "approximation of the likelihood"
    if not np.isfinite(pull):
        return "prior, or approximation of the likelihood"
    return "prior" if pull * away > 0 and abs(pull) >= 0.5 * abs(away) / scale else "approximation of the likelihood"


def _skewness(draws: np.ndarray) -> float:
    """Of a sample; 0 for one that does not vary, as of a parameter at a boundary."""
    varies = np.ptp(draws) > 1e-12 * max(1.0, float(np.abs(draws).max()))
    return float(stats.skew(draws)) if varies else 0.0


def half_sample_mode(draws: np.ndarray) -> float:
    """The mode of a sample: the densest half of the densest half, and so on.

    The first halves are taken until fewer than a tenth of the draws are left, whose mean is the mode: the recursion to
    the end would follow single draws.
    """
    ordered = np.sort(draws)
    smallest = max(3, draws.size // 10)
    while ordered.size > smallest:
        half = -(-ordered.size // 2)
        widths = ordered[half - 1 :] - ordered[: ordered.size - half + 1]
        start = int(np.argmin(widths))
        ordered = ordered[start : start + half]
    return float(ordered.mean())
