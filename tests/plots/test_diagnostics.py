"""Diagnostic pictures draw what the InferenceData holds."""

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from scipy import stats

from hlik import ModelError
from hlik.plots import plot_diagnostics, plot_history, plot_ranef, quantiles
from tests.plots.results import changed, large, points, text_in


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
