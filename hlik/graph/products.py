"""Products of forms, kept as data times functions of distinct affine forms so that factors can cancel.

The rate ``alpha / mu`` of a Gamma mixes two affine forms, the log of alpha and the linear predictor. Written as
the product ``exp(log alpha) * (1 / mu)(eta)`` it cancels against alpha when the mean is taken, whatever the link
of mu is. Exponentials merge into one; factors on the same affine form merge into one function of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hlik.graph import forms as fm
from hlik.graph.algebra import SEVERAL, add, as_function, compose, opaque, relate, uniform
from hlik.graph.forms import Affine, Form, Function, Mapped, Opaque, Product


def multiply(forms: Sequence[Form]) -> Form:
    """Product of the forms."""
    if any(isinstance(form, Opaque) for form in forms):
        return opaque(forms)
    coefficient = np.asarray(1.0)
    factors: list[Mapped] = []
    for form in forms:
        constant, live = factors_of(form)
        coefficient = coefficient * constant
        factors += live
    return _simplest(coefficient, factors)


def divide(top: Form, bottom: Form) -> Form:
    """``top / bottom``."""
    with np.errstate(all="ignore"):
        return multiply([top, power(bottom, -1.0)])


def power(form: Form, exponent: float) -> Form:
    """``form ** exponent``, factor by factor; a broken exponent of a product needs factors that are positive."""
    if isinstance(form, Opaque):
        return opaque([form])
    coefficient, factors = factors_of(form)
    if exponent != round(exponent) and as_function(form) is None and not is_positive(form):
        return opaque([form], SEVERAL)
    powers: list[Form] = [np.asarray(coefficient, float) ** exponent]
    powers += [compose(lambda t: np.asarray(t, float) ** exponent, [factor]) for factor in factors]
    return multiply(powers)


def logarithm(form: Form) -> Form:
    """``log(form)``: the sum over the factors, where all are positive."""
    if as_function(form) is None and is_positive(form):
        coefficient, factors = factors_of(form)
        return add([np.log(coefficient), *(compose(np.log, [factor]) for factor in factors)])
    return compose(np.log, [form])


def _factorwise(function: Function, form: Form) -> Form:
    """A function for which ``f(a b) = f(a) f(b)``."""
    coefficient, factors = factors_of(form)
    return multiply([function(coefficient), *(compose(function, [factor]) for factor in factors)])


def without_signs(form: Form) -> Form:
    """A form that must be positive, without the factors that are signs: PyMC multiplies by ``sign(sigma)``."""
    if not isinstance(form, Product):
        return form
    with np.errstate(all="ignore"):
        kept = [factor for factor in form.factors if not np.all(np.abs(factor.function(fm.TEST_POINTS)) == 1)]
    if len(kept) == len(form.factors):
        return form
    shaped = [Mapped(f.function, fm.broadcast(f.affine, form.shape), f.is_exp) for f in kept]
    return _simplest(np.abs(np.broadcast_to(form.coefficient, form.shape)), shaped)


def is_positive(form: Form) -> bool:
    """Whether a form is positive for all values of its variables, as far as test points tell."""
    if isinstance(form, Product):
        return bool(np.all(form.coefficient > 0)) and all(map(is_positive, form.factors))
    if isinstance(form, Mapped):
        with np.errstate(all="ignore"):
            values = np.asarray(form.function(fm.TEST_POINTS))
        values = values[np.isfinite(values)]
        return values.size > 0 and bool(np.all(values > 0))
    return fm.is_constant(form) and bool(np.all(np.asarray(form) > 0))


def factors_of(form: Form) -> tuple[np.ndarray, list[Mapped]]:
    """Coefficient and factors of any form but an opaque one."""
    if isinstance(form, Product):
        return form.coefficient, list(form.factors)
    if isinstance(form, Mapped):
        return np.asarray(1.0), [form]
    if isinstance(form, Affine):
        return np.asarray(1.0), [Mapped(fm.identity_function, form)]
    return np.asarray(form), []


def _simplest(coefficient: np.ndarray, factors: Sequence[Mapped]) -> Form:
    """The product of data and functions, as the simplest form it is."""
    constant, live = _merged(factors)
    coefficient = coefficient * constant
    if not live:
        return coefficient
    exponential = next((factor for factor in live if factor.is_exp), None)
    if exponential is not None and not np.all(np.abs(coefficient) == 1):
        with np.errstate(divide="ignore"):
            exponent = add([exponential.affine, np.log(np.abs(coefficient))])
        assert isinstance(exponent, Affine)
        live = [fm.exponential(exponent), *(factor for factor in live if not factor.is_exp)]
        coefficient = np.where(coefficient < 0, -1.0, 1.0)
    if coefficient.ndim and uniform(coefficient):
        shape = np.broadcast_shapes(coefficient.shape, live[0].shape)
        live[0] = Mapped(live[0].function, fm.broadcast(live[0].affine, shape), live[0].is_exp)
        coefficient = np.asarray(coefficient.flat[0], dtype=float)
    return _single(coefficient, live[0]) if len(live) == 1 else Product(coefficient, tuple(live))


def _merged(factors: Sequence[Mapped]) -> tuple[np.ndarray, list[Mapped]]:
    """The factors with exponentials made one, and those on one affine form made one function of it."""
    coefficient, powers = np.asarray(1.0), [factor.affine for factor in factors if factor.is_exp]
    live = [factor for factor in factors if not factor.is_exp]
    if powers:
        exponent = add(powers)
        if isinstance(exponent, Affine):
            live.append(fm.exponential(exponent))
        else:
            coefficient = np.exp(np.asarray(exponent))
    for group in _groups(live):
        if len(group) > 1:
            constant, found = factors_of(compose(_product_function, group))
            coefficient = coefficient * constant
            live = [factor for factor in live if factor not in group] + found
    if sum(factor.is_exp for factor in live) > 1:  # a group turned out to be an exponential
        constant, live = _merged(live)
        coefficient = coefficient * constant
    return coefficient, live


def _groups(factors: Sequence[Mapped]) -> list[list[Mapped]]:
    """The factors by their affine form."""
    groups: list[list[Mapped]] = []
    for factor in factors:
        group = next((g for g in groups if relate(g[0].affine, factor.affine) is not None), None)
        if group is None:
            groups.append([factor])
        else:
            group.append(factor)
    return groups


def _product_function(*values: np.ndarray) -> np.ndarray:
    result = values[0]
    for value in values[1:]:
        result = result * value
    return result


def _single(coefficient: np.ndarray, factor: Mapped) -> Form:
    """Data times one function of one affine form."""
    if factor.function is fm.identity_function:
        shape = np.broadcast_shapes(coefficient.shape, factor.shape)
        return fm.scaled(fm.broadcast(factor.affine, shape), coefficient)
    if coefficient.ndim == 0 and coefficient == 1.0:
        return factor
    if factor.is_exp or coefficient.ndim:
        return Product(coefficient, (factor,))
    number, function = float(coefficient), factor.function
    return fm.mapped(lambda t: number * function(t), factor.affine)


ELEMENTWISE: dict[str, Callable[[Form], Form]] = {
    "Sqr": lambda form: power(form, 2.0),
    "Sqrt": lambda form: power(form, 0.5),
    "Reciprocal": lambda form: power(form, -1.0),
    "Log": logarithm,
    "Neg": lambda form: multiply([np.asarray(-1.0), form]),
    "Sign": lambda form: _factorwise(np.sign, form),
    "Abs": lambda form: _factorwise(np.abs, form),
}
"""Functions of one argument that go through a product factor by factor, by the name of their scalar Op."""
