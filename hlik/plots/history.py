"""`plot_history`: how a fit got where it ended."""

from __future__ import annotations

from typing import Any

import arviz as az
import numpy as np

from hlik.errors import ModelError
from hlik.inference.tables import model_of
from hlik.plots import panels
from hlik.plots.figures import grid_of_axes
from hlik.plots.quantiles import evenly_by_rank
from hlik.plots.read import level_labels

MOST_LINES = 20
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "0.2")
"""Okabe and Ito's palette: as many lines have names."""


def plot_history(idata: az.InferenceData, axes: Any = None, figsize: tuple[float, float] | None = None) -> np.ndarray:
    """The path of a fit: every parameter, and what the estimator recorded of its steps, by iteration.

    Parameters
    ----------
    idata
        A result of `hlik.fit`, also one read back from NetCDF.
    axes
        Matplotlib axes to draw in, one for each variable of the group ``history``; a new figure by default.
    figsize
        Size of a new figure in inches.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes
        Shape (variables of the group ``history``,), in its order.

    Raises
    ------
    ModelError
        Where there is no history, or the number of axes is wrong.

    Notes
    -----
    Parameters are on the scale of their value variables (``sigma_log__``). Quantities that are positive and
    fall over more than a factor of 1,000 have a logarithmic axis. Of a parameter with more than 20 elements,
    20 are shown, evenly spaced by the rank of their last values.

    Examples
    --------
    >>> import matplotlib.pyplot as plt, numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     mu = pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)])
    ...     _ = pm.Poisson("y", mu, observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> axes = hlik.plot_history(hlik.fit(model, progressbar=False))
    >>> [ax.get_title() for ax in axes][:2]
    ['beta', 'sigma_log__']
    >>> plt.close(axes[0].figure)
    """
    model_of(idata)
    path = idata["history"] if "history" in idata.groups() else None
    if path is None or not path.data_vars:
        raise ModelError("This result has no history of iterations.")
    names = [str(name) for name in path.data_vars]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    if axes is None:
        made = grid_of_axes(None, rows, columns, figsize or (4.0 * columns, 2.6 * rows)).ravel()
        for unused in made[len(names) :]:
            unused.remove()
        chosen = made[: len(names)]
    else:
        chosen = grid_of_axes(axes, len(names), 1, (0, 0)).ravel()
    iteration = path["iteration"].values
    for name, ax in zip(names, chosen, strict=True):
        values = path[name].values.reshape(iteration.size, -1)
        _path(ax, name, iteration, values, _elements(idata, name, values.shape[1]))
    return chosen


def _elements(idata: az.InferenceData, name: str, size: int) -> list[str]:
    """Names of the lines; none for one line alone, nor for more than there are colours."""
    if not 1 < size <= len(COLOURS):
        return []
    estimates = idata["unconstrained_estimates"]
    known = name in estimates and estimates[name].size == size
    return level_labels(estimates[name], np.arange(size)) if known else [str(k) for k in range(size)]


def _path(ax: Any, name: str, iteration: np.ndarray, values: np.ndarray, elements: list[str]) -> None:
    size = values.shape[1]
    shown = evenly_by_rank(values[-1], MOST_LINES) if size > MOST_LINES else np.arange(size)
    if elements:
        for colour, label, line in zip(COLOURS, elements, values.T, strict=False):
            ax.plot(iteration, line, color=colour, marker=".", linewidth=1, label=label)
        panels.small_legend(ax, "best")
    else:
        ax.plot(iteration, values[:, shown], color=panels.POINT, marker=".", linewidth=1)
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and finite.max() > 1000 * finite.min():
        ax.set_yscale("log")
    some = f" ({shown.size} of {size:,})" if shown.size < size else ""
    panels.titles(ax, "iteration", "", name + some)
    panels.whole_ticks(ax)
