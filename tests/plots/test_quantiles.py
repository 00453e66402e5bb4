"""Numbers behind the pictures, beside SciPy's."""

import numpy as np
import pytest
from scipy import stats

from hlik.plots import quantiles

NORMAL, CHI2 = stats.norm(), stats.chi2(1)


@pytest.mark.parametrize("distribution", [NORMAL, CHI2], ids=["normal", "chi2"])
def test_quantile_plot_is_scipys_order_statistics(distribution):
    values = distribution.rvs(17, random_state=1)
    found = quantiles.quantile_plot(values, distribution, level=0.9)
    rank = np.arange(1, 18)
    beta = stats.beta(rank, 18 - rank)
    np.testing.assert_allclose(found.theoretical, distribution.ppf(beta.median()), rtol=1e-12)
    np.testing.assert_allclose(found.lower, distribution.ppf(beta.ppf(0.05)), rtol=1e-12)
    np.testing.assert_allclose(found.upper, distribution.ppf(beta.ppf(0.95)), rtol=1e-12)
    np.testing.assert_array_equal(found.ordered, np.sort(values))
    np.testing.assert_array_equal(values[found.position], found.ordered)


def test_quantile_band_covers_pointwise():
    rng = np.random.default_rng(3)
    draws = np.sort(rng.standard_normal((4000, 9)), axis=1)
    found = quantiles.quantile_plot(draws[0], NORMAL, level=0.95)
    inside = np.mean((draws > found.lower) & (draws < found.upper), axis=0)
    # Five binomial standard errors of 4,000 draws.
    np.testing.assert_allclose(inside, 0.95, atol=5 * np.sqrt(0.95 * 0.05 / 4000))


def test_quantile_plot_leaves_out_what_is_not_finite():
    found = quantiles.quantile_plot(np.array([2.0, np.nan, 1.0, np.inf]), NORMAL)
    np.testing.assert_array_equal(found.ordered, [1.0, 2.0])
    np.testing.assert_array_equal(found.position, [2, 0])
    assert quantiles.quantile_plot(np.array([np.nan]), NORMAL).ordered.size == 0


def test_thinned_quantile_plot_has_the_coordinates_of_the_whole_one():
    values = np.random.default_rng(4).normal(size=50_000)
    whole = quantiles.quantile_plot(values, NORMAL, most=50_000)
    thin = quantiles.quantile_plot(values, NORMAL, most=400)
    assert 300 < thin.ordered.size <= 400
    kept = np.searchsorted(whole.ordered, thin.ordered)
    np.testing.assert_array_equal(kept[[0, -1]], [0, 49_999])
    np.testing.assert_allclose(thin.theoretical, whole.theoretical[kept], rtol=1e-12)
    assert np.diff(thin.theoretical).max() < 0.5  # no holes


@pytest.mark.parametrize(("n", "most"), [(0, 5), (3, 5), (5, 5), (6, 5), (1000, 100), (10**6, 2000)])
def test_thinned_ranks_are_distinct_and_keep_both_ends(n, most):
    ranks = quantiles.thinned_ranks(n, most)
    assert len(ranks) <= most
    assert np.all(np.diff(ranks) > 0)
    if n:
        assert (ranks[0], ranks[-1]) == (0, n - 1)


def test_evenly_by_rank():
    values = np.array([5.0, 1.0, np.nan, 3.0, 2.0, 4.0])
    np.testing.assert_array_equal(values[quantiles.evenly_by_rank(values, 10)], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(values[quantiles.evenly_by_rank(values, 3)], [1, 3, 5])


def test_quartile_line_finds_location_and_scale():
    values = stats.norm(3, 2).ppf(stats.beta(np.arange(1, 102), 102 - np.arange(1, 102)).median())
    intercept, slope = quantiles.quartile_line(values, NORMAL)
    assert (intercept, slope) == (pytest.approx(3, abs=1e-10), pytest.approx(2, rel=1e-3))
    assert quantiles.quartile_line(np.zeros(5), NORMAL) is None
    assert quantiles.quartile_line(np.array([1.0]), NORMAL) is None


def test_scaled_deviance():
    found = quantiles.scaled_deviance(np.array([2.0, 2.0, 0.0]), np.array([4.0, 4.0, 0.0]), np.array([0.5, 1.0, 0.5]))
    np.testing.assert_array_equal(found, [1.0, np.nan, np.nan])


def test_local_linear_reproduces_a_line_and_is_weighted_least_squares():
    rng = np.random.default_rng(6)
    x = rng.normal(size=40)
    grid, fitted = quantiles.local_linear(x, 3 - 2 * x, span=0.5)
    np.testing.assert_allclose(fitted, 3 - 2 * grid, rtol=1e-10, atol=1e-12)

    y = rng.normal(size=40)
    grid, fitted = quantiles.local_linear(x, y, span=0.5, points=7)
    for centre, value in zip(grid, fitted, strict=True):
        distance = np.abs(x - centre)
        weight = np.maximum(1 - (distance / np.sort(distance)[19]) ** 3, 0) ** 1.5  # its square root
        assert np.polyval(np.polyfit(x - centre, y, 1, w=weight), 0) == pytest.approx(value, rel=1e-6)


def test_local_linear_of_many_points_groups_neighbours():
    x = np.random.default_rng(7).uniform(0, 6, 20_000)
    whole = quantiles.local_linear(x, np.sin(x), 0.1, most=20_000)
    grouped = quantiles.local_linear(x, np.sin(x), 0.1, most=1000)
    np.testing.assert_allclose(grouped, whole, atol=0.01)


def test_local_linear_with_ties_and_with_nothing_to_smooth():
    x = np.repeat(np.arange(7.0), 30)
    _, fitted = quantiles.local_linear(x, x**2, span=0.1)
    np.testing.assert_allclose(fitted, np.arange(7.0) ** 2, atol=1e-12)
    for x in (np.zeros(0), np.ones(50), np.repeat([1.0, 2.0], 20)):
        assert quantiles.local_linear(x, x, 0.5)[0].size == 0
