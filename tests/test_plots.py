"""The pictures: what they draw is what the InferenceData holds, and numbers beside SciPy's."""

import json
from itertools import pairwise

import arviz as az
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytest
import xarray as xr
from scipy import stats

import hlik
from hlik import ModelError
from hlik.plots import plot_diagnostics, plot_history, plot_ranef, quantiles
from hlik.plots.read import level_labels, terms
from models import bacteria, seeds

NORMAL, CHI2 = stats.norm(), stats.chi2(1)


@pytest.fixture(autouse=True)
def _no_figure_is_left_over():
    assert not plt.get_fignums()
    settings = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == settings
    plt.close("all")


@pytest.fixture(scope="module")
def seeds_fit() -> az.InferenceData:
    return hlik.fit(seeds.build(seeds.load()), draws=0, progressbar=False)


@pytest.fixture(scope="module")
def bacteria_fit() -> az.InferenceData:
    return hlik.fit(bacteria.build(bacteria.load()), draws=0, progressbar=False)


@pytest.fixture(scope="module")
def joint_fit() -> az.InferenceData:
    """Two responses with a common effect of a patient, and a gamma effect in one of them."""
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(12), 5)
    shared, own = rng.normal(0, 0.7, 12), rng.gamma(5, 1 / 5, 12)
    weight = rng.normal(1 + shared[patient], 0.5)
    seizures = rng.poisson(np.exp(1 + shared[patient]) * own[patient])
    with pm.Model(coords={"patient": [f"P{k}" for k in range(12)], "visit": np.arange(60)}) as model:
        a, b = pm.Normal("a", 0, 5), pm.Normal("b", 0, 5)
        sigma, sigma_u, lam = (pm.HalfNormal(name, 1) for name in ("sigma", "sigma_u", "lam"))
        u = pm.Normal("u", 0, sigma_u, dims="patient")
        w = pm.Gamma("w", 1 / lam, 1 / lam, dims="patient")
        pm.Normal("weight", a + u[patient], sigma, observed=weight, dims="visit")
        mu = pm.math.exp(b + u[patient]) * w[patient]
        pm.Poisson("seizures", mu, observed=seizures, dims="visit")
    return hlik.fit(model, draws=0, progressbar=False)


@pytest.fixture(scope="module")
def two_levels_fit() -> az.InferenceData:
    with pm.Model(coords={"site": ["north", "south"]}) as model:
        mean, sigma, sigma_u = pm.Normal("mean", 0, 5), pm.HalfNormal("sigma"), pm.HalfNormal("sigma_u")
        u = pm.Normal("u", 0, sigma_u, dims="site")
        y = [1.1, 0.7, 1.4, 1.9, 2.3, 2.6, 2.2]
        pm.Normal("y", mean + u[np.array([0, 0, 0, 1, 1, 1, 1])], sigma, observed=y)
    return hlik.fit(model, draws=0, progressbar=False)


@pytest.fixture(scope="module")
def fixed_fit() -> az.InferenceData:
    """No random effects."""
    x = np.linspace(-1, 1, 20)
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 5, shape=2)
        y = np.random.default_rng(2).poisson(np.exp(1 + x))
        pm.Poisson("y", pm.math.exp(beta[0] + beta[1] * x), observed=y)
    return hlik.fit(model, draws=0, progressbar=False)


def changed(idata: az.InferenceData, **groups: dict[str, xr.DataArray]) -> az.InferenceData:
    """A copy in which some variables of some groups are others."""
    parts = {group: idata[group].copy() for group in idata.groups()}
    for group, variables in groups.items():
        data = parts[group].drop_vars(list(variables))
        parts[group] = data.drop_vars([c for c in data.coords if c in ("obs", "plate")]).assign(variables)
    return az.InferenceData(**parts)


def large(idata: az.InferenceData, n: int) -> az.InferenceData:
    """The seeds fit with n observations and n levels of made-up diagnostics."""
    rng = np.random.default_rng(5)
    chi2, leverage = rng.chisquare(1, n), rng.uniform(0.1, 0.3, n)
    made = {
        "linear_predictor": rng.normal(size=n),
        "fitted": rng.uniform(size=n),
        "leverage": leverage,
        "deviance": chi2,
        "dispersion": np.ones(n),
        "residual_deviance": np.sqrt(chi2),
        "residual_pearson": np.sqrt(chi2),
        "residual_studentised": rng.normal(size=n),
    }
    diagnostics = {f"r_{name}": xr.DataArray(values, dims="row") for name, values in made.items()}
    for name in ("leverage", "deviance", "dispersion"):
        diagnostics[f"u_{name}"] = xr.DataArray(made[name], dims="level")
    v, error = rng.normal(size=n), np.full(n, 0.1)
    return changed(
        idata,
        diagnostics=diagnostics,
        observed_data={"r": xr.DataArray(np.arange(n), dims="row")},
        unconstrained_estimates={"u_logodds__": xr.DataArray(v, dims="level")},
        unconstrained_standard_errors={"u_logodds__": xr.DataArray(error, dims="level")},
    )


def points(ax, line: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of one of the Line2D objects drawn as markers."""
    marked = [found for found in ax.lines if found.get_marker() == "o"]
    return marked[line].get_data()


def band(ax) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, lower, upper) of the first filled band."""
    (path,) = ax.collections[0].get_paths()
    n = (len(path.vertices) - 3) // 2
    x, y = path.vertices.T
    return x[1 : n + 1], y[1 : n + 1], y[n + 2 : 2 * n + 2][::-1]


def text_in(ax) -> str:
    return " ".join(text.get_text() for text in ax.texts)


# ------------------------------------------------------------------------------------------ numbers


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


# ------------------------------------------------------------------------------------------ diagnostics


def test_diagnostics_show_what_the_result_holds(seeds_fit):
    axes = plot_diagnostics(seeds_fit)
    d = seeds_fit["diagnostics"]
    assert axes.shape == (2, 4)
    assert len(plt.get_fignums()) == 1
    assert len(axes[0, 0].figure.axes) == 8

    np.testing.assert_array_equal(points(axes[0, 0]), [d["r_linear_predictor"], d["r_residual_studentised"]])
    np.testing.assert_array_equal(points(axes[0, 1])[1], np.sort(d["r_residual_studentised"]))
    np.testing.assert_array_equal(points(axes[0, 2]), [np.arange(21), d["r_leverage"]])
    np.testing.assert_array_equal(points(axes[1, 2]), [np.arange(21), d["u_leverage"]])
    rank = np.arange(1, 22)
    median = stats.beta(rank, 22 - rank).median()
    for ax, name in ((axes[0, 3], "r"), (axes[1, 3], "u")):
        scaled = d[f"{name}_deviance"] / (d[f"{name}_dispersion"] * (1 - d[f"{name}_leverage"]))
        x, y = points(ax)
        np.testing.assert_allclose(y, np.sort(scaled), rtol=1e-12)
        np.testing.assert_allclose(x, stats.gamma(0.5, scale=2).ppf(median), rtol=1e-10)
    assert [ax.get_title() for ax in axes[0]] == [
        "r: residuals",
        "r: residuals, normal Q-Q",
        "r: leverages",
        "r: deviances, gamma Q-Q",
    ]
    assert axes[0, 0].get_xlabel() == "linear predictor (logit scale)"
    assert all(ax.get_xlabel() for ax in axes.flat)


def test_residual_panel_has_the_local_means(seeds_fit):
    ax = plot_diagnostics(seeds_fit)[0, 0]
    x, residual = points(ax)
    for label, y in (("local mean", residual), ("of |residual|", np.abs(residual))):
        (line,) = [found for found in ax.lines if found.get_label() == label]
        expected = quantiles.local_linear(np.asarray(x), np.asarray(y), 2 / 3)
        np.testing.assert_allclose(line.get_data(), expected)


def test_caterpillar_shows_sorted_predictions_with_their_intervals(seeds_fit):
    ax = plot_diagnostics(seeds_fit)[1, 0]
    v = seeds_fit["unconstrained_estimates"]["u_logodds__"]
    error = seeds_fit["unconstrained_standard_errors"]["u_logodds__"].values
    order = np.argsort(v.values)
    np.testing.assert_array_equal(points(ax), [v.values[order], np.arange(21)])
    ends = np.array([segment[:, 0] for segment in ax.collections[0].get_segments()])
    half = 1.959963984540054 * error[order]
    np.testing.assert_allclose(ends, np.c_[v.values[order] - half, v.values[order] + half], rtol=1e-12)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == [str(plate) for plate in v["plate"].values[order]]
    assert ax.get_xlabel() == "logit(u), 95% intervals"
    assert ax.get_title() == "u: random effects"


def test_axes_that_are_passed_are_used(seeds_fit):
    figure, given = plt.subplots(4, 2)
    axes = plot_diagnostics(seeds_fit, axes=given)
    assert plt.get_fignums() == [figure.number]
    assert list(axes.flat) == list(given.flat)
    assert all(ax.has_data() for ax in given.flat)


def test_figsize(seeds_fit):
    figure = plot_diagnostics(seeds_fit, figsize=(9, 5))[0, 0].figure
    assert tuple(figure.get_size_inches()) == (9, 5)


def test_every_response_and_every_term_has_a_row(joint_fit):
    axes = plot_diagnostics(joint_fit)
    assert axes.shape == (4, 4)
    assert [row[0].get_title() for row in axes] == [
        "weight: residuals",
        "seizures: residuals",
        "u: random effects",
        "w: random effects",
    ]
    assert axes[3, 0].get_xlabel() == "log(w), 95% intervals"
    assert axes[0, 0].get_xlabel() == "linear predictor"


def test_one_response_can_be_chosen(joint_fit):
    axes = plot_diagnostics(joint_fit, response="seizures")
    assert [row[0].get_title().split(":")[0] for row in axes] == ["seizures", "u", "w"]
    np.testing.assert_array_equal(points(axes[0, 0])[1], joint_fit["diagnostics"]["seizures_residual_studentised"])


def test_without_random_effects(fixed_fit):
    axes = plot_diagnostics(fixed_fit)
    assert axes.shape == (1, 4)
    with pytest.raises(ModelError, match="no random effects"):
        plot_ranef(fixed_fit)


def test_two_levels(two_levels_fit):
    axes = plot_diagnostics(two_levels_fit)
    assert [label.get_text() for label in axes[1, 0].get_yticklabels()] == ["north", "south"]
    assert all(float(tick).is_integer() for tick in axes[1, 2].get_xticks())
    axes[0, 0].figure.canvas.draw()


def test_binary_data_say_so(bacteria_fit, seeds_fit):
    axes = plot_diagnostics(bacteria_fit)
    assert "0/1 data" in text_in(axes[0, 1])
    assert "0/1 data" in text_in(axes[0, 3])
    labels = [line.get_label() for line in axes[0, 0].lines]
    assert "local mean" in labels
    assert "of |residual|" not in labels
    plt.close("all")
    assert "0/1 data" not in text_in(plot_diagnostics(seeds_fit)[0, 1])


def test_works_after_netcdf(seeds_fit, tmp_path):
    path = tmp_path / "fit.nc"
    seeds_fit.to_netcdf(str(path))
    read = az.from_netcdf(str(path))
    for plot in (plot_diagnostics, plot_ranef, plot_history):
        before, after = plot(seeds_fit), plot(read)
        assert [ax.get_title() for ax in before.flat] == [ax.get_title() for ax in after.flat]
        for one, other in zip(before.flat, after.flat, strict=True):
            for line, same in zip(one.lines, other.lines, strict=True):
                np.testing.assert_array_equal(line.get_data(), same.get_data())
        plt.close("all")


def test_nothing_in_the_result_is_changed(seeds_fit):
    before = {group: seeds_fit[group].copy(deep=True) for group in seeds_fit.groups()}
    plot_diagnostics(seeds_fit)
    plot_ranef(seeds_fit)
    plot_history(seeds_fit)
    for group, data in before.items():
        xr.testing.assert_identical(seeds_fit[group], data)


def test_thousands_of_levels(seeds_fit):
    axes = plot_diagnostics(large(seeds_fit, 30_000))
    for ax in (axes[0, 0], axes[0, 2], axes[1, 2]):  # counts in hexagons
        assert "30,000 points" in text_in(ax)
        assert sum(np.asarray(ax.collections[0].get_array()) > 0) > 50
    assert len(points(axes[1, 0])[0]) == 60
    assert "60 of 30,000 levels" in axes[1, 0].get_title()
    for ax in (axes[0, 1], axes[0, 3], axes[1, 1], axes[1, 3]):
        assert len(points(ax)[0]) <= 2000
    axes[0, 0].figure.canvas.draw()


def test_hexagons_count_every_point(seeds_fit):
    ax = plot_diagnostics(large(seeds_fit, 30_000))[0, 2]
    assert np.sum(ax.collections[0].get_array()) == 30_000


def test_equal_leverages_of_many_points_are_visible(seeds_fit):
    idata = large(seeds_fit, 30_000)
    leverage = xr.full_like(idata["diagnostics"]["r_leverage"], 0.2)
    idata["diagnostics"]["r_leverage"] = leverage
    ax = plot_diagnostics(idata)[0, 2]
    hexagons = ax.collections[0]
    height = np.ptp(hexagons.get_paths()[0].vertices[:, 1])
    assert height > 0.01 * np.ptp(ax.get_ylim())


def test_variance_at_zero(seeds_fit):
    d = seeds_fit["diagnostics"]
    zero = xr.zeros_like(d["u_leverage"])
    own = {"u_logodds__": zero.rename("u_logodds__")}
    idata = changed(
        seeds_fit,
        diagnostics={"u_dispersion": zero, "u_deviance": zero, "u_leverage": zero + 1},
        unconstrained_estimates=own,
        unconstrained_standard_errors={"u_logodds__": zero * np.nan},
    )
    axes = plot_diagnostics(idata)
    np.testing.assert_array_equal(points(axes[1, 0])[0], np.zeros(21))
    assert "no variation" in text_in(axes[1, 3])
    axes[0, 0].figure.canvas.draw()


def test_exactly_fitted_observations_are_left_out(seeds_fit):
    d = seeds_fit["diagnostics"]
    leverage, residual = d["r_leverage"].copy(deep=True), d["r_residual_studentised"].copy(deep=True)
    leverage[3], residual[3] = 1.0, np.nan
    idata = changed(seeds_fit, diagnostics={"r_leverage": leverage, "r_residual_studentised": residual})
    axes = plot_diagnostics(idata)
    assert [len(points(ax)[0]) for ax in axes[0]] == [20, 20, 21, 20]


def test_large_leverages_are_named(seeds_fit):
    leverage = xr.full_like(seeds_fit["diagnostics"]["r_leverage"], 0.1)
    leverage[4] = 0.9
    coords = {"obs": [f"row {k}" for k in range(21)]}
    idata = changed(seeds_fit, diagnostics={"r_leverage": leverage.drop_vars("obs").assign_coords(coords)})
    axes = plot_diagnostics(idata)
    assert text_in(axes[0, 2]) == "row 4"
    assert text_in(axes[1, 2]) == ""


# ------------------------------------------------------------------------------------------ random effects


def test_ranef_quantiles_and_envelope_are_scipys(seeds_fit):
    axes = plot_ranef(seeds_fit, level=0.8)
    assert axes.shape == (1, 2)
    v = np.sort(seeds_fit["unconstrained_estimates"]["u_logodds__"].values)
    rank = np.arange(1, 22)
    beta = stats.beta(rank, 22 - rank)
    x, y = points(axes[0, 1])
    np.testing.assert_array_equal(y, v)
    np.testing.assert_allclose(x, NORMAL.ppf(beta.median()), rtol=1e-10, atol=1e-12)
    low, high = np.quantile(v, [0.25, 0.75], method="median_unbiased")
    slope = (high - low) / (NORMAL.ppf(0.75) - NORMAL.ppf(0.25))
    centre = (low + high) / 2
    at, lower, upper = band(axes[0, 1])
    np.testing.assert_allclose(at, x, atol=1e-12)
    np.testing.assert_allclose(lower, centre + slope * NORMAL.ppf(beta.ppf(0.1)), rtol=1e-10)
    np.testing.assert_allclose(upper, centre + slope * NORMAL.ppf(beta.ppf(0.9)), rtol=1e-10)
    assert axes[0, 0].get_xlabel() == "logit(u), 80% intervals"


def test_ranef_agrees_with_the_table(joint_fit):
    table = hlik.ranef(joint_fit)
    axes = plot_ranef(joint_fit, "w")
    assert axes.shape == (1, 2)
    w = table[table["term"] == "w"].sort_values("v")
    np.testing.assert_allclose(points(axes[0, 0])[0], w["v"])
    ends = np.array([segment[:, 0] for segment in axes[0, 0].collections[0].get_segments()])
    np.testing.assert_allclose(np.exp(ends), w[["lower", "upper"]], rtol=1e-10)


def test_ranef_chooses_terms_and_levels(joint_fit):
    assert plot_ranef(joint_fit).shape == (2, 2)
    axes = plot_ranef(joint_fit, ["w", "u"], most=5)
    assert [row[0].get_title() for row in axes] == [
        f"{name}: random effects\n5 of 12 levels, evenly by rank" for name in ("w", "u")
    ]
    u = np.sort(joint_fit["unconstrained_estimates"]["u"].values)
    np.testing.assert_array_equal(points(axes[1, 0])[0], u[[0, 3, 6, 8, 11]])


def test_ranef_uses_axes_that_are_passed(joint_fit):
    figure, given = plt.subplots(2, 2)
    axes = plot_ranef(joint_fit, axes=list(given.ravel()))
    assert list(axes.flat) == list(given.flat)
    assert plt.get_fignums() == [figure.number]
    assert given[0, 1].get_box_aspect() is None


def test_names_of_sixty_levels_do_not_overlap(seeds_fit):
    ax = plot_ranef(large(seeds_fit, 2000))[0, 0]
    ax.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert len(boxes) == 60
    assert all(lower.y1 <= upper.y0 + 1 for lower, upper in pairwise(boxes))


def test_names_of_levels_are_left_out_where_they_do_not_fit(seeds_fit):
    assert list(plot_diagnostics(large(seeds_fit, 2000))[1, 0].get_yticks()) == []


def test_labels_of_levels():
    where = xr.DataArray(np.zeros((2, 2)), dims=("g", "c"), coords={"g": ["one", "two"]})
    assert level_labels(where, np.array([3, 0])) == ["two, 1", "one, 0"]
    long = xr.DataArray(np.zeros(1), dims="g", coords={"g": ["abcdefghijklmnopqrstuvwxyz"]})
    assert level_labels(long, np.array([0]), longest=9) == ["abcd…wxyz"]
    assert level_labels(xr.DataArray(0.0), np.array([0])) == [""]


@pytest.mark.parametrize(
    ("scale", "label", "centre"),
    [("inverse", "1/u", 1.0), ("log", "log(u)", 0.0), ("identity", "u", 0.0), (None, "u_logodds__", 0.0)],
)
def test_scales_of_v(seeds_fit, scale, label, centre):
    described = json.loads(seeds_fit["fit"].attrs["model"])
    described["random_effects"][0]["scale"] = scale
    idata = changed(seeds_fit)
    idata["fit"].attrs["model"] = json.dumps(described)
    (term,) = terms(idata)
    assert (term.label, term.centre) == (label, centre)
    ax = plot_ranef(idata)[0, 0]
    (line,) = [found for found in ax.lines if len(found.get_xdata()) == 2]
    assert set(line.get_xdata()) == {centre}


# ------------------------------------------------------------------------------------------ history


def test_history_shows_every_variable(seeds_fit):
    path = seeds_fit["history"]
    axes = plot_history(seeds_fit)
    assert [ax.get_title() for ax in axes] == list(path.data_vars)
    assert axes[0].figure.axes == list(axes)  # unused places are empty
    for name, ax in zip(path.data_vars, axes, strict=True):
        drawn = np.array([line.get_ydata() for line in ax.lines])
        np.testing.assert_array_equal(drawn.T, path[name].values.reshape(path.sizes["iteration"], -1))
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), path["iteration"])
    assert axes[list(path.data_vars).index("step")].get_yscale() == "log"
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert labels == list(seeds.COEFFICIENTS)


def test_history_uses_axes_that_are_passed_and_thins_long_parameters(seeds_fit):
    iterations = seeds_fit["history"].sizes["iteration"]
    many = xr.DataArray(np.random.default_rng(0).normal(size=(iterations, 300)), dims=("iteration", "k"))
    idata = changed(seeds_fit, history={"beta": many})
    names = list(idata["history"].data_vars)
    figure, given = plt.subplots(len(names))
    axes = plot_history(idata, axes=given)
    assert list(axes) == list(given)
    assert plt.get_fignums() == [figure.number]
    beta = axes[names.index("beta")]
    assert (beta.get_title(), len(beta.lines)) == ("beta (20 of 300)", 20)


# ------------------------------------------------------------------------------------------ errors


def test_wrong_names_are_errors_that_say_which_there_are(joint_fit, fixed_fit):
    with pytest.raises(ModelError, match=r"No response is called 'height': there are weight, seizures\."):
        plot_diagnostics(joint_fit, response="height")
    with pytest.raises(ModelError, match=r"No random effect is called 'plate': there are u, w\."):
        plot_ranef(joint_fit, ["u", "plate"])
    with pytest.raises(ModelError, match=r"No random effect is called 'u': the model has none\."):
        plot_ranef(fixed_fit, "u")
    with pytest.raises(ModelError, match="No response was asked for"):
        plot_diagnostics(joint_fit, response=[])
    assert not plt.get_fignums()


def test_wrong_arguments_are_errors(seeds_fit):
    figure, given = plt.subplots(1, 3)
    with pytest.raises(ModelError, match="2 x 4 = 8 panels; got 3 axes"):
        plot_diagnostics(seeds_fit, axes=given)
    with pytest.raises(ModelError, match="level must lie between 0 and 1; got 95"):
        plot_ranef(seeds_fit, level=95)
    with pytest.raises(ModelError, match="at least 2 levels; got 1"):
        plot_ranef(seeds_fit, most=1)
    assert plt.get_fignums() == [figure.number]


def test_other_results_are_errors(seeds_fit):
    other = az.from_dict(posterior={"mu": np.zeros((1, 3))})
    for plot in (plot_diagnostics, plot_ranef, plot_history):
        with pytest.raises(ModelError, match=r"not a result of hlik\.fit"):
            plot(other)
    without = az.InferenceData(
        **{group: seeds_fit[group] for group in seeds_fit.groups() if group not in ("diagnostics", "history")}
    )
    with pytest.raises(ModelError, match="no group 'diagnostics'"):
        plot_diagnostics(without)
    with pytest.raises(ModelError, match="no history"):
        plot_history(without)
    assert plot_ranef(without).shape == (1, 2)
    part = changed(seeds_fit)
    part["diagnostics"] = part["diagnostics"].drop_vars("u_deviance")
    with pytest.raises(ModelError, match="has no 'u_deviance'"):
        plot_diagnostics(part)
