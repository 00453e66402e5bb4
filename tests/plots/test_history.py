"""The path of a fit in pictures."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from hlik.plots import plot_history
from models import seeds
from tests.plots.results import changed


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
