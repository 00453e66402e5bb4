"""Estimates on the boundary of what is possible, in words: deviations at zero, correlations at one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hlik.model import HierarchicalModel, RandomEffect
from hlik.precision import InverseMap

SINGULAR = 1e-5  # smallest eigenvalue of a correlation matrix that counts as singular: 1 - |r| of two effects


def zero_sentences(model: HierarchicalModel, names: Iterable[str], theta: np.ndarray) -> list[str]:
    """A sentence for every random effect or response whose dispersion is estimated at zero.

    A normal effect has a standard deviation ("sd"), another family its dispersion. The parameter is named in brackets
    where a single one gives it.
    """
    effects = {effect.name: effect for effect in model.random_effects}
    return [
        _of_effect(model, effects[name], theta)
        if name in effects
        else f"dispersion of response {name!r} estimated at zero"
        for name in names
    ]


def _of_effect(model: HierarchicalModel, effect: RandomEffect, theta: np.ndarray) -> str:
    is_normal = effect.precision is not None or effect.family is None or effect.family.name == "normal"
    own = _parameters(model, effect, theta)
    named = f" ({own[0]})" if len(own) == 1 else ""
    return f"{'sd' if is_normal else 'dispersion'} of {effect.name!r} estimated at zero{named}"


def _parameters(model: HierarchicalModel, effect: RandomEffect, theta: np.ndarray) -> list[str]:
    """Names of the parameters that a term's dispersion depends on."""
    found = effect.dispersion if effect.precision is None else effect.precision.coefficients
    if found is None:
        return []
    moved = np.any(found.jacobian(theta) != 0, axis=0)
    return [p.name for p in model.dispersion_parameters if np.any(moved[p.index])]


def singular_sentence(model: HierarchicalModel, theta: np.ndarray) -> str | None:
    """What is said of the first term of correlated effects whose covariance matrix is singular; None where none is."""
    for effect in model.random_effects:
        coefficients = None if effect.precision is None else effect.precision.coefficients
        if isinstance(coefficients, InverseMap):
            covariance = coefficients.covariance.value(theta).reshape(coefficients.order, coefficients.order)
            found = _of_covariance(effect.name, covariance)
            if found is not None:
                return found
    return None


def _of_covariance(name: str, covariance: np.ndarray) -> str | None:
    deviation = np.sqrt(np.diag(covariance))
    zero = np.flatnonzero(deviation < SINGULAR * deviation.max(initial=0.0))
    if zero.size:
        return f"sd of {name!r} estimated at zero (element {', '.join(map(str, zero))} of each group)"
    correlation = covariance / np.outer(deviation, deviation)
    if np.linalg.eigvalsh(correlation)[0] > SINGULAR:
        return None
    if len(correlation) == 2:
        return f"correlation of {name!r} estimated at {'-' if correlation[0, 1] < 0 else ''}1"
    return f"covariance matrix of {name!r} estimated singular"
