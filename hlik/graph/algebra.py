"""Elementwise algebra on forms: sums, and functions of constant, affine and mapped forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hlik.graph import forms as fm
from hlik.graph import rows as lin
from hlik.graph.forms import Affine, Form, Function, Mapped, Opaque, Product, shape_of

SEVERAL = "a nonlinear function of several variables"
UNEQUAL = "a nonlinear function with coefficients that differ between elements"


def common_shape(forms: Sequence[Form]) -> tuple[int, ...] | None:
    """The shape to which all broadcast, None where one is unknown."""
    shapes = [shape for form in forms if (shape := shape_of(form)) is not None]
    return np.broadcast_shapes(*shapes) if len(shapes) == len(forms) else None


def opaque(forms: Sequence[Form], reason: str = "") -> Opaque:
    """An opaque form of everything that `forms` depend on."""
    inputs = frozenset().union(*(fm.inputs_of(form) for form in forms))
    known = next((form for form in forms if isinstance(form, Opaque)), None)
    if known is not None:
        return Opaque(inputs, common_shape(forms), known.reason, known.culprits)
    return Opaque(inputs, common_shape(forms), reason, fm.curved_inputs(forms))


def add(forms: Sequence[Form], sign: float = 1.0) -> Form:
    """Sum of the forms; with ``sign=-1`` the second is subtracted from the first."""
    if any(isinstance(form, Opaque) for form in forms):
        return opaque(forms)
    if any(isinstance(form, Mapped | Product) for form in forms):
        return compose(lambda *v: v[0] + sign * sum(v[1:]), forms, is_sum=True)
    result: Form = forms[0]
    for form in forms[1:]:
        result = _add_two(result, form, sign)
    return result


def _add_two(left: Form, right: Form, sign: float) -> Form:
    if isinstance(left, Affine) and isinstance(right, Affine):
        return fm.total(left, right, sign)
    if isinstance(left, Affine):
        constant = np.asarray(right, dtype=float)
        left = fm.broadcast(left, np.broadcast_shapes(left.shape, constant.shape))
        return Affine(left.rows, left.offset + sign * constant)
    if isinstance(right, Affine):
        constant = np.asarray(left, dtype=float)
        right = fm.broadcast(right, np.broadcast_shapes(right.shape, constant.shape))
        return fm.scaled(right, sign, constant)
    return np.asarray(left) + sign * np.asarray(right)


def as_function(form: Form) -> tuple[Affine, Function] | None:
    """The form as a function of one affine form, None where it is none."""
    if isinstance(form, Affine):
        return form, fm.identity_function
    if isinstance(form, Mapped):
        return form.affine, form.function
    if isinstance(form, Product) and len(form.factors) == 1 and uniform(form.coefficient):
        coefficient, factor = float(form.coefficient.flat[0]), form.factors[0]
        return fm.broadcast(factor.affine, form.shape), lambda t: coefficient * factor.function(t)
    return None


def compose(function: Callable[..., np.ndarray], forms: Sequence[Form], is_sum: bool = False) -> Form:
    """``function(*forms)`` elementwise where all live forms are functions of one affine form, else opaque."""
    if any(isinstance(form, Opaque) for form in forms):
        return opaque(forms)
    if not all(uniform(np.asarray(form)) for form in forms if fm.is_constant(form)):
        return opaque(forms, UNEQUAL)
    base: Affine | None = None
    arguments: list[Function] = []
    for form in forms:
        if fm.is_constant(form):
            arguments.append(_constant_function(float(np.ravel(form)[0])))  # type: ignore[arg-type]
            continue
        found = as_function(form)
        base = found[0] if base is None and found is not None else base
        relation = None if base is None or found is None else relate(base, found[0])
        if found is None or relation is None:
            return opaque(forms, SEVERAL)
        arguments.append(_shifted(found[1], *relation))
    shape = common_shape(forms)
    assert base is not None
    assert shape is not None
    magnitude = _magnitude(arguments) if is_sum else 0.0
    composed = lambda t: function(*(argument(t) for argument in arguments))  # noqa: E731
    return fm.mapped(composed, fm.broadcast(base, shape), magnitude)


def _constant_function(value: float) -> Function:
    return lambda t: np.full(np.shape(t), value)


def _shifted(function: Function, slope: float, shift: float) -> Function:
    return function if (slope, shift) == (1.0, 0.0) else lambda t: function(slope * t + shift)


def _magnitude(arguments: Sequence[Function]) -> float:
    with np.errstate(all="ignore"):
        values = np.abs([argument(fm.TEST_POINTS) for argument in arguments])
    return float(np.max(values[np.isfinite(values)], initial=0.0))


def uniform(array: np.ndarray) -> bool:
    """Whether all elements are equal."""
    return array.size > 0 and bool(np.all(array == array.flat[0]))


def varies(affine: Affine) -> bool:
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


def relate(base: Affine, other: Affine) -> tuple[float, float] | None:
    """The numbers k and c with ``other = k * base + c`` (after broadcasting), or None."""
    if base is other:
        return 1.0, 0.0
    if base.inputs != other.inputs:
        return None
    shape = np.broadcast_shapes(base.shape, other.shape)
    base, other = fm.broadcast(base, shape), fm.broadcast(other, shape)
    name = next(iter(base.rows))
    multiple = _ratio(base.rows[name], other.rows[name])
    if multiple is None:
        return None
    scaled = base if multiple == 1.0 else fm.scaled(base, multiple)
    if not all(lin.same(rows, other.rows[key]) for key, rows in scaled.rows.items()):
        return None
    if lin.close(scaled.offset, other.offset):
        return multiple, 0.0
    shift = float(other.offset.flat[0] - scaled.offset.flat[0])
    return (multiple, shift) if lin.close(scaled.offset + shift, other.offset) else None


def row_multiple(base: Affine, other: Affine) -> float | None:
    """The number k for which the rows of `other` are k times those of `base`, whatever the offsets; or None."""
    if base.shape != other.shape:
        return None
    zero = np.zeros(base.shape)
    relation = relate(Affine(base.rows, zero), Affine(other.rows, zero))
    return None if relation is None else relation[0]


def _ratio(base: lin.Rows, other: lin.Rows) -> float | None:
    """``other / base`` at the largest entry of the base; None where either is zero there."""
    if isinstance(base, lin.Gather) and isinstance(other, lin.Gather):
        below, above = np.broadcast_arrays(base.weight, other.weight)
        k = int(np.argmax(np.abs(below)))
        bottom, top = below.flat[k], above.flat[k]
    elif isinstance(base, lin.Dense) and isinstance(other, lin.Dense):
        k = int(np.argmax(np.abs(base.matrix)))
        bottom, top = base.matrix.flat[k], other.matrix.flat[k]
    else:
        entries = lin.to_csr(base).tocoo()
        if not entries.nnz:
            return None
        k = int(np.argmax(np.abs(entries.data)))
        row, column = (positions[k] for positions in entries.coords)
        bottom, top = entries.data[k], lin.to_csr(other)[row, column]
    return fm.rounded(float(top) / float(bottom)) if bottom != 0 and top != 0 else None


def same_function(left: Function, right: Function) -> bool:
    """Whether two functions agree on the test points."""
    if left is right:
        return True
    with np.errstate(all="ignore"):
        return np.array_equal(left(fm.TEST_POINTS), right(fm.TEST_POINTS), equal_nan=True)


def same_form(left: Form, right: Form) -> bool:
    """Whether two forms are equal element by element; never so for two opaque ones."""
    if left is right:
        return True
    if fm.is_constant(left) or fm.is_constant(right):
        constants = fm.is_constant(left) and fm.is_constant(right)
        return constants and lin.close(np.asarray(left, float), np.asarray(right, float))
    if isinstance(left, Affine) and isinstance(right, Affine):
        return fm.same_affine(left, right)
    if isinstance(left, Mapped) and isinstance(right, Mapped):
        return fm.same_affine(left.affine, right.affine) and same_function(left.function, right.function)
    if isinstance(left, Product) and isinstance(right, Product) and len(left.factors) == len(right.factors):
        pairs = zip(left.factors, right.factors, strict=True)
        return lin.close(left.coefficient, right.coefficient) and all(same_form(a, b) for a, b in pairs)
    return False
