"""The M-step: Newton's method on Q, after closed forms for the variances of normal effects."""

from __future__ import annotations

import numpy as np

from hlik.estimators.mcem_expect import Expected
from hlik.model import RandomEffect
from hlik.samplers.base import Draws

NEWTON_STEPS = 20
DECREMENT = 1e-8  # twice what Q could still rise by
LONGEST = 2.0  # of a step in one element of theta, on the unconstrained scale
FLOOR = 1e-8  # least curvature, as a part of the largest on the scale of the diagonal


def maximised(
    expected: Expected, beta: np.ndarray, theta: np.ndarray, active: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(beta, theta) at the maximum of Q over the active elements of psi, from a starting point."""
    p = beta.size
    theta = np.where(active[p:], closed_forms(expected, beta, theta), theta)
    value = float(expected.values(beta, theta).mean())
    for _ in range(NEWTON_STEPS):
        gradient, hessian = expected.derivatives(beta, theta)
        step = active_step(gradient, hessian, p, active)
        slope = float(gradient @ step)
        length, moved = 1.0, False
        while length > 1e-6:
            new_beta, new_theta = beta + length * step[:p], theta + length * step[p:]
            with np.errstate(all="ignore"):
                new = float(expected.values(new_beta, new_theta).mean())
            if np.isfinite(new) and new >= value + 1e-4 * length * slope - 1e-12 * abs(value):
                beta, theta, value, moved = new_beta, new_theta, new, True
                break
            length *= 0.5
        if not moved or slope < DECREMENT:
            break
    return beta, theta


def step_errors(
    expected: Expected, draws: Draws, beta: np.ndarray, theta: np.ndarray, active: np.ndarray
) -> np.ndarray:
    """Monte Carlo standard errors of the maximum of Q, ``(-Q'')^-1 g`` averaged, shape (p + r,); NaN where held."""
    hessian = expected.derivatives(beta, theta)[1][np.ix_(active, active)]
    errors = np.full(active.size, np.nan)
    if not active.any():
        return errors
    try:
        influence = np.linalg.solve(-hessian, expected.scores(beta, theta)[active])
    except np.linalg.LinAlgError:
        return errors
    errors[active] = np.sqrt(np.diag(draws.mean_covariance(influence)))
    return errors


def active_step(gradient: np.ndarray, hessian: np.ndarray, p: int, active: np.ndarray) -> np.ndarray:
    """`ascent_step` over the active elements of psi; zero for the others."""
    step = np.zeros(active.size)
    if active.any():
        own = np.ix_(active, active)
        step[active] = ascent_step(gradient[active], hessian[own], int(active[:p].sum()))
    return step


def ascent_step(gradient: np.ndarray, hessian: np.ndarray, p: int) -> np.ndarray:
    """Newton's step where the Hessian is negative definite, else with its eigenvalues made so; bounded in theta."""
    scale = 1.0 / np.sqrt(np.maximum(np.abs(np.diag(hessian)), 1e-12))
    values, vectors = np.linalg.eigh(-hessian * scale * scale[:, None])
    values = np.maximum(np.abs(values), FLOOR * np.abs(values).max(initial=1e-300))
    step = scale * (vectors @ ((vectors.T @ (scale * gradient)) / values))
    longest = float(np.abs(step[p:]).max(initial=0.0))
    return step * min(1.0, LONGEST / longest) if longest else step


def closed_forms(expected: Expected, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """theta with the variances of normal effects at their maximum, ``mean v^2``, where each is one parameter alone."""
    model = expected.likelihood.model
    used = expected.in_responses(beta, theta).astype(int)
    for effect in model.random_effects:
        if effect.dispersion is not None:
            used += np.any(effect.dispersion.jacobian(theta) != 0, axis=0)
        elif effect.precision is not None:
            used += 2  # not told apart: Newton's method serves
    theta = theta.copy()
    for effect in model.random_effects:
        found = _closed_form(effect, expected.columns[effect.index], theta, used)
        if found is not None:
            theta[found[0]] = found[1]
    return theta


def _closed_form(effect: RandomEffect, v: np.ndarray, theta: np.ndarray, used: np.ndarray) -> tuple[int, float] | None:
    """The one element of theta that is the variance of a normal effect, and its value; None where it is not alone."""
    if effect.family is None or effect.dispersion is None or effect.family.name.lower() not in ("normal", "gaussian"):
        return None
    lam, slope = effect.dispersion.value(theta), effect.dispersion.jacobian(theta)
    own = np.flatnonzero(np.any(slope != 0, axis=0))
    if lam.size != 1 or own.size != 1 or used[own[0]] != 1:
        return None
    best = float(np.mean(v**2))
    moved = theta.copy()
    moved[own[0]] += np.log(best / lam[0]) / (slope[0, own[0]] / lam[0])
    reached = effect.dispersion.value(moved)[0]
    return (int(own[0]), float(moved[own[0]])) if abs(reached - best) < 1e-9 * best else None
