"""The value of a graph whose inputs are known: node by node in NumPy, nothing rewritten and nothing compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytensor.scalar as ps
import scipy.special
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.traversal import io_toposort
from pytensor.tensor.elemwise import CAReduce, Elemwise
from pytensor.tensor.random.type import RandomType

Values = list[Any]


def values_of_node(node: Apply, values: Sequence[Any]) -> Values:
    """The outputs of a node whose inputs have these values."""
    with np.errstate(all="ignore"):
        return function_of_node(node)(values)


def function_of_node(node: Apply) -> Callable[[Sequence[Any]], Values]:
    """The function from the values of a node's inputs to those of its outputs."""
    if isinstance(node.op, Elemwise):
        function, dtype = elementwise_function(node), _wide(node.outputs[0].type.dtype)
        return lambda values: [np.asarray(function(*values), dtype=dtype)]
    if isinstance(node.op, CAReduce) and node.inputs[0].type.ndim == 0:  # PyMC's CAR sums a scalar over axis 0
        return lambda values: [np.asarray(values[0], dtype=node.outputs[0].type.dtype)]
    if isinstance(node.op, OpFromGraph):  # its own `perform` would compile the inner graph
        inner = Interpreter(node.op.fgraph.inputs, node.op.fgraph.outputs)
        return lambda values: inner(*values)

    def perform(values: Sequence[Any]) -> Values:
        cells: list[list[Any]] = [[None] for _ in node.outputs]
        node.op.perform(node, list(values), cells)
        return [cell[0] for cell in cells]

    return perform


def elementwise_function(node: Apply) -> Callable[..., np.ndarray]:
    """The NumPy function of an elementwise node; conditions may come as numbers.

    Narrow numbers are widened first: NumPy's ``sqrt`` of an 8-bit 2, which PyMC's densities have, is one of half
    precision, and PyTensor narrows constants, so that its ``sqrt(2.0)`` has seven digits.
    """
    function = numpy_function(node.op.scalar_op)
    output = node.outputs[0].type.dtype
    dtypes = [_input_dtype(source.type.dtype, output) for source in node.inputs]
    if not any(dtypes):
        return function
    return lambda *values: function(*map(np.asarray, values, dtypes))


def _input_dtype(dtype: str, output: str) -> str | None:
    """What an input is cast to; None where it stays as it is."""
    if dtype in ("bool", "float32"):
        return _wide(dtype)
    return _wide(output) if output.startswith("float") and "int" in dtype else None


def _wide(dtype: str) -> str:
    return "float64" if dtype == "float32" else dtype


def numpy_function(scalar_op: ps.ScalarOp) -> Callable[..., np.ndarray]:
    """The NumPy or SciPy function of a scalar Op; its Python implementation, element by element, where none."""
    if isinstance(scalar_op, ps.Identity | ps.Cast):
        return lambda array: array  # the caller casts
    if isinstance(scalar_op, ps.Second):
        return _second
    spec = getattr(scalar_op, "nfunc_spec", None)
    if spec is not None:
        module = scipy.special if spec[0].startswith("scipy.special.") else np
        function = getattr(module, spec[0].rsplit(".", 1)[-1], None)
        if function is not None:
            # Add and Mul take any number of arguments, of which NumPy would write into the third.
            several = isinstance(scalar_op, ps.Add | ps.Mul)
            return functools.partial(_folded, function) if several else function
    return functools.partial(_one_by_one, scalar_op.impl)


def _second(pattern: np.ndarray, value: np.ndarray) -> np.ndarray:
    return np.broadcast_to(value, np.broadcast_shapes(np.shape(pattern), np.shape(value)))


def _folded(function: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    return functools.reduce(function, arrays)


def _one_by_one(function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    return np.asarray(np.frompyfunc(function, len(arrays), 1)(*arrays), dtype=float)


def is_known(variable: Variable) -> bool:
    """Whether a variable is data: a constant or shared, but no source of random numbers."""
    return isinstance(variable, Constant | SharedVariable) and not isinstance(variable.type, RandomType)


def known_value(variable: Variable) -> Any:
    """The value of a variable that is data, not copied; None for any other."""
    if not is_known(variable):
        return None
    return variable.data if isinstance(variable, Constant) else variable.get_value(borrow=True)


def dim_length(model: Any, dim: str) -> int:
    """Length of a dim of a PyMC model; nothing is compiled."""
    length = model.dim_lengths[dim]
    found = known_value(length)
    return int(Interpreter([], [length])()[0] if found is None else found)


class Interpreter:
    """A function from values of `inputs` to values of `outputs`.

    For small graphs that are evaluated tens of times: ready at once, some ten microseconds a node and call,
    where a compiled function would take from milliseconds to seconds to make. Nodes that do not depend on the
    inputs are evaluated once, here, and equal nodes are one.
    """

    def __init__(self, inputs: Sequence[Variable], outputs: Sequence[Variable]):
        self._n_inputs = len(inputs)
        self._graph = (list(inputs), list(outputs))
        self._cells: list[Any] = [None] * len(inputs)  # known values; None for what changes
        self._position: dict[Variable, int] = {variable: k for k, variable in enumerate(inputs)}
        self._moving = set(range(len(inputs)))
        self._steps: list[tuple[Callable[[Sequence[Any]], Values], list[int], list[int]]] = []
        done: dict[tuple[Any, ...], Apply] = {}
        with np.errstate(all="ignore"):
            for node in io_toposort(list(inputs), list(outputs)):
                self._add(node, done)
        self._outputs = [self._cell(output) for output in outputs]

    def __reduce__(self) -> tuple[type, tuple[list[Variable], list[Variable]]]:
        """Pickled as its graph, and prepared anew."""
        return Interpreter, self._graph

    def __call__(self, *values: Any) -> Values:
        """Values of the outputs."""
        cells = list(self._cells)
        cells[: self._n_inputs] = values
        with np.errstate(all="ignore"):
            for function, sources, targets in self._steps:
                for target, value in zip(targets, function([cells[k] for k in sources]), strict=True):
                    cells[target] = value
        return [cells[k] for k in self._outputs]

    def _cell(self, variable: Variable, value: Any = None) -> int:
        """The number of a variable's cell, made where there is none."""
        if variable not in self._position:
            self._position[variable] = len(self._cells)
            self._cells.append(known_value(variable) if value is None else value)
        return self._position[variable]

    def _add(self, node: Apply, done: dict[tuple[Any, ...], Apply]) -> None:
        sources = [self._cell(source) for source in node.inputs]
        same = done.setdefault((node.op, *sources), node)
        if same is not node:
            for output, known in zip(node.outputs, same.outputs, strict=True):
                self._position[output] = self._position[known]
        elif self._moving.isdisjoint(sources):
            found = function_of_node(node)([self._cells[k] for k in sources])
            for output, value in zip(node.outputs, found, strict=True):
                self._cell(output, value)
        else:
            targets = [self._cell(output) for output in node.outputs]
            self._moving.update(targets)
            self._steps.append((function_of_node(node), sources, targets))
