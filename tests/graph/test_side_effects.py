"""What reading must not do: compile, take long, make Z dense, change the model or its data."""

import time

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.sparse as sp

import hlik
from hlik.graph.read import read_model
from models import epilepsy
from tests.graph.problems import GROUPS, N, X, Z, counts, crossed, group, model_of, real


def count_calls(monkeypatch, owner, name):
    calls = []
    original = getattr(owner, name)

    def counted(*args, **kwargs):
        calls.append(name)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return calls


def heritability():
    s2, h2 = pm.HalfNormal("s2"), pm.Beta("h2", 1, 1)
    u = pm.Normal("u", 0, pt.sqrt(s2 * h2), shape=GROUPS)
    pm.Normal("y", X @ pm.Normal("beta", shape=3) + u[group], pt.sqrt(s2 * (1 - h2)), observed=real)


def uniform_deviations():
    u = pm.Normal("u", 0, pm.Uniform("s", 0, 10), shape=GROUPS)
    pm.Normal("y", pm.Normal("b") + u[group], pm.HalfCauchy("sigma", 1), observed=real)


@pytest.mark.filterwarnings("ignore::hlik.ConvergenceWarning")
@pytest.mark.parametrize("build", [crossed, heritability, uniform_deviations])
def test_nothing_is_compiled(monkeypatch, build):
    from pytensor.compile.function import types

    model = model_of(build)
    calls = count_calls(monkeypatch, types.FunctionMaker, "__init__")
    calls += count_calls(monkeypatch, pytensor, "function")
    read_model(model)
    hlik.inspect(model)
    hlik.fit(model, progressbar=False, draws=8, fixed={"s_v": 0.3} if build is crossed else None)
    assert calls == []


def test_reading_the_epilepsy_model_takes_milliseconds():
    model = epilepsy.build_poisson(epilepsy.load())
    read_model(model)
    began = time.perf_counter()
    read_model(model)
    assert time.perf_counter() - began < 0.2


@pytest.mark.parametrize("non_centred", [False, True])
def test_large_crossed_models_stay_sparse(non_centred):
    """A dense Z would have 6e9 entries."""
    n, q1, q2 = 100_000, 50_000, 10_000
    rng = np.random.default_rng(0)
    first, second, y = rng.integers(0, q1, n), rng.integers(0, q2, n), rng.poisson(1.0, n)

    def effect(name, size):
        s = pm.HalfNormal(f"s_{name}")
        return s * pm.Normal(name, shape=size) if non_centred else pm.Normal(name, 0, s, shape=size)

    def build():
        eta = pm.Normal("b") + effect("u", q1)[first] + effect("v", q2)[second] * (x0 := rng.normal(size=n))
        pm.Poisson("y", pt.exp(eta + 0 * x0), observed=y)

    model = model_of(build)
    began = time.perf_counter()
    found = read_model(model)
    assert time.perf_counter() - began < 1.5
    assert sp.issparse(found.Z)
    assert (found.Z.shape, found.Z.nnz) == ((n, q1 + q2), 2 * n)


def snapshot(model):
    """Variables, their owners and inputs, and copies of all data, in a form that can be compared."""
    from pytensor.graph.basic import Constant
    from pytensor.graph.traversal import ancestors

    roots = [*model.basic_RVs, *model.potentials, *model.deterministics, *model.value_vars]
    nodes = list(ancestors(roots))
    data = {v: np.array(v.data) for v in nodes if isinstance(v, Constant) and isinstance(v.data, np.ndarray)}
    data |= {v: np.array(v.get_value()) for v in model.data_vars}
    edges = [(v, v.owner, tuple(v.owner.inputs) if v.owner else ()) for v in nodes]
    names = {name: tuple(model.named_vars_to_dims.get(name) or ()) for name in model.named_vars}
    return edges, names, dict(model.rvs_to_values), dict(model.rvs_to_transforms), data


@pytest.mark.filterwarnings("ignore::hlik.ConvergenceWarning")
def test_model_and_data_are_never_changed():
    columns, index, y = X.copy(), group.copy(), counts.astype(float)
    sparse = sp.csr_matrix(Z)
    arrays = [columns, index, y, sparse.data, sparse.indices, sparse.indptr]
    copies = [array.copy() for array in arrays]

    def build():
        beta, u = pm.Normal("beta", shape=3), pm.Normal("u", 0, pm.HalfNormal("s"), shape=GROUPS)
        eta = columns @ beta + u[index] + pytensor.sparse.dot(pytensor.sparse.as_sparse_variable(sparse), u)
        pm.Normal("y", pm.Deterministic("eta", pm.Data("one", np.ones(N)) * eta), pm.HalfNormal("sigma"), observed=y)

    model = model_of(build)
    before = snapshot(model)
    read_model(model, fixed={"s": 2.0}, weights={"y": np.full(N, 0.5)})
    hlik.inspect(model)
    hlik.fit(model, progressbar=False, draws=8)
    after = snapshot(model)
    assert after[:4] == before[:4]
    for variable, value in before[4].items():
        np.testing.assert_array_equal(after[4][variable], value)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
