"""One axes at a time: each function draws one panel and knows nothing of InferenceData or of figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from hlik.plots import quantiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINT, LINE, GREY = "#0072B2", "#D55E00", "0.5"
"""Blue and vermilion of Okabe and Ito's palette: distinct to colour-blind readers and in greyscale."""

DENSE = 20_000
"""Points above which a scatter is drawn as counts in hexagons."""


# ---------------------------------------------------------------------------------------------- residuals


def residuals(ax: Axes, x: np.ndarray, residual: np.ndarray, x_label: str, title: str, binary: bool = False) -> None:
    """Studentised residuals with local means of them and, but for `binary` data, of their absolute values."""
    finite = np.isfinite(x) & np.isfinite(residual)
    x, residual = x[finite], residual[finite]
    if not x.size:
        nothing(ax, "no residuals")
    else:
        scatter(ax, x, residual)
        ax.axhline(0, color=GREY, linewidth=0.8)
        span = quantiles.span_of(x.size)
        smoothed = [(residual, "-", "local mean"), (np.abs(residual), "--", "of |residual|")]
        for y, style, label in smoothed[:1] if binary else smoothed:
            grid, smooth = quantiles.local_linear(x, y, span)
            if grid.size:
                ax.plot(grid, smooth, color=LINE, linestyle=style, linewidth=1.8, label=label)
        if grid.size:
            # "best" looks at every point: matplotlib warns where that takes long.
            small_legend(ax, "best" if x.size <= 2000 else "upper right")
    titles(ax, x_label, "studentised residual", title)


def leverages(ax: Axes, leverage: np.ndarray, labels: Any, x_label: str, title: str) -> None:
    """Leverages by position, their mean, and names of the up to three largest above twice the mean.

    `labels` maps flat positions to a list of strings.
    """
    position = np.flatnonzero(np.isfinite(leverage))
    if not position.size:
        nothing(ax, "no leverages")
    else:
        shown = leverage[position]
        mean, top = float(shown.mean()), max(1.25 * float(shown.max()), 1e-12)
        scatter(ax, position, shown, extent=(0, leverage.size, 0, top))
        ax.axhline(mean, color=LINE, linewidth=1.2, linestyle="--", label=f"mean {mean:.2g}")
        ax.set_ylim(0, top)
        largest = _apart(position[np.argsort(-shown, kind="stable")[:3]], leverage)
        largest = largest[leverage[largest] > 2 * mean]
        for place, text in zip(largest, labels(largest), strict=True):
            annotate(ax, place, leverage[place], text, to_left=place > 0.7 * leverage.size)
        whole_ticks(ax)
        small_legend(ax, "upper right")
    titles(ax, x_label, "leverage", title)


def _apart(positions: np.ndarray, leverage: np.ndarray) -> np.ndarray:
    """Those whose names would not lie on that of a larger one."""
    kept: list[int] = []
    for place in positions:
        near = [
            abs(place - other) < 0.4 * leverage.size
            and abs(leverage[place] - leverage[other]) < 0.06 * leverage[positions[0]]
            for other in kept
        ]
        if not any(near):
            kept.append(int(place))
    return np.array(kept, dtype=int)


# ---------------------------------------------------------------------------------------------- quantiles


def theoretical_quantiles(
    ax: Axes, values: np.ndarray, distribution: Any, x_label: str, y_label: str, title: str
) -> None:
    """A sample against a fully known distribution: line y = x and pointwise 95% band."""
    points = quantiles.quantile_plot(values, distribution)
    if not points.ordered.size:
        nothing(ax, "no variation to show")
    else:
        _quantile_points(ax, points, points.lower, points.upper)
        ends = points.theoretical[[0, -1]]
        ax.plot(ends, ends, color=LINE, linewidth=1.2)
    titles(ax, x_label, y_label, title)


def normal_quantiles(ax: Axes, values: np.ndarray, y_label: str, title: str, level: float = 0.95) -> None:
    """A sample against a normal distribution of free mean and variance: quartile line, pointwise band."""
    normal = stats.norm()
    points = quantiles.quantile_plot(values, normal, level)
    line = quantiles.quartile_line(values, normal)
    if not points.ordered.size:
        nothing(ax, "no levels")
    elif line is None:
        ax.plot(points.theoretical, points.ordered, "o", color=POINT, markersize=4, linestyle="none")
    else:
        intercept, slope = line
        _quantile_points(ax, points, intercept + slope * points.lower, intercept + slope * points.upper)
        ends = points.theoretical[[0, -1]]
        ax.plot(ends, intercept + slope * ends, color=LINE, linewidth=1.2)
    titles(ax, "normal quantile", y_label, title)


def _quantile_points(ax: Axes, points: quantiles.QuantilePlot, lower: np.ndarray, upper: np.ndarray) -> None:
    ax.fill_between(points.theoretical, lower, upper, color=GREY, alpha=0.25, linewidth=0)
    style = _point_style(points.ordered.size)
    ax.plot(points.theoretical, points.ordered, linestyle="none", color=POINT, **(style | {"alpha": 0.8}))


def uniform_histogram(ax: Axes, values: np.ndarray, title: str) -> None:
    """A histogram of what is uniform where the model holds: line at the expected count, 95% band of each bar."""
    values = values[np.isfinite(values)]
    bins = int(np.clip(np.sqrt(values.size), 5, 20))
    expected = stats.binom(values.size, 1 / bins)
    ax.axhspan(*expected.ppf([0.025, 0.975]), color=GREY, alpha=0.25, linewidth=0)
    ax.axhline(values.size / bins, color=LINE, linewidth=1.2)
    ax.hist(values, bins=np.linspace(0, 1, bins + 1).tolist(), color=POINT, alpha=0.6, edgecolor="white", linewidth=0.5)
    titles(ax, "probability", "observations", title)


# ---------------------------------------------------------------------------------------------- caterpillar


def caterpillar(
    ax: Axes,
    v: np.ndarray,
    v_se: np.ndarray,
    labels: Any,
    x_label: str,
    title: str,
    centre: float,
    level: float,
    most: int,
) -> None:
    """Predictions with Wald intervals, sorted, at most `most` of them; names of the levels where they fit."""
    shown = quantiles.evenly_by_rank(v, most)
    if not shown.size:
        nothing(ax, "no levels")
        titles(ax, x_label, "", title)
        return
    height = np.arange(shown.size)
    half = stats.norm.ppf(0.5 + level / 2) * np.nan_to_num(v_se[shown])
    ax.axvline(centre, color=GREY, linewidth=0.8)
    ax.hlines(height, v[shown] - half, v[shown] + half, color=POINT, linewidth=1.0 if shown.size > 30 else 1.5)
    ax.plot(v[shown], height, "o", color=POINT, markersize=3 if shown.size > 30 else 4.5)
    ax.set_ylim(-0.7, shown.size - 0.3)
    some = "" if shown.size == v.size else f"\n{shown.size:,} of {v.size:,} levels, evenly by rank"
    titles(ax, f"{x_label}, {100 * level:g}% intervals", "", title + some)
    _level_ticks(ax, height, labels(shown))


def _level_ticks(ax: Axes, height: np.ndarray, labels: list[str]) -> None:
    """Names of the levels in a size that fits, or none."""
    figure = ax.figure
    room = ax.get_window_extent().height / figure.dpi * 72 / max(len(labels), 1)
    size = min(9.0, 0.85 * room)
    if size < 5:
        ax.set_yticks([])
        ax.set_ylabel("levels, sorted")
    else:
        ax.set_yticks(height, labels, fontsize=size)
        ax.tick_params(axis="y", length=0)


# ---------------------------------------------------------------------------------------------- small parts


def scatter(ax: Axes, x: np.ndarray, y: np.ndarray, extent: tuple[float, float, float, float] | None = None) -> None:
    """Points, or counts in hexagons (of the area `extent`) where there are more than `DENSE`."""
    if x.size <= DENSE:
        ax.plot(x, y, linestyle="none", color=POINT, **_point_style(x.size))
        return
    ax.hexbin(x, y, gridsize=(50, 25), extent=extent, bins="log", mincnt=1, cmap="Blues", linewidths=0.2)
    ax.text(0.02, 0.98, f"{x.size:,} points: darker is more", transform=ax.transAxes, va="top", fontsize="x-small")


def _point_style(n: int) -> dict[str, Any]:
    """Smaller and paler with more points; as pixels in vector files beyond 2,000."""
    size, alpha = (5.0, 0.8) if n <= 60 else (4.0, 0.6) if n <= 500 else (2.5, 0.35)
    return {"marker": "o", "markersize": size, "alpha": alpha, "markeredgewidth": 0, "rasterized": n > 2000}


def titles(ax: Axes, x_label: str, y_label: str, title: str) -> None:
    """Labels of the axes and a title that fits a small panel."""
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.set_title(title, fontsize="medium")


def nothing(ax: Axes, text: str) -> None:
    """An empty panel that says why."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=GREY)
    ax.set(xticks=[], yticks=[])


def note(ax: Axes, text: str) -> None:
    """A grey remark in the upper left corner."""
    ax.text(0.02, 0.98, text, transform=ax.transAxes, va="top", fontsize="x-small", color="0.4")


def annotate(ax: Axes, x: float, y: float, text: str, to_left: bool) -> None:
    """A small name beside a point."""
    ax.annotate(
        text,
        (x, y),
        xytext=(-4 if to_left else 4, 2),
        textcoords="offset points",
        ha="right" if to_left else "left",
        fontsize="x-small",
    )


def small_legend(ax: Axes, where: str) -> None:
    """A legend that takes little room."""
    ax.legend(fontsize="x-small", frameon=True, framealpha=0.7, loc=where, handlelength=1.6, borderpad=0.3)


def whole_ticks(ax: Axes) -> None:
    """Ticks at whole numbers only on the x-axis."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    low, high = ax.get_xlim()
    if high - low < 1:  # a single point
        ax.set_xlim(low - 0.5, high + 0.5)
