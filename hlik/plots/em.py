"""`plot_em`: the path of Monte Carlo EM with its Monte Carlo errors."""

from __future__ import annotations

import json
from typing import Any

import arviz as az
import numpy as np

from hlik.errors import ModelError
from hlik.inference.tables import model_of
from hlik.plots import panels
from hlik.plots.figures import grid_of_axes
from hlik.plots.history import COLOURS

BAND = 2.0  # Monte Carlo standard errors on either side
MOST_ALONE = 6  # elements of a parameter that have a panel each; of more, all are in one


def plot_em(idata: az.InferenceData, axes: Any = None, figsize: tuple[float, float] | None = None) -> np.ndarray:
    """The path of Monte Carlo EM: every parameter with its Monte Carlo error, and Q.

    Parameters
    ----------
    idata
        A result of `hlik.fit` by `hlik.MCEM` or `hlik.SAEM`, also one read back from NetCDF.
    axes
        Matplotlib axes to draw in, one for each panel; a new figure by default.
    figsize
        Size of a new figure in inches.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes
        Shape (panels,): fixed effects, dispersion parameters, Q. A parameter with up to 6 elements has as many panels,
        one with more a single panel.

    Raises
    ------
    ModelError
        Where the result is of another estimator, or the number of axes is wrong.

    Notes
    -----
    Parameters are on the scale of their value variables (``sigma_log__``). Bands are two Monte Carlo standard errors
    on either side: of the maximum of Q in EM steps, of the whole estimate in those of the last sample, which follow a
    dotted line. SAEM's steps have no bands. ``Q`` is the mean of h over a step's draws, whose number is the size of the
    points; it is no likelihood, and may fall.

    Examples
    --------
    >>> import matplotlib.pyplot as plt, numpy as np, pymc as pm, hlik
    >>> y = np.array([1, 0, 2, 9, 6, 8, 3, 2, 4, 0, 1, 0])
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=4)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat(np.arange(4), 3)]), observed=y)
    >>> axes = hlik.plot_em(hlik.fit(model, hlik.MCEM(sampler="importance"), progressbar=False, random_seed=1))
    >>> [ax.get_title() for ax in axes]
    ['beta', 'sigma_log__', 'Q, 512 to 2,048 draws']
    >>> plt.close(axes[0].figure)
    """
    model_of(idata)
    if "em" not in idata.groups():
        raise ModelError("plot_em: expected a result of MCEM or SAEM; hlik.plot_history shows those of all estimators.")
    path = idata["history"]
    shown = _panels(idata)
    chosen = _axes(axes, len(shown) + 1, figsize)
    iteration = path["iteration"].values
    last_sample = int(np.sum(path["delta_Q_mcse"].values == 0.0))
    for (name, values, errors), ax in zip(shown, chosen[:-1], strict=True):
        for k in range(values.shape[1]):
            _band(ax, iteration, values[:, k], errors[:, k], COLOURS[k % len(COLOURS)])
        _finished(ax, name, iteration, last_sample)
    ax = chosen[-1]
    q, q_error = path["objective"].values, path["objective_mcse"].values
    _band(ax, iteration, q, q_error, COLOURS[0])
    draws = path["draws"].values
    ax.scatter(iteration, q, s=10 + 40 * draws / draws.max(), color=COLOURS[0])
    _finished(ax, f"Q, {draws.min():,.0f} to {draws.max():,.0f} draws", iteration, last_sample)
    return chosen


def _panels(idata: az.InferenceData) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Title, path and Monte Carlo errors of every panel but that of Q, arrays (iterations, lines)."""
    path, errors = idata["history"], np.asarray(idata["em"]["path_mcse"])
    labels = [str(label) for label in idata["fit"]["parameter"].values]
    found, start = [], 0
    for name in _value_names(idata):
        values = path[name].values.reshape(path.sizes["iteration"], -1)
        count = values.shape[1]
        own = errors[:, start : start + count]
        if count > MOST_ALONE:
            found.append((name, values, own))
        else:
            found += [(labels[start + k], values[:, [k]], own[:, [k]]) for k in range(count)]
        start += count
    return found


def _value_names(idata: az.InferenceData) -> list[str]:
    """Names of the parameters' value variables, fixed effects first: the order of psi."""
    parameters = json.loads(idata["fit"].attrs["model"])["parameters"]
    fixed = [p["value_name"] for p in parameters if p["role"] == "fixed effect"]
    return fixed + [p["value_name"] for p in parameters if p["role"] != "fixed effect"]


def _axes(axes: Any, count: int, figsize: tuple[float, float] | None) -> np.ndarray:
    if axes is not None:
        return grid_of_axes(axes, count, 1, (0, 0)).ravel()
    columns = min(3, count)
    rows = -(-count // columns)
    made = grid_of_axes(None, rows, columns, figsize or (4.0 * columns, 2.6 * rows)).ravel()
    for unused in made[count:]:
        unused.remove()
    return made[:count]


def _band(ax: Any, iteration: np.ndarray, values: np.ndarray, errors: np.ndarray, colour: str) -> None:
    ax.fill_between(iteration, values - BAND * errors, values + BAND * errors, color=colour, alpha=0.25, linewidth=0)
    ax.plot(iteration, values, color=colour, marker=".", linewidth=1)


def _finished(ax: Any, name: str, iteration: np.ndarray, last_sample: int) -> None:
    if 0 < last_sample < iteration.size:
        ax.axvline(iteration[-last_sample] - 0.5, color="0.5", linestyle=":", linewidth=1)
    panels.titles(ax, "iteration", "", name)
    panels.whole_ticks(ax)
