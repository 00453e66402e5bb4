"""`plot_importance`: whether the importance weights of a fit can be trusted."""

from __future__ import annotations

from typing import Any

import arviz as az
import numpy as np

from hlik.errors import ModelError
from hlik.inference.tables import labels, model_of
from hlik.plots import panels
from hlik.plots.figures import grid_of_axes

RELIABLE = 0.7
HARMLESS = 0.8


def plot_importance(
    idata: az.InferenceData, axes: Any = None, figsize: tuple[float, float] | None = None
) -> np.ndarray:
    """Pareto k and effective draws of every block, and the Monte Carlo errors of the parameters.

    Parameters
    ----------
    idata
        A result of ``hlik.fit(model, hlik.MCLA(...))``, also one read back from NetCDF.
    axes
        Three matplotlib axes to draw in; a new figure by default.
    figsize
        Size of a new figure in inches.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes
        Shape (3,).

    Raises
    ------
    ModelError
        Where the result is not one of importance sampling, or the number of axes is wrong.

    Notes
    -----
    The first panel has Pareto k by block with a line at 0.7; blocks whose weights are constant have none. The second
    has the part of the draws that is effective, with a line at 80 %: a Pareto k above 0.7 matters only below it. The
    third has the Monte Carlo errors as parts of the standard errors.

    Examples
    --------
    >>> import matplotlib.pyplot as plt, numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     mu = pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)])
    ...     _ = pm.Poisson("y", mu, observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> axes = hlik.plot_importance(hlik.fit(model, "mcla", random_seed=1, progressbar=False))
    >>> [ax.get_title() for ax in axes]
    ['Pareto k', 'Effective part of the draws', 'Monte Carlo error / SE']
    >>> plt.close(axes[0].figure)
    """
    described = model_of(idata)
    stats = idata["sample_stats"] if "sample_stats" in idata.groups() else None
    if stats is None or "effective_draws" not in stats:
        raise ModelError("This result has no importance weights: fit with hlik.MCLA().")
    chosen = grid_of_axes(axes, 1, 3, figsize or (12.0, 3.2)).ravel()
    block = np.arange(stats.sizes["block"])
    k = stats["pareto_k"].values
    shown = np.isfinite(k)
    _dots(chosen[0], block[shown], k[shown], RELIABLE)
    panels.titles(chosen[0], "block", "", "Pareto k")
    _dots(chosen[1], block, stats["effective_draws"].values / float(stats["draws"]), HARMLESS)
    chosen[1].set_ylim(0, 1.05)
    panels.titles(chosen[1], "block", "", "Effective part of the draws")
    _errors(chosen[2], idata, [parameter["name"] for parameter in described["parameters"]])
    return chosen


def _dots(ax: Any, x: np.ndarray, y: np.ndarray, line: float) -> None:
    ax.plot(x, y, ".", color=panels.POINT, markersize=4 if x.size < 1000 else 1)
    ax.axhline(line, color="0.5", linewidth=1, linestyle="--")
    panels.whole_ticks(ax)


def _errors(ax: Any, idata: az.InferenceData, parameters: list[str]) -> None:
    """Bars by parameter element; a parameter without standard error has none."""
    names, shares = [], []
    for name in parameters:
        error, se = idata["monte_carlo_errors"][name], idata["standard_errors"][name]
        names += labels(se)
        shares += (np.ravel(error.values) / np.ravel(se.values)).tolist()
    ax.barh(np.arange(len(names)), np.nan_to_num(shares), color=panels.POINT)
    ax.set_yticks(np.arange(len(names)), names)
    ax.invert_yaxis()
    panels.titles(ax, "", "", "Monte Carlo error / SE")
