"""Arguments that cannot be used are refused before any long work, with the name and what was expected."""

import numpy as np
import pymc as pm
import pytest

import hlik
from hlik import ModelError
from tests.refusals import (
    GROUPS,
    N,
    fit,
    forbid_work,
    gaussian,
    group,
    model_of,
    real,
    replaced,
)


@pytest.fixture(autouse=True)
def _no_long_work(monkeypatch):
    forbid_work(monkeypatch)


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (replaced(np.ones(N), 2, -1), r"weights\['y'\] must be positive and finite; row 2 is -1"),
        (replaced(np.ones(N), 2, 0), "row 2 is 0. Leave rows out"),
        (replaced(np.ones(N), 2, np.nan), "row 2 is nan"),
        (np.ones(N - 1), r"weights\['y'\] has shape \(23,\); the response has shape \(24,\)"),
        (1.0, r"weights\['y'\] has shape \(\)"),
        ("w", r"weights\['y'\] must be numbers; got 'w'"),
    ],
)
def test_weights(weights, message):
    with pytest.raises(ModelError, match=message):
        fit(model_of(gaussian()), weights={"y": weights})


def test_weights_that_are_no_dictionary():
    with pytest.raises(ModelError, match=r"weights= takes a dictionary.*got ndarray"):
        fit(model_of(gaussian()), weights=np.ones(N))


def test_weights_for_a_distribution_without_closed_form():
    model = model_of(lambda eta: pm.StudentT("y", nu=4, mu=eta, sigma=1.0, observed=real))
    with pytest.raises(ModelError, match=r"weights\['y'\]"):
        fit(model, estimator="laplace", weights={"y": np.ones(N)})


# ---------------------------------------------------------------- names and values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"random": ["v"]}, r"random= names \['v'\].*It has \['beta', 'residual', 'sigma', 'u'\]"),
        ({"random": "u"}, r"random= takes a list.*write \['u'\]"),
        ({"fixed": {"tau": 1.0}}, r"fixed= names \['tau'\]"),
        ({"fixed": {"y": 1.0}}, r"fixed= names \['y'\]"),
        ({"fixed": ["sigma"]}, r"fixed= takes a dictionary.*got list"),
        ({"fixed": {"sigma": -1.0}}, r"fixed\['sigma'\] = -1.0 is outside the support"),
        ({"fixed": {"sigma": np.nan}}, r"fixed\['sigma'\] = nan is outside the support"),
        ({"fixed": {"sigma": "one"}}, r"fixed\['sigma'\] must be numbers; got 'one'"),
        ({"fixed": {"beta": np.ones(3)}}, r"fixed\['beta'\] has shape \(3,\); beta has shape \(2,\)"),
        ({"weights": {"z": np.ones(N)}}, r"weights= names \['z'\].*these are: \['y'\]"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ModelError, match=message):
        fit(model_of(gaussian()), **arguments)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"tau": 1.0}, r"start= names 'tau'"),
        ({"beta": np.ones(3)}, r"start\['beta'\] has shape \(3,\)"),
        ({"sigma": -1.0}, r"start\['sigma'\] = -1.0 is outside the support"),
    ],
)
def test_start(monkeypatch, start, message):
    monkeypatch.undo()
    monkeypatch.setattr(hlik.EQL, "step", None)
    with pytest.raises(ModelError, match=message):
        fit(model_of(gaussian()), start=start)


@pytest.mark.parametrize(("prior", "value"), [(lambda: pm.Uniform("s", 0, 1), 2.0), (lambda: pm.Beta("s", 1, 1), 1.5)])
def test_fixed_values_outside_other_supports(prior, value):
    with pm.Model() as model:
        u = pm.Normal("u", 0, prior(), shape=GROUPS)
        pm.Normal("y", pm.Normal("b") + u[group], pm.HalfNormal("residual"), observed=real)
    with pytest.raises(ModelError, match=rf"fixed\['s'\] = {value} is outside the support"):
        fit(model, fixed={"s": value})


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        ("qel", r"No estimator is called 'qel'; there are \['agq', 'eql'"),
        (hlik.EQL, r"write EQL\(\) with its brackets"),
        (3, "estimator must be"),
        (None, "estimator must be"),
    ],
)
def test_estimators(estimator, message):
    with pytest.raises(ModelError, match=message):
        fit(model_of(gaussian()), estimator=estimator)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "must be a pymc.Model or a bambi.Model; got NoneType"),
        ({"y": real}, "got dict"),
        (pm.Model, "pass the model, not the class"),
    ],
)
def test_what_is_no_model(model, message):
    with pytest.raises(ModelError, match=message):
        fit(model)


def test_models_without_observed_or_free_variables():
    with pm.Model() as nothing_observed:
        pm.Normal("b")
    with pm.Model() as nothing_free:
        pm.Normal("y", 0, 1, observed=real)
    with pm.Model() as empty:
        pass
    with pytest.raises(ModelError, match=r"no observed variable: give one distribution observed=data"):
        fit(nothing_observed)
    with pytest.raises(ModelError, match="no free variable: there is nothing to estimate"):
        fit(nothing_free)
    with pytest.raises(ModelError, match="no observed variable"):
        fit(empty)
