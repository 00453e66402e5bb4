"""plot_effects, and plot_diagnostics for families without a deviance: what is drawn is what was computed."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
import pytest

import hlik

GROUP = np.repeat(np.arange(10), 8)
DOSE = np.tile(np.arange(8.0), 10)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def build(family="poisson"):
    rng = np.random.default_rng(0)
    mean = np.exp(1 + 0.1 * DOSE + rng.normal(0, 0.5, 10)[GROUP])
    with pm.Model() as model:
        beta, s = pm.Normal("beta", 0, 5, shape=2), pm.HalfNormal("s", 1)
        dose, group = pm.Data("dose", DOSE), pm.Data("group", GROUP)
        mu = pm.math.exp(beta[0] + beta[1] * dose + pm.Normal("u", 0, s, shape=10)[group])
        if family == "poisson":
            pm.Poisson("y", mu, observed=rng.poisson(mean))
        else:
            y = rng.negative_binomial(2.0, 2 / (2 + mean))
            pm.NegativeBinomial("y", mu=mu, alpha=pm.HalfNormal("alpha", 5), observed=y)
    return model


@pytest.fixture(scope="module")
def fitted():
    model = build()
    return model, hlik.fit(model, progressbar=False, draws=0)


def test_grid_of_a_container(fitted):
    ax = hlik.plot_effects(*fitted, "dose")
    x, y = ax.lines[0].get_data()
    assert x.size == 60
    assert (x[0], x[-1]) == (0.0, 7.0)
    beta = fitted[1]["estimates"]["beta"].values
    np.testing.assert_allclose(y, np.exp(beta[0] + beta[1] * x), rtol=1e-10)
    rows = {"dose": x, "group": np.zeros(60, int)}
    expected = hlik.predict(*fitted, rows, random="zero", kind="response")
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(expected["lower"].min(), rel=1e-10)
    assert band[:, 1].max() == pytest.approx(expected["upper"].max(), rel=1e-10)


def test_a_line_for_each_level(fitted):
    ax = hlik.plot_effects(*fitted, "dose", by="group", random="conditional", kind="link")
    assert len(ax.lines) == 10
    u, beta = fitted[1]["estimates"]["u"].values, fitted[1]["estimates"]["beta"].values
    np.testing.assert_allclose(ax.lines[4].get_ydata()[0], beta[0] + u[4], rtol=1e-9)
    assert ax.get_legend().get_texts()[4].get_text() == "group = 4"


def test_words_are_points(fitted):
    rows = pd.DataFrame({"dose": [0.0, 7.0], "group": [0, 0], "name": ["none", "high"]})
    figure, own = plt.subplots()
    ax = hlik.plot_effects(*fitted, "name", rows, ax=own)
    assert ax is own
    assert [text.get_text() for text in ax.get_xticklabels()] == ["none", "high"]
    expected = hlik.predict(*fitted, rows, random="zero", kind="response")["estimate"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), expected, rtol=1e-12)
    assert plt.get_fignums() == [figure.number]


def test_errors(fitted):
    with pytest.raises(hlik.ModelError, match="container of one axis"):
        hlik.plot_effects(*fitted, "age")
    with pytest.raises(hlik.ModelError, match="not in the data"):
        hlik.plot_effects(*fitted, "age", {"dose": [1.0], "group": [0]})


def test_diagnostics_of_a_family_without_deviance():
    idata = hlik.fit(build("negative binomial"), "laplace", progressbar=False, draws=0)
    axes = hlik.plot_diagnostics(idata)
    assert axes.shape == (2, 4)
    residual = hlik.residuals(idata, "quantile", random_seed=0).values
    drawn = {tuple(np.round(pair, 9)) for line in axes[0, 0].lines for pair in zip(*line.get_data(), strict=True)}
    fitted_mean = idata["diagnostics"]["y_fitted"].values
    assert {tuple(np.round(pair, 9)) for pair in zip(fitted_mean, residual, strict=True)} <= drawn
    assert sum(bar.get_height() for bar in axes[0, 2].patches[-8:]) == 80  # sqrt(80) bars
    assert "no deviance" in axes[0, 3].texts[0].get_text()


def test_columns_of_a_formula():
    """A grid over a column of the data frame, others at their means, a line for each level of a factor."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"x": rng.normal(size=60), "w": rng.normal(2, 1, 60), "g": np.tile(list("abcdef"), 10)})
    frame["kind"] = np.where(rng.uniform(size=60) < 0.5, "old", "new")
    frame["y"] = rng.poisson(
        np.exp(1 + 0.4 * frame.x + 0.2 * (frame.kind == "old") + rng.normal(0, 0.5, 6)[np.tile(range(6), 10)])
    )
    model = hlik.from_formula("y ~ x + w + kind + (1 | g)", frame, family="poisson")
    idata = hlik.fit(model, progressbar=False, draws=0)
    ax = hlik.plot_effects(model, idata, "x", by="kind")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["kind = new", "kind = old"]
    b = idata.estimates
    along = np.linspace(frame.x.min(), frame.x.max(), 60)
    mean = np.exp(float(b["Intercept"]) + float(b["x"]) * along + float(b["w"]) * frame.w.mean())
    np.testing.assert_allclose(ax.lines[0].get_xdata(), along)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), mean, rtol=1e-8)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), mean * np.exp(b["kind"].values.item()), rtol=1e-8)
    with pytest.raises(hlik.ModelError, match="column of the formula's data"):
        hlik.plot_effects(model, idata, "z")
    plt.close("all")
