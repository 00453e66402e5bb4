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
from pytensor.graph.basic import Variable
from pytensor.scalar import basic as ps
from pytensor.scalar import math as psm
from pytensor.tensor.elemwise import CAReduce, Elemwise
from pytensor.tensor.shape import Shape, Shape_i

from hlik.graph import algebra
from hlik.graph import forms as fm
from hlik.graph.elements import ASSEMBLING, INDEXING, TRANSPARENT, CannotLift, Elements, is_dot, parts_of
from hlik.graph.forms import Affine, Form, Mapped
from hlik.graph.walk import Walker
from hlik.graph.written_out import written_out
from hlik.tape import Instruction

LARGEST_SUM = 30  # terms of a sum or product over an axis that are written out


SCALAR_NAMES: dict[type, str] = {
    ps.Add: "add", ps.Sub: "sub", ps.Mul: "mul", ps.TrueDiv: "true_div", ps.Neg: "neg", ps.Pow: "pow",
    ps.Reciprocal: "reciprocal", ps.Sqr: "sqr", ps.Sqrt: "sqrt", ps.Exp: "exp", ps.Expm1: "expm1", ps.Log: "log",
    ps.Log1p: "log1p", ps.Tanh: "tanh", ps.Sin: "sin", ps.Cos: "cos", ps.ArcTan: "arctan", ps.Abs: "abs",
    ps.Sign: "sign", ps.Floor: "floor", ps.Ceil: "ceil", ps.Switch: "switch", ps.Clip: "clip",
    ps.GE: "ge", ps.GT: "gt", ps.LE: "le", ps.LT: "lt", ps.EQ: "eq", ps.NEQ: "neq", ps.AND: "and", ps.OR: "or",
    ps.Invert: "invert", ps.IsNan: "isnan", ps.IsInf: "isinf", ps.Identity: "identity", ps.Cast: "identity",
    ps.Second: "second",
    psm.Sigmoid: "sigmoid", psm.Softplus: "softplus", psm.Log1mexp: "log1mexp", psm.GammaLn: "gammaln",
    psm.Psi: "psi", psm.TriGamma: "trigamma", psm.Erf: "erf", psm.Erfc: "erfc", psm.Erfcx: "erfcx",
    psm.GammaInc: "gammainc", psm.GammaIncC: "gammaincc", ps.ScalarMaximum: "maximum", ps.ScalarMinimum: "minimum",
}  # fmt: skip
"""PyTensor's scalar operations and their names in `hlik.jets`."""


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
    shape = lifter.elements.shape(density)
    lifter.n = int(np.prod(shape, dtype=int))
    for parameter in parameters:
        lifter.register(parameter, shape)
    last = lifter.visit(density, np.arange(lifter.n))
    if last != len(lifter.found.tape) - 1:
        lifter.found.tape.append(Instruction("identity", (last,)))
    return lifter.found


class _Lifter:
    def __init__(self, walker: Walker, is_effect: Callable[[str], bool]):
        self.walker, self.is_effect = walker, is_effect
        self.found = Lifted()
        self.n = 0
        self._memo: dict[tuple[Variable, bytes], int] = {}
        self._written: dict[Variable, Variable | None] = {}
        self.elements = Elements(walker)

    def register(self, parameter: Variable, shape: tuple[int, ...]) -> None:
        """Make the linear predictor behind a parameter of the distribution the one that others are expressed in."""
        form = self.walker.form(parameter)
        affine = form.affine if isinstance(form, Mapped) else form
        if isinstance(affine, Affine) and affine.offset.size in (1, self.n):  # a multivariate density has fewer
            flat = fm.broadcast(affine, shape)
            flat = Affine(flat.rows, flat.offset.ravel())
            if any(self.is_effect(name) for name in affine.inputs) or algebra.varies(flat):
                self._predictor(flat)

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
        if isinstance(form, Affine) and self._moves(form, index) and not self._splits(variable, index):
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
        return (
            isinstance(affine, Affine) and affine.offset.size >= self.n and algebra.varies(fm.gathered(affine, index))
        )

    def _splits(self, variable: Variable, index: np.ndarray) -> bool:
        """Whether an affine node is no known predictor, but a sum of known ones and expressions of parameters."""
        gathered = fm.gathered(self.walker.form(variable), index)
        if any(algebra.row_multiple(known, gathered) is not None for known in self.found.predictors):
            return False
        node = variable.owner
        if node is None or not isinstance(node.op, Elemwise) or not isinstance(node.op.scalar_op, ps.Add | ps.Sub):
            return False
        return all(self._is_known(source, places) for source, places in self._arguments(variable, index))

    def _is_known(self, variable: Variable, index: np.ndarray) -> bool:
        """Whether elements are data, an expression of parameters, or of a known predictor."""
        form = self.walker.form(variable)
        if fm.is_constant(form) or not self._moves(form, index):
            return True
        if not isinstance(form, Affine):
            return False
        gathered = fm.gathered(form, index)
        known = any(algebra.row_multiple(known, gathered) is not None for known in self.found.predictors)
        return known or self._splits(variable, index)

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
        if isinstance(node.op, Shape | Shape_i):
            values = np.asarray(self.elements.data(variable), dtype=float).ravel()[index]
            return self._emit(Instruction("constant", data=values))
        if variable not in self._written:
            self._written[variable] = written_out(node, self.walker.form)
        written = self._written[variable]
        if written is not None:
            return self.visit(written, index)
        if isinstance(node.op, Elemwise):
            return self._elementwise(variable, index)
        if isinstance(node.op, INDEXING):
            return self.visit(parts_of(node.op, node.inputs)[0][0], self.elements.numbers(variable).ravel()[index])
        if isinstance(node.op, ASSEMBLING):
            return self._assembled(variable, index)
        if isinstance(node.op, CAReduce):
            return self._reduced(variable, index)
        if is_dot(node.op):
            return self._dot(variable, index)
        raise CannotLift(f"the operation {node.op}")

    def _elementwise(self, variable: Variable, index: np.ndarray) -> int:
        node = variable.owner
        name = SCALAR_NAMES.get(type(node.op.scalar_op))
        rounds = name == "identity" and variable.type.dtype != "bool" and not variable.type.dtype.startswith("float")
        if name is None or rounds:
            raise CannotLift(f"the function {node.op.scalar_op}, whose derivatives hlik does not know")
        arguments = [self.visit(source, places) for source, places in self._arguments(variable, index)]
        if name in ("gammainc", "gammaincc") and self.found.tape[arguments[0]].name != "constant":
            raise CannotLift(f"the function {node.op.scalar_op} of an estimated shape")
        return self._emit(Instruction(name, tuple(arguments)))

    def _arguments(self, variable: Variable, index: np.ndarray) -> list[tuple[Variable, np.ndarray]]:
        """The inputs of an elementwise node, with the elements that these of its elements are made of."""
        shape, found = self.elements.shape(variable), []
        for source in variable.owner.inputs:
            own = self.elements.shape(source)
            numbers = np.arange(int(np.prod(own, dtype=int))).reshape(own)
            found.append((source, index if own == shape else np.broadcast_to(numbers, shape).ravel()[index]))
        return found

    def _assembled(self, variable: Variable, index: np.ndarray) -> int:
        """Elements that come from several parts: each part where it applies."""
        node = variable.owner
        parts = parts_of(node.op, node.inputs)[0]
        place = self.elements.numbers(variable).ravel()[index]
        result, start = None, 0
        for part in parts:
            size = int(np.prod(self.elements.shape(part), dtype=int))
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
        full = self.elements.shape(node.inputs[0])
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
        left_shape, right_shape = self.elements.shape(left), self.elements.shape(right)
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
