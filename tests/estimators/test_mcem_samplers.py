"""E-steps by PyMC's samplers: compiled once, right on the scale of v, good for every way a model is written."""

from importlib.util import find_spec

import numpy as np
import pymc as pm
import pytest

import hlik
from hlik.graph.read import read_model
from hlik.hlikelihood import HLikelihood
from hlik.samplers.choose import sampler_for
from hlik.samplers.source import EffectsModel, Source

needs_nutpie = pytest.mark.skipif(find_spec("nutpie") is None, reason="needs nutpie")
Y = np.array([1, 0, 2, 9, 6, 8, 3, 2, 4, 0, 1, 0, 5, 3, 3])
GROUP = np.repeat(np.arange(5), 3)


def counts(way: str) -> pm.Model:
    """Poisson counts in five groups; the effects centred, non-centred, with a mean, or gamma distributed."""
    with pm.Model() as model:
        beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
        if way == "non-centred":
            u = sigma * pm.Normal("z", 0, 1, shape=5)
        elif way == "located":
            u = pm.Normal("u", beta, sigma, shape=5) - beta
        elif way == "gamma":
            u = pm.math.log(pm.Gamma("u", 1 / sigma, 1 / sigma, shape=5))
        else:
            u = pm.Normal("u", 0, sigma, shape=5)
        pm.Poisson("y", pm.math.exp(beta + u[GROUP]), observed=Y)
    return model


def read(model):
    from dataclasses import replace

    return replace(read_model(model), source=Source(model))


@pytest.mark.parametrize("way", ["centred", "non-centred", "located", "gamma"])
def test_positions_go_to_value_variables_and_back(way):
    model = read(counts(way))
    beta, theta = np.array([1.1]), np.array([-0.3])
    effects = EffectsModel(model, beta, theta)
    assert [rv.name for rv in effects.model.free_RVs] == [effect.name for effect in model.random_effects]
    effect, v = model.random_effects[0], np.random.default_rng(0).normal(size=(4, 5))
    back = effects.v_of(effect, effects.value_of(effect, v, beta, theta), beta, theta)
    np.testing.assert_allclose(back, v, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["centred", "non-centred", "located", "gamma"])
def test_pymc_density_is_h_up_to_a_constant(way):
    """Of `pm.do(model, parameters)` on the scale of the value variables, against hlik's h at the same v."""
    model = read(counts(way))
    beta, theta = np.array([1.1]), np.array([-0.3])
    effects, likelihood = EffectsModel(model, beta, theta), HLikelihood(model)
    density = effects.model.compile_logp()
    effect, v = model.random_effects[0], np.random.default_rng(0).normal(size=(4, 5))
    value = effects.value_of(effect, v, beta, theta)
    by_pymc = np.array([density({effect.variable.value_name: row}) for row in value])
    by_hlik = np.array([likelihood.value(beta, row, theta, likelihood.predictor(beta, row, theta)) for row in v])
    np.testing.assert_allclose(by_pymc - by_pymc[0], by_hlik - by_hlik[0], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("nutpie", marks=needs_nutpie), "pymc", "metropolis"])
def test_moments_agree_with_importance_sampling(name):
    """At two parameters in turn, compiled once, positions carried over."""
    model = read(counts("centred"))
    likelihood = HLikelihood(model)
    rng = np.random.default_rng(1)
    first = rng.normal(size=(2, 5))
    sampler = sampler_for(name, likelihood, first, 300)
    exact = sampler_for("importance", likelihood, first, 0)
    for beta, theta in ((np.array([1.1]), np.array([-0.3])), (np.array([0.5]), np.array([0.4]))):
        found, wanted = sampler.draw(beta, theta, 2000, rng), exact.draw(beta, theta, 8192, rng)
        columns, reference = found.columns, wanted.columns
        error = np.sqrt(np.diag(found.mean_covariance(columns)))
        # 4.5 errors: of 10 means in three samplers, and the reference has an error a tenth as large
        assert np.all(np.abs(columns.mean(axis=1) - reference.mean(axis=1)) < 4.5 * error)
        np.testing.assert_allclose(columns.std(axis=1), reference.std(axis=1), rtol=0.15)
        np.testing.assert_allclose(sampler.position, found.v[:, -1])
    assert sampler.compilations == 1


@pytest.mark.slow
@needs_nutpie
def test_one_compilation_a_fit(monkeypatch):
    import nutpie

    calls = []
    compiled = nutpie.compile_pymc_model

    def counted(*arguments, **settings):
        calls.append(1)
        return compiled(*arguments, **settings)

    monkeypatch.setattr(nutpie, "compile_pymc_model", counted)
    model = counts("centred")
    found = hlik.fit(model, hlik.MCEM(sampler="nutpie"), progressbar=False, random_seed=1)
    exact = hlik.fit(model, hlik.AGQ(), progressbar=False)
    assert len(calls) == 1
    assert len(found.history["iteration"]) >= 2
    difference = np.abs(found.estimates["sigma"] - exact.estimates["sigma"])
    assert difference < 4 * found.monte_carlo_errors["sigma"] + 0.01 * exact.standard_errors["sigma"]
    assert found.sample_stats["diverging"].dtype == bool
    assert found.posterior["u"].shape[0] == 2
