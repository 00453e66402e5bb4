"""Smooth functions of the parameters without a closed form here: PyTensor's graph and derivatives, interpreted.

The graphs are small (variances, heritabilities) and run tens of times, so nothing is compiled: see
`hlik.graph.numeric.Interpreter`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import NullTypeGradError, Rop
from pytensor.graph.basic import Variable
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import ancestors, graph_inputs

from hlik.graph.numeric import Interpreter


class GraphMap:
    """A PyTensor expression of the unconstrained parameters, with its Jacobian; see `hlik.maps.ThetaMap`.

    Parameters
    ----------
    theta
        A symbolic vector of length `n_theta`.
    expression
        A symbolic vector that depends on `theta` only.
    columns
        The elements of `theta` that it depends on.
    n_theta
        Number of parameters r.
    """

    def __init__(self, theta: Variable, expression: Variable, columns: np.ndarray, n_theta: int):
        self._theta, self._expression = theta, expression
        self._columns, self._n_theta = columns, n_theta
        self._function = Interpreter([theta], [expression])
        self.size = int(np.size(self._function(np.zeros(n_theta))[0]))
        self._last: tuple[bytes, np.ndarray] = (b"", np.zeros((0, n_theta)))

    def value(self, theta: np.ndarray) -> np.ndarray:
        """Values, shape (m,)."""
        return np.asarray(self._function(theta)[0], dtype=float)

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives by automatic differentiation, shape (m, r); those of the last theta are kept."""
        key, last = np.asarray(theta, dtype=float).tobytes(), self._last
        if last[0] != key:
            matrix = self._differentiated(theta)
            matrix.flags.writeable = False
            last = self._last = (key, matrix)
        return last[1]

    def _differentiated(self, theta: np.ndarray) -> np.ndarray:
        """By rows or columns, whichever are fewer."""
        matrix = np.zeros((self.size, self._n_theta))
        if self.size < self._columns.size or self._pushforward is None:
            for row, unit in enumerate(np.eye(self.size)):
                matrix[row] = self._pullback(theta, unit)[0]
        else:
            for column in self._columns:
                unit = np.zeros(self._n_theta)
                unit[column] = 1.0
                matrix[:, column] = self._pushforward(theta, unit)[0]
        return matrix

    @cached_property
    def _pullback(self) -> Interpreter:
        """``w' J`` for a vector w."""
        weights = pt.dvector("weights")
        gradient = pytensor.grad((self._expression * weights).sum(), self._theta)
        return Interpreter([self._theta, weights], [gradient])

    @cached_property
    def _pushforward(self) -> Interpreter | None:
        """``J d`` for a vector d; None where an Op lacks the second derivatives that this takes."""
        direction = pt.dvector("direction")
        try:
            derivative = Rop(self._expression, self._theta, direction)
        except (NullTypeGradError, NotImplementedError):
            return None
        return Interpreter([self._theta, direction], [derivative])


def graph_map(
    model: pm.Model,
    expression: Variable,
    names: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    fixed: Mapping[str, np.ndarray],
    stand_ins: Mapping[Variable, Variable] | None = None,
    shape_of: Callable[[Variable], tuple[int, ...]] | None = None,
) -> GraphMap:
    """The map from the unconstrained values of the variables `names`, flattened one after the other.

    Parameters
    ----------
    expression
        A variable of the model's graph whose value depends on `names` and `fixed` only.
    names, shapes
        Free variables and the shapes of their value variables, in the order of the vector.
    fixed
        Natural-scale values of variables that are data here.
    stand_ins
        Plain variables in the expression, and the model's variables in whose place they stand.
    shape_of
        Shape of the value variable of a free variable: for those that stand in the expression without changing its
        value, as mu does in ``mu**2 / (mu / sqrt(alpha))**2``. They are held at zero.
    """
    met = [v for v in graph_inputs([expression]) if v in stand_ins] if stand_ins else []
    if stand_ins and met:
        natural = {variable: _natural(model, stand_ins[variable]) for variable in met}
        expression = clone_replace(expression, natural, rebuild_strict=False)
    (graph,) = model.replace_rvs_by_values([expression])
    above = set(ancestors([graph]))
    theta = pt.dvector("theta")
    pieces = {model.rvs_to_values[model[name]]: _held(model, name, value) for name, value in fixed.items()}
    columns, start = [np.zeros(0, dtype=int)], 0
    for name, shape in zip(names, shapes, strict=True):
        value = model.rvs_to_values[model[name]]
        stop = start + int(np.prod(shape, dtype=int))
        pieces[value] = value.type.filter_variable(theta[start:stop].reshape(shape), allow_convert=True)
        if value in above:
            columns.append(np.arange(start, stop))
        start = stop
    if shape_of is not None:
        for rv in model.free_RVs:
            value = model.rvs_to_values[rv]
            if value in above and value not in pieces:
                pieces[value] = value.type.filter_variable(pt.zeros(shape_of(rv)), allow_convert=True)
    flat = clone_replace(graph, pieces, rebuild_strict=False).ravel()
    return GraphMap(theta, flat, np.concatenate(columns), start)


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
    constant = pt.constant(np.asarray(value, dtype=float))
    held = constant if transform is None else transform.forward(constant, *rv.owner.inputs)
    return model.rvs_to_values[rv].type.filter_variable(held, allow_convert=True)
