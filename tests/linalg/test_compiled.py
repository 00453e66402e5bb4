"""Kernels are loaded only when they are needed, and a compilation is announced."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(code: str, **environment: str) -> str:
    """Run a program in a new interpreter and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_small_systems_load_no_kernels():
    code = """
import sys
import numpy as np
import scipy.sparse as sp
from hlik.linalg import BorderedSystem
rng = np.random.default_rng(0)
X = rng.normal(size=(1000, 2))
for q in (1, 40, 300):
    columns = rng.integers(0, q, 3000)
    Z = sp.csr_array((np.ones(3000), (np.tile(np.arange(1000), 3), columns)), shape=(1000, q))
    bordered = BorderedSystem(X, Z).factor(np.ones(1000), np.ones(q))
    bordered.leverages(), bordered.inverse_pattern(), bordered.sample(rng, 3)
print("hlik.linalg.kernels" in sys.modules)
"""
    assert run(code).split() == ["False"]


@pytest.mark.slow
def test_compilation_is_announced_once_per_machine(tmp_path):
    """The first program compiles into an empty cache and says so; the second one loads and keeps quiet."""
    code = """
from hlik.linalg import on_compile
from hlik.linalg.compiled import kernels
on_compile(lambda: print("compiling"))
kernels("simplicial")
kernels("simplicial")
print("done")
"""
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path)).split() == ["compiling", "done"]
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path)).split() == ["done"]
