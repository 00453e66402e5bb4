"""Estimates on the boundary of what is possible: deviations at zero, correlations at one.

They are told in words (`zero_sentences`, `singular_sentence`), and standard errors are those of the model with the
boundary's parameters held where they are: `held_parameters` says which those are for a singular covariance matrix.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import linalg

from hlik.block_effects import InverseMap
from hlik.hlikelihood import HLikelihood
from hlik.maps import ThetaMap
from hlik.model import HierarchicalModel, RandomEffect

SINGULAR = 1e-5  # smallest eigenvalue of a correlation matrix that counts as singular: 1 - |r| of two effects
STILL = 1e-3  # change of a singular correlation matrix by a parameter, as a part of the largest, that counts as none
NEAR = 1e-6  # eigenvalue at which second derivatives are taken: gradients lose 6 of their 10 digits by it, 4 remain
MOVES = 60  # of half a unit (a log)


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
    found = dispersion_map(effect)
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


def _singular_covariances(model: HierarchicalModel, theta: np.ndarray) -> list[tuple[RandomEffect, np.ndarray]]:
    """Terms whose covariance matrix is singular, and the rows of it that are not zero."""
    found = []
    for effect in model.random_effects:
        coefficients = None if effect.precision is None else effect.precision.coefficients
        if isinstance(coefficients, InverseMap):
            covariance = coefficients.covariance.value(theta).reshape(coefficients.order, coefficients.order)
            if _of_covariance(effect.name, covariance) is not None:
                deviation = np.sqrt(np.diag(covariance))
                found.append((effect, deviation >= SINGULAR * deviation.max(initial=0.0)))
    return found


def held_by_singular(model: HierarchicalModel, theta: np.ndarray) -> np.ndarray:
    """`held_parameters` of a model."""
    if singular_sentence(model, theta) is None:
        return np.zeros(theta.size, bool)
    return held_parameters(HLikelihood(model), theta)


def held_parameters(likelihood: HLikelihood, theta: np.ndarray) -> np.ndarray:
    """Elements of theta that a singular covariance matrix no longer depends on, bool (r,).

    Of a Cholesky factor these are the diagonal elements at zero, and all but one of the others in the columns of
    these. The elements that move anything else are not among them. A deviation at zero takes its row with it.
    """
    held = np.zeros(theta.size, bool)
    for effect, living in _singular_covariances(likelihood.model, theta):
        coefficients = effect.precision.coefficients  # type: ignore[union-attr]
        assert isinstance(coefficients, InverseMap)
        deviation = np.sqrt(np.diag(coefficients.covariance.value(theta).reshape((living.size,) * 2)))[living]
        slopes = coefficients.covariance.jacobian(theta).reshape(living.size, living.size, -1)
        own = np.flatnonzero(np.any(slopes != 0, axis=(0, 1)) & ~moved(likelihood, theta, without={effect.name}))
        if not own.size:
            continue
        part = slopes[np.ix_(living, living, own)] / np.outer(deviation, deviation)[:, :, None]
        part = part.reshape(-1, own.size) * np.maximum(np.abs(theta[own]), 1.0)
        if part.size:
            triangle, order = linalg.qr(part, mode="r", pivoting=True)
            size = np.zeros(own.size)
            size[: min(triangle.shape)] = np.abs(np.diag(triangle))
            held[own[order[size < STILL * size[0]]]] = True
        else:
            held[own] = True
    return held


def less_singular(model: HierarchicalModel, theta: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Theta with its held elements moved until the smallest eigenvalue of the correlation matrix is `NEAR`."""
    found = theta
    for k in np.flatnonzero(held):
        for step in (0.5, -0.5):
            for count in range(1, MOVES):
                moved_theta = found.copy()
                moved_theta[k] = theta[k] + count * step
                least = least_eigenvalue(model, moved_theta)
                if not least_eigenvalue(model, found) < least < NEAR or not _is_same(model, theta, moved_theta):
                    break
                found = moved_theta
    return found


def _is_same(model: HierarchicalModel, theta: np.ndarray, moved_theta: np.ndarray) -> bool:
    """Whether covariance matrices change by less than `STILL`, in the units of their deviations."""
    for effect, living in _singular_covariances(model, theta):
        value = effect.precision.coefficients.covariance.value  # type: ignore[union-attr]
        matrix, other = (value(at).reshape((living.size,) * 2)[np.ix_(living, living)] for at in (theta, moved_theta))
        deviation = np.sqrt(np.diag(matrix))
        if np.abs((other - matrix) / np.outer(deviation, deviation)).max(initial=0.0) > STILL:
            return False
    return True


def least_eigenvalue(model: HierarchicalModel, theta: np.ndarray) -> float:
    """The smallest eigenvalue of the correlation matrices of all terms, zero deviations left out."""
    least = np.inf
    for effect in model.random_effects:
        coefficients = None if effect.precision is None else effect.precision.coefficients
        if isinstance(coefficients, InverseMap):
            covariance = coefficients.covariance.value(theta).reshape(coefficients.order, coefficients.order)
            deviation = np.sqrt(np.diag(covariance))
            living = deviation >= SINGULAR * deviation.max(initial=0.0)
            correlation = (covariance / np.outer(deviation, deviation))[np.ix_(living, living)]
            least = min(least, float(np.linalg.eigvalsh(correlation)[0]) if living.any() else np.inf)
    return least


def moving(effect: RandomEffect, theta: np.ndarray) -> np.ndarray:
    """Elements of theta that move the density of a term of effects, bool (r,)."""
    maps = [dispersion_map(effect), None if effect.degrees is None else effect.degrees.map]
    found = np.zeros(theta.size, bool)
    for own in maps:
        if own is not None:
            found |= np.any(own.jacobian(theta) != 0, axis=0)
    return found


def moved(likelihood: HLikelihood, theta: np.ndarray, without: set[str]) -> np.ndarray:
    """Elements of theta that move a response or the density of an effect that is not in `without`, bool (r,)."""
    model, found = likelihood.model, np.zeros(theta.size, bool)
    maps = [response.dispersion for response in model.responses]
    maps += [tau.map for term in likelihood.terms for tau in getattr(term, "taus", ())]
    for own in maps:
        if own is not None:
            found |= np.any(own.jacobian(theta) != 0, axis=0)
    for effect in model.random_effects:
        if effect.name not in without:
            found |= moving(effect, theta)
    if model.theta_design is not None:
        found |= np.any(model.theta_design != 0, axis=0)
    return found


def dispersion_map(effect: RandomEffect) -> ThetaMap | None:
    """What a term's dispersion is as a function of theta: lam, or the coefficients of its precision."""
    return effect.dispersion if effect.precision is None else effect.precision.coefficients
