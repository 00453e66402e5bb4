"""Every public function has an example in its docstring, and it runs."""

from __future__ import annotations

import doctest

import matplotlib.pyplot as plt
import pytest

import hlik

WITHOUT = {"ConvergenceWarning", "DataWarning", "ModelError", "__version__", "reciprocal"}
"""No functions; the settings objects of the estimators are shown in the examples of `hlik.fit`."""
FUNCTIONS = sorted(
    name for name in hlik.__all__ if name not in WITHOUT and not isinstance(getattr(hlik, name, None), type)
)


@pytest.mark.filterwarnings("ignore::hlik.DataWarning", "ignore::hlik.ConvergenceWarning")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_example(name):
    function = getattr(hlik, name)
    tests = doctest.DocTestFinder(recurse=False).find(function, name, globs={})
    assert any(test.examples for test in tests), f"hlik.{name} has no example in its docstring"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    output: list[str] = []
    for test in tests:
        runner.run(test, out=output.append)
    plt.close("all")
    assert runner.failures == 0, "".join(output)
