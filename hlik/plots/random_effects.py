"""`plot_ranef`: the random effects with their intervals and their normal Q-Q plot."""

from __future__ import annotations

from functools import partial
from typing import Any

import arviz as az
import numpy as np

from hlik.errors import ModelError
from hlik.plots import panels
from hlik.plots.figures import grid_of_axes
from hlik.plots.read import Names, level_labels, terms


def plot_ranef(
    idata: az.InferenceData,
    term: Names = None,
    *,
    level: float = 0.95,
    most: int = 60,
    axes: Any = None,
    figsize: tuple[float, float] | None = None,
) -> np.ndarray:
    """Random effects: caterpillar plot and normal Q-Q plot with pointwise envelope, a row a term.

    Parameters
    ----------
    idata
        A result of `hlik.fit`, also one read back from NetCDF.
    term
        Name or names of the random effects to show; all by default.
    level
        Coverage of the intervals and of the envelope.
    most
        Levels shown at most in the caterpillar plot; of more, so many evenly spaced by rank, the two extremes
        included, and the title says so.
    axes
        Matplotlib axes to draw in, two for each term; a new figure by default.
    figsize
        Size of a new figure in inches.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes
        Shape (terms, 2): caterpillar, Q-Q plot.

    Raises
    ------
    ModelError
        Where the model has no random effects or none of that name, or an argument is wrong.

    See Also
    --------
    ranef : the same numbers as a table.

    Notes
    -----
    Both are on the scale of v, on which the effects enter the linear predictor (log u for a gamma effect).
    Intervals are v -/+ z SE(v), errors of prediction with the dispersion parameters taken as known. The
    envelope holds, at each point by itself, the central `level` of the order statistic of an independent
    normal sample, F^-1(Beta(k, n + 1 - k)) about the line through the quartiles. Levels with little data are
    shrunken more than others, which by itself pulls points from the line.

    Examples
    --------
    >>> import matplotlib.pyplot as plt, numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     mu = pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)])
    ...     _ = pm.Poisson("y", mu, observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> axes = hlik.plot_ranef(hlik.fit(model, progressbar=False))
    >>> axes[0, 0].get_xlabel()
    'u, 95% intervals'
    >>> plt.close(axes[0, 0].figure)
    """
    if not 0 < level < 1:
        raise ModelError(f"level must lie between 0 and 1; got {level}.")
    if most < 2:
        raise ModelError(f"most must be at least 2 levels; got {most}.")
    chosen = terms(idata, term)
    if not chosen:
        raise ModelError("The model has no random effects.")
    heights = [max(3.2, 1.0 + 0.125 * min(found.v.size, most)) for found in chosen]
    grid = grid_of_axes(
        axes,
        len(chosen),
        2,
        figsize or (9.0, sum(heights)),
        gridspec_kw={"width_ratios": [1.2, 1.0], "height_ratios": heights},
    )
    for row, found in zip(grid, chosen, strict=True):
        panels.caterpillar(
            row[0],
            found.v,
            found.v_se,
            partial(level_labels, found.where),
            x_label=found.label,
            title=f"{found.name}: random effects",
            centre=found.centre,
            level=level,
            most=most,
        )
        panels.normal_quantiles(row[1], found.v, found.label, f"{found.name}: normal Q-Q", level)
        if axes is None:  # a square beside a tall caterpillar
            row[1].set_box_aspect(1)
            row[1].set_anchor("N")
    return grid
