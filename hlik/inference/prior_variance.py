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


def row_variance(
    effect: RandomEffect, Z: sp.csr_array, dispersion: np.ndarray | None, theta: np.ndarray, is_fitted: bool
) -> np.ndarray:
    """``Var(z'v)`` of every row of Z, shape (m,).

    Parameters
    ----------
    effect
        The random effect as it was fitted.
    Z
        Coefficients, a column for each level there.
    dispersion
        lam of these levels; not used for effects with a precision.
    theta
        Dispersion parameters.
    is_fitted
        Whether the levels are those of the fit, all and in order.
    """
    if effect.precision is not None:
        return _by_precision(effect, effect.precision, Z, theta, is_fitted)
    if effect.family is None or dispersion is None:
        raise ModelError(
            f"Random effect {effect.name!r} ({effect.distribution}) has no closed form here that new levels could be "
            f"given by: predict with random='conditional' or 'zero'."
        )
    return Z.power(2) @ np.broadcast_to(variance_of_v(effect.family, dispersion), (Z.shape[1],))


def _by_precision(
    effect: RandomEffect, precision: Precision, Z: sp.csr_array, theta: np.ndarray, is_fitted: bool
) -> np.ndarray:
    size = precision.coefficients.order if isinstance(precision.coefficients, InverseMap) else 0
    if not size or effect.variable.unconstrained_shape[-1] != size:
        if is_fitted:
            return _by_factor(effect, precision, Z, theta)
        raise ModelError(
            f"Random effect {effect.name!r} ({precision.description}) is one field: new levels of it are not known "
            f"without their places in it. Predict at the levels of the fit, or with random='zero'."
        )
    assert isinstance(precision.coefficients, InverseMap)
    block = precision.coefficients.covariance.value(theta).reshape(size, size)
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
