"""`plot_diagnostics`: whether the parts of the model fit the data."""

from __future__ import annotations

from functools import partial
from typing import Any

import arviz as az
import numpy as np
from scipy import stats

from hlik.plots import panels
from hlik.plots.figures import grid_of_axes
from hlik.plots.read import (
    Names,
    ResponseDiagnostics,
    Term,
    TermDiagnostics,
    level_labels,
    response_diagnostics,
    term_diagnostics,
    terms,
)

COLUMNS = 4
CATERPILLAR_LEVELS = 60
LONGEST_LABEL = 16
GAMMA_LABELS = {"x_label": "gamma(1/2) quantile, mean 1", "y_label": "scaled deviance"}


def plot_diagnostics(
    idata: az.InferenceData,
    response: Names = None,
    axes: Any = None,
    figsize: tuple[float, float] | None = None,
) -> np.ndarray:
    """Diagnostic plots: residuals, leverages, deviances, random effects; a row a response, a row a term.

    Parameters
    ----------
    idata
        A result of `hlik.fit`, also one read back from NetCDF.
    response
        Name or names of the responses to show; all by default. The random effects are always shown.
    axes
        Matplotlib axes to draw in, rows times four of them; a new figure by default.
    figsize
        Size of a new figure in inches.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes
        Shape (responses + random-effect terms, 4). A response's row: studentised residuals against the linear
        predictor, their normal Q-Q plot, leverages, deviance Q-Q plot. A term's row: caterpillar, normal Q-Q
        plot of v, leverages, deviance Q-Q plot.

    Raises
    ------
    ModelError
        Where a response does not exist, the number of axes is wrong, or the result has no diagnostics.

    See Also
    --------
    plot_ranef : the random effects alone, with room for the names of the levels.

    Notes
    -----
    *Residuals.* Studentised deviance residuals, sign(y - mu) sqrt(d / (phi (1 - h))), against the linear
    predictor, with local linear means of them (solid) and of their absolute values (dashed): curvature in the
    first says that the linear predictor or the link misses something, a slope in the second that the variance
    function does. The predictor includes the predicted random effects, which are shrunken, so that an upward
    slope of the first is no misfit: slight in large groups, steep in small groups of binary data. Above
    20,000 points hexagons show counts.

    *Leverages.* Diagonal of the hat matrix of the augmented model; those of the observations add up to the
    effective degrees of freedom. The leverage of a random effect is the share of its prior in its prediction:
    near one where the data say little about it.

    *Deviance Q-Q.* The dispersions are estimated by gamma GLMs for the deviance components d, in which d /
    (phi (1 - h)) is gamma with shape 1/2 and mean one, that is chi-squared with one degree of freedom
    (exactly for normal responses and effects with known dispersions, to first order for others); h is the
    leverage and phi the dispersion, lambda for random effects. The line is y = x. R's hglm draws the deviance
    components d, undivided, against sorted draws of a gamma distribution fitted to them by moments: a wrong
    dispersion or shape is fitted away, and plotting moves the session's random-number stream.

    *Bands* are pointwise 95% intervals of order statistics (Beta quantiles), as if the points were
    independent.

    *Normal Q-Q of v.* The predictions on the scale on which they enter the linear predictor. The line goes
    through their quartiles. They are shrunken by different amounts where groups differ in size, which bends
    the plot; the deviance Q-Q plot beside it allows for that.

    *Binary data*: residuals lie on two curves, their absolute values are a function of the predictor (and not
    smoothed), and neither they nor the deviances have the distributions above, whatever the model. The same
    holds to a lesser degree for small counts.

    *Families without a deviance in hlik* (negative binomial, Student t, zero-inflated, ordered ...) are shown by
    randomised quantile residuals (`hlik.residuals`) against the fitted mean, their normal Q-Q plot, and the histogram
    of ``P(Y <= y)``, which is flat where the model holds; its band is the central 95% of each bar's binomial count.

    Of the panels of hglm's plot, the histograms and the plot of deviances by index show what the Q-Q plots
    show, and the absolute residuals are in the first panel.

    Left out are observations with leverage one, and random effects whose variance is estimated at zero.

    References
    ----------
    Lee, Y., Nelder, J. A. and Pawitan, Y. (2006). Generalized Linear Models with Random Effects.
    Chapman & Hall/CRC.

    Examples
    --------
    >>> import matplotlib.pyplot as plt, numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     mu = pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)])
    ...     _ = pm.Poisson("y", mu, observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> axes = hlik.plot_diagnostics(hlik.fit(model, progressbar=False))
    >>> axes.shape
    (2, 4)
    >>> plt.close(axes[0, 0].figure)
    """
    responses = response_diagnostics(idata, response)
    effects = list(zip(terms(idata), term_diagnostics(idata), strict=True))
    rows = len(responses) + len(effects)
    grid = grid_of_axes(axes, rows, COLUMNS, figsize or (14.0, 3.2 * rows))
    for row, found in zip(grid, responses, strict=False):
        _response_row(row, found)
    for row, (term, found_term) in zip(grid[len(responses) :], effects, strict=True):
        _term_row(row, term, found_term)
    return grid


def _quantile_row(row: np.ndarray, found: ResponseDiagnostics) -> None:
    """A response whose family has no deviance: quantile residuals, their normal Q-Q plot and their distribution."""
    name = found.name
    panels.residuals(
        row[0], found.predictor, found.residual, found.predictor_label, f"{name}: quantile residuals", False
    )
    row[0].set_ylabel("quantile residual")
    panels.theoretical_quantiles(
        row[1],
        found.residual,
        stats.norm(),
        "normal quantile",
        "quantile residual",
        f"{name}: quantile residuals, normal Q-Q",
    )
    panels.uniform_histogram(row[2], stats.norm.cdf(found.residual), f"{name}: P(Y ≤ y), randomised")
    panels.nothing(row[3], "no deviance for this family")
    panels.titles(row[3], "", "", f"{name}: deviances")


def _response_row(row: np.ndarray, found: ResponseDiagnostics) -> None:
    if found.by_quantiles:
        _quantile_row(row, found)
        return
    name = found.name
    panels.residuals(row[0], found.predictor, found.residual, found.predictor_label, f"{name}: residuals", found.binary)
    panels.theoretical_quantiles(
        row[1],
        found.residual,
        stats.norm(),
        "normal quantile",
        "studentised residual",
        f"{name}: residuals, normal Q-Q",
    )
    panels.leverages(row[2], found.leverage, partial(level_labels, found.where), "observation", f"{name}: leverages")
    panels.theoretical_quantiles(
        row[3], found.deviance, stats.chi2(1), title=f"{name}: deviances, gamma Q-Q", **GAMMA_LABELS
    )
    if found.binary:
        for ax in (row[1], row[3]):
            panels.note(ax, "0/1 data: off the line\nwhatever the model")


def _term_row(row: np.ndarray, term: Term, found: TermDiagnostics) -> None:
    name, label = term.name, partial(level_labels, term.where, longest=LONGEST_LABEL)
    panels.caterpillar(
        row[0],
        term.v,
        term.v_se,
        label,
        x_label=term.label,
        title=f"{name}: random effects",
        centre=term.centre,
        level=0.95,
        most=CATERPILLAR_LEVELS,
    )
    panels.normal_quantiles(row[1], term.v, term.label, f"{name}: random effects, normal Q-Q")
    if not found.leverage.size:
        for ax, what in ((row[2], "leverages"), (row[3], "deviances")):
            panels.nothing(ax, "not computed for this model")
            panels.titles(ax, "", "", f"{name}: {what}")
        return
    panels.leverages(row[2], found.leverage, partial(level_labels, found.where), "level", f"{name}: leverages")
    panels.theoretical_quantiles(
        row[3], found.deviance, stats.chi2(1), title=f"{name}: deviances, gamma Q-Q", **GAMMA_LABELS
    )
