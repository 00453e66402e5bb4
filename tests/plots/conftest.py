"""Results that the tests of the pictures share; no test leaves a figure or a setting behind."""

import arviz as az
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytest

import hlik
from models import bacteria, seeds


@pytest.fixture(autouse=True)
def _no_figure_is_left_over():
    plt.close("all")  # those of tests elsewhere
    settings = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == settings
    plt.close("all")


@pytest.fixture(scope="session")
def seeds_fit() -> az.InferenceData:
    return hlik.fit(seeds.build(seeds.load()), draws=0, progressbar=False)


@pytest.fixture(scope="session")
def bacteria_fit() -> az.InferenceData:
    return hlik.fit(bacteria.build(bacteria.load()), draws=0, progressbar=False)


@pytest.fixture(scope="session")
def joint_fit() -> az.InferenceData:
    """Two responses with a common effect of a patient, and a gamma effect in one of them."""
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(12), 5)
    shared, own = rng.normal(0, 0.7, 12), rng.gamma(5, 1 / 5, 12)
    weight = rng.normal(1 + shared[patient], 0.5)
    seizures = rng.poisson(np.exp(1 + shared[patient]) * own[patient])
    with pm.Model(coords={"patient": [f"P{k}" for k in range(12)], "visit": np.arange(60)}) as model:
        a, b = pm.Normal("a", 0, 5), pm.Normal("b", 0, 5)
        sigma, sigma_u, lam = (pm.HalfNormal(name, 1) for name in ("sigma", "sigma_u", "lam"))
        u = pm.Normal("u", 0, sigma_u, dims="patient")
        w = pm.Gamma("w", 1 / lam, 1 / lam, dims="patient")
        pm.Normal("weight", a + u[patient], sigma, observed=weight, dims="visit")
        mu = pm.math.exp(b + u[patient]) * w[patient]
        pm.Poisson("seizures", mu, observed=seizures, dims="visit")
    return hlik.fit(model, draws=0, progressbar=False)


@pytest.fixture(scope="session")
def two_levels_fit() -> az.InferenceData:
    with pm.Model(coords={"site": ["north", "south"]}) as model:
        mean, sigma, sigma_u = pm.Normal("mean", 0, 5), pm.HalfNormal("sigma"), pm.HalfNormal("sigma_u")
        u = pm.Normal("u", 0, sigma_u, dims="site")
        y = [1.1, 0.7, 1.4, 1.9, 2.3, 2.6, 2.2]
        pm.Normal("y", mean + u[np.array([0, 0, 0, 1, 1, 1, 1])], sigma, observed=y)
    return hlik.fit(model, draws=0, progressbar=False)


@pytest.fixture(scope="session")
def fixed_fit() -> az.InferenceData:
    """No random effects."""
    x = np.linspace(-1, 1, 20)
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 5, shape=2)
        y = np.random.default_rng(2).poisson(np.exp(1 + x))
        pm.Poisson("y", pm.math.exp(beta[0] + beta[1] * x), observed=y)
    return hlik.fit(model, draws=0, progressbar=False)
