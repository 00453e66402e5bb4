"""What `import hlik` brings: every public name, and no more modules than a fit needs."""

import ast
import inspect
import subprocess
import sys

import pytest

import hlik


def imported_names(body):
    return {alias.name for node in body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_names_for_type_checkers_are_those_found_when_asked_for():
    tree = ast.parse(inspect.getsource(hlik))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    places = {alias.name: node.module for node in block.body for alias in node.names}
    assert places == hlik.MODULES
    assert imported_names(tree.body) & hlik.MODULES.keys() == set()
    assert set(hlik.__all__) <= imported_names(tree.body) | hlik.MODULES.keys()


@pytest.mark.parametrize("name", hlik.__all__)
def test_every_name_is_there(name):
    assert getattr(hlik, name) is getattr(hlik, name)
    assert name in dir(hlik)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'hlik' has no attribute 'fitt'"):
        hlik.fitt  # noqa: B018


def test_modules_of_a_fresh_process():
    """Not what comes after a fit, nor pictures, formulas, JAX, nor compiled kernels."""
    code = "import hlik, sys; print(*sys.modules); from hlik import *; fit, summary, plot_ranef"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "hlik.fit" in loaded
    unwanted = ("hlik.inference.", "hlik.formula.", "hlik.plots.", "hlik.linalg.kernels.", "formulae", "nutpie", "jax.")
    assert {name for name in loaded if name.startswith(unwanted)} == set()
