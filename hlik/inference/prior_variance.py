"""Variances of ``z'v`` before any data are seen: by the families of the random effects, or by their precisions."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.sparse as sp

from hlik.block_effects import InverseMap
from hlik.errors import ModelError
from hlik.inference.averages import variance_of_v
from hlik.linalg import Symbolic, analyze
from hlik.model import RandomEffect
from hlik.precision import Precision


def row_variance(effect: RandomEffect, Z: sp.csr_array, theta: np.ndarray) -> np.ndarray:
    """``Var(z'v)`` of every row of Z, shape (m,).

    Parameters
    ----------
    effect
        The random effect, with the levels that are the columns of Z.
    Z
        Coefficients.
    theta
        Dispersion parameters.
    """
    if effect.precision is not None:
        return student_factor(effect, theta) * _by_precision(effect, effect.precision, Z, theta)
    if effect.family is None or effect.dispersion is None:
        raise ModelError(
            f"Random effect {effect.name!r} ({effect.distribution}) has no closed form here that its variance follows "
            f"from."
        )
    lam = np.broadcast_to(effect.dispersion.value(theta), (Z.shape[1],))
    return Z.power(2) @ np.broadcast_to(variance_of_v(effect.family, lam), (Z.shape[1],))


def student_factor(effect: RandomEffect, theta: np.ndarray) -> float:
    """What makes the variance of a multivariate t density of its scale: ``nu / (nu - 2)``; 1 for normal ones."""
    if effect.degrees is None:
        return 1.0
    nu = float(effect.degrees.map.value(theta)[0])
    if nu <= 2:
        raise ModelError(f"Random effect {effect.name!r} is t with {nu:.3g} degrees of freedom: it has no variance.")
    return nu / (nu - 2)


def _by_precision(effect: RandomEffect, precision: Precision, Z: sp.csr_array, theta: np.ndarray) -> np.ndarray:
    coefficients = precision.coefficients
    if not isinstance(coefficients, InverseMap):
        return _by_factor(effect, precision, Z, theta)
    size = coefficients.order
    block = coefficients.covariance.value(theta).reshape(size, size)
    covariance = sp.block_diag([block] * (Z.shape[1] // size), format="csr")
    return np.asarray((Z @ covariance).multiply(Z).sum(axis=1)).ravel()


def _by_factor(effect: RandomEffect, precision: Precision, Z: sp.csr_array, theta: np.ndarray) -> np.ndarray:
    """``diag(Z Q^-1 Z')`` by the sparse factor of Q."""
    at = precision.at(theta)
    if at is None:
        raise ModelError(f"The precision of random effect {effect.name!r} is singular at the estimates.")
    return _analysed(precision).factor(at.values).quadratic(Z)


@lru_cache(maxsize=2)
def _analysed(precision: Precision) -> Symbolic:
    """Its pattern analysed for factorisation, once for all theta."""
    return analyze(precision.pattern)
