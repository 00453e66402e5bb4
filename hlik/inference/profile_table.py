"""Profile likelihoods as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
from scipy import stats

from hlik.errors import ModelError
from hlik.inference.intervals import estimates_of, natural_ends
from hlik.inference.monte_carlo_profile import MonteCarloCurve, MonteCarloProfiler, is_monte_carlo
from hlik.inference.profiling import Curve, Profiler
from hlik.inference.selection import Selected, select


def profile(
    model: Any,
    idata: az.InferenceData,
    parm: Sequence[str] | str | None = None,
    *,
    level: float = 0.99,
    points: int = 6,
) -> pd.DataFrame:
    """Profile likelihoods of parameters, for `hlik.plot_profile`.

    Parameters
    ----------
    model
        The model that was fitted, with the data of the fit.
    idata
        A result of an estimator that maximises a likelihood: `hlik.Laplace`, `hlik.AGQ`, `hlik.MCEM`, `hlik.SAEM`.
    parm
        Names of parameters, or labels of elements; all by default.
    level
        The curves go out a little beyond the ends of the interval of this coverage, where it has ends.
    points
        Points on each side, besides those that finding the ends has visited.

    Returns
    -------
    pandas.DataFrame
        A row a point, sorted by parameter and value; columns ``parameter`` (label), ``value`` (natural scale; of
        a parameter without an elementwise one, that of its value variable), ``unconstrained``, ``zeta`` (signed root
        of the deviance, ``sign(c - c_hat) sqrt(2 (l_hat - l(c)))``; standard normal in large samples, and a straight
        line in c where a Wald interval on that scale is right), ``log_likelihood``; of Monte Carlo EM also
        ``log_likelihood_mcse``, the Monte Carlo standard error of its difference from that of the estimate.

    Raises
    ------
    ModelError
        For results of other estimators; for fixed effects of a restricted likelihood, asked for by name.

    Notes
    -----
    Cost: about ``2 points + 8`` maximisations a parameter, each from the last one. By Monte Carlo EM ``2 points``
    fits with the settings of the result, each from the last one's chains; the curve is the integral of the scores of
    these fits (Fisher's identity), which are known far better than the log-likelihoods.

    References
    ----------
    Bates, D. M. & Watts, D. G. (1988). Nonlinear Regression Analysis and its Applications, chapter 6.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)]), observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> curve = hlik.profile(model, hlik.fit(model, "laplace", progressbar=False), "sigma", level=0.95)
    >>> list(curve.columns), bool((curve["zeta"].diff().dropna() > 0).all())
    (['parameter', 'value', 'unconstrained', 'zeta', 'log_likelihood'], True)
    """
    if not 0 < level < 1:
        raise ModelError(f"level must lie between 0 and 1; got {level}.")
    if not isinstance(points, int | np.integer) or points < 0:
        raise ModelError(f"points must be a whole number, 0 or more; got {points!r}.")
    tables = []
    for chosen, element, curve in _curves(model, idata, parm, level, int(points)):
        natural = natural_ends(chosen, np.stack([curve.value, curve.value]))[0]
        columns = {
            "parameter": chosen.labels[element],
            "value": natural,
            "unconstrained": curve.value,
            "zeta": curve.zeta,
            "log_likelihood": curve.log_likelihood,
        }
        if isinstance(curve, MonteCarloCurve):
            columns["log_likelihood_mcse"] = curve.log_likelihood_mcse
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def profile_ends(model: Any, idata: az.InferenceData, parm: Sequence[str] | str | None, level: float) -> list[tuple]:
    """(label, estimate, lower, upper) of every chosen element."""
    rows = []
    for chosen, element, curve in _curves(model, idata, parm, level, 0):
        ends = natural_ends(chosen, np.array([[curve.lower], [curve.upper]]))
        rows.append((chosen.labels[element], estimates_of(idata, chosen)[element], ends[0, 0], ends[1, 0]))
    return rows


def _curves(
    model: Any, idata: az.InferenceData, parm: Sequence[str] | str | None, level: float, points: int
) -> Iterator[tuple[Selected, int, Curve]]:
    profiler = MonteCarloProfiler(model, idata) if is_monte_carlo(idata) else Profiler(model, idata)
    indices = {p.name: p.index for p in profiler.model.parameters}
    quantile = float(stats.norm.ppf(0.5 + level / 2))
    for chosen in select(idata, parm):
        is_fixed = chosen.parameter["role"] == "fixed effect"
        if is_fixed and profiler.restricted and parm is None:
            continue
        places = profiler.psi_index(indices[chosen.name], is_fixed, chosen.name)
        for element in chosen.elements:
            yield chosen, int(element), profiler.curve(int(places[element]), quantile, points)
