r"""Truncated Taylor arithmetic: derivatives of elementwise functions up to third order, without compiling anything.

A *jet* holds, for every observation at once, the Taylor coefficients of a quantity in a few variables (the
predictors of a response, and expressions of its dispersion parameters). It is a dictionary from monomials to
coefficient arrays: ``{(): f, (0,): f_0, (0, 0): f_00 / 2, ...}``, a monomial being the sorted tuple of its variables;
absent monomials are zero. Products and compositions are exact up to the truncation (Griewank & Walther 2008,
chapter 13), so derivatives have rounding error only.

Truncation: at most `ORDER` variables in all, and at most one of the dispersion variables (numbered from `FIRST_TAU`):
the Laplace approximation needs third derivatives in the predictors, but only first ones in the dispersions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy import special as sc

from hlik.elementary import UNARY, exp, log, power, reciprocal

ORDER = 3
FIRST_TAU = 1000  # numbers of dispersion variables; predictors are 0, 1, ...

Monomial = tuple[int, ...]
Jet = dict[Monomial, np.ndarray]
Array = np.ndarray


def constant(value: Array) -> Jet:
    """A jet without variables."""
    return {(): np.asarray(value, dtype=float)}


def variable(number: int, value: Array) -> Jet:
    """The variable `number` at `value`."""
    return {(): np.asarray(value, dtype=float), (number,): np.ones(1)}


def allowed(monomial: Monomial, order: int) -> bool:
    """Whether a monomial is kept: at most `order` variables, at most one of them a dispersion variable."""
    return len(monomial) <= order and sum(k >= FIRST_TAU for k in monomial) <= 1


def derivative(jet: Jet, monomial: Monomial, size: int) -> Array:
    """The partial derivative that belongs to a monomial, shape (size,); several columns stay as they are."""
    coefficient = jet.get(monomial)
    if coefficient is None:
        return np.zeros(size)
    factor = 1.0
    for number in set(monomial):
        factor *= float(sc.factorial(monomial.count(number)))
    result = factor * coefficient
    return result if result.ndim > 1 else np.broadcast_to(result, (size,))


def add(*jets: Jet) -> Jet:
    """Sum."""
    total: Jet = {}
    for jet in jets:
        for monomial, value in jet.items():
            total[monomial] = total[monomial] + value if monomial in total else value
    return total


def scale(jet: Jet, factor: Array | float) -> Jet:
    """Product with data."""
    return {monomial: value * factor for monomial, value in jet.items()}


def multiply(left: Jet, right: Jet, order: int = ORDER) -> Jet:
    """Product, truncated."""
    return saturated(_multiply(left, right, order))


def _multiply(left: Jet, right: Jet, order: int) -> Jet:
    total: Jet = {}
    for a, b, monomial in _pairs(tuple(left), tuple(right), order):
        product = left[a] * right[b]
        total[monomial] = total[monomial] + product if monomial in total else product
    return total


@lru_cache(maxsize=256)
def _pairs(
    left: tuple[Monomial, ...], right: tuple[Monomial, ...], order: int
) -> list[tuple[Monomial, Monomial, Monomial]]:
    """The pairs of monomials whose product is kept, and that product; jets of one tape ask for the same few again."""
    products = ((a, b, tuple(sorted(a + b))) for a in left for b in right)
    return [(a, b, monomial) for a, b, monomial in products if allowed(monomial, order)]


def saturated(jet: Jet, where: Array | None = None) -> Jet:
    """The jet without derivatives where its value is infinite (or `where`): there it does not move.

    Log densities have infinite bounds in them, and their derivatives would be NaN.
    """
    where = np.isinf(jet[()]) if where is None else where
    if not where.any():
        return jet
    return {key: np.where(where, 0.0, value) if key else value for key, value in jet.items()}


def compose(derivatives: Callable[[Array, int], Sequence[Array]], jet: Jet, order: int = ORDER) -> Jet:
    """``f(jet)`` from ``derivatives(x, k) = (f, f', ..., f^(k))`` at the jet's value."""
    degree = min(order, max(_degree(jet, order), 0))
    values = derivatives(jet[()], degree)
    result = constant(values[0])
    rest = {monomial: value for monomial, value in jet.items() if monomial}
    power = rest
    factorial = 1.0
    for k in range(1, degree + 1):
        factorial *= k
        result = add(result, scale(power, values[k] / factorial))
        if k < degree:
            power = _multiply(power, rest, order)
    return saturated(result, np.isinf(jet[()]) | np.isinf(result[()])) if degree else result


def _degree(jet: Jet, order: int) -> int:
    """Highest power of the nilpotent part that is not truncated away."""
    if len(jet) == 1:
        return 0
    return 1 if all(monomial[0] >= FIRST_TAU for monomial in jet if monomial) else order


def select(condition: Array, left: Jet, right: Jet) -> Jet:
    """``left`` where the condition holds, else ``right``, coefficient by coefficient."""
    zero = np.zeros(1)
    keys = left.keys() | right.keys()
    return {key: np.where(condition, left.get(key, zero), right.get(key, zero)) for key in keys}


LOGICAL: dict[str, Callable[..., Array]] = {
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "lt": np.less,
    "eq": np.equal,
    "neq": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "invert": np.logical_not,
    "isnan": np.isnan,
    "isinf": np.isinf,
}
"""Functions that have no derivative: their result is data."""


def apply(name: str, arguments: Sequence[Jet], order: int = ORDER) -> Jet:
    """The jet of an elementary operation, by name."""
    if name in UNARY:
        return compose(UNARY[name], arguments[0], order)
    if name in LOGICAL:
        return constant(LOGICAL[name](*(argument[()] for argument in arguments)))
    return OPERATIONS[name](arguments, order)


def _product(arguments: Sequence[Jet], order: int) -> Jet:
    result = arguments[0]
    for argument in arguments[1:]:
        result = multiply(result, argument, order)
    return result


def _pow(arguments: Sequence[Jet], order: int) -> Jet:
    base, exponent = arguments
    if len(exponent) == 1:
        values = np.unique(exponent[()])
        if values.size == 1:
            return compose(power(float(values[0])), base, order)
        if len(base) == 1:
            return constant(np.power(base[()], exponent[()]))
    logarithm = compose(log, base, order)
    return compose(exp, multiply(exponent, logarithm, order), order)


def _maximum(arguments: Sequence[Jet], order: int) -> Jet:
    result = arguments[0]
    for argument in arguments[1:]:
        result = select(result[()] >= argument[()], result, argument)
    return result


def _minimum(arguments: Sequence[Jet], order: int) -> Jet:
    result = arguments[0]
    for argument in arguments[1:]:
        result = select(result[()] <= argument[()], result, argument)
    return result


def _incomplete_gamma(sign: float) -> Callable[[Sequence[Jet], int], Jet]:
    """P(a, x) or Q(a, x) for data a: ``dP/dx = x^(a-1) e^-x / Gamma(a)``."""

    def operation(arguments: Sequence[Jet], order: int) -> Jet:
        shape, x = arguments
        if len(shape) > 1:
            raise NotImplementedError("an incomplete gamma function whose shape is not data")
        a = shape[()]

        def derivatives(value: Array, k: int) -> Sequence[Array]:
            first = sign * np.exp((a - 1) * np.log(value) - value - sc.gammaln(a))
            rate = (a - 1) / value - 1
            function = sc.gammainc if sign > 0 else sc.gammaincc
            third = first * (rate**2 - (a - 1) / value**2)
            return (function(a, value), first, first * rate, third)[: k + 1]

        return compose(derivatives, x, order)

    return operation


def _clip(arguments: Sequence[Jet], order: int) -> Jet:
    x, low, high = arguments
    return _minimum([_maximum([x, low], order), high], order)


OPERATIONS: dict[str, Callable[[Sequence[Jet], int], Jet]] = {
    "add": lambda a, order: saturated(add(*a)),
    "sub": lambda a, order: saturated(add(a[0], scale(a[1], -1.0))),
    "neg": lambda a, order: scale(a[0], -1.0),
    "mul": _product,
    "true_div": lambda a, order: multiply(a[0], compose(reciprocal, a[1], order), order),
    "pow": _pow,
    "switch": lambda a, order: select(a[0][()].astype(bool), a[1], a[2]),
    "maximum": _maximum,
    "minimum": _minimum,
    "clip": _clip,
    "gammainc": _incomplete_gamma(1.0),
    "gammaincc": _incomplete_gamma(-1.0),
    "identity": lambda a, order: a[0],
    "second": lambda a, order: a[1],
}
"""Operations of several arguments, by name."""
