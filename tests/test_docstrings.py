"""Docstrings of everything public: the sections are there, parameters are those of the signature, examples run."""

from __future__ import annotations

import doctest
import inspect
import re

import matplotlib.pyplot as plt
import pytest

import hlik
import hlik.distributions

PUBLIC = {
    name: getattr(module, name)
    for module in (hlik, hlik.distributions)
    for name in module.__all__
    if name not in ("ConvergenceWarning", "DataWarning", "ModelError", "__version__", "reciprocal")
}
ESTIMATORS = ("AGQ", "EQL", "HL", "Laplace", "MCEM", "MCLA", "SAEM")


def sections(thing) -> dict[str, list[str]]:
    """Lines of the docstring under each heading of numpydoc."""
    lines = (inspect.getdoc(thing) or "").splitlines()
    found: dict[str, list[str]] = {"": []}
    heading = ""
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.strip() and re.fullmatch("-{3,}", after):
            heading = line
            found[heading] = []
        elif not re.fullmatch("-{3,}", line):
            found[heading].append(line)
    return found


def parameters_of(thing) -> list[str]:
    """Arguments of the call; those of a distribution are its `dist`'s, less what PyMC adds."""
    if hasattr(thing, "dist"):
        return [name for name in inspect.signature(thing.dist).parameters if name != "kwargs"]
    return list(inspect.signature(thing).parameters)


@pytest.mark.parametrize("name", PUBLIC)
def test_parameters_are_those_of_the_signature(name):
    lines = sections(PUBLIC[name]).get("Parameters", [])
    heads = [k for k, line in enumerate(lines) if line and not line.startswith(" ")]
    documented = [part.strip(" *") for k in heads for part in lines[k].split(" : ")[0].split(",")]
    assert documented == parameters_of(PUBLIC[name])
    assert all(lines[k + 1].startswith("    ") for k in heads)


@pytest.mark.parametrize("name", PUBLIC)
def test_sections(name):
    thing = PUBLIC[name]
    needed = {"Raises", "Examples"}
    if not isinstance(thing, type):
        needed |= {"Returns"}
    if name in ESTIMATORS or hasattr(thing, "dist"):
        needed |= {"Notes", "References"}
    found = sections(thing)
    assert needed <= found.keys()
    assert all(any(line.strip() for line in found[heading]) for heading in needed)


@pytest.mark.filterwarnings("ignore::hlik.DataWarning", "ignore::hlik.ConvergenceWarning")
@pytest.mark.parametrize("name", PUBLIC)
def test_example(name):
    tests = doctest.DocTestFinder(recurse=False).find(PUBLIC[name], name, globs={})
    assert any(test.examples for test in tests), f"{name} has no example in its docstring"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    output: list[str] = []
    for test in tests:
        runner.run(test, out=output.append)
    plt.close("all")
    assert runner.failures == 0, "".join(output)
