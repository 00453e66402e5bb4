"""Special functions without cancellation, shared by links and families.

Everything here is elementwise on real arrays (scalars are 0-d arrays) and accurate to a few units in the last
place of the result, also where the textbook formula subtracts nearly equal numbers.

References
----------
Loader, C. (2000). Fast and accurate computation of binomial probabilities.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special as sc

Array = NDArray[np.float64]

# B_2k / (2k (2k - 1)): ln x! = x ln x - x + ln(2 pi x)/2 + sum_k STIRLING[k - 1] / x^(2k - 1)
STIRLING = (
    1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156,
    -3617 / 122400, 43867 / 244188, -174611 / 125400,
)  # fmt: skip
STIRLING_FROM = 8.0  # ten terms leave a relative error below 1e-15 of the sum from here on

quiet = np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore")
"""Decorator: limits such as exp(800) = inf and log(0) = -inf are right answers here, not accidents."""


def horner(x: Array, coefficients: tuple[float, ...]) -> Array:
    """Value of sum_k coefficients[k] x^k."""
    total = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total *= x
        total += coefficient
    return total


@quiet
def stirling_excess(x: Array | float) -> Array:
    """Return e(x) = ln x! - x ln x + x for x >= 0, with e(0) = 0.

    Minus the log of the Poisson(x) density at x itself: the term that normalises counts at their saturated
    mean. For large x it is ln(2 pi x)/2 + 1/(12 x) - ...
    """
    x = np.asarray(x, dtype=float)
    result = np.asarray(sc.gammaln(x + 1) - sc.xlogy(x, x) + x)
    large = np.asarray(x >= STIRLING_FROM)
    if large.any():
        big = x[large]
        result[large] = horner(big**-2.0, STIRLING) / big + 0.5 * np.log(2 * np.pi * big)
    return result


@quiet
def stirling_excess_derivatives(x: Array | float) -> tuple[Array, Array]:
    """Return the first and second derivative of :func:`stirling_excess` with respect to log x, x >= 0.

    e_1 = x (psi(x + 1) - ln x) -> 1/2 - 1/(12 x) + ...,   e_2 = e_1 + x (x psi'(x + 1) - 1) -> 1/(12 x) - ...
    """
    x = np.asarray(x, dtype=float)
    large = np.maximum(x, STIRLING_FROM)
    powers = tuple(float(1 - 2 * k) for k in range(1, len(STIRLING) + 1))
    first = horner(large**-2.0, tuple(c * p for c, p in zip(STIRLING, powers, strict=True))) / large + 0.5
    second = horner(large**-2.0, tuple(c * p * p for c, p in zip(STIRLING, powers, strict=True))) / large
    small = np.minimum(x, STIRLING_FROM)
    direct = small * sc.digamma(small + 1) - sc.xlogy(small, small)
    curved = direct + small * (small * sc.polygamma(1, small + 1) - 1)
    return np.where(x < STIRLING_FROM, direct, first), np.where(x < STIRLING_FROM, curved, second)


# 2 v^2/(1 - v) - 2 v^3 (1/3 + v^2/5 + ...) with v = (a - b)/(a + b) is a/b - 1 - ln(a/b)
ATANH_TAIL = tuple(2.0 / (2 * k + 3) for k in range(11))
SERIES_BELOW = 0.3


@quiet
def relative_deviance(a: Array | float, b: Array | float, difference: Array | None = None) -> Array:
    """Return a/b - 1 - ln(a/b) >= 0, exactly 0 at a = b, without cancellation near it (Loader 2000).

    ``difference`` is a - b where the caller knows it better than a - b in floating point does. All unit
    deviances are made of this: Gamma 2 D(y, mu), Poisson 2 y D(mu, y).
    """
    a, b = np.broadcast_arrays(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
    ratio = a / b
    result = np.asarray(ratio - 1 - np.log(ratio))
    near = np.abs(ratio - 1) < SERIES_BELOW
    if near.any():
        a, b = a[near], b[near]
        v = (a - b if difference is None else np.broadcast_to(difference, near.shape)[near]) / (a + b)
        result[near] = v * v * (2 / (1 - v) - v * horner(v * v, ATANH_TAIL))
    return result


EXP_TAIL = tuple(float(1 / sc.factorial(k + 2)) for k in range(14))


@quiet
def exp_remainder(x: Array | float) -> Array:
    """Return exp(x) - 1 - x >= 0 without cancellation near 0."""
    x = np.asarray(x, dtype=float)
    result = np.asarray(np.expm1(x) - x)
    near = np.abs(x) < 0.5
    if near.any():
        small = x[near]
        result[near] = small * small * horner(small, EXP_TAIL)
    return result


@quiet
def log1mexp(x: Array) -> Array:
    """Return ln(1 - exp(x)) for x <= 0 (Maechler 2012)."""
    return np.where(x > -np.log(2), np.log(-np.expm1(x)), np.log1p(-np.exp(np.minimum(x, 0.0))))


MILLS_TAIL_FROM = 2.5
MILLS_LEVELS = 60  # leaves a relative error of 1e-16 of d1 and 6e-15 of the third derivative at 2.5, less beyond


@quiet
def log_ndtr_derivatives(x: Array, order: int) -> tuple[Array, ...]:
    """Return ln Phi(x), Phi the standard normal distribution function, and derivatives up to ``order`` <= 3.

    With r = phi/Phi: (ln Phi)' = r, '' = -r (x + r), ''' = r ((x + r)^2 + r (x + r) - 1). As x -> -inf these
    cancel to 1 and 2/|x|^3; there, with t = -x, Laplace's continued fraction r = t + d1, d_k = 1/(t + (k + 1)
    d_{k+1}) gives '' = -r d1 and ''' = 2 r d1^2 d2 (3 d3 - 2 d2) exactly.
    """
    value = sc.log_ndtr(x)
    if order == 0:
        return (value,)
    r = np.asarray(np.sqrt(2 / np.pi) / sc.erfcx(x * -np.sqrt(0.5)))
    if order == 1:
        return value, r
    excess = np.asarray(x + r)
    second = np.asarray(-r * excess)
    third = np.asarray(r * (excess * excess + r * excess - 1))
    tail = np.asarray(x < -MILLS_TAIL_FROM)
    if tail.any():
        t = -x[tail]
        d1 = d2 = d3 = 2 / (t + np.sqrt(t * t + 4 * MILLS_LEVELS))  # d_n where d_n = d_{n + 1}
        for level in range(MILLS_LEVELS, 0, -1):
            d1, d2, d3 = 1 / (t + (level + 1) * d1), d1, d2
        second[tail] = -r[tail] * d1
        third[tail] = 2 * r[tail] * d1 * d1 * d2 * (3 * d3 - 2 * d2)
    return (value, r, second, third)[: order + 1]
