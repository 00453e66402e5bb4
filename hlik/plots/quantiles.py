"""The numbers behind the pictures: order statistics, lines, smooths, which of many points to show."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

FULL_LEVERAGE = 1.0 - 1e-8
"""Above it 1 - h is rounding error: the observation is fitted exactly and its residual says nothing."""


class QuantilePlot(NamedTuple):
    """Coordinates of a quantile-quantile plot, sorted; all of shape (points shown,)."""

    theoretical: np.ndarray
    """Median of each order statistic under the distribution."""
    ordered: np.ndarray
    """The data, sorted."""
    lower: np.ndarray
    upper: np.ndarray
    """Pointwise band of the order statistic under the distribution."""
    position: np.ndarray
    """Where each point stands in the data."""


def quantile_plot(values: np.ndarray, distribution: Any, level: float = 0.95, most: int = 2000) -> QuantilePlot:
    """Order statistics of a sample against a distribution, with an exact pointwise band.

    The k-th smallest of n independent draws from F is F^-1(B), B ~ Beta(k, n + 1 - k): its median and its
    central interval are F^-1 of those of B. The band is pointwise: of n points about (1 - `level`) n fall
    outside it, and neighbours together, since order statistics are correlated.

    Parameters
    ----------
    values
        The sample, shape (n,); values that are not finite are left out.
    distribution
        F, a frozen SciPy distribution.
    level
        Coverage of the band.
    most
        Points returned at most: of more, the middle is thinned and the tails are kept whole.

    Returns
    -------
    QuantilePlot
        Sorted coordinates.
    """
    position = np.flatnonzero(np.isfinite(values))
    position = position[np.argsort(values[position], kind="stable")]
    n = position.size
    shown = thinned_ranks(n, most)
    rank = shown + 1.0
    beta = stats.beta(rank, n - rank + 1.0)
    median, lower, upper = (distribution.ppf(beta.ppf(p)) for p in (0.5, 0.5 - level / 2, 0.5 + level / 2))
    points = position[shown]
    return QuantilePlot(median, values[points], lower, upper, points)


def thinned_ranks(n: int, most: int) -> np.ndarray:
    """Ranks (from 0) of at most `most` of n sorted points, evenly spaced in the logit of (rank + 1/2)/n.

    So the tails are kept whole and the spacing grows without a jump to the middle.
    """
    if n <= most:
        return np.arange(n)
    end = np.log(2.0 * n - 1.0)
    fraction = special.expit(np.linspace(-end, end, most))
    return np.unique(np.clip(np.round(fraction * n - 0.5), 0, n - 1).astype(int))


def evenly_by_rank(values: np.ndarray, most: int) -> np.ndarray:
    """Positions of at most `most` values in sorted order, evenly by rank, both extremes included."""
    position = np.flatnonzero(np.isfinite(values))
    position = position[np.argsort(values[position], kind="stable")]
    if position.size <= most:
        return position
    return position[np.linspace(0, position.size - 1, most).round().astype(int)]


def quartile_line(values: np.ndarray, distribution: Any) -> tuple[float, float] | None:
    """Intercept and slope of the line through the quartiles of a Q-Q plot; None without spread."""
    finite = values[np.isfinite(values)]
    if finite.size < 2:
        return None
    # This definition of a quantile goes with the medians that `quantile_plot` puts on the other axis.
    low, high = np.quantile(finite, [0.25, 0.75], method="median_unbiased")
    x_low, x_high = distribution.ppf([0.25, 0.75])
    slope = (high - low) / (x_high - x_low)
    return (float(low - slope * x_low), float(slope)) if slope > 0 else None


def scaled_deviance(deviance: np.ndarray, dispersion: np.ndarray, leverage: np.ndarray) -> np.ndarray:
    """d / (phi (1 - h)); NaN where the leverage is one or the dispersion zero."""
    usable = (leverage < FULL_LEVERAGE) & (dispersion > 0)
    free = np.where(usable, dispersion * (1.0 - leverage), 1.0)
    return np.where(usable, deviance / free, np.nan)


def span_of(n: int) -> float:
    """Share of the points that a local fit uses: 2/3 (R's loess.smooth) up to n = 300, 1/5 from 1,000."""
    return float(np.clip(200 / max(n, 1), 0.2, 2 / 3))


def local_linear(
    x: np.ndarray, y: np.ndarray, span: float, points: int = 50, most: int = 5000
) -> tuple[np.ndarray, np.ndarray]:
    """Local linear regression with tricube weights (loess, degree 1, not robust).

    Parameters
    ----------
    x, y
        The points, shape (n,), finite.
    span
        Share of the points, those nearest in x, that each local fit uses.
    points
        Evaluated at the distinct ones of so many quantiles of x, themselves points.
    most
        More points than that are first replaced by the means of `most` groups of neighbours.

    Returns
    -------
    grid, fitted
        Where, and the fit there; empty where x has fewer than six distinct values: nothing to smooth.

    References
    ----------
    Cleveland, W. S. (1979). Robust locally weighted regression and smoothing scatterplots. JASA 74, 829-836.
    """
    if _distinct(x) < 6:
        return np.zeros(0), np.zeros(0)
    if x.size > most:
        x, y = _means_of_neighbours(x, y, most)
    grid = np.unique(np.quantile(x, np.linspace(0, 1, points), method="nearest"))
    nearest = min(x.size, max(4, round(span * x.size))) - 1
    return grid, np.array([_local_fit(x - centre, y, nearest) for centre in grid])


def _local_fit(away: np.ndarray, y: np.ndarray, nearest: int) -> float:
    """The value at away = 0 of a line through the points up to the one numbered `nearest` by distance."""
    distance = np.abs(away)
    reach = np.partition(distance, nearest)[nearest] * (1 + 1e-9)
    if reach > 0:
        ratio = np.minimum(distance / reach, 1.0)
        short = 1.0 - ratio * ratio * ratio
        weight = short * short * short
    else:  # all the nearest points at one place: their mean
        weight = (distance == 0).astype(float)
    weight /= weight.sum()
    mean, level = weight @ away, weight @ y
    spread = weight @ (away - mean) ** 2
    slope = (weight @ ((away - mean) * (y - level))) / spread if spread > 1e-12 * reach**2 else 0.0
    return float(level - slope * mean)


def _means_of_neighbours(x: np.ndarray, y: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of x and y over groups, equal in size but for one, of points that are neighbours in x."""
    order = np.argsort(x, kind="stable")
    start = np.linspace(0, x.size, groups + 1).astype(int)
    size = np.diff(start)
    return np.add.reduceat(x[order], start[:-1]) / size, np.add.reduceat(y[order], start[:-1]) / size


def _distinct(x: np.ndarray) -> int:
    """Number of distinct values; those within 1e-9 of the range of each other count once."""
    ordered = np.sort(x)
    return int(np.sum(np.diff(ordered) > 1e-9 * np.ptp(x))) + 1 if x.size else 0
