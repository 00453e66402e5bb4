"""One rule per PyTensor Op: from the forms of its inputs to the form of its output.

`propagate` dispatches on the type of the Op. To teach hlik another Op, register one function here, in
`hlik.graph.linear_rules` or in `hlik.graph.moving_rules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

import numpy as np
import pytensor.scalar as ps
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.ops import DeepCopyOp, ViewOp
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.raise_op import CheckAndRaise
from pytensor.tensor.basic import ScalarFromTensor, TensorFromScalar
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.shape import Shape, Shape_i, SpecifyShape

from hlik.graph import algebra, products
from hlik.graph import forms as fm
from hlik.graph.forms import Form, Opaque
from hlik.graph.numeric import elementwise_function, known_value, values_of_node


def form_of_node(node: Apply, forms: Sequence[Form], output: int = 0) -> Form:
    """The form of an output of a node, given the forms of its inputs."""
    if isinstance(node.op, Shape | Shape_i):
        return _shape(node, forms)
    if all(fm.is_constant(form) for form in forms):
        return values_of_node(node, forms)[output]
    if isinstance(node.op, OpFromGraph):
        return _inner_form(node.op, forms, output)
    if any(isinstance(form, Opaque) for form in forms):
        repeated = _repeated(node, forms)
        return unknown(node, forms, output) if repeated is None else repeated
    found = propagate(node.op, node, forms)
    if isinstance(found, tuple):
        return found[output]
    return found if len(node.outputs) == 1 else unknown(node, forms, output)


def _repeated(node: Apply, forms: Sequence[Form]) -> Form | None:
    """A form that is repeated to the shape of an opaque one, whatever the values of that."""
    scalar_op = node.op.scalar_op if isinstance(node.op, Elemwise) else None
    known = isinstance(scalar_op, ps.Second) and not isinstance(forms[1], Opaque)
    return filled(forms[1], forms) if known and algebra.common_shape(forms) is not None else None


def numeric(node: Apply, values: Sequence[Form]) -> np.ndarray:
    """The value of a node with one output whose inputs are all known; nothing is compiled."""
    return values_of_node(node, values)[0]


def _shape(node: Apply, forms: Sequence[Form]) -> Form:
    shape = fm.shape_of(forms[0])
    if shape is None:
        return unknown(node, forms)
    return np.array(shape[node.op.i] if isinstance(node.op, Shape_i) else shape, dtype=np.int64)


def _inner_form(op: OpFromGraph, forms: Sequence[Form], output: int) -> Form:
    """The form of an output of an Op that holds a graph (einsum, say): the rules, inside it."""
    memo: dict[Variable, Form] = dict(zip(op.fgraph.inputs, forms, strict=True))

    def form(variable: Variable) -> Form:
        return memo[variable] if variable in memo else known_value(variable)

    for node in op.fgraph.toposort():
        sources = [form(source) for source in node.inputs]
        memo |= {variable: form_of_node(node, sources, k) for k, variable in enumerate(node.outputs)}
    return form(op.fgraph.outputs[output])


def unknown(node: Apply, forms: Sequence[Form], output: int = 0) -> Opaque:
    """What a rule returns where it does not apply."""
    inputs = frozenset().union(*(fm.inputs_of(form) for form in forms))
    known = next((form for form in forms if isinstance(form, Opaque)), None)
    shape = algebra.common_shape(forms) if isinstance(node.op, Elemwise) else None
    static = getattr(node.outputs[output].type, "shape", (None,))
    if shape is None and None not in static:
        shape = tuple(static)
    if known is not None:
        return Opaque(inputs, shape, known.reason, known.culprits)
    return Opaque(inputs, shape, f"the operation {node.op}", fm.curved_inputs(forms))


@singledispatch
def propagate(op: Op, node: Apply, forms: Sequence[Form]) -> Form | tuple[Form, ...]:
    """The form of the output of `node`; at least one of `forms` is not constant and none is opaque."""
    return unknown(node, forms)


@propagate.register(ViewOp)
@propagate.register(DeepCopyOp)
@propagate.register(SpecifyShape)
@propagate.register(CheckAndRaise)
@propagate.register(ScalarFromTensor)
@propagate.register(TensorFromScalar)
def _(op: Op, node: Apply, forms: Sequence[Form]) -> Form:
    return forms[0]


@propagate.register(Elemwise)
def _(op: Elemwise, node: Apply, forms: Sequence[Form]) -> Form:
    scalar_op, name = op.scalar_op, type(op.scalar_op).__name__
    if isinstance(scalar_op, ps.Identity):
        return forms[0]
    if isinstance(scalar_op, ps.Cast):
        return forms[0] if node.outputs[0].type.dtype.startswith("float") else unknown(node, forms)
    if isinstance(scalar_op, ps.Add):
        return algebra.add(forms)
    if isinstance(scalar_op, ps.Sub):
        return algebra.add(forms, sign=-1.0)
    if isinstance(scalar_op, ps.Mul):
        return products.multiply(forms)
    if isinstance(scalar_op, ps.TrueDiv):
        return products.divide(forms[0], forms[1])
    if isinstance(scalar_op, ps.Pow) and fm.is_constant(forms[1]) and algebra.uniform(np.asarray(forms[1])):
        return filled(products.power(forms[0], float(np.ravel(forms[1])[0])), forms)  # type: ignore[arg-type]
    if isinstance(scalar_op, ps.Second):
        return filled(forms[1], forms)
    if isinstance(scalar_op, ps.Switch) and fm.is_constant(forms[0]):
        return _chosen(node, np.asarray(forms[0], dtype=bool), forms[1:])
    if name in products.ELEMENTWISE:
        return products.ELEMENTWISE[name](forms[0])
    return algebra.compose(elementwise_function(node), forms)


def filled(form: Form, forms: Sequence[Form]) -> Form:
    """The form repeated to the common shape of `forms`."""
    shape = algebra.common_shape(forms)
    assert shape is not None
    if isinstance(form, Opaque) or fm.shape_of(form) == shape:
        return form
    return fm.rearranged(form, np.broadcast_to(element_numbers(form), shape))


def _chosen(node: Apply, condition: np.ndarray, branches: Sequence[Form]) -> Form:
    """Elements of the first branch where the condition (data) holds, of the second elsewhere."""
    if algebra.uniform(condition):
        return filled(branches[0 if condition.flat[0] else 1], [condition, *branches])
    from hlik.graph.moving_rules import joined

    first, second = (element_numbers(form) for form in branches)
    return joined(node, branches, np.where(condition, first, second + first.size))


def element_numbers(form: Form) -> np.ndarray:
    """``0 .. size-1`` in the shape of the form."""
    shape = fm.shape_of(form)
    assert shape is not None
    return np.arange(int(np.prod(shape, dtype=int))).reshape(shape)
