"""What cannot be drawn is an error that says why."""

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pytest

from hlik import ModelError
from hlik.plots import plot_diagnostics, plot_history, plot_ranef
from tests.plots.results import changed


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
