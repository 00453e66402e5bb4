"""Rules for Ops that add: sums, products with data matrices, cumulative sums (see `hlik.graph.rules`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.sparse.math import Dot as SparseDot
from pytensor.sparse.math import StructuredDot
from pytensor.tensor.blas import BatchedDot
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.extra_ops import CumOp
from pytensor.tensor.math import Dot, Sum

from hlik.graph import forms as fm
from hlik.graph import products
from hlik.graph import rows as lin
from hlik.graph.forms import Affine, Form
from hlik.graph.numeric import values_of_node
from hlik.graph.rules import element_numbers, propagate, unknown


@propagate.register(Sum)
def _(op: Sum, node: Apply, forms: Sequence[Form]) -> Form:
    shape = fm.shape_of(forms[0])
    assert shape is not None
    return _summed(node, forms[0], tuple(range(len(shape))) if op.axis is None else tuple(op.axis))


def _summed(node: Apply, form: Form, axes: tuple[int, ...]) -> Form:
    """The sum over `axes`: of an affine form; of any form where the axes have length 1."""
    shape = fm.shape_of(form)
    assert shape is not None
    axes = tuple(axis for axis in axes if axis < len(shape))  # PyMC's CAR sums a scalar over its axis 0
    kept = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    if all(shape[axis] == 1 for axis in axes):
        return fm.rearranged(form, element_numbers(form).reshape(kept))
    if not isinstance(form, Affine):
        return unknown(node, [form])
    target = np.arange(int(np.prod(kept))).reshape([1 if axis in axes else s for axis, s in enumerate(shape)])
    rows = np.broadcast_to(target, shape).ravel()
    adder = sp.csr_array((np.ones(rows.size), (rows, np.arange(rows.size))), shape=(target.size, rows.size))
    return _operated(adder, form, np.asarray(form.offset.sum(axis=axes)))


def _operated(operator: np.ndarray | sp.sparray, affine: Affine, offset: np.ndarray) -> Affine:
    """A linear operator on the flattened affine form; `offset` is what it makes of the offset."""
    return Affine({name: lin.apply(operator, rows) for name, rows in affine.rows.items()}, offset)


@propagate.register(CumOp)
def _(op: CumOp, node: Apply, forms: Sequence[Form]) -> Form:
    affine = forms[0]
    if not isinstance(affine, Affine) or op.mode != "add":
        return unknown(node, forms)
    sizes = (affine.offset.size,) if op.axis is None else affine.shape
    axis = op.axis or 0
    before, after = int(np.prod(sizes[:axis])), int(np.prod(sizes[axis + 1 :]))
    lower = sp.csr_array(np.tril(np.ones((sizes[axis],) * 2)))
    operator = sp.kron(sp.kron(sp.eye_array(before), lower), sp.eye_array(after))
    return _operated(sp.csr_array(operator), affine, values_of_node(node, [affine.offset])[0])


@propagate.register(Dot)
@propagate.register(SparseDot)
@propagate.register(StructuredDot)
def _(op: Op, node: Apply, forms: Sequence[Form]) -> Form:
    return _dot(node, forms[0], forms[1])


@propagate.register(BatchedDot)
def _(op: Op, node: Apply, forms: Sequence[Form]) -> Form:
    return _batched(node, forms[0], forms[1])


@propagate.register(Blockwise)
def _(op: Blockwise, node: Apply, forms: Sequence[Form]) -> Form:
    if not isinstance(op.core_op, Dot | BatchedDot):
        return unknown(node, forms)
    if all(len(fm.shape_of(form) or ()) == 2 for form in forms):
        return _dot(node, forms[0], forms[1])
    return _batched(node, forms[0], forms[1])


def _dot(node: Apply, left: Form, right: Form) -> Form:
    if fm.is_constant(left) and isinstance(right, Affine):
        return _left_product(left, right)  # type: ignore[arg-type]
    if isinstance(left, Affine) and fm.is_constant(right):
        return _transposed(_left_product(right.T, _transposed(left)))  # type: ignore[union-attr]
    return unknown(node, [left, right])


def _transposed(affine: Affine) -> Affine:
    return fm.gathered(affine, element_numbers(affine).T)


def _left_product(matrix: np.ndarray | sp.sparray, affine: Affine) -> Affine:
    """``matrix @ affine`` for an affine form with one or two dimensions."""
    columns = affine.shape[1] if affine.offset.ndim == 2 else 1
    shape = (*matrix.shape[:-1], *affine.shape[1:])
    offset = np.asarray(matrix @ affine.offset) if np.any(affine.offset) else np.zeros(shape)
    operator = matrix if sp.issparse(matrix) else np.atleast_2d(np.asarray(matrix))
    if columns > 1:
        operator = sp.csr_array(sp.kron(sp.csr_array(operator), sp.eye_array(columns)))
    return _operated(operator, affine, offset)


def _batched(node: Apply, left: Form, right: Form) -> Form:
    """Products of stacks of matrices, one side data: all pairs of elements, summed over the shared axis."""
    if not (fm.is_constant(left) or fm.is_constant(right)):
        return unknown(node, [left, right])
    pairs = products.multiply([_expanded(left, -1), _expanded(right, -3)])
    shape = fm.shape_of(pairs)
    assert shape is not None
    return _summed(node, pairs, (len(shape) - 2,))


def _expanded(form: Form, axis: int) -> Form:
    return fm.rearranged(form, np.expand_dims(element_numbers(form), axis))
