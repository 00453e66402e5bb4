"""`fit`: its arguments, its statuses, what it returns when it ends early."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import hlik
from hlik.estimators.eql import EQL


def poisson_model(spread=0.6, seed=0):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(12), 6)
    y = rng.poisson(np.exp(1 + rng.normal(0, spread, 12)[group]))
    with pm.Model() as model:
        beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma, shape=12)
        pm.Poisson("y", pt.exp(beta + u[group]), observed=y)
    return model


def test_estimator_by_name_and_object():
    model = poisson_model()
    by_name, by_object = hlik.fit(model, "EQL", progressbar=False), hlik.fit(model, hlik.EQL(), progressbar=False)
    np.testing.assert_array_equal(by_name["estimates"]["u"], by_object["estimates"]["u"])
    with pytest.raises(hlik.ModelError, match="No estimator is called 'reml'"):
        hlik.fit(model, "reml")
    with pytest.raises(hlik.ModelError, match=r"EQL\(\) with its brackets"):
        hlik.fit(model, hlik.EQL)


def test_random_seed_makes_draws_reproducible():
    model = poisson_model()
    one, two, other = (hlik.fit(model, random_seed=s, progressbar=False, draws=8) for s in (1, 1, 2))
    np.testing.assert_array_equal(one["posterior"]["sigma"], two["posterior"]["sigma"])
    assert np.any(one["posterior"]["sigma"] != other["posterior"]["sigma"])
    assert "posterior" not in hlik.fit(model, draws=0, progressbar=False).groups()


def test_starting_values_do_not_move_the_fixed_point():
    model = poisson_model()
    start = {"beta": 2.5, "sigma": 3.0}
    plain, started = hlik.fit(model, progressbar=False), hlik.fit(model, start=start, progressbar=False)
    np.testing.assert_allclose(started["estimates"]["sigma"], plain["estimates"]["sigma"], rtol=1e-7)
    np.testing.assert_allclose(started["history"]["sigma_log__"][0], np.log(3.0), rtol=1e-10)
    with pytest.raises(hlik.ModelError, match="start= names 'gamma'"):
        hlik.fit(model, start={"gamma": 1.0}, progressbar=False)
    with pytest.raises(hlik.ModelError, match="shape"):
        hlik.fit(model, start={"beta": [1.0, 2.0]}, progressbar=False)


def test_too_few_iterations_are_reported_and_usable():
    with pytest.warns(hlik.ConvergenceWarning, match="stopped after max_iterations=2"):
        idata = hlik.fit(poisson_model(), hlik.EQL(max_iterations=2), progressbar=False)
    assert idata["fit"].attrs["status"].startswith("stopped after max_iterations=2")
    assert not idata["fit"].attrs["converged"]
    assert np.isfinite(hlik.summary(idata)["estimate"]).all()
    assert "stopped" in str(hlik.summary(idata))


def test_ctrl_c_returns_what_has_been_reached(monkeypatch):
    step, calls = EQL.step, []

    def interrupted(self, state):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(self, state)

    monkeypatch.setattr(EQL, "step", interrupted)
    with pytest.warns(hlik.ConvergenceWarning, match="interrupted after 2 steps"):
        idata = hlik.fit(poisson_model(), progressbar=False)
    assert idata["fit"].attrs["n_iterations"] == 2
    assert np.isfinite(float(idata["estimates"]["sigma"]))


def test_boundary_is_named_and_has_no_standard_error():
    model = poisson_model(spread=0.0, seed=3)
    with pytest.warns(hlik.ConvergenceWarning, match=r"boundary: sd of 'u' estimated at zero \(sigma\)"):
        idata = hlik.fit(model, progressbar=False)
    assert float(idata["estimates"]["sigma"]) < 1e-3
    assert np.isnan(float(idata["standard_errors"]["sigma"]))
    assert np.isfinite(float(idata["standard_errors"]["beta"]))


def test_progress_is_silent_when_quick(capsys):
    hlik.fit(poisson_model(), progressbar=True)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""


def test_fixed_parameters():
    model = poisson_model()
    idata = hlik.fit(model, fixed={"sigma": 0.5}, progressbar=False)
    assert "sigma" not in idata["estimates"]
    assert "Held fixed: sigma = 0.5" in str(hlik.summary(idata))
    assert idata["estimates"]["u"].size == 12
    free = hlik.fit(model, progressbar=False)
    held = hlik.fit(model, fixed={"sigma": float(free["estimates"]["sigma"])}, progressbar=False)
    np.testing.assert_allclose(held["estimates"]["u"], free["estimates"]["u"], rtol=1e-6)


def test_scale_of_the_data_does_not_matter():
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(8), 5)
    y = 1 + rng.normal(0, 1, 8)[group] + rng.normal(size=40)

    def sds(factor):
        with pm.Model() as model:
            beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
            u = pm.Normal("u", 0, pm.HalfNormal("s", 1), shape=8)
            pm.Normal("y", beta + u[group], sigma, observed=factor * y)
        estimates = hlik.fit(model, progressbar=False, draws=0)["estimates"]
        return np.array([float(estimates["sigma"]), float(estimates["s"])]) / factor

    for factor in (1e-8, 1e8):
        np.testing.assert_allclose(sds(factor), sds(1.0), rtol=1e-7)


def test_the_model_is_never_changed():
    model = poisson_model()
    names, data = list(model.named_vars), model.rvs_to_values[model["y"]].data.copy()
    values, transforms = dict(model.rvs_to_values), dict(model.rvs_to_transforms)
    hlik.fit(model, progressbar=False)
    assert list(model.named_vars) == names
    assert model.rvs_to_values == values and model.rvs_to_transforms == transforms
    np.testing.assert_array_equal(model.rvs_to_values[model["y"]].data, data)
