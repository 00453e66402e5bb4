"""Fits side by side: the numbers, and what the explanations say of constructed cases."""

from __future__ import annotations

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytest
from scipy import optimize, stats

import hlik
from hlik.inference.compare_marginals import half_sample_mode
from models import bacteria

GROUP = np.repeat(np.arange(8), 6)


@pytest.fixture(scope="module")
def model():
    return build()


def build(scale=10.0):
    y = np.random.default_rng(1).poisson(np.exp(1 + np.random.default_rng(2).normal(0, 0.5, 8)[GROUP]))
    with pm.Model() as model:
        beta, s = pm.Normal("beta", 0, scale), pm.HalfNormal("s", 1)
        pm.Poisson("y", pm.math.exp(beta + pm.Normal("u", 0, s, shape=8)[GROUP]), observed=y)
    return model


@pytest.fixture(scope="module")
def laplace(model):
    return hlik.fit(model, "laplace", progressbar=False, random_seed=1)


def posterior(**draws):
    return az.from_dict({name: value.reshape(4, -1) for name, value in draws.items()})


def draws_at(idata, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    e, se = idata["estimates"], idata["standard_errors"]
    return {name: rng.normal(float(e[name]) + shift * float(se[name]), float(se[name]), 4000) for name in ("beta", "s")}


def test_numbers(laplace):
    found = hlik.compare({"L": laplace, "N": posterior(**draws_at(laplace, 0.5))})
    own, other = found.loc[("beta", "N")], found.loc[("beta", "L")]
    draws = draws_at(laplace, 0.5)["beta"]
    assert own["estimate"] == pytest.approx(draws.mean(), rel=1e-12)
    assert own["se"] == pytest.approx(draws.std(ddof=1), rel=1e-12)
    np.testing.assert_allclose([own["lower"], own["upper"]], np.quantile(draws, [0.025, 0.975]), rtol=1e-12)
    assert own["distance"] == pytest.approx((own["estimate"] - other["estimate"]) / max(own["se"], other["se"]))
    common = min(own["upper"], other["upper"]) - max(own["lower"], other["lower"])
    shorter = min(own["upper"] - own["lower"], other["upper"] - other["lower"])
    assert own["overlap"] == pytest.approx(common / shorter, rel=1e-12)
    table = hlik.summary(laplace)
    np.testing.assert_allclose(
        other[["lower", "upper"]].astype(float), table.loc["beta", ["lower", "upper"]], rtol=1e-12
    )


def test_explanations(laplace, model):
    same = posterior(**draws_at(laplace))
    assert (hlik.compare({"L": laplace, "N": same})["explanation"] == "").all()
    away = hlik.compare({"L": laplace, "N": posterior(**draws_at(laplace, 1.0))})
    assert away.loc[("beta", "N"), "explanation"] == "prior, or approximation of the likelihood"
    known = hlik.compare({"L": laplace, "N": posterior(**draws_at(laplace, 1.0))}, model=model)
    assert known.loc[("beta", "N"), "explanation"] == "approximation of the likelihood"  # the prior is flat
    skewed = draws_at(laplace)
    e, se = float(laplace["estimates"]["s"]), float(laplace["standard_errors"]["s"])
    skewed["s"] = (
        e - se / 2 + se * np.random.default_rng(0).gamma(1.3, 1.0, 4000)
    )  # mode at e - 0.2 se, mean e + 0.8 se
    found = hlik.compare({"L": laplace, "N": posterior(**skewed)}, var_names=["s"])
    assert found.loc[("s", "N"), "explanation"] == "skewness"


def test_pull_of_the_prior():
    """A narrow prior: the first-order pull is near that of the penalised likelihood, and is called the reason."""
    narrow = build(0.5)
    idata = hlik.fit(narrow, "laplace", progressbar=False, random_seed=1)
    beta, error = float(idata["estimates"]["beta"]), float(idata["standard_errors"]["beta"])
    drawn = posterior(**draws_at(idata, -0.8))
    found = hlik.compare({"L": idata, "N": drawn}, model=narrow)
    # the gradient of Normal(0, 0.5) at beta, and its covariance with log s through the half-normal's
    covariance = idata["fit"]["covariance_matrix"].values
    gradient = np.array([-beta / 0.25, 1 - float(idata["estimates"]["s"]) ** 2])
    assert found.loc[("beta", "N"), "prior_pull"] == pytest.approx(covariance[0] @ gradient / error, rel=1e-8)
    assert found.loc[("beta", "N"), "explanation"] == "prior"


def test_pull_between_two_maxima():
    """A penalised fit beside the plain one: the pull is the distance of their maxima, no model needed."""
    narrow = build(0.5)
    plain = hlik.fit(narrow, "laplace", progressbar=False, random_seed=1)
    penalised = hlik.fit(narrow, "laplace", priors="penalise", progressbar=False, random_seed=1)
    fits = {"L": plain, "P": penalised, "N": posterior(**draws_at(penalised))}
    found = hlik.compare(fits)
    ends = [float(idata["estimates"]["beta"]) for idata in (penalised, plain)]
    pull = (ends[0] - ends[1]) / float(plain["standard_errors"]["beta"])
    assert pull < -0.25
    for name in ("P", "N"):
        assert found.loc[("beta", name), "prior_pull"] == pytest.approx(pull, rel=1e-9)
        assert found.loc[("beta", name), "explanation"] == "prior"
    assert np.isnan(found.loc[("beta", "L"), "prior_pull"])
    logs = [float(np.log(idata["estimates"]["s"])) for idata in (penalised, plain)]
    error = float(plain["standard_errors"]["s"] / plain["estimates"]["s"])
    assert found.loc[("s", "P"), "prior_pull"] == pytest.approx((logs[0] - logs[1]) / error, rel=1e-6)
    both = hlik.compare(fits, reference="P")  # the posterior lies at the penalised maximum
    assert both.loc[("beta", "N"), "prior_pull"] == 0 and both.loc[("beta", "N"), "explanation"] == ""


def test_boundary():
    y = np.tile([2, 3, 4, 3, 2, 4], 8)  # groups alike: variance at zero
    with pm.Model() as model:
        beta, s = pm.Normal("beta", 0, 5), pm.HalfNormal("s", 1)
        pm.Poisson("y", pm.math.exp(beta + pm.Normal("u", 0, s, shape=8)[GROUP]), observed=y)
    with pytest.warns(hlik.ConvergenceWarning):
        idata = hlik.fit(model, "laplace", progressbar=False)
    drawn = posterior(
        beta=np.random.default_rng(0).normal(1.1, 0.1, 400), s=np.random.default_rng(1).gamma(2, 0.1, 400)
    )
    assert hlik.compare({"L": idata, "N": drawn}).loc[("s", "N"), "explanation"] == "boundary"


def test_half_sample_mode():
    """Of 20,000 gamma(3) draws, whose mode is 2, within the scatter of such an estimate (n^(-1/3) rates)."""
    draws = np.random.default_rng(0).gamma(3, 1, 20_000)
    assert half_sample_mode(draws) == pytest.approx(2.0, abs=0.15)
    exact = optimize.minimize_scalar(lambda t: -stats.gamma(3).pdf(t), bounds=(0, 6), method="bounded").x
    assert exact == pytest.approx(2.0, abs=1e-4)


def test_errors(laplace):
    with pytest.raises(hlik.ModelError, match="dictionary"):
        hlik.compare(laplace)
    with pytest.raises(hlik.ModelError, match="nothing to compare"):
        hlik.compare({"N": posterior(**draws_at(laplace))})
    with pytest.raises(hlik.ModelError, match="none of the fits"):
        hlik.compare({"L": laplace}, reference="M")
    with pytest.raises(hlik.ModelError, match="Not every fit"):
        hlik.compare({"L": laplace}, var_names=["tau"])


@pytest.mark.parametrize("scale", ["natural", "standardised"])
def test_plot(laplace, scale):
    ax = hlik.plot_compare({"L": laplace, "N": posterior(**draws_at(laplace, 1.0))}, scale=scale)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["beta", "s"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["L", "N"]
    points = ax.lines[1].get_xdata()
    if scale == "standardised":
        np.testing.assert_allclose(points, 1.0, atol=0.1)
    plt.close(ax.figure)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_bacteria_with_nuts():
    """EQL, Laplace, quadrature and NUTS on the same model: NUTS sides with quadrature, and EQL is off by 0.8 errors."""
    model = bacteria.build(bacteria.load())
    fits = {name: hlik.fit(model, name, progressbar=False, random_seed=1) for name in ("agq", "laplace", "eql")}
    start = hlik.warm_start(fits["laplace"], model, chains=2, random_seed=1)
    fits["NUTS"] = pm.sample(model=model, tune=300, draws=1000, cores=1, random_seed=3, progressbar=False, **start)
    found = hlik.compare(fits, model=model)
    assert (found.xs("NUTS", level="fit")["distance"].abs() < 0.35).all()
    eql = found.xs("eql", level="fit")
    assert eql.loc["sigma", "distance"] == pytest.approx(-0.85, abs=0.05)
    assert eql.loc["sigma", "explanation"] == "approximation of the likelihood"
