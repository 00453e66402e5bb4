"""`plot_map`: effects of areas on a map, and how sure they are."""

from __future__ import annotations

from typing import Any

import arviz as az
import numpy as np
import pandas as pd

from hlik.errors import ModelError
from hlik.plots.figures import grid_of_axes

DIVERGING, SEQUENTIAL = "RdBu_r", "viridis"  # both keep their order for colour-blind readers


def plot_map(
    idata: az.InferenceData,
    name: str,
    areas: Any,
    *,
    show: tuple[str, ...] = ("estimate", "se"),
    axes: Any = None,
    figsize: tuple[float, float] | None = None,
    size: float | None = None,
) -> np.ndarray:
    """A map of the effects of areas, a panel for the estimates and one for their standard errors.

    Parameters
    ----------
    idata
        A result of `hlik.fit`, also one read back from NetCDF.
    name
        A random effect or `pm.Deterministic` with one element an area.
    areas
        Where the areas are: a GeoDataFrame or GeoSeries of polygons or points (needs GeoPandas), or centroids, an
        array or DataFrame of shape (areas, 2). With an index of its own that has all of the effect's labels, areas
        are matched by label; otherwise they stand in the order of the effects.
    show
        Panels: ``"estimate"``, ``"se"``, or both.
    axes
        Matplotlib axes to draw in, one a panel; a new figure by default.
    figsize
        Size of a new figure in inches.
    size
        Area of the dots of centroids, in points squared; by default such that they fill the picture.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes
        Shape (panels,).

    Raises
    ------
    ModelError
        Where there is no such variable, or its size is not the number of areas.

    Notes
    -----
    Both are on the natural scale of the variable. The colours of the estimates are symmetric about zero where the
    estimates have both signs. Standard errors of spatially correlated effects are those of the effects themselves,
    not of their eigenbasis as in R's hglm.

    Examples
    --------
    >>> import matplotlib.pyplot as plt, numpy as np, pymc as pm, hlik
    >>> rows, columns = np.divmod(np.arange(9), 3)
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=9)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u), observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> axes = hlik.plot_map(hlik.fit(model, progressbar=False), "u", np.column_stack([columns, rows]))
    >>> axes[0].get_title(), axes.shape
    ('u: estimate', (2,))
    >>> plt.close(axes[0].figure)
    """
    unknown = [kind for kind in show if kind not in ("estimate", "se")]
    if unknown or not show:
        raise ModelError(f"show={show!r}: expected 'estimate', 'se', or both.")
    values = _values(idata, name)
    places = _matched(areas, values)
    grid = grid_of_axes(axes, 1, len(show), figsize or (4.8 * len(show), 4.6))[0]
    for ax, kind in zip(grid, show, strict=True):
        _panel(ax, values[kind].to_numpy(), places, kind, size)
        ax.set_title(f"{name}: {'estimate' if kind == 'estimate' else 'standard error'}")
        ax.set(xlabel="", ylabel="", aspect="equal")
        ax.set_xticks([])
        ax.set_yticks([])
    return grid


def _values(idata: az.InferenceData, name: str) -> pd.DataFrame:
    """Estimate and standard error by label."""
    if name not in idata["estimates"]:
        raise ModelError(
            f"The result has no variable {name!r}; it has {sorted(map(str, idata['estimates'].data_vars))}."
        )
    estimate = idata["estimates"][name]
    if estimate.ndim != 1:
        raise ModelError(f"{name!r} has shape {estimate.shape}: a map needs one element an area.")
    labels = estimate.coords[estimate.dims[0]].values
    error = idata["standard_errors"][name]
    return pd.DataFrame({"estimate": estimate.values, "se": error.values}, index=pd.Index(labels))


def _matched(areas: Any, values: pd.DataFrame) -> Any:
    """The areas in the order of the effects: a GeoSeries, or centroids of shape (areas, 2)."""
    index = getattr(areas, "index", None)
    own = areas.geometry if hasattr(areas, "geometry") else areas
    if isinstance(index, pd.Index) and index.is_unique and values.index.isin(index).all() and len(index) >= len(values):
        own = own.loc[values.index]
    if len(own) != len(values):
        raise ModelError(f"areas has {len(own)} rows for {len(values)} effects; their labels do not match either.")
    if hasattr(own, "geom_type"):
        return own
    centroids = np.asarray(own, dtype=float)
    if centroids.ndim != 2 or centroids.shape[1] != 2 or not np.all(np.isfinite(centroids)):
        raise ModelError(f"areas must be polygons or finite centroids of shape (areas, 2); got {centroids.shape}.")
    return centroids


def _panel(ax: Any, numbers: np.ndarray, places: Any, kind: str, size: float | None) -> None:
    both_signs = kind == "estimate" and numbers.min() < 0 < numbers.max()
    furthest = float(np.max(np.abs(numbers)))
    low, high = (-furthest, furthest) if both_signs else (float(numbers.min()), float(numbers.max()))
    style = {"cmap": DIVERGING if both_signs else SEQUENTIAL, "vmin": low, "vmax": high}
    if hasattr(places, "geom_type"):
        import geopandas

        frame = geopandas.GeoDataFrame({"value": numbers}, geometry=list(places), crs=places.crs)
        frame.plot(column="value", ax=ax, legend=True, legend_kwds={"shrink": 0.8}, **style)
        return
    dots = size or float(np.clip(25_000 / len(places), 2, 2500))
    drawn = ax.scatter(places[:, 0], places[:, 1], c=numbers, s=dots, marker="s", linewidths=0, **style)
    ax.margins(0.08)
    ax.figure.colorbar(drawn, ax=ax, shrink=0.8)
