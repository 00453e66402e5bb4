"""Elementwise algebra on forms: sums, products and functions of constant, affine and mapped forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hlik.graph import forms as fm
from hlik.graph import rows as lin
from hlik.graph.forms import Affine, Form, Mapped, Opaque


def shape_of(form: Form) -> tuple[int, ...] | None:
    """Shape of a form, None where it is opaque and unknown."""
    return form.shape if isinstance(form, Affine | Mapped | Opaque) else np.shape(form)


def common_shape(forms: Sequence[Form]) -> tuple[int, ...] | None:
    """The shape to which all broadcast, None where one is unknown."""
    shapes = [shape_of(form) for form in forms]
    return None if any(shape is None for shape in shapes) else np.broadcast_shapes(*shapes)  # type: ignore[arg-type]


def opaque(forms: Sequence[Form], reason: str = "") -> Opaque:
    """An opaque form of everything that `forms` depend on."""
    inputs = frozenset().union(*(fm.inputs_of(form) for form in forms))
    known = next((form.reason for form in forms if isinstance(form, Opaque) and form.reason), "")
    return Opaque(inputs, common_shape(forms), known or reason)


def add(forms: Sequence[Form], sign: float = 1.0) -> Form:
    """Sum of the forms; with ``sign=-1`` the second is subtracted from the first."""
    if any(isinstance(form, Opaque) for form in forms):
        return opaque(forms)
    if any(isinstance(form, Mapped) for form in forms):
        return compose(lambda *v: v[0] - v[1] if sign < 0 else sum(v[1:], v[0]), forms)
    result: Form = forms[0]
    for form in forms[1:]:
        result = _add_two(result, form, sign)
    return result


def _add_two(left: Form, right: Form, sign: float) -> Form:
    left_constant, right_constant = fm.is_constant(left), fm.is_constant(right)
    if left_constant and right_constant:
        return np.asarray(left) + sign * np.asarray(right)
    if left_constant or right_constant:
        affine = right if left_constant else left
        constant = np.asarray(left if left_constant else right, dtype=float)
        assert isinstance(affine, Affine)
        affine = fm.broadcast(affine, np.broadcast_shapes(affine.shape, constant.shape))
        if left_constant:
            return fm.scaled(affine, sign, constant)
        return Affine(affine.rows, affine.offset + sign * constant)
    assert isinstance(left, Affine)
    assert isinstance(right, Affine)
    return fm.total(left, right, sign)


def multiply(forms: Sequence[Form]) -> Form:
    """Product of the forms: affine by data, exponentials with each other, else functions of one affine form."""
    if any(isinstance(form, Opaque) for form in forms):
        return opaque(forms)
    live = [form for form in forms if not fm.is_constant(form)]
    factor = np.asarray(1.0)
    for form in forms:
        if fm.is_constant(form):
            factor = factor * np.asarray(form)
    if not live:
        return factor
    if all(isinstance(form, Mapped) and form.is_exp for form in live) and np.all(factor > 0):
        exponents: list[Form] = [form.affine for form in live]  # type: ignore[union-attr]
        exponent = add([*exponents, np.log(factor)])
        return fm.exponential(exponent) if isinstance(exponent, Affine) else np.exp(np.asarray(exponent))
    if len(live) == 1 and isinstance(live[0], Affine):
        affine = fm.broadcast(live[0], np.broadcast_shapes(live[0].shape, factor.shape))
        return fm.scaled(affine, factor)
    return compose(lambda *v: np.prod(np.broadcast_arrays(*v), axis=0), forms)


def divide(top: Form, bottom: Form) -> Form:
    """``top / bottom``."""
    if fm.is_constant(bottom):
        return multiply([top, 1.0 / np.asarray(bottom, dtype=float)])
    if isinstance(bottom, Mapped) and bottom.is_exp:
        return multiply([top, fm.exponential(fm.scaled(bottom.affine, -1.0))])
    return compose(np.divide, [top, bottom])


def compose(function: Callable[..., np.ndarray], forms: Sequence[Form]) -> Form:
    """``function(*forms)`` elementwise where all live forms are functions of one affine form, else opaque."""
    live = [form for form in forms if isinstance(form, Affine | Mapped)]
    constants = [np.asarray(form) for form in forms if fm.is_constant(form)]
    if any(isinstance(form, Opaque) for form in forms) or not all(_uniform(array) for array in constants):
        return opaque(forms, "a nonlinear function with coefficients that differ between elements")
    shape = common_shape(forms)
    assert shape is not None
    base = _affine_of(live[0])
    multiples = []
    for form in live:
        multiple = _multiple(base, _affine_of(form))
        if multiple is None:
            return opaque(forms, "a nonlinear function of several linear predictors")
        multiples.append(multiple)
    arguments: list[Callable[[np.ndarray], np.ndarray]] = []
    position = 0
    for form in forms:
        if isinstance(form, Affine | Mapped):
            arguments.append(_argument(form, multiples[position]))
            position += 1
        else:
            arguments.append(lambda t, value=float(np.ravel(form)[0]): value)  # type: ignore[misc]
    return fm.mapped(lambda t: function(*(argument(t) for argument in arguments)), fm.broadcast(base, shape))


def _affine_of(form: Affine | Mapped) -> Affine:
    return form if isinstance(form, Affine) else form.affine


def _argument(form: Affine | Mapped, multiple: float) -> Callable[[np.ndarray], np.ndarray]:
    if isinstance(form, Affine):
        return lambda t: multiple * t
    function = form.function
    return lambda t: function(multiple * t)


def _uniform(array: np.ndarray) -> bool:
    return array.size > 0 and bool(np.all(array == array.flat[0]))


def _multiple(base: Affine, other: Affine) -> float | None:
    """The number k with ``other = k * base`` (after broadcasting of scalars), or None."""
    if base.inputs != other.inputs:
        return None
    shape = np.broadcast_shapes(base.shape, other.shape)
    base, other = fm.broadcast(base, shape), fm.broadcast(other, shape)
    if fm.same_affine(base, other):
        return 1.0
    name = next(iter(base.rows))
    ratio = _first_entry(other.rows[name]), _first_entry(base.rows[name])
    if ratio[1] == 0:
        return None
    multiple = ratio[0] / ratio[1]
    return multiple if fm.same_affine(fm.scaled(base, multiple), other) else None


def row_multiple(base: Affine, other: Affine) -> float | None:
    """The number k for which the rows of `other` are k times those of `base`, whatever the offsets; or None."""
    zero = np.zeros(base.shape)
    if base.shape != other.shape:
        return None
    return _multiple(Affine(base.rows, zero), Affine(other.rows, zero))


def _first_entry(rows: lin.Rows) -> float:
    if isinstance(rows, lin.Gather):
        return float(rows.weight.flat[0])
    entries = rows.matrix.ravel() if isinstance(rows, lin.Dense) else rows.matrix.data
    nonzero = entries[np.flatnonzero(entries)[:1]]
    return float(nonzero[0]) if nonzero.size else 0.0
