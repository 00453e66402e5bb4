"""From the PyTensor graph of a log density to a tape of elementwise operations (`hlik.tape`).

The graph is walked from the log density of observation i towards its inputs. At each node there are four cases:

1. it depends on data only: a constant;
2. it is affine, and involves a random effect or differs between observations: a *predictor* (the largest such node);
3. it depends on parameters only: a *tau*, a map of theta;
4. otherwise it is an operation: elementwise ones go onto the tape, and those that move elements (indexing, reshaping,
   joining) are followed by keeping track, for every observation, of which element it takes.

What is neither (a solve, a scan) cannot be read: `CannotLift` says which operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from pytensor.compile.ops import ViewOp
from pytensor.graph.basic import Variable
from pytensor.raise_op import CheckAndRaise
from pytensor.scalar import basic as ps
from pytensor.scalar import math as psm
from pytensor.tensor.basic import Alloc, Join, MakeVector, ScalarFromTensor, TensorFromScalar
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.math import Dot
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape
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
from hlik.graph import rows as lin
from hlik.graph.forms import Affine, Form, Mapped
from hlik.graph.walk import Walker
from hlik.tape import Instruction

LARGEST_SUM = 30  # terms of a sum or product over an axis that are written out


class CannotLift(Exception):
    """A log density is not an elementwise function of affine predictors."""


SCALAR_NAMES: dict[type, str] = {
    ps.Add: "add", ps.Sub: "sub", ps.Mul: "mul", ps.TrueDiv: "true_div", ps.Neg: "neg", ps.Pow: "pow",
    ps.Reciprocal: "reciprocal", ps.Sqr: "sqr", ps.Sqrt: "sqrt", ps.Exp: "exp", ps.Expm1: "expm1", ps.Log: "log",
    ps.Log1p: "log1p", ps.Tanh: "tanh", ps.Sin: "sin", ps.Cos: "cos", ps.ArcTan: "arctan", ps.Abs: "abs",
    ps.Sign: "sign", ps.Floor: "floor", ps.Ceil: "ceil", ps.Switch: "switch", ps.Clip: "clip",
    ps.GE: "ge", ps.GT: "gt", ps.LE: "le", ps.LT: "lt", ps.EQ: "eq", ps.NEQ: "neq", ps.AND: "and", ps.OR: "or",
    ps.Invert: "invert", ps.IsNan: "isnan", ps.IsInf: "isinf", ps.Identity: "identity", ps.Cast: "identity", ps.Second: "second",
    psm.Sigmoid: "sigmoid", psm.Softplus: "softplus", psm.Log1mexp: "log1mexp", psm.GammaLn: "gammaln",
    psm.Psi: "psi", psm.TriGamma: "trigamma", psm.Erf: "erf", psm.Erfc: "erfc", psm.Erfcx: "erfcx",
    psm.GammaInc: "gammainc", psm.GammaIncC: "gammaincc", ps.ScalarMaximum: "maximum", ps.ScalarMinimum: "minimum",
}  # fmt: skip
"""PyTensor's scalar operations and their names in `hlik.jets`."""

TRANSPARENT = (ViewOp, SpecifyShape, CheckAndRaise, TensorFromScalar, ScalarFromTensor)
INDEXING = (Subtensor, AdvancedSubtensor, AdvancedSubtensor1, DimShuffle, Reshape, Alloc)
ASSEMBLING = (Join, MakeVector, IncSubtensor, AdvancedIncSubtensor, AdvancedIncSubtensor1)


@dataclass
class Lifted:
    """What lifting found: the tape, the predictors (affine forms of n elements), and the tau variables."""

    tape: list[Instruction] = field(default_factory=list)
    predictors: list[Affine] = field(default_factory=list)
    taus: list[tuple[Variable, np.ndarray]] = field(default_factory=list)


def lift(
    walker: Walker, density: Variable, is_effect: Callable[[str], bool], parameters: Sequence[Variable] = ()
) -> Lifted:
    """Lift the log density of n observations (any shape; elements in C order).

    Parameters
    ----------
    walker
        Forms of the model's nodes.
    density
        The log density, one element an observation.
    is_effect
        Whether a free variable is a random effect.
    parameters
        Parameters of the distribution: their linear predictors are taken as they stand there, so that a mean ``mu``
        is a predictor rather than the residual ``y - mu`` of the density.

    Raises
    ------
    CannotLift
        Naming the operation that is not elementwise.
    """
    lifter = _Lifter(walker, is_effect)
    shape = lifter.shape(density)
    lifter.n = int(np.prod(shape, dtype=int))
    for parameter in parameters:
        lifter.register(parameter, shape)
    last = lifter.visit(density, np.arange(lifter.n))
    if last != len(lifter.found.tape) - 1:
        lifter.found.tape.append(Instruction("identity", (last,)))
    return lifter.found


def lifted_shape(walker: Walker, variable: Variable) -> tuple[int, ...]:
    """Shape of a node, also of one whose form is opaque."""
    return _Lifter(walker, lambda name: False).shape(variable)


class _Lifter:
    def __init__(self, walker: Walker, is_effect: Callable[[str], bool]):
        self.walker, self.is_effect = walker, is_effect
        self.found = Lifted()
        self.n = 0
        self._memo: dict[tuple[Variable, bytes], int] = {}
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
        if isinstance(node.op, TRANSPARENT):
            return self.shape(node.inputs[0])
        if isinstance(node.op, (*INDEXING, *ASSEMBLING)):
            return self._numbers(variable).shape
        if isinstance(node.op, CAReduce):
            full = self.shape(node.inputs[0])
            axes = range(len(full)) if node.op.axis is None else node.op.axis
            return tuple(size for k, size in enumerate(full) if k not in axes)
        if _is_dot(node.op):
            left, right = (self.shape(source) for source in node.inputs)
            return (*left[:-1], *right[1:])
        static = variable.type.shape
        if any(size is None for size in static):
            raise CannotLift(f"the operation {node.op}")
        return tuple(static)

    def _numbers(self, variable: Variable) -> np.ndarray:
        """For an Op that moves elements: which element of its (stacked) parts each output element is."""
        node = variable.owner
        parts, before, after = _parts(node.op, node.inputs)
        numbers, start = [], 0
        for part in parts:
            shape = self.shape(part)
            size = int(np.prod(shape, dtype=int))
            numbers.append(np.arange(start, start + size).reshape(shape))
            start += size
        others = [[self._data(source) for source in group] for group in (before, after)]
        if isinstance(node.op, Reshape):
            return numbers[0].reshape([int(k) for k in np.asarray(others[1][0])])
        if isinstance(node.op, Alloc):
            return np.broadcast_to(numbers[0], tuple(int(np.asarray(k)) for k in others[1]))
        return np.asarray(rules.numeric(node, [*others[0], *numbers, *others[1]]), dtype=np.int64)  # Join casts

    def register(self, parameter: Variable, shape: tuple[int, ...]) -> None:
        """Make the linear predictor behind a parameter of the distribution the one that others are expressed in."""
        form = self.walker.form(parameter)
        affine = form.affine if isinstance(form, Mapped) else form
        if isinstance(affine, Affine):
            flat = fm.broadcast(affine, shape)
            flat = Affine(flat.rows, flat.offset.ravel())
            if any(self.is_effect(name) for name in affine.inputs) or _varies(flat):
                self._predictor(flat)

    def _data(self, variable: Variable) -> Form:
        form = self.walker.form(variable)
        if fm.is_constant(form):
            return form
        node = variable.owner
        if node is not None and isinstance(node.op, Shape | Shape_i):
            shape = self.shape(node.inputs[0])
            return np.array(shape[node.op.i] if isinstance(node.op, Shape_i) else shape, dtype=np.int64)
        if node is None or variable in self.walker.free or not node.inputs:
            raise CannotLift(f"an index or shape that depends on {sorted(fm.inputs_of(form))}")
        return rules.numeric(node, [self._data(source) for source in node.inputs])

    def _emit(self, instruction: Instruction) -> int:
        self.found.tape.append(instruction)
        return len(self.found.tape) - 1

    def visit(self, variable: Variable, index: np.ndarray) -> int:
        """Put the elements `index` of a node onto the tape; their position on it."""
        key = (variable, index.tobytes())
        if key not in self._memo:
            self._memo[key] = self._place(variable, index)
        return self._memo[key]

    def _place(self, variable: Variable, index: np.ndarray) -> int:
        form = self.walker.form(variable)
        if fm.is_constant(form):
            values = np.asarray(form, dtype=float).ravel()[index]
            uniform = values.size > 1 and np.all(values == values[0])
            return self._emit(Instruction("constant", data=values[:1] if uniform else values))
        if isinstance(form, Affine) and self._moves(form, index):
            return self._predictor(fm.gathered(form, index))
        if not self._moves(form, index):
            self.found.taus.append((variable, index[:1] if np.all(index == index[0]) else index))
            return self._emit(Instruction("tau", number=len(self.found.taus) - 1))
        if variable in self.walker.aliases:
            return self.visit(self.walker.aliases[variable], index)
        if variable.owner is None or variable in self.walker.free:
            return self._through_transform(variable, form, index)
        return self._operation(variable, index)

    def _moves(self, form: Form, index: np.ndarray) -> bool:
        """Whether a form involves a random effect, or is a linear predictor with a row for every observation."""
        if any(self.is_effect(name) for name in fm.inputs_of(form)):
            return True
        affine = form.affine if isinstance(form, Mapped) else form
        return isinstance(affine, Affine) and affine.offset.size >= self.n and _varies(fm.gathered(affine, index))

    def _predictor(self, affine: Affine) -> int:
        """A predictor, or what it is of one already met: ``k * predictor + data``."""
        for number, known in enumerate(self.found.predictors):
            multiple = algebra.row_multiple(known, affine)
            if multiple is not None:
                place = self._emit(Instruction("predictor", number=number))
                if multiple != 1.0:
                    factor = self._emit(Instruction("constant", data=np.array([multiple])))
                    place = self._emit(Instruction("mul", (factor, place)))
                shift = affine.offset - multiple * known.offset
                if np.any(shift):
                    place = self._emit(Instruction("add", (place, self._emit(Instruction("constant", data=shift)))))
                return place
        self.found.predictors.append(affine)
        return self._emit(Instruction("predictor", number=len(self.found.predictors) - 1))

    def _through_transform(self, variable: Variable, form: Form, index: np.ndarray) -> int:
        """A free variable that is a function of its value variable."""
        backward = self.walker.backward(variable) if variable in self.walker.free else None
        if backward is None or not isinstance(form, Mapped):
            raise CannotLift(f"the variable {variable} on its own scale")
        return self.visit(backward, index)

    def _operation(self, variable: Variable, index: np.ndarray) -> int:
        node = variable.owner
        if variable in self.walker.centring:
            return self.visit(self.walker.centring[variable], index)
        if isinstance(node.op, TRANSPARENT):
            return self.visit(node.inputs[0], index)
        if isinstance(node.op, Elemwise):
            return self._elementwise(variable, index)
        if isinstance(node.op, INDEXING):
            return self.visit(_parts(node.op, node.inputs)[0][0], self._numbers(variable).ravel()[index])
        if isinstance(node.op, ASSEMBLING):
            return self._assembled(variable, index)
        if isinstance(node.op, CAReduce):
            return self._reduced(variable, index)
        if _is_dot(node.op):
            return self._dot(variable, index)
        raise CannotLift(f"the operation {node.op}")

    def _elementwise(self, variable: Variable, index: np.ndarray) -> int:
        node = variable.owner
        name = SCALAR_NAMES.get(type(node.op.scalar_op))
        if name is None:
            raise CannotLift(f"the function {node.op.scalar_op}, whose derivatives hlik does not know")
        shape = self.shape(variable)
        arguments = []
        for source in node.inputs:
            own = self.shape(source)
            size = int(np.prod(own, dtype=int))
            place = index if own == shape else np.broadcast_to(np.arange(size).reshape(own), shape).ravel()[index]
            arguments.append(self.visit(source, place))
        return self._emit(Instruction(name, tuple(arguments)))

    def _assembled(self, variable: Variable, index: np.ndarray) -> int:
        """Elements that come from several parts: each part where it applies."""
        node = variable.owner
        parts = _parts(node.op, node.inputs)[0]
        place = self._numbers(variable).ravel()[index]
        result, start = None, 0
        for part in parts:
            size = int(np.prod(self.shape(part), dtype=int))
            inside = (place >= start) & (place < start + size)
            if inside.any():
                aligned = np.arange(index.size) * (size // index.size) if size % index.size == 0 else 0
                own = self.visit(part, np.where(inside, place - start, aligned))  # elsewhere: the same observation
                if result is None:
                    result = own
                else:
                    mask = self._emit(Instruction("constant", data=inside.astype(float)))
                    result = self._emit(Instruction("switch", (mask, own, result)))
            start += size
        assert result is not None
        return result

    def _reduced(self, variable: Variable, index: np.ndarray) -> int:
        """A sum, product or maximum over a short axis, written out."""
        node = variable.owner
        name = SCALAR_NAMES.get(type(node.op.scalar_op))
        full = self.shape(node.inputs[0])
        axes = tuple(range(len(full))) if node.op.axis is None else tuple(node.op.axis)
        numbers = np.moveaxis(np.arange(int(np.prod(full, dtype=int))).reshape(full), axes, range(len(axes)))
        rows = numbers.reshape(int(np.prod([full[k] for k in axes], dtype=int)), -1)
        if name is None or rows.shape[0] > LARGEST_SUM:
            raise CannotLift(f"the reduction {node.op} over {rows.shape[0]} elements")
        places = [self.visit(node.inputs[0], row[index]) for row in rows]
        return places[0] if len(places) == 1 else self._emit(Instruction(name, tuple(places)))

    def _dot(self, variable: Variable, index: np.ndarray) -> int:
        """A product of matrices with a short inner dimension, written out."""
        left, right = variable.owner.inputs
        left_shape, right_shape = self.shape(left), self.shape(right)
        inner = left_shape[-1]
        if inner > LARGEST_SUM or len(left_shape) > 2 or len(right_shape) > 2:
            raise CannotLift(f"a product of matrices over {inner} elements")
        columns = right_shape[1] if len(right_shape) == 2 else 1
        row, column = (index // columns, index % columns) if len(left_shape) == 2 else (np.zeros_like(index), index)
        places = []
        for k in range(inner):
            a, b = self.visit(left, row * inner + k), self.visit(right, k * columns + column)
            places.append(self._emit(Instruction("mul", (a, b))))
        return places[0] if len(places) == 1 else self._emit(Instruction("add", tuple(places)))


def _varies(affine: Affine) -> bool:
    """Whether the elements of an affine form differ."""
    if affine.offset.size < 2:
        return False
    if np.ptp(affine.offset):
        return True
    for rows in affine.rows.values():
        if isinstance(rows, lin.Gather):
            if np.ptp(rows.index) or (rows.weight.ndim and np.ptp(rows.weight)):
                return True
        elif isinstance(rows, lin.Dense):
            if np.any(np.ptp(rows.matrix, axis=0)):
                return True
        else:
            return True
    return False


def _is_dot(op: object) -> bool:
    return isinstance(op, Dot) or (isinstance(op, Blockwise) and isinstance(op.core_op, Dot))


def _parts(op: object, inputs: Sequence[Variable]) -> tuple[list[Variable], list[Variable], list[Variable]]:
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
