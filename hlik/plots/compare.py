"""`plot_compare`: the parameters of several fits in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import arviz as az
import numpy as np
import pandas as pd

from hlik.errors import ModelError
from hlik.inference.compare import compare

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which colour-blind people tell apart."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "0.6"


def plot_compare(
    fits: Mapping[str, az.InferenceData] | pd.DataFrame,
    *,
    var_names: Sequence[str] | None = None,
    level: float = 0.95,
    scale: str = "natural",
    ax: Any = None,
    figsize: tuple[float, float] | None = None,
) -> Any:
    """Forest of all fits: a block a parameter, a line with its interval a fit.

    Parameters
    ----------
    fits
        Results of `hlik.fit` and `pm.sample` by name, or the table of `hlik.compare`.
    var_names, level
        As in `hlik.compare`.
    scale
        ``"natural"``, or ``"standardised"``: every parameter less the first fit's estimate, in its standard errors,
        for parameters of different sizes.
    ax
        Axes to draw in; a new figure by default.
    figsize
        Size of a new figure in inches.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ModelError
        As `hlik.compare`.

    Examples
    --------
    >>> import matplotlib.pyplot as plt, numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)]), observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> ax = hlik.plot_compare({name: hlik.fit(model, name, progressbar=False) for name in ("eql", "laplace")})
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['beta', 'sigma']
    >>> plt.close(ax.figure)
    """
    if scale not in ("natural", "standardised"):
        raise ModelError(f"scale={scale!r}: expected 'natural' or 'standardised'.")
    table = fits if isinstance(fits, pd.DataFrame) else compare(fits, var_names=var_names, level=level)
    parameters = list(dict.fromkeys(table.index.get_level_values("parameter")))
    names = list(dict.fromkeys(table.index.get_level_values("fit")))
    if ax is None:
        import matplotlib.pyplot as plt

        height = max(2.0, 0.8 + len(parameters) * (0.22 + 0.14 * len(names)))
        _, ax = plt.subplots(figsize=figsize or (7.0, min(height, 40.0)), layout="constrained")
    for number, name in enumerate(names):
        _draw(ax, table, parameters, name, number, len(names), scale)
    ax.set_yticks(np.arange(len(parameters)), parameters)
    ax.set_ylim(len(parameters) - 0.5, -0.5)
    for border in np.arange(len(parameters) - 1) + 0.5:
        ax.axhline(border, color="0.9", linewidth=0.8, zorder=0)
    ax.axvline(0.0, color=GREY, linewidth=0.8, zorder=0)
    ax.set_xlabel("estimate and interval" if scale == "natural" else f"standard errors from {names[0]}")
    ax.tick_params(axis="y", length=0)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize="small")
    return ax


def _draw(ax: Any, table: pd.DataFrame, parameters: list[str], name: str, number: int, count: int, scale: str) -> None:
    """One fit: its points and intervals, beside those of the others in each block."""
    place = np.arange(len(parameters)) + (number - (count - 1) / 2) * 0.7 / max(count, 2)
    rows = table.xs(name, level="fit").reindex(parameters)
    values = rows[["estimate", "lower", "upper"]].to_numpy(dtype=float)
    if scale == "standardised":
        first = table.groupby(level="parameter", sort=False).first().reindex(parameters)
        values = (values - first[["estimate"]].to_numpy()) / first[["se"]].to_numpy()
    colour = COLOURS[number % len(COLOURS)]
    known = np.isfinite(values[:, 1]) & np.isfinite(values[:, 2])
    ax.hlines(place[known], values[known, 1], values[known, 2], color=colour, linewidth=1.6)
    marker = MARKERS[number % len(MARKERS)]
    ax.plot(values[:, 0], place, marker, color=colour, markersize=4.5, linestyle="none", label=name)
