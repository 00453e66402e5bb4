r"""Likelihood-ratio tests between nested fits, with the right distribution at the boundary of variances."""

from __future__ import annotations

from math import comb

import arviz as az
import numpy as np
import pandas as pd
from scipy import stats

from hlik.errors import ModelError
from hlik.inference.tables import model_of

DECREASE = 1e-4  # by which the larger model's log-likelihood may lie below the smaller one's: two tolerances


def lr_test(null: az.InferenceData, alternative: az.InferenceData, *, boundary: int | None = None) -> pd.DataFrame:
    r"""Likelihood-ratio test of a fit within a larger one.

    Parameters
    ----------
    null, alternative
        Results of `hlik.fit` by the same estimator on the same data; the first model is a special case of the second.
    boundary
        How many of the additional parameters are variances that the null hypothesis puts at zero. By default as many as
        the random effects that only the larger model has (at most its additional dispersion parameters).

    Returns
    -------
    pandas.DataFrame
        Rows ``null`` and ``alternative``; columns ``n_parameters``, ``log_likelihood``, ``aic`` and ``bic`` (of that
        log-likelihood), ``statistic``, ``df``, ``boundary``, ``p_value`` (the last four in the second row).

    Raises
    ------
    ModelError
        Where data, weights, estimator or likelihood differ; where restricted likelihoods (EQL, REML) have other fixed
        effects; where the larger model has no more parameters, or fits worse; where the number of variances at the
        boundary cannot be told.

    Notes
    -----
    With k variances at the boundary and m other parameters (covariances with the new effects, say), ``2 (l1 - l0)`` has
    asymptotically the distribution

    .. math:: \sum_{j=0}^k \binom{k}{j} 2^{-k} \chi^2_{m + j}

    (Self & Liang 1987, case 9; Stram & Lee 1994). It is exact in large samples for k = 1: one variance, or one more
    random slope with its covariances. For k > 1 it holds where the variances' estimates are uncorrelated; correlated
    ones change the weights (not the range of the p-value: between those of k = 0 and of ``chi2_m``). In small samples
    simulate: `hlik.bootstrap`.

    By EQL the log-likelihood is p_bv(h) at estimates that need not maximise it, unless responses are normal with
    identity link (REML). Penalised log-likelihoods are not compared.

    References
    ----------
    Self, S. G. & Liang, K.-Y. (1987). JASA 82, 605-610.
    Stram, D. O. & Lee, J. W. (1994). Biometrics 50, 1171-1177.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> group = np.repeat(np.arange(4), 3)
    >>> y = np.array([1.1, 0.7, 1.4, 2.9, 3.3, 2.6, 0.2, -0.3, 0.4, 1.9, 2.2, 1.6])
    >>> def fit(with_effect):
    ...     with pm.Model() as model:
    ...         mean, sigma = pm.Normal("mean", 0, 10), pm.HalfNormal("sigma", 1)
    ...         if with_effect:
    ...             mean = mean + pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=4)[group]
    ...         _ = pm.Normal("y", mean * np.ones(12), sigma, observed=y)
    ...     return hlik.fit(model, "laplace", progressbar=False)
    >>> row = hlik.lr_test(fit(False), fit(True)).loc["alternative"]
    >>> row[["statistic", "df", "boundary", "p_value"]].round(4).tolist()
    [14.3132, 1.0, 1.0, 0.0001]
    """
    _check_same_data(null, alternative)
    _check_same_likelihood(null, alternative)
    counts = [int(fit["fit"].sizes["parameter"]) for fit in (null, alternative)]
    df = counts[1] - counts[0]
    if df <= 0:
        raise ModelError(
            f"The second fit must be of the larger model: it has {counts[1]} parameters, the first {counts[0]}."
        )
    k = _boundary(null, alternative, df) if boundary is None else boundary
    if not isinstance(k, int | np.integer) or not 0 <= k <= df:
        raise ModelError(f"boundary must be a whole number from 0 to {df}, the additional parameters; got {k!r}.")
    likelihoods = [float(fit["fit"]["log_likelihood"]) for fit in (null, alternative)]
    statistic = 2 * (likelihoods[1] - likelihoods[0])
    if statistic < -2 * DECREASE:
        raise ModelError(
            f"The larger model has the lower log-likelihood ({likelihoods[1]:.6g}; the smaller one has "
            f"{likelihoods[0]:.6g}): the models are not nested, or its fit is not at the maximum (status: "
            f"{alternative['fit'].attrs['status']})."
        )
    statistic = max(statistic, 0.0)
    n = sum(int(r["n"]) for r in model_of(null)["responses"])
    frame = pd.DataFrame(
        {
            "n_parameters": counts,
            "log_likelihood": likelihoods,
            "aic": -2 * np.array(likelihoods) + 2 * np.array(counts),
            "bic": -2 * np.array(likelihoods) + np.log(n) * np.array(counts),
            "statistic": [np.nan, statistic],
            "df": [np.nan, df],
            "boundary": [np.nan, k],
            "p_value": [np.nan, chi_bar_sf(statistic, df - k, k)],
        },
        index=pd.Index(["null", "alternative"], name="model"),
    )
    return frame


def chi_bar_sf(statistic: float, m: int, k: int) -> float:
    """Survival function of ``sum_j binom(k, j) 2^-k chi2_(m + j)``; chi2_0 is a point at zero."""
    total = 0.0
    for j in range(k + 1):
        tail = stats.chi2(m + j).sf(statistic) if m + j else float(statistic <= 0)
        total += comb(k, j) * 0.5**k * float(tail)
    return total


def _boundary(null: az.InferenceData, alternative: az.InferenceData, df: int) -> int:
    """Random effects that only the larger model has, at most its additional dispersion parameters."""
    small, large = model_of(null), model_of(alternative)
    terms = [{e["name"]: (e["distribution"], e["levels"]) for e in found["random_effects"]} for found in (small, large)]
    if any(terms[1].get(name) != term for name, term in terms[0].items()):
        raise ModelError(
            f"The random effects of the smaller model, {sorted(terms[0])}, are not all in the larger one as they are "
            f"({sorted(terms[1])}): pass boundary=, the number of variances that the smaller model puts at zero."
        )
    added = len(terms[1]) - len(terms[0])
    sizes = []
    for fit, found in ((null, small), (alternative, large)):
        names = [p["value_name"] for p in found["parameters"] if p["role"] == "dispersion parameter"]
        sizes.append(sum(int(fit["unconstrained_estimates"][name].size) for name in names))
    return min(added, max(sizes[1] - sizes[0], 0), df)


def _check_same_data(null: az.InferenceData, alternative: az.InferenceData) -> None:
    names = [[r["name"] for r in model_of(fit)["responses"]] for fit in (null, alternative)]
    if sorted(names[0]) != sorted(names[1]):
        raise ModelError(f"The fits have other responses: {names[0]} and {names[1]}.")
    for name in names[0]:
        ys = [fit["observed_data"][name].values for fit in (null, alternative)]
        if ys[0].shape != ys[1].shape or not np.array_equal(ys[0], ys[1]):
            raise ModelError(f"The fits have other data of response {name!r}: likelihoods of the same data compare.")
        key = f"{name}_prior_weight"
        weights = [fit["diagnostics"][key].values if key in fit["diagnostics"] else 1.0 for fit in (null, alternative)]
        one, other = np.broadcast_arrays(*weights)
        if not np.array_equal(one, other):
            raise ModelError(f"The fits have other prior weights of response {name!r}.")


def _check_same_likelihood(null: az.InferenceData, alternative: az.InferenceData) -> None:
    for attribute in ("estimator", "likelihood"):
        values = [fit["fit"].attrs[attribute] for fit in (null, alternative)]
        if values[0] != values[1]:
            raise ModelError(
                f"The fits have another {attribute}: {values[0]} and {values[1]}. Fit both by the same, such as "
                f"hlik.Laplace()."
            )
    if any(fit["fit"].attrs.get("priors", "ignore") != "ignore" for fit in (null, alternative)):
        raise ModelError("Penalised log-likelihoods have no likelihood-ratio test: fit with priors='ignore'.")
    designs = [fit["fit"].attrs.get("fixed_design") for fit in (null, alternative)]
    if null["fit"].attrs["likelihood"] == "p_bv_h" and designs[0] != designs[1]:
        raise ModelError(
            "Restricted likelihoods (EQL, REML) of models with other fixed effects do not compare: fit both with "
            "hlik.Laplace()."
        )
