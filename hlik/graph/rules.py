"""One rule per PyTensor Op: from the forms of its inputs to the form of its output.

`propagate` dispatches on the type of the Op. To teach hlik another linear Op, register one function here.
Ops that only move elements (indexing, joining, reshaping) share one trick: run the Op itself on element numbers,
and read from the result which element went where.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch

import numpy as np
import pytensor.scalar as ps
import scipy.sparse as sp
import scipy.special
from pytensor.compile.ops import ViewOp
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.raise_op import CheckAndRaise
from pytensor.sparse.math import Dot as SparseDot
from pytensor.sparse.math import StructuredDot
from pytensor.tensor.basic import Alloc, Join, MakeVector, ScalarFromTensor, TensorFromScalar
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.math import Dot, Sum
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape
from pytensor.tensor.subtensor import (
    AdvancedIncSubtensor,
    AdvancedIncSubtensor1,
    AdvancedSubtensor,
    AdvancedSubtensor1,
    IncSubtensor,
    Subtensor,
)

from hlik.graph import algebra
from hlik.graph import forms as fm
from hlik.graph import rows as lin
from hlik.graph.forms import Affine, Form, Mapped, Opaque


def form_of_node(node: Apply, forms: Sequence[Form]) -> Form:
    """The form of a node's (single) output, given the forms of its inputs."""
    if isinstance(node.op, Shape | Shape_i):
        return propagate(node.op, node, forms)
    if all(fm.is_constant(form) for form in forms):
        return numeric(node, forms)
    if any(isinstance(form, Opaque) for form in forms):
        return _opaque_result(node, forms)
    return propagate(node.op, node, forms)


def _opaque_result(node: Apply, forms: Sequence[Form]) -> Opaque:
    result = algebra.opaque(forms) if isinstance(node.op, Elemwise) else unknown(node, forms)
    return Opaque(
        result.inputs, result.shape if result.shape is not None else _static_shape(node), result.reason
    )


def _static_shape(node: Apply) -> tuple[int, ...] | None:
    shape = getattr(node.outputs[0].type, "shape", None)
    return None if shape is None or any(size is None for size in shape) else tuple(shape)


def unknown(node: Apply, forms: Sequence[Form]) -> Opaque:
    """What a rule returns where it does not apply."""
    inputs = frozenset().union(*(fm.inputs_of(form) for form in forms))
    reason = next((form.reason for form in forms if isinstance(form, Opaque) and form.reason), "")
    return Opaque(inputs, _static_shape(node), reason or f"the operation {node.op}")


def numeric(node: Apply, values: Sequence[Form]) -> np.ndarray:
    """The value of a node whose inputs are all known; nothing is compiled."""
    if isinstance(node.op, Elemwise):
        result = numpy_function(node.op.scalar_op)(*(np.asarray(value) for value in values))
        return np.asarray(result, dtype=node.outputs[0].type.dtype)
    storage: list[list] = [[None] for _ in node.outputs]
    node.op.perform(node, list(values), storage)
    return storage[0][0]


def numpy_function(scalar_op: ps.ScalarOp) -> Callable[..., np.ndarray]:
    """The NumPy or SciPy function of a scalar Op; its Python implementation, element by element, where none."""
    if isinstance(scalar_op, ps.Identity | ps.Cast):
        return lambda array: array  # the caller casts
    spec = getattr(scalar_op, "nfunc_spec", None)
    if spec is not None:
        module = scipy.special if spec[0].startswith("scipy.special.") else np
        function = getattr(module, spec[0].rsplit(".", 1)[-1], None)
        if function is not None:
            return function
    python = np.frompyfunc(scalar_op.impl, scalar_op.nin, 1)
    return lambda *arrays: np.asarray(python(*arrays), dtype=float)


@singledispatch
def propagate(op: Op, node: Apply, forms: Sequence[Form]) -> Form:
    """The form of the output of `node`; at least one of `forms` is not constant and none is opaque."""
    return unknown(node, forms)


# ---------------------------------------------------------------- elementwise


@propagate.register(Elemwise)
def _(op: Elemwise, node: Apply, forms: Sequence[Form]) -> Form:
    scalar_op = op.scalar_op
    if isinstance(scalar_op, ps.Identity | ps.Cast):
        return forms[0]
    if isinstance(scalar_op, ps.Add):
        return algebra.add(forms)
    if isinstance(scalar_op, ps.Sub):
        return algebra.add(forms, sign=-1.0)
    if isinstance(scalar_op, ps.Mul):
        return algebra.multiply(forms)
    if isinstance(scalar_op, ps.TrueDiv):
        return algebra.divide(forms[0], forms[1])
    return algebra.compose(numpy_function(scalar_op), forms)


@propagate.register(ViewOp)
@propagate.register(SpecifyShape)
@propagate.register(CheckAndRaise)
@propagate.register(ScalarFromTensor)
@propagate.register(TensorFromScalar)
def _(op: Op, node: Apply, forms: Sequence[Form]) -> Form:
    return forms[0] if not fm.is_constant(forms[0]) else unknown(node, forms)


# ---------------------------------------------------------------- moving elements


def rearranged(form: Form, index: np.ndarray) -> Form:
    """The elements `index` (flat positions, any shape) of a form."""
    if isinstance(form, Affine):
        return fm.gathered(form, index)
    if isinstance(form, Mapped):
        return Mapped(form.function, fm.gathered(form.affine, index), form.is_exp)
    return np.asarray(form).ravel()[index]


def element_numbers(form: Form) -> np.ndarray:
    """``0 .. size-1`` in the shape of the form."""
    shape = algebra.shape_of(form)
    assert shape is not None
    return np.arange(int(np.prod(shape, dtype=int))).reshape(shape)


@propagate.register(Subtensor)
@propagate.register(AdvancedSubtensor)
@propagate.register(AdvancedSubtensor1)
def _(op: Op, node: Apply, forms: Sequence[Form]) -> Form:
    if not all(fm.is_constant(form) for form in forms[1:]):
        return unknown(node, forms)
    return rearranged(forms[0], numeric(node, [element_numbers(forms[0]), *forms[1:]]))


@propagate.register(DimShuffle)
def _(op: DimShuffle, node: Apply, forms: Sequence[Form]) -> Form:
    numbers = numeric(node, [element_numbers(forms[0])])
    form = forms[0]
    affine = form.affine if isinstance(form, Mapped) else form
    if isinstance(affine, Affine) and list(op.shuffle) == sorted(
        op.shuffle
    ):  # order kept: only the shape changes
        moved = Affine(affine.rows, affine.offset.reshape(numbers.shape))
        return moved if isinstance(form, Affine) else Mapped(form.function, moved, form.is_exp)
    return rearranged(form, numbers)


@propagate.register(Reshape)
def _(op: Reshape, node: Apply, forms: Sequence[Form]) -> Form:
    if not fm.is_constant(forms[1]):
        return unknown(node, forms)
    return rearranged(forms[0], element_numbers(forms[0]).reshape([int(k) for k in np.asarray(forms[1])]))


@propagate.register(Alloc)
def _(op: Alloc, node: Apply, forms: Sequence[Form]) -> Form:
    if not all(fm.is_constant(form) for form in forms[1:]):
        return unknown(node, forms)
    shape = tuple(int(np.asarray(size)) for size in forms[1:])
    return rearranged(forms[0], np.broadcast_to(element_numbers(forms[0]), shape))


@propagate.register(Shape)
@propagate.register(Shape_i)
def _(op: Shape | Shape_i, node: Apply, forms: Sequence[Form]) -> Form:
    shape = algebra.shape_of(forms[0])
    if shape is None:
        return unknown(node, forms)
    return np.array(shape[op.i] if isinstance(op, Shape_i) else shape, dtype=np.int64)


@propagate.register(Join)
def _(op: Join, node: Apply, forms: Sequence[Form]) -> Form:
    return _assembled(node, forms[:1], forms[1:])


@propagate.register(MakeVector)
def _(op: MakeVector, node: Apply, forms: Sequence[Form]) -> Form:
    return _assembled(node, (), forms)


@propagate.register(IncSubtensor)
@propagate.register(AdvancedIncSubtensor)
@propagate.register(AdvancedIncSubtensor1)
def _(op: Op, node: Apply, forms: Sequence[Form]) -> Form:
    if not op.set_instead_of_inc or not all(fm.is_constant(form) for form in forms[2:]):  # type: ignore[attr-defined]
        return unknown(node, forms)
    return _assembled(node, (), forms[:2], after=forms[2:])


def _assembled(
    node: Apply, before: Sequence[Form], parts: Sequence[Form], after: Sequence[Form] = ()
) -> Form:
    """Output of an Op that puts elements of `parts` into new places: run on numbers, then gather from the stack."""
    numbers, start = [], 0
    for part in parts:
        numbers.append(element_numbers(part) + start)
        start += numbers[-1].size
    index = numeric(node, [*before, *numbers, *after])
    if any(isinstance(part, Mapped) for part in parts):
        if all(isinstance(part, Mapped) and part.is_exp for part in parts):
            exponents = [part.affine for part in parts]  # type: ignore[union-attr]
            return fm.exponential(fm.gathered(_stacked(exponents), index))
        return unknown(node, parts)
    return fm.gathered(_stacked(parts), np.asarray(index, dtype=np.int64))


def _stacked(parts: Sequence[Form]) -> Affine:
    """The elements of all parts in one long vector."""
    affine = [part if isinstance(part, Affine) else Affine({}, np.asarray(part, float)) for part in parts]
    lengths = [part.offset.size for part in affine]
    sizes = {name: rows.size for part in affine for name, rows in part.rows.items()}
    maps = {
        name: lin.stack([part.rows.get(name) for part in affine], lengths, k) for name, k in sizes.items()
    }
    return Affine(maps, np.concatenate([part.offset.ravel() for part in affine]))


# ---------------------------------------------------------------- sums and products by data


@propagate.register(Sum)
def _(op: Sum, node: Apply, forms: Sequence[Form]) -> Form:
    affine = forms[0]
    if not isinstance(affine, Affine):
        return unknown(node, forms)
    axes = tuple(range(affine.offset.ndim)) if op.axis is None else tuple(op.axis)
    result = affine.offset.sum(axis=axes)
    kept = np.arange(result.size).reshape([1 if i in axes else s for i, s in enumerate(affine.shape)])
    target = np.broadcast_to(kept, affine.shape).ravel()
    size = affine.offset.size
    adder = sp.csr_array((np.ones(size), (target, np.arange(size))), shape=(result.size, size))
    return Affine({name: lin.apply(adder, rows) for name, rows in affine.rows.items()}, np.asarray(result))


@propagate.register(Dot)
@propagate.register(SparseDot)
@propagate.register(StructuredDot)
def _(op: Op, node: Apply, forms: Sequence[Form]) -> Form:
    return _dot(node, forms[0], forms[1])


@propagate.register(Blockwise)
def _(op: Blockwise, node: Apply, forms: Sequence[Form]) -> Form:
    if isinstance(op.core_op, Dot) and all(len(algebra.shape_of(form) or ()) <= 2 for form in forms):
        return _dot(node, forms[0], forms[1])
    return unknown(node, forms)


def _dot(node: Apply, left: Form, right: Form) -> Form:
    if fm.is_constant(left) and isinstance(right, Affine):
        return _left_product(left, right)  # type: ignore[arg-type]
    if isinstance(left, Affine) and fm.is_constant(right):
        transposed = rearranged(left, element_numbers(left).T)
        assert isinstance(transposed, Affine)
        result = _left_product(right.T if sp.issparse(right) else np.asarray(right).T, transposed)
        flipped = rearranged(result, element_numbers(result).T)
        return flipped
    return unknown(node, [left, right])


def _left_product(matrix: np.ndarray | sp.sparray, affine: Affine) -> Affine:
    """``matrix @ affine`` for an affine form with one or two dimensions."""
    columns = affine.shape[1] if affine.offset.ndim == 2 else 1
    offset = np.asarray(matrix @ affine.offset)
    operator = matrix if sp.issparse(matrix) else np.atleast_2d(np.asarray(matrix))
    if columns > 1:
        operator = sp.csr_array(sp.kron(sp.csr_array(operator), sp.eye_array(columns)))
    return Affine({name: lin.apply(operator, rows) for name, rows in affine.rows.items()}, offset)
