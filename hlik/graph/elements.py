"""Which elements the nodes of a graph have, and where the ones that are only moved come from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pytensor.compile.ops import ViewOp
from pytensor.graph.basic import Variable
from pytensor.raise_op import CheckAndRaise
from pytensor.tensor.basic import Alloc, Join, MakeVector, ScalarFromTensor, TensorFromScalar
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.math import Dot
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape
from pytensor.tensor.special import LogSoftmax, Softmax
from pytensor.tensor.subtensor import (
    AdvancedIncSubtensor,
    AdvancedIncSubtensor1,
    AdvancedSubtensor,
    AdvancedSubtensor1,
    IncSubtensor,
    Subtensor,
)

from hlik.graph import algebra, rules
from hlik.graph import forms as fm
from hlik.graph.forms import Form
from hlik.graph.walk import Walker


class CannotLift(Exception):
    """A log density is not an elementwise function of affine predictors."""


TRANSPARENT = (ViewOp, SpecifyShape, CheckAndRaise, TensorFromScalar, ScalarFromTensor)
INDEXING = (Subtensor, AdvancedSubtensor, AdvancedSubtensor1, DimShuffle, Reshape, Alloc)
ASSEMBLING = (Join, MakeVector, IncSubtensor, AdvancedIncSubtensor, AdvancedIncSubtensor1)


class Elements:
    """Shapes of the nodes of one model's graph, and the numbers of the elements that they take from others."""

    def __init__(self, walker: Walker):
        self.walker = walker
        self._shapes: dict[Variable, tuple[int, ...]] = {}

    def shape(self, variable: Variable) -> tuple[int, ...]:
        """Shape of a node, also of one whose form is opaque."""
        if variable not in self._shapes:
            known = algebra.shape_of(self.walker.form(variable))
            self._shapes[variable] = known if known is not None else self._inferred_shape(variable)
        return self._shapes[variable]

    def _inferred_shape(self, variable: Variable) -> tuple[int, ...]:
        node = variable.owner
        if node is None:
            raise CannotLift(f"the unknown input {variable}")
        if isinstance(node.op, Elemwise):
            return np.broadcast_shapes(*(self.shape(source) for source in node.inputs))
        if isinstance(node.op, (*TRANSPARENT, Softmax, LogSoftmax)):
            return self.shape(node.inputs[0])
        if isinstance(node.op, (*INDEXING, *ASSEMBLING)):
            return self.numbers(variable).shape
        if isinstance(node.op, CAReduce):
            full = self.shape(node.inputs[0])
            axes = range(len(full)) if node.op.axis is None else node.op.axis
            return tuple(size for k, size in enumerate(full) if k not in axes)
        if is_dot(node.op):
            left, right = (self.shape(source) for source in node.inputs)
            return (*left[:-1], *right[1:])
        static = variable.type.shape
        if any(size is None for size in static):
            raise CannotLift(f"the operation {node.op}")
        return tuple(static)

    def numbers(self, variable: Variable) -> np.ndarray:
        """For an Op that moves elements: which element of its (stacked) parts each output element is."""
        node = variable.owner
        parts, before, after = parts_of(node.op, node.inputs)
        numbers, start = [], 0
        for part in parts:
            shape = self.shape(part)
            size = int(np.prod(shape, dtype=int))
            numbers.append(np.arange(start, start + size).reshape(shape))
            start += size
        others = [[self.data(source) for source in group] for group in (before, after)]
        if isinstance(node.op, Reshape):
            return numbers[0].reshape([int(k) for k in np.asarray(others[1][0])])
        if isinstance(node.op, Alloc):
            return np.broadcast_to(numbers[0], tuple(int(np.asarray(k)) for k in others[1]))
        return np.asarray(rules.numeric(node, [*others[0], *numbers, *others[1]]), dtype=np.int64)  # Join casts

    def data(self, variable: Variable) -> Form:
        """The value of a node that depends on data and shapes only."""
        form = self.walker.form(variable)
        if fm.is_constant(form):
            return form
        node = variable.owner
        if node is not None and isinstance(node.op, Shape | Shape_i):
            shape = self.shape(node.inputs[0])
            return np.array(shape[node.op.i] if isinstance(node.op, Shape_i) else shape, dtype=np.int64)
        if node is None or variable in self.walker.free or not node.inputs:
            raise CannotLift(f"an index or shape that depends on {sorted(fm.inputs_of(form))}")
        return rules.numeric(node, [self.data(source) for source in node.inputs])


def is_dot(op: object) -> bool:
    """Whether an Op is a product of matrices."""
    return isinstance(op, Dot) or (isinstance(op, Blockwise) and isinstance(op.core_op, Dot))


def parts_of(op: object, inputs: Sequence[Variable]) -> tuple[list[Variable], list[Variable], list[Variable]]:
    """The inputs whose elements an Op moves, those before them (a join's axis) and those after (indices, shapes)."""
    if isinstance(op, Join):
        return list(inputs[1:]), list(inputs[:1]), []
    if isinstance(op, MakeVector):
        return list(inputs), [], []
    if isinstance(op, IncSubtensor | AdvancedIncSubtensor | AdvancedIncSubtensor1):
        if not op.set_instead_of_inc:
            raise CannotLift(f"the operation {op}")
        return list(inputs[:2]), [], list(inputs[2:])
    return list(inputs[:1]), [], list(inputs[1:])
