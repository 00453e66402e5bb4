"""Pictures of random effects, beside the table and SciPy's order statistics."""

import json
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from scipy import stats

import hlik
from hlik.plots import plot_diagnostics, plot_ranef
from hlik.plots.read import level_labels, terms
from tests.plots.results import band, changed, large, points

NORMAL = stats.norm()


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
