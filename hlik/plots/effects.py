"""`plot_effects`: predicted means with bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import arviz as az
import numpy as np
import pandas as pd

from hlik.errors import ModelError
from hlik.graph.arguments import as_pymc
from hlik.inference.predict import predict
from hlik.inference.tables import model_of, response_label
from hlik.plots.compare import COLOURS, MARKERS

GRID = 60
MOST_LINES = 12  # lines that a legend names; more are drawn grey


def plot_effects(
    model: Any,
    idata: az.InferenceData,
    x: str,
    data: Mapping[str, Any] | pd.DataFrame | None = None,
    *,
    by: str | None = None,
    random: str = "zero",
    kind: str = "response",
    interval: float = 0.95,
    response: str | None = None,
    coords: Mapping[str, Any] | None = None,
    ax: Any = None,
    figsize: tuple[float, float] | None = None,
) -> Any:
    """Predicted means along a covariate, with pointwise bands.

    Parameters
    ----------
    model
        The model that was fitted.
    idata
        Its result.
    x
        The covariate: a column of `data`, a column of the data of a formula model, or a `pm.Data` container.
    data
        The rows to predict, as `hlik.predict` takes them. None: a grid over the range of `x`, all other columns or
        containers at their mean, or, where they are whole numbers or words, at their most frequent value.
    by
        Another column or container: a line for each of its values.
    random, kind
        As in `hlik.predict`: by default the response of a typical level.
    interval
        Coverage of the bands.
    response, coords
        As in `hlik.predict`.
    ax
        Axes to draw in; a new figure by default.
    figsize
        Size of a new figure in inches.

    Returns
    -------
    matplotlib.axes.Axes
        Lines with bands for numbers, points with bars for words and for fewer than five values.

    Raises
    ------
    ModelError
        Where `x` or `by` is not in the data, or as `hlik.predict`.

    Notes
    -----
    The band is that of the mean, made on the link scale and mapped; it is not one of future observations.

    Examples
    --------
    >>> import matplotlib.pyplot as plt, numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5, shape=2), pm.HalfNormal("sigma", 1)
    ...     dose, u = pm.Data("dose", np.tile([0.0, 1.0, 2.0], 3)), pm.Normal("u", 0, sigma, shape=3)
    ...     eta = beta[0] + beta[1] * dose + u[pm.Data("plate", np.repeat([0, 1, 2], 3))]
    ...     _ = pm.Poisson("y", pm.math.exp(eta), observed=[1, 3, 2, 6, 6, 9, 2, 2, 4])
    >>> ax = hlik.plot_effects(model, hlik.fit(model, progressbar=False), "dose")
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('dose', 'mean of y')
    >>> plt.close(ax.figure)
    """
    rows = _grid(as_pymc(model), x, by) if data is None else data
    along, groups = _column(rows, x), None if by is None else _column(rows, by)
    found = predict(model, idata, rows, random=random, kind=kind, interval=interval, coords=coords, response=response)
    if len(found) != len(along):
        raise ModelError(f"{x!r} has {len(along)} values and the prediction {len(found)} rows: give one a row.")
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=figsize or (6.0, 4.0), layout="constrained")
    levels = [None] if groups is None else list(pd.unique(groups))
    for number, level in enumerate(levels):
        own = np.ones(len(along), bool) if groups is None else groups == level
        _draw(ax, along, own, found, number, None if level is None else f"{by} = {level}", len(levels))
    name = response or response_label(model_of(idata)["responses"][0])
    ax.set_xlabel(x)
    ax.set_ylabel(f"mean of {name}" if kind == "response" else f"linear predictor of {name}")
    if 1 < len(levels) <= MOST_LINES:
        ax.legend(frameon=False, fontsize="small")
    return ax


def _column(rows: Mapping[str, Any] | pd.DataFrame, name: str) -> np.ndarray:
    if name not in rows:
        raise ModelError(f"{name!r} is not in the data to predict, which have {list(rows)}.")
    return np.asarray(rows[name])


def _grid(model: Any, x: str, by: str | None) -> dict[str, np.ndarray] | pd.DataFrame:
    """A grid over the range of a covariate, for every value of another; the others at typical values."""
    frame: pd.DataFrame | None = getattr(model, "formula_frame", None)
    if frame is not None:
        columns, what = {str(name): frame[name].to_numpy() for name in frame}, "a column of the formula's data"
    else:
        columns = {v.name: np.asarray(v.get_value(borrow=True)) for v in model.data_vars}
        what = "a pm.Data container of one axis"
    for name in (x, *([by] if by else [])):
        if name not in columns or columns[name].ndim != 1:
            there = [key for key, value in columns.items() if value.ndim == 1]
            raise ModelError(f"{name!r} is not {what}; these are {there}. Or pass data=, the rows to predict.")
    along = pd.unique(columns[x]) if columns[x].dtype.kind not in "iubf" else np.unique(columns[x])
    if columns[x].dtype.kind == "f" or (columns[x].dtype.kind in "iu" and (along.size > GRID or x == by)):
        along = np.linspace(along[0], along[-1], GRID)
    levels = pd.unique(np.sort(columns[by])) if by else np.zeros(1)
    size = columns[x].size
    rows = {name: _typical(value, along.size * levels.size) for name, value in columns.items() if len(value) == size}
    rows[x] = np.tile(along, levels.size)
    if by:
        rows[by] = np.repeat(levels, along.size)
    return rows if frame is None else pd.DataFrame(rows)


def _typical(value: np.ndarray, size: int) -> np.ndarray:
    """The mean of numbers, the most frequent of whole numbers and of words, repeated."""
    if value.dtype.kind != "f":
        middle = np.array([pd.Series(column).mode()[0] for column in value.reshape(len(value), -1).T])
    else:
        middle = value.reshape(len(value), -1).mean(axis=0)
    return np.broadcast_to(middle.reshape(value.shape[1:]), (size, *value.shape[1:])).copy()


def _draw(
    ax: Any, along: np.ndarray, own: np.ndarray, found: pd.DataFrame, number: int, label: str | None, count: int
) -> None:
    """One line with its band, or points with bars."""
    colour = COLOURS[number % len(COLOURS)] if count <= MOST_LINES else "0.5"
    numbers = along.dtype.kind in "iufb" and np.unique(along[own]).size >= 5
    if numbers:
        order = np.argsort(along[own], kind="stable")
        place, values = along[own][order].astype(float), found[own].iloc[order]
        ax.plot(place, values["estimate"], color=colour, linewidth=1.6 if count <= MOST_LINES else 0.7, label=label)
        if count <= MOST_LINES:
            ax.fill_between(place, values["lower"], values["upper"], color=colour, alpha=0.2, linewidth=0)
        return
    names = list(pd.unique(along))
    width = 0.4 / max(count, 2)
    place = np.array([names.index(value) for value in along[own]]) + (number - (count - 1) / 2) * width
    values = found[own]
    ax.vlines(place, values["lower"], values["upper"], color=colour, linewidth=1.6)
    marker = MARKERS[number % len(MARKERS)]
    ax.plot(place, values["estimate"], marker, color=colour, markersize=5, linestyle="none", label=label)
    ax.set_xticks(np.arange(len(names)), [str(name) for name in names])
    ax.set_xlim(-0.5, len(names) - 0.5)
