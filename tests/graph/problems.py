"""Small data sets and comparisons that the tests of the graph share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode

from hlik.graph import forms as fm
from hlik.graph.forms import Affine, Form, Mapped, Product
from hlik.graph.read import read_model
from hlik.model import HierarchicalModel

PLAIN = Mode(linker="py", optimizer=None)
"""PyTensor as it stands in the graph: no rewrites, no compilation."""

rng = np.random.default_rng(20261121)
N, GROUPS = 24, 6
x = rng.normal(size=N)
X = np.column_stack([np.ones(N), x, rng.normal(size=N)])
group = np.concatenate([np.arange(GROUPS), rng.integers(0, GROUPS, N - GROUPS)])
Z = np.eye(GROUPS)[group]
w = rng.normal(size=GROUPS)
region = np.array([0, 0, 1, 1, 2, 2])
exposure = rng.uniform(0.5, 3.0, N)
counts = rng.poisson(2.0, N)
binary = np.tile([0, 1, 1], N // 3)
real = rng.normal(size=N)
positive = rng.gamma(2.0, 1.0, N)
trials = rng.integers(3, 9, N)
successes = rng.binomial(trials, 0.4)


def crossed() -> None:
    """Two crossed terms, the second a slope; three coefficients of which one enters by index."""
    beta, by_region = pm.Normal("beta", shape=2), pm.Normal("by_region", shape=3)
    u = pm.Normal("u", 0, pm.HalfNormal("s_u"), shape=GROUPS)
    v = pm.Normal("v", 0, pm.HalfNormal("s_v"), shape=3)
    eta = X[:, 1:] @ beta + by_region[region[group]] + u[group] + x * v[np.arange(N) % 3] + np.log(exposure)
    pm.Poisson("y", pt.exp(eta), observed=counts)


def model_of(build: Callable[[], Any]) -> pm.Model:
    """The model that `build` fills."""
    with pm.Model() as model:
        build()
    return model


def read(build: Callable[[], Any], **arguments: Any) -> HierarchicalModel:
    """The reading of the model that `build` fills."""
    return read_model(model_of(build), **arguments)


def evaluate(form: Form, values: dict[str, np.ndarray]) -> np.ndarray:
    """The value of a form that is not opaque."""
    if isinstance(form, Product):
        factors = [fm.evaluate(factor, values) for factor in form.factors]
        result = form.coefficient
        for factor in factors:
            result = result * factor
        return np.broadcast_to(result, form.shape)
    if isinstance(form, Affine | Mapped):
        return fm.evaluate(form, values)
    return np.asarray(form)


def plain_values(model: pm.Model, outputs: list, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs by PyTensor itself, at values of the value variables given by the names of their variables."""
    graphs = model.replace_rvs_by_values(outputs)
    inputs = [model.rvs_to_values[model[name]] for name in values]
    function = pytensor.function(inputs, graphs, mode=PLAIN, on_unused_input="ignore")
    return function(*values.values())


def random_values(model: pm.Model, scale: float = 0.7) -> dict[str, np.ndarray]:
    """Values of all value variables, by the names of their variables."""
    draws = np.random.default_rng(1)
    point = model.initial_point()
    return {rv.name: scale * draws.normal(size=np.shape(point[model.rvs_to_values[rv].name])) for rv in model.free_RVs}


def assert_same_reading(found: HierarchicalModel, expected: HierarchicalModel, rtol: float = 1e-12) -> None:
    """The same X, Z, offset, links, families, and dispersions as functions of theta."""
    assert [p.role for p in found.parameters] == [p.role for p in expected.parameters]
    np.testing.assert_allclose(found.X, expected.X, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(found.Z.toarray(), expected.Z.toarray(), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(found.offset, expected.offset, rtol=rtol, atol=rtol)
    assert found.n_theta == expected.n_theta
    for one, other in zip(found.responses, expected.responses, strict=True):
        assert (one.family, one.link) == (other.family, other.link)
        np.testing.assert_array_equal(one.y, other.y)
        np.testing.assert_array_equal(one.weight, other.weight)
        assert_same_map(one.dispersion, other.dispersion, found.n_theta, rtol)
    for effect, twin in zip(found.random_effects, expected.random_effects, strict=True):
        assert (effect.family, effect.index) == (twin.family, twin.index)
        assert_same_map(effect.dispersion, twin.dispersion, found.n_theta, rtol)
    assert not found.obstacles
    assert not expected.obstacles


def assert_same_map(found: Any, expected: Any, n_theta: int, rtol: float) -> None:
    """Equal values and Jacobians at three points."""
    assert (found is None) == (expected is None)
    if found is None:
        return
    for seed in range(3):
        theta = 0.5 * np.random.default_rng(seed).normal(size=n_theta)
        np.testing.assert_allclose(found.value(theta), expected.value(theta), rtol=rtol)
        np.testing.assert_allclose(found.jacobian(theta), expected.jacobian(theta), rtol=rtol, atol=1e-14)


def numeric_jacobian(function: Callable[[np.ndarray], np.ndarray], theta: np.ndarray) -> np.ndarray:
    """Central differences."""
    columns = []
    for unit in np.eye(theta.size):
        step = 1e-5 * unit
        columns.append((function(theta + step) - function(theta - step)) / 2e-5)
    return np.column_stack(columns)


def beta_and_sigma():
    """Three coefficients, and a standard deviation."""
    return pm.Normal("beta", 0, 5, shape=3), pm.HalfNormal("sigma", 1)


def normal_effect():
    """Those, and normal effects of the groups."""
    beta, sigma = beta_and_sigma()
    return beta, sigma, pm.Normal("u", 0, sigma, shape=GROUPS)


def eta():
    """The linear predictor of all three."""
    beta, _, u = normal_effect()
    return X @ beta + u[group]


def poisson(mean):
    """The counts, with this mean."""
    pm.Poisson("y", mean, observed=counts)
