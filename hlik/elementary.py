"""Elementary functions with their first three derivatives: ``f(x, k) -> (f, f', ..., f^(k))``, k at most 3."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import special as sc

Array = np.ndarray


def exp(x: Array, k: int) -> Sequence[Array]:
    """``exp(x)``."""
    return (np.exp(x),) * (k + 1)


def _expm1(x: Array, k: int) -> Sequence[Array]:
    return (np.expm1(x), *(np.exp(x),) * k)


def log(x: Array, k: int) -> Sequence[Array]:
    """``log(x)``."""
    r = 1.0 / x
    return (np.log(x), r, -r * r, 2.0 * r**3)[: k + 1]


def _log1p(x: Array, k: int) -> Sequence[Array]:
    return (np.log1p(x), *log(1.0 + x, k)[1:])


def reciprocal(x: Array, k: int) -> Sequence[Array]:
    """``1 / x``."""
    r = 1.0 / x
    return (r, -r * r, 2.0 * r**3, -6.0 * r**4)[: k + 1]


def power(exponent: float) -> Callable[[Array, int], Sequence[Array]]:
    """``x ** exponent``."""

    def derivatives(x: Array, k: int) -> Sequence[Array]:
        found, factor = [], 1.0
        for j in range(k + 1):
            found.append(factor * np.power(x, exponent - j) if factor else np.zeros_like(x))
            factor *= exponent - j
        return found

    return derivatives


def _sigmoid(x: Array, k: int) -> Sequence[Array]:
    s, t = sc.expit(x), sc.expit(-x)
    first = s * t
    return (s, first, first * (t - s), first * (1.0 - 6.0 * first))[: k + 1]


def _softplus(x: Array, k: int) -> Sequence[Array]:
    return (np.logaddexp(0.0, x), *_sigmoid(x, max(k - 1, 0)))[: k + 1]


def _log1mexp(x: Array, k: int) -> Sequence[Array]:
    """``log(1 - exp(x))`` for x < 0."""
    value = np.where(x > -np.log(2), np.log(-np.expm1(x)), np.log1p(-np.exp(x)))
    r = np.exp(x - value)  # e^x / (1 - e^x)
    first = r * (1.0 + r)
    return (value, -r, -first, -first * (1.0 + 2.0 * r))[: k + 1]


def _gammaln(x: Array, k: int) -> Sequence[Array]:
    return (sc.gammaln(x), *(sc.polygamma(j, x) for j in range(k)))


def _digamma(x: Array, k: int) -> Sequence[Array]:
    return tuple(sc.polygamma(j, x) for j in range(k + 1))


def _trigamma(x: Array, k: int) -> Sequence[Array]:
    return tuple(sc.polygamma(j + 1, x) for j in range(k + 1))


def _gauss_family(value: Callable[[Array], Array], sign: float) -> Callable[[Array, int], Sequence[Array]]:
    def derivatives(x: Array, k: int) -> Sequence[Array]:
        first = sign * 2.0 / np.sqrt(np.pi) * np.exp(-x * x)
        return (value(x), first, -2.0 * x * first, (4.0 * x * x - 2.0) * first)[: k + 1]

    return derivatives


def _erfcx(x: Array, k: int) -> Sequence[Array]:
    f = sc.erfcx(x)
    first = 2.0 * x * f - 2.0 / np.sqrt(np.pi)
    second = 2.0 * f + 2.0 * x * first
    return (f, first, second, 4.0 * first + 2.0 * x * second)[: k + 1]


def _tanh(x: Array, k: int) -> Sequence[Array]:
    t = np.tanh(x)
    d = 1.0 - t * t
    return (t, d, -2.0 * t * d, d * (6.0 * t * t - 2.0))[: k + 1]


def _sin(x: Array, k: int) -> Sequence[Array]:
    return (np.sin(x), np.cos(x), -np.sin(x), -np.cos(x))[: k + 1]


def _cos(x: Array, k: int) -> Sequence[Array]:
    return (np.cos(x), -np.sin(x), -np.cos(x), np.sin(x))[: k + 1]


def _arctan(x: Array, k: int) -> Sequence[Array]:
    d = 1.0 / (1.0 + x * x)
    return (np.arctan(x), d, -2.0 * x * d * d, (6.0 * x * x - 2.0) * d**3)[: k + 1]


def _abs(x: Array, k: int) -> Sequence[Array]:
    return (np.abs(x), np.sign(x), *(np.zeros_like(x),) * max(k - 1, 0))[: k + 1]


def _step(function: Callable[[Array], Array]) -> Callable[[Array, int], Sequence[Array]]:
    return lambda x, k: (function(x), *(np.zeros_like(x),) * k)


UNARY: dict[str, Callable[[Array, int], Sequence[Array]]] = {
    "exp": exp,
    "expm1": _expm1,
    "log": log,
    "log1p": _log1p,
    "reciprocal": reciprocal,
    "sqr": power(2.0),
    "sqrt": power(0.5),
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "log1mexp": _log1mexp,
    "gammaln": _gammaln,
    "psi": _digamma,
    "trigamma": _trigamma,
    "erf": _gauss_family(sc.erf, 1.0),
    "erfc": _gauss_family(sc.erfc, -1.0),
    "erfcx": _erfcx,
    "tanh": _tanh,
    "sin": _sin,
    "cos": _cos,
    "arctan": _arctan,
    "abs": _abs,
    "sign": _step(np.sign),
    "floor": _step(np.floor),
    "ceil": _step(np.ceil),
}
"""Functions of one argument by name: ``f(x, k) -> (f, f', ..., f^(k))``."""
