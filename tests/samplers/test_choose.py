"""Samplers: imported where they are used, not before; nothing compiled after the first E-step."""

import ast
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pymc as pm
import pytest
from pytensor.compile.function.types import FunctionMaker

import hlik
from hlik.hlikelihood import HLikelihood
from hlik.samplers.choose import SAMPLERS, sampler_for
from hlik.samplers.source import EffectsModel
from tests.estimators.test_mcem_samplers import counts, read

LATE = {"blackjax", "jax", "numpyro", "nutpie"}


def test_imported_late():
    """No file of hlik imports them at its top, where `import hlik` would pay for them."""
    package = Path(hlik.__file__).parent
    for file in sorted(package.rglob("*.py")):
        names = set()
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
        assert not names & LATE, file


def test_unknown_name():
    with pytest.raises(hlik.ModelError, match="sampler must be one of"):
        hlik.MCEM(sampler="stan")
    assert set(SAMPLERS) == {"auto", "blackjax", "importance", "metropolis", "numpyro", "nutpie", "pymc"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nutpie", "pymc", "metropolis", "importance"])
def test_pytensor_compiles_in_the_first_step_only(name, monkeypatch):
    if name == "nutpie" and find_spec("nutpie") is None:
        pytest.skip("needs nutpie")
    made = []
    build = FunctionMaker.__init__
    monkeypatch.setattr(FunctionMaker, "__init__", lambda *a, **k: (made.append(1), build(*a, **k))[1])
    rng = np.random.default_rng(1)
    sampler = sampler_for(name, HLikelihood(read(counts("centred"))), rng.normal(size=(2, 5)), 50)
    after = []
    for beta, theta, draws in ((1.1, -0.3, 100), (0.5, 0.4, 251), (0.8, -0.5, 64)):
        sampler.draw(np.array([beta]), np.array([theta]), draws, rng)
        after.append(len(made))
    assert len(set(after)) == 1
    if name != "nutpie":  # nutpie compiles with numba, through another door
        assert (after[0] > 0) == (name != "importance")
    assert sampler.compilations == (0 if name == "importance" else 1)


def crossed():
    """Two effects of one size, with different variances: exchanged, they would fit together and be wrong."""
    rng = np.random.default_rng(2)
    row, column = np.divmod(np.arange(36), 6)
    rate = np.exp(0.3 + rng.normal(0, 1.0, 6)[row] + rng.normal(0, 0.4, 6)[column])
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 5)
        first = pm.Normal("z_rows", 0, pm.HalfNormal("sigma_rows", 1), shape=6)
        second = pm.Normal("a_columns", 0, pm.HalfNormal("sigma_columns", 1), shape=6)
        pm.Poisson("y", pm.math.exp(beta + first[row] + second[column]), observed=rng.poisson(rate))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nutpie", "pymc", "metropolis", "numpyro", "blackjax"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of JAX, on import
def test_two_effects_keep_their_places(name):
    if find_spec(name) is None and name not in ("pymc", "metropolis"):
        pytest.skip(f"needs {name}")
    model = read(crossed())
    likelihood, rng = HLikelihood(model), np.random.default_rng(1)
    at = np.array([0.3]), np.log([0.4 if p.name == "sigma_columns" else 1.0 for p in model.dispersion_parameters])
    order = [rv.name for rv in EffectsModel(model, *at).model.free_RVs]
    assert order == [effect.name for effect in model.random_effects][::-1]  # PyMC's `do` turns them round
    first = 0.3 * rng.normal(size=(2, 12))
    found = sampler_for(name, likelihood, first, 300).draw(*at, 2000, rng)
    wanted = sampler_for("importance", likelihood, first, 0).draw(*at, 8192, rng).columns.mean(axis=1)
    error = np.sqrt(np.diag(found.mean_covariance(found.columns)))
    # 4.5 errors: of 12 means in five samplers, and the reference has an error a tenth as large
    assert np.all(np.abs(found.columns.mean(axis=1) - wanted) < 4.5 * error)
