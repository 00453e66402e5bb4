"""Samplers: imported where they are used, not before; nothing compiled after the first E-step."""

import ast
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from pytensor.compile.function.types import FunctionMaker

import hlik
from hlik.hlikelihood import HLikelihood
from hlik.samplers.choose import SAMPLERS, sampler_for
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
