"""Tests of a fit by its residuals: uniformity, dispersion, zeros."""

from __future__ import annotations

from typing import Any

import arviz as az
import numpy as np
import pandas as pd
from scipy import special, stats

from hlik.errors import ModelError
from hlik.inference.residuals import chosen_response, residuals
from hlik.inference.simulate import simulate


def residual_tests(
    model: Any,
    idata: az.InferenceData,
    *,
    response: str | None = None,
    simulations: int = 250,
    random_seed: int | np.random.Generator | None = None,
) -> pd.DataFrame:
    """Test whether a response is distributed as the model says.

    Parameters
    ----------
    model
        The model that was fitted.
    idata
        Its result.
    response
        Name of the response; may be left out where there is one.
    simulations
        Sets of responses drawn from the model with the predicted random effects.
    random_seed
        Seed.

    Returns
    -------
    pandas.DataFrame
        Rows and columns ``statistic``, ``expected``, ``p_value`` (two-sided):

        ``uniformity``
            Kolmogorov-Smirnov distance of ``Phi(quantile residuals)`` from the uniform distribution.
        ``dispersion``
            Variance of the response around the mean of the simulations, each observation in its own simulated standard
            deviations, against that of the simulations.
        ``zeros``
            Number of zeros, against the simulations (counts only).

    Raises
    ------
    ModelError
        Where `simulations` is below 20, `response` is none of the result's or left out where there are several, or the
        model is not that of the result.

    Notes
    -----
    Random effects and parameters were estimated from the same data, which makes the tests conservative: true models are
    rejected less often than the level says. P-values by simulation are at least 2 / (simulations + 1).

    References
    ----------
    Hartig, F. (2022). DHARMa: residual diagnostics for hierarchical regression models. R package.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)]), observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> idata = hlik.fit(model, progressbar=False)
    >>> table = hlik.residual_tests(model, idata, random_seed=1)
    >>> list(table.index)
    ['uniformity', 'dispersion', 'zeros']
    """
    if not isinstance(simulations, int | np.integer) or simulations < 20:
        raise ModelError(f"simulations must be a whole number, 20 or more; got {simulations!r}.")
    name = chosen_response(idata, response)
    rng = np.random.default_rng(random_seed)
    drawn = simulate(model, idata, simulations, random="conditional", random_seed=rng)[name].values
    drawn = drawn.reshape(simulations, -1)
    y = np.ravel(idata["observed_data"][name].values)
    scores = np.ravel(residuals(idata, "quantile", response=name, model=model, random_seed=rng).values)
    distance = stats.kstest(special.ndtr(scores), "uniform")
    rows = {"uniformity": (float(distance.statistic), 0.0, float(distance.pvalue))}
    rows["dispersion"] = _by_simulation(*_dispersions(y, drawn))
    if np.all(drawn == np.rint(drawn)):
        rows["zeros"] = _by_simulation(float(np.sum(y == 0)), np.sum(drawn == 0, axis=1).astype(float))
    columns = ["statistic", "expected", "p_value"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("test")


def _dispersions(y: np.ndarray, drawn: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean squared deviation from the simulated mean in simulated standard deviations, of the data and of each set."""
    mean, deviation = drawn.mean(axis=0), drawn.std(axis=0, ddof=1)
    varies = deviation > 0
    scaled = (drawn[:, varies] - mean[varies]) / deviation[varies]
    return float(np.mean(((y[varies] - mean[varies]) / deviation[varies]) ** 2)), np.mean(scaled**2, axis=1)


def _by_simulation(statistic: float, simulated: np.ndarray) -> tuple[float, float, float]:
    above, below = np.sum(simulated >= statistic), np.sum(simulated <= statistic)
    p_value = min(1.0, 2 * (min(above, below) + 1) / (simulated.size + 1))
    return statistic, float(simulated.mean()), float(p_value)
