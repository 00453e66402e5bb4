"""Smooth functions of the parameters that have no closed form here: evaluated by PyTensor, derivatives included.

The graphs are small (variances, heritabilities), so they run in PyTensor's Python linker: ready in milliseconds,
where a C or numba compilation takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import graph_inputs

PYTHON_MODE = Mode(linker="py", optimizer="fast_compile")


@dataclass(frozen=True, eq=False)
class GraphMap:
    """A PyTensor expression of the unconstrained parameters, with its Jacobian; see `hlik.maps.ThetaMap`."""

    function: Any
    derivative: Any
    size: int

    def value(self, theta: np.ndarray) -> np.ndarray:
        """Values, shape (m,)."""
        return self.function(theta)

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives by automatic differentiation, shape (m, r)."""
        return self.derivative(theta)


def graph_map(
    model: pm.Model,
    expression: Variable,
    names: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    fixed: Mapping[str, np.ndarray],
    stand_ins: Mapping[Variable, Variable] | None = None,
) -> GraphMap:
    """The map from the unconstrained values of the variables `names`, flattened one after the other.

    Parameters
    ----------
    expression
        A variable of the model's graph that depends on `names` and `fixed` only.
    names, shapes
        Free variables and the shapes of their value variables, in the order of the vector.
    fixed
        Natural-scale values of variables that are data here.
    stand_ins
        Plain variables in the expression, and the model's variables in whose place they stand.
    """
    if stand_ins:
        met = [variable for variable in graph_inputs([expression]) if variable in stand_ins]
        natural = {v: _natural(model, stand_ins[v]) for v in met}
        expression = clone_replace(expression, natural, rebuild_strict=False) if met else expression
    (graph,) = model.replace_rvs_by_values([expression])
    pieces = {model.rvs_to_values[model[name]]: _held(model, name, value) for name, value in fixed.items()}
    theta = pt.dvector("theta")
    start = 0
    for name, shape in zip(names, shapes, strict=True):
        value = model.rvs_to_values[model[name]]
        size = int(np.prod(shape, dtype=int))
        pieces[value] = value.type.filter_variable(
            theta[start : start + size].reshape(shape), allow_convert=True
        )
        start += size
    flat = clone_replace(graph, pieces, rebuild_strict=False).ravel()
    jacobian = pytensor.gradient.jacobian(flat, theta, vectorize=True, disconnected_inputs="ignore")
    options = {"mode": PYTHON_MODE, "on_unused_input": "ignore"}
    function = pytensor.function([theta], flat, **options)
    derivative = pytensor.function([theta], jacobian, **options)
    return GraphMap(function, derivative, int(np.size(function(np.zeros(start)))))


def _natural(model: pm.Model, variable: Variable) -> Variable:
    """A variable of the model as a graph of value variables."""
    if variable not in model.rvs_to_values:
        return model.replace_rvs_by_values([variable])[0]
    transform, value = model.rvs_to_transforms.get(variable), model.rvs_to_values[variable]
    if transform is None:
        return value
    return model.replace_rvs_by_values([transform.backward(value, *variable.owner.inputs)])[0]


def _held(model: pm.Model, name: str, value: np.ndarray) -> Variable:
    """The value variable of a variable that is held fixed at a natural-scale value."""
    rv = model[name]
    transform = model.rvs_to_transforms.get(rv)
    constant = pt.constant(np.broadcast_to(np.asarray(value, float), np.shape(value)))
    held = constant if transform is None else transform.forward(constant, *rv.owner.inputs)
    return model.rvs_to_values[rv].type.filter_variable(held, allow_convert=True)
