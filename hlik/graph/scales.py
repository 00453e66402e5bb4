"""The factors that stand beside a variable in a product, and when they are one positive scale of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytensor.scalar as ps
import pytensor.tensor as pt
from pytensor.graph.basic import Apply, Variable, equal_computations
from pytensor.tensor.elemwise import Elemwise

from hlik.graph import forms as fm
from hlik.graph import products
from hlik.graph.algebra import same_form
from hlik.graph.ancestry import free_ancestors
from hlik.graph.forms import Opaque
from hlik.graph.graph_map import graph_map
from hlik.graph.walk import Walker

Factor = tuple[Variable, int]
"""A factor and its exponent, 1 or -1."""


def factors_beside(node: Apply, variable: Variable) -> list[Factor] | None:
    """The other factors of a product or quotient that `variable` is a factor of; None for other nodes."""
    if not isinstance(_scalar_op(node.outputs[0]), ps.Mul | ps.TrueDiv | ps.Neg):
        return None
    factors = _flattened(node.outputs[0], variable, 1)
    if [exponent for factor, exponent in factors if factor is variable] != [1]:
        return None
    return [(factor, exponent) for factor, exponent in factors if factor is not variable]


def _flattened(product: Variable, kept: Variable, exponent: int) -> list[Factor]:
    """The factors of nested products; `kept` is not taken apart."""
    scalar_op = None if product is kept else _scalar_op(product)
    if isinstance(scalar_op, ps.Mul):
        return [factor for source in product.owner.inputs for factor in _flattened(source, kept, exponent)]
    if isinstance(scalar_op, ps.TrueDiv):
        top, bottom = product.owner.inputs
        return _flattened(top, kept, exponent) + _flattened(bottom, kept, -exponent)
    if isinstance(scalar_op, ps.Neg):
        return [(pt.constant(-1.0), 1), *_flattened(product.owner.inputs[0], kept, exponent)]
    return [(product, exponent)]


def _scalar_op(variable: Variable) -> ps.ScalarOp | None:
    op = None if variable.owner is None else variable.owner.op
    return op.scalar_op if isinstance(op, Elemwise) else None


def multiplied(start: Variable | None, factors: Iterable[Factor]) -> Variable | None:
    """``start * product of factors`` as an expression; None where there is nothing to multiply."""
    for factor, exponent in factors:
        if start is None:
            start = factor if exponent == 1 else 1.0 / factor
        else:
            start = start * factor if exponent == 1 else start / factor
    return start


def level_scale(scale: Variable, source: np.ndarray | None, shape: tuple[int, ...], walker: Walker) -> Variable | None:
    """A scale that stands beside the elements `source` of a variable, as a scale of the variable itself.

    Parameters
    ----------
    scale
        An expression of parameters that broadcasts against `source`.
    source
        For each element of the product the number of the element of the variable; None after sums.
    shape
        Shape of the variable.

    Returns
    -------
    Variable or None
        A scalar, or an expression of that shape; None where one element meets several scales.
    """
    form = walker.form(scale)
    own = fm.shape_of(form)
    if own is not None and int(np.prod(own, dtype=int)) == 1:
        return scale if scale.type.ndim == 0 else pt.reshape(scale, ())
    if own is None or source is None:
        return None
    whole = np.broadcast_shapes(source.shape, own)
    flat = np.broadcast_to(source, whole).ravel()
    levels, met = np.unique(flat, return_index=True)
    first = np.zeros(int(np.prod(shape, dtype=int)), dtype=int)
    first[levels] = met
    if levels.size < flat.size:  # some levels are met twice: with the same scale?
        if isinstance(form, Opaque):
            return None
        spread = fm.rearranged(form, np.broadcast_to(np.arange(int(np.prod(own))).reshape(own), whole).ravel())
        if not same_form(spread, fm.rearranged(spread, first[flat])):
            return None
    if own == whole == shape and np.array_equal(first, np.arange(first.size)):
        return scale
    return pt.reshape(pt.broadcast_to(scale, whole).ravel()[first], shape)


def same_scale(left: Variable, right: Variable, walker: Walker) -> bool:
    """Whether two scales are the same function of the parameters."""
    return same_form(walker.form(left), walker.form(right)) or equal_computations([left], [right])


def is_positive(scale: Variable, walker: Walker) -> bool:
    """Whether a function of parameters is positive for all their values, as far as test points tell."""
    form = walker.form(scale)
    if not isinstance(form, Opaque):
        return products.is_positive(form)
    names = free_ancestors([scale], walker)
    shapes = [walker.value_shape(walker.model[name]) for name in names]
    found = graph_map(walker.model, scale, names, shapes, walker.fixed)
    points = np.random.default_rng(0).normal(size=(5, sum(int(np.prod(shape, dtype=int)) for shape in shapes)))
    return all(bool(np.all(found.value(point) > 0)) for point in points)


def product_of(scales: Sequence[Variable]) -> Variable:
    """The product of at least one scale."""
    result = scales[0]
    for scale in scales[1:]:
        result = result * scale
    return result
