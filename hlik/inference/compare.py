"""Fits side by side, of likelihood and of Bayes, and what explains their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import arviz as az
import numpy as np
import pandas as pd

from hlik.errors import ModelError
from hlik.inference.compare_marginals import Marginal, common_names, is_likelihood, is_penalised, marginals_of
from hlik.inference.prior_pull import first_order_pulls, penalised_pulls

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
    names = common_names(fits, var_names)
    pulls = penalised_pulls(fits)
    if not pulls and model is not None:
        pulls = first_order_pulls(model, fits)
    marginals = {fit: marginals_of(idata, names, level) for fit, idata in fits.items()}
    rows = {}
    for parameter in marginals[first]:
        for fit, idata in fits.items():
            other = marginals[fit].get(parameter)
            if other is not None:
                free = is_likelihood(idata) and not is_penalised(idata)
                pull = np.nan if free else pulls.get(parameter, np.nan)
                if not free and is_penalised(fits[first]):
                    pull = 0.0  # both have the priors
                explains = free and is_likelihood(fits[first]) and not is_penalised(fits[first])
                rows[parameter, fit] = _row(other, marginals[first][parameter], fit == first, explains, pull)
    index = pd.MultiIndex.from_tuples(list(rows), names=["parameter", "fit"])
    return pd.DataFrame(list(rows.values()), index=index, columns=list(COLUMNS))


def _row(own: Marginal, other: Marginal, is_reference: bool, both_free: bool, pull: float) -> dict[str, Any]:
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
        "explanation": "" if is_reference else _explanation(own, other, scale, overlap, both_free, pull),
    }


def _explanation(own: Marginal, other: Marginal, scale: float, overlap: float, both_free: bool, pull: float) -> str:
    if own.at_boundary or other.at_boundary:
        return "boundary"
    away = own.estimate - other.estimate
    if abs(away) <= FAR * scale and not overlap < 0.5:
        return ""
    modes_agree = abs(own.mode - other.mode) <= FAR * scale
    if not both_free and max(abs(own.skewness), abs(other.skewness)) > SKEWED and modes_agree:
        return "skewness"
    if both_free:
        return "approximation of the likelihood"
    if not np.isfinite(pull):
        return "prior, or approximation of the likelihood"
    return "prior" if pull * away > 0 and abs(pull) >= 0.5 * abs(away) / scale else "approximation of the likelihood"
