r"""Parameters that Monte Carlo EM estimates at the end of their range: a variance at zero, t effects that are normal.

EM comes to zero ever more slowly: the inverse of the variance grows by a constant in every step. So zero itself is
tested. With the mean ``m kappa`` and the covariance ``kappa C`` of one term's effects about the mode of their density,
and Z their columns of the design,

.. math:: \frac{\partial \ell}{\partial \kappa}\Big|_{\kappa = 0}
          = \mathrm{E}\{s'm + \tfrac12 s'Cs - \tfrac12 \mathrm{tr}(C W)\}, \qquad
          s = Z'\,\partial l/\partial\eta, \quad W = -Z'\,\partial^2 l/\partial\eta^2\,Z \quad\text{at the mode},

over the draws of the other effects. For densities ``exp(k(v) / lam)`` of small lam, ``C = lam / -k''`` and
``m = lam k''' / (2 k'' k'')`` (zero for symmetric ones). Where the derivative is negative, EM goes down, and the data
say little of u beside its density, the variance is put to zero (as far as log densities stay finite) and the other
parameters go on alone. Degrees of freedom that grow are put to infinity by the rule of `hlik.estimators.degrees`. The
last sample tests both again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from hlik.estimators.boundary import moved, zero_sentences
from hlik.estimators.degrees import degrees_sentence, normal_slope, own_element, with_degrees
from hlik.estimators.laplace_objective import BOUNDARY
from hlik.hlikelihood import HLikelihood
from hlik.model import RandomEffect
from hlik.samplers.without_terms import without_terms

if TYPE_CHECKING:
    from hlik.estimators.mcem_state import EMState

LITTLE = 0.3  # share of the term's prior precision that the data add, below which zero is tested
NOTHING = 1e-3  # share below which the direction of the last step is noise
TESTED = 64  # draws of the other effects for the test
LARGEST = 2_000  # effects of a term with a joint density
MANY, ENDLESS = 30.0, 1e6  # degrees of freedom from which infinity is tested, and those that stand for it
FAR = 1e3  # degrees of freedom beyond which EM would not come back in time


@dataclass(frozen=True, eq=False)
class Gone:
    """A term whose variance is at zero, or whose degrees of freedom are at infinity.

    Attributes
    ----------
    name
        Of the random effect.
    held
        Elements of theta that move this term alone, bool, shape (r,): they are held.
    before
        theta before it was put there.
    is_normal
        The degrees of freedom.
    """

    name: str
    held: np.ndarray
    before: np.ndarray
    is_normal: bool = False


def active(state: EMState) -> np.ndarray:
    """Elements of psi that are not held, at an end of their range or elsewhere, shape (p + r,)."""
    found = np.ones(state.psi.size, dtype=bool) if state.held is None else ~state.held
    for gone in state.gone:
        found[state.beta.size :] &= ~gone.held
    return found


def towards_end(state: EMState, direction: np.ndarray) -> EMState:
    """The state with the first term at the end of a range that EM takes it to, if any; EM then goes on.

    Parameters
    ----------
    direction
        Last step in theta, shape (r,).
    """
    if state.draws is None or state.held is not None:
        return state
    zero = {gone.name for gone in state.gone if not gone.is_normal}
    for effect in state.likelihood.model.random_effects:
        if effect.name in zero:
            continue
        found = None if effect.name in state.released else _to_zero(state, effect, direction)
        if found is None:
            found = _to_normal(state, effect, direction)
        if found is not None:
            return found
    return state


def _to_zero(state: EMState, effect: RandomEffect, direction: np.ndarray) -> EMState | None:
    """The state with a term's variance at zero; None where it does not go there."""
    scaled = _scale(state, effect)
    tested = None if scaled is None else _at_zero(state, effect)
    if scaled is None or tested is None:
        return None
    (k, slope, held), (score, share) = scaled, tested
    down = direction[k] * slope < 0 or share < NOTHING
    if not (share < LITTLE and score < 0 and down):
        return None
    theta = state.theta.copy()
    theta[k] += np.log(0.1 * BOUNDARY / max(share, 1e-300)) / slope if share > 0.1 * BOUNDARY else 0.0
    return _placed(state, effect, theta, Gone(effect.name, held, state.theta))


def _to_normal(state: EMState, effect: RandomEffect, direction: np.ndarray) -> EMState | None:
    """The state with a term's degrees of freedom at infinity, or back from there; None where they stay."""
    if any(gone.name == effect.name for gone in state.gone) or _back(effect) in state.released:
        return None
    k = own_element(effect, state.theta, moved(state.likelihood, state.theta, without={effect.name}))
    if k is None or effect.degrees is None or effect.degrees.map.value(state.theta)[0] < MANY:
        return None
    assert state.draws is not None
    up = direction[k] * effect.degrees.map.jacobian(state.theta)[0, k] > 0
    far = effect.degrees.map.value(state.theta)[0] > FAR
    if not up and not far:
        return None
    slope = normal_slope(state.likelihood, effect, state.draws.columns, state.theta)
    theta = with_degrees(effect, state.theta, k, ENDLESS if slope < 0 else MANY)
    if theta is None or (slope >= 0 and not far):
        return None
    if slope >= 0:
        return replace(_placed(state, effect, theta, None), released=(*state.released, _back(effect)))
    held = np.arange(theta.size) == k
    return _placed(state, effect, theta, Gone(effect.name, held, state.theta, is_normal=True))


def _back(effect: RandomEffect) -> str:
    """How `EMState.released` names a term whose degrees of freedom came back from infinity."""
    return f"df of {effect.name}"


def confirmed(state: EMState) -> EMState:
    """The state, or one in which a term that its end does not suit is free again; it is not put there twice."""
    for gone in state.gone:
        effect = next(e for e in state.likelihood.model.random_effects if e.name == gone.name)
        if not _still_rises(state, effect, gone):
            continue
        before = gone.before
        if gone.is_normal:
            found = with_degrees(effect, state.theta, int(np.flatnonzero(gone.held)[0]), MANY)
            before = before if found is None else found
        theta = np.where(gone.held, before, state.theta)
        kept = tuple(other for other in state.gone if other is not gone)
        released = (*state.released, _back(effect) if gone.is_normal else gone.name)
        return _placed(replace(state, gone=kept, released=released), effect, theta, None)
    return state


def _still_rises(state: EMState, effect: RandomEffect, gone: Gone) -> bool:
    """Whether the likelihood rises from the end of the range."""
    assert state.draws is not None
    if gone.is_normal:
        return normal_slope(state.likelihood, effect, state.draws.columns, state.theta) > 0
    tested = _at_zero(state, effect)
    return tested is not None and tested[0] > 0


def boundary_status(state: EMState) -> str:
    """The words of the status; empty where nothing is at the end of its range."""
    model = state.likelihood.model
    zero = [gone.name for gone in state.gone if not gone.is_normal]
    normal = {gone.name for gone in state.gone if gone.is_normal} - set(zero)
    sentences = zero_sentences(model, zero, state.theta)
    sentences += [degrees_sentence(effect) for effect in model.random_effects if effect.name in normal]
    return "boundary: " + "; ".join(sentences) if sentences else ""


def _placed(state: EMState, effect: RandomEffect, theta: np.ndarray, gone: Gone | None) -> EMState:
    """Another theta in EM, with the chains of the term scaled by its new deviation."""
    assert state.draws is not None
    old, new = (_curvature(state.likelihood, effect, at) for at in (state.theta, theta))
    position, mode = state.draws.v[:, -1].copy(), state.likelihood.start_v()[effect.index]
    scale = np.sqrt(old.diagonal().mean() / new.diagonal().mean())
    position[:, effect.index] = mode + scale * (position[:, effect.index] - mode)
    all_gone = state.gone if gone is None else (*state.gone, gone)
    names = frozenset(one.name for one in all_gone if not one.is_normal)
    settings = state.settings
    sampler = without_terms(state.sampler, settings.sampler, state.likelihood, names, position, settings.tune)
    draws = max(settings.draws, state.next_draws // 4)
    return replace(state, theta=theta, phase="em", memory=(), gone=all_gone, next_draws=draws, sampler=sampler)


def _curvature(likelihood: HLikelihood, effect: RandomEffect, theta: np.ndarray) -> sp.csc_array:
    """D of one term at the mode of its density, shape (size, size)."""
    at = next(i for i, e in enumerate(likelihood.model.random_effects) if e is effect)
    term = likelihood.random_terms[at]
    found = term.local(np.full(effect.size, term.mode), theta)
    values = np.zeros(likelihood.prior.nnz)
    if found is not None:
        values[likelihood.prior.entries[at]] = found[2]
    if likelihood.prior.matrix is None:
        return sp.csc_array(sp.diags_array(values[effect.index]))
    pattern = likelihood.prior.matrix
    lower = sp.csc_array((values, pattern.indices, pattern.indptr), shape=pattern.shape)
    own = lower[effect.index, effect.index]
    return sp.csc_array(own + own.T - sp.diags_array(own.diagonal()))


def _scale(state: EMState, effect: RandomEffect) -> tuple[int, float, np.ndarray] | None:
    """The one element of theta that scales a term's variance, ``d log variance / d theta``, and all that move it alone.

    None where no single element scales it.
    """
    theta = state.theta
    own = effect.dispersion if effect.precision is None else effect.precision.coefficients
    if own is None or effect.wide is not None or (effect.precision is not None and effect.size > LARGEST):
        return None
    value, jacobian = own.value(theta), own.jacobian(theta)
    held = np.any(jacobian != 0, axis=0)
    if effect.degrees is not None:
        held |= np.any(effect.degrees.map.jacobian(theta) != 0, axis=0)
    held &= ~moved(state.likelihood, theta, without={effect.name})
    sign = 1.0 if effect.precision is None else -1.0
    for k in np.flatnonzero(held):
        slope = float(jacobian[:, k] @ value) / float(value @ value)
        if abs(slope) > 1e-3 and np.allclose(
            jacobian[:, k], slope * value, rtol=1e-6, atol=1e-12 * np.abs(value).max()
        ):
            return int(k), sign * slope, held
    return None


def _at_zero(state: EMState, effect: RandomEffect) -> tuple[float, float] | None:
    """The derivative of the log-likelihood at a variance of zero, and the share of precision that the data add.

    Both for the term's present covariance C: in units of kappa = 1. None where W or h is not finite.
    """
    assert state.draws is not None
    likelihood, columns = state.likelihood, state.draws.columns
    alone = len(likelihood.model.random_effects) == 1
    chosen = np.linspace(0, columns.shape[1] - 1, 1 if alone else min(TESTED, columns.shape[1])).astype(int)
    curvature = _curvature(likelihood, effect, state.theta)
    diagonal = effect.precision is None
    try:
        factor = None if diagonal else splu(curvature)
    except RuntimeError:
        return None
    Z, rows = likelihood.Z[:, effect.index], likelihood.model.Z[:, effect.index]
    quadratic, weight = 0.0, np.zeros(Z.shape[0])
    for column in chosen:
        v = columns[:, column].copy()
        v[effect.index] = likelihood.start_v()[effect.index]
        point = likelihood.at(state.beta, v, state.theta)
        if point is None:
            return None
        s = rows.T @ point.score
        quadratic += float(s @ (s / curvature.diagonal() if factor is None else factor.solve(s))) / chosen.size
        quadratic += 2.0 * _skewness(effect) * float(np.sum(s / curvature.diagonal())) / chosen.size
        weight += point.weight / chosen.size
    if factor is None:
        trace = float(((Z.multiply(Z)).T @ weight / curvature.diagonal()).sum())
    else:
        W = (Z.T @ sp.diags_array(weight) @ Z).toarray()
        trace = float(np.trace(factor.solve(W)))
    return 0.5 * (quadratic - trace), abs(trace) / effect.size


def _skewness(effect: RandomEffect) -> float:
    """Mean of the effects about their mode for small dispersions, as a part of their variance: ``k''' / (-2 k'')``."""
    if effect.family is None:
        return 0.0
    *_, second, third = effect.family.kernel_derivatives(np.array([effect.family.mode]), 3)
    return float(-0.5 * third[0] / second[0])
