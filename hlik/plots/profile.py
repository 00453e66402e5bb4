"""`plot_profile`: profile likelihoods as signed root deviances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from hlik.errors import ModelError
from hlik.plots import panels
from hlik.plots.figures import grid_of_axes
from hlik.plots.read import shortened

COLUMNS = {"parameter", "unconstrained", "value", "zeta"}
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
MOST_COLUMNS = 4
LONGEST = 26  # letters of a title


def plot_profile(curves: pd.DataFrame, axes: Any = None, figsize: tuple[float, float] | None = None) -> np.ndarray:
    """Draw profile likelihoods: a straight line is a likelihood that Wald intervals describe well.

    Parameters
    ----------
    curves
        From `hlik.profile`.
    axes
        Matplotlib axes to draw in, one a parameter; a new figure by default.
    figsize
        Size of a new figure in inches.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes
        Shape (parameters,).

    Raises
    ------
    ModelError
        Where the table is not one of `hlik.profile`, or the number of axes is wrong.

    Notes
    -----
    The absolute signed root deviance ``|zeta|`` against the parameter, with the intervals of 50, 80, 90, 95 and 99 %
    (as far as the curve goes) as horizontal bars at their normal quantiles, as lme4 draws them (Bates & Watts 1988). A
    curve that ends without rising belongs to a variance that may be zero.

    Examples
    --------
    >>> import matplotlib.pyplot as plt, numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)]), observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> axes = hlik.plot_profile(hlik.profile(model, hlik.fit(model, "laplace", progressbar=False)))
    >>> [ax.get_title() for ax in axes]
    ['beta', 'sigma']
    >>> plt.close(axes[0].figure)
    """
    if not isinstance(curves, pd.DataFrame) or not set(curves.columns) >= COLUMNS or curves.empty:
        raise ModelError("plot_profile takes the table that hlik.profile(model, idata) returns.")
    names = list(dict.fromkeys(curves["parameter"]))
    columns = min(MOST_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    if axes is None:
        made = grid_of_axes(None, rows, columns, figsize or (3.2 * columns, 2.8 * rows)).ravel()
        for unused in made[len(names) :]:
            unused.remove()
        chosen = made[: len(names)]
    else:
        chosen = grid_of_axes(axes, len(names), 1, (0, 0)).ravel()
    for name, ax in zip(names, chosen, strict=True):
        _curve(ax, name, curves[curves["parameter"] == name].sort_values("value"))
    return chosen


def _curve(ax: Any, name: str, curve: pd.DataFrame) -> None:
    value, zeta = curve["value"].to_numpy(), curve["zeta"].to_numpy()
    if np.any(np.diff(zeta) < 0):  # a decreasing link
        zeta = -zeta
    ax.plot(value, np.abs(zeta), color=panels.POINT, linewidth=1.2)
    for level in LEVELS:
        quantile = float(stats.norm.ppf(0.5 + level / 2))
        if quantile > max(zeta.max(), -zeta.min()):
            continue
        low, high = np.interp([-quantile, quantile], zeta, value)
        ax.hlines(quantile, low, high, color="0.6", linewidth=0.8)
        for end, reached in ((low, zeta.min() <= -quantile), (high, zeta.max() >= quantile)):
            if reached:
                ax.vlines(end, 0, quantile, color="0.8", linewidth=0.8)
    ax.set_ylim(bottom=0)
    panels.titles(ax, "", "|zeta|", shortened(name, LONGEST))
