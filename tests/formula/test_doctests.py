"""The examples of the docstrings."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["formulas", "matrices", "one_call"])
def test_examples_run(module):
    results = doctest.testmod(importlib.import_module(f"hlik.formula.{module}"))
    assert results.attempted and not results.failed
