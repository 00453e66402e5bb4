"""The picture of profile likelihoods: what is drawn, and what is refused."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import hlik


def curves(names=("beta", "sigma")):
    """A quadratic likelihood: zeta is linear, and the 95 % interval is 2 -+ 1.96 * 0.5."""
    value = np.linspace(0.5, 3.5, 13)
    table = pd.DataFrame({"value": value, "unconstrained": value, "zeta": (value - 2) / 0.5, "log_likelihood": 0.0})
    return pd.concat([table.assign(parameter=name) for name in names])


def test_lines_and_intervals():
    axes = hlik.plot_profile(curves())
    assert [ax.get_title() for ax in axes] == ["beta", "sigma"]
    line = axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), np.abs(line.get_xdata() - 2) / 0.5)
    bars = [part.get_segments()[0] for part in axes[0].collections]
    quantile = stats.norm.ppf(0.975)
    bar = next(b for b in bars if np.allclose(b[:, 1], quantile))
    np.testing.assert_allclose(bar[:, 0], 2 + 0.5 * np.array([-quantile, quantile]))
    plt.close(axes[0].figure)


def test_given_axes_and_many_panels():
    figure, ax = plt.subplots()
    assert hlik.plot_profile(curves(("a",)), axes=ax)[0] is ax
    plt.close(figure)
    axes = hlik.plot_profile(curves([f"b{k}" for k in range(6)]))
    assert len(axes) == 6
    assert len(axes[0].figure.axes) == 6
    plt.close(axes[0].figure)


def test_a_side_that_never_rises_has_no_end():
    half = curves(("sigma",)).query("zeta > -1")
    ax = hlik.plot_profile(half)[0]
    ends = [part.get_segments()[0] for part in ax.collections]
    upright = [e for e in ends if e[0, 0] == e[1, 0]]
    assert all(e[0, 0] > 2 or e[1, 1] < 1 for e in upright)
    plt.close(ax.figure)


def test_other_tables_are_refused():
    with pytest.raises(hlik.ModelError, match=r"the table that hlik\.profile"):
        hlik.plot_profile(pd.DataFrame({"value": [1.0]}))
