r"""A variance that Monte Carlo EM estimates at zero.

EM comes to zero ever more slowly: the inverse of the variance grows by a constant in every step. So zero itself is
tested. With the covariance ``kappa C`` of one term's effects u, whose rows of the design are Z,

.. math:: \frac{\partial \ell}{\partial \kappa}\Big|_{\kappa = 0} = \tfrac12 E\{s'Cs - \mathrm{tr}(C W)\}, \qquad
          s = Z'\,\partial l/\partial\eta, \quad W = -Z'\,\partial^2 l/\partial\eta^2\,Z \quad\text{at } u = 0,

over the draws of the other effects. Where that is negative, EM goes down, and the data say little of u beside its
density, the variance is put to zero (as far as log densities stay finite) and the other parameters go on alone. The
last sample tests it again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from hlik.estimators.boundary import zero_sentences
from hlik.estimators.laplace_objective import BOUNDARY
from hlik.hlikelihood import HLikelihood
from hlik.model import RandomEffect

if TYPE_CHECKING:
    from hlik.estimators.mcem_state import EMState

LITTLE = 0.3  # share of the term's prior precision that the data add, below which zero is tested
NOTHING = 1e-3  # share below which the direction of the last step is noise
TESTED = 64  # draws of the other effects for the test
LARGEST = 2_000  # effects of a term with a joint density
SYMMETRIC = ("normal",)  # densities by family; those by a precision are symmetric too


@dataclass(frozen=True, eq=False)
class Gone:
    """A term whose variance is at zero.

    Attributes
    ----------
    name
        Of the random effect.
    held
        Elements of theta that move this term alone, bool, shape (r,): they are held.
    before
        theta before it was put to zero.
    """

    name: str
    held: np.ndarray
    before: np.ndarray


def active(state: EMState) -> np.ndarray:
    """Elements of psi that are not held at zero, shape (p + r,)."""
    found = np.ones(state.psi.size, dtype=bool)
    for gone in state.gone:
        found[state.beta.size :] &= ~gone.held
    return found


def towards_zero(state: EMState, direction: np.ndarray) -> EMState:
    """The state with the first term at zero whose variance goes there, if any; EM then goes on.

    Parameters
    ----------
    direction
        Last step in theta, shape (r,).
    """
    if state.draws is None or len(state.gone) == len(state.likelihood.model.random_effects):
        return state
    names = {gone.name for gone in state.gone} | set(state.released)
    for effect in state.likelihood.model.random_effects:
        found = None if effect.name in names else _scale(state, effect)
        if found is None:
            continue
        k, slope, held = found
        tested = _at_zero(state, effect)
        if tested is None:
            continue
        score, share = tested
        down = direction[k] * slope < 0 or share < NOTHING
        if share < LITTLE and score < 0 and down:
            theta = state.theta.copy()
            theta[k] += np.log(0.1 * BOUNDARY / max(share, 1e-300)) / slope if share > 0.1 * BOUNDARY else 0.0
            return _moved(state, effect, theta, Gone(effect.name, held, state.theta))
    return state


def confirmed(state: EMState) -> EMState:
    """The state, or one in which a term that zero does not suit is free again; it is not put there twice."""
    for gone in state.gone:
        effect = next(e for e in state.likelihood.model.random_effects if e.name == gone.name)
        tested = _at_zero(state, effect)
        if tested is not None and tested[0] > 0:
            theta = np.where(gone.held, gone.before, state.theta)
            kept = tuple(other for other in state.gone if other is not gone)
            state = _moved(state, effect, theta, None)
            return replace(state, gone=kept, released=(*state.released, gone.name))
    return state


def boundary_status(state: EMState) -> str:
    """The words of the status; empty where no variance is at zero."""
    sentences = zero_sentences(state.likelihood.model, [gone.name for gone in state.gone], state.theta)
    return "boundary: " + "; ".join(sentences) if sentences else ""


def _moved(state: EMState, effect: RandomEffect, theta: np.ndarray, gone: Gone | None) -> EMState:
    """Another theta in EM, with the chains of the term scaled by its new deviation."""
    assert state.draws is not None
    old, new = (_curvature(state.likelihood, effect, at) for at in (state.theta, theta))
    position = state.draws.v[:, -1].copy()
    position[:, effect.index] *= np.sqrt(old.diagonal().mean() / new.diagonal().mean())
    state.sampler.restore(position, None)
    added = () if gone is None else (gone,)
    draws = max(state.settings.draws, state.next_draws // 4)
    return replace(state, theta=theta, phase="em", memory=(), gone=(*state.gone, *added), next_draws=draws)


def _curvature(likelihood: HLikelihood, effect: RandomEffect, theta: np.ndarray) -> sp.csc_array:
    """D of one term at the mode of its density, (q, q)."""
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

    None where the term's density is not symmetric, or no single element scales it.
    """
    theta = state.theta
    own = effect.dispersion if effect.precision is None else effect.precision.coefficients
    symmetric = effect.family is None or effect.family.name.lower() in SYMMETRIC
    if own is None or not symmetric or effect.wide is not None:
        return None
    if effect.precision is not None and effect.size > LARGEST:
        return None
    value, jacobian = own.value(theta), own.jacobian(theta)
    held = np.any(jacobian != 0, axis=0)
    if effect.degrees is not None:
        held |= np.any(effect.degrees.map.jacobian(theta) != 0, axis=0)
    held &= ~_needed_elsewhere(state, effect)
    sign = 1.0 if effect.precision is None else -1.0
    for k in np.flatnonzero(held):
        slope = float(jacobian[:, k] @ value) / float(value @ value)
        if abs(slope) > 1e-3 and np.allclose(
            jacobian[:, k], slope * value, rtol=1e-6, atol=1e-12 * np.abs(value).max()
        ):
            return int(k), sign * slope, held
    return None


def _needed_elsewhere(state: EMState, effect: RandomEffect) -> np.ndarray:
    """Elements of theta that move other terms or a response, shape (r,)."""
    likelihood, theta = state.likelihood, state.theta
    model = likelihood.model
    found = np.zeros(model.n_theta, dtype=bool)
    for other in model.random_effects:
        if other is not effect:
            own = other.dispersion if other.precision is None else other.precision.coefficients
            found |= np.any(own.jacobian(theta) != 0, axis=0) if own is not None else False
            if other.degrees is not None:
                found |= np.any(other.degrees.map.jacobian(theta) != 0, axis=0)
    maps = [response.dispersion for response in model.responses if response.dispersion is not None]
    maps += [tau.map for term in likelihood.terms for tau in getattr(term, "taus", ())]
    for one in maps:
        found |= np.any(one.jacobian(theta) != 0, axis=0)
    if model.theta_design is not None:
        found |= np.any(model.theta_design != 0, axis=0)
    return found


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
        weight += point.weight / chosen.size
    if factor is None:
        trace = float(((Z.multiply(Z)).T @ weight / curvature.diagonal()).sum())
    else:
        W = (Z.T @ sp.diags_array(weight) @ Z).toarray()
        trace = float(np.trace(factor.solve(W)))
    return 0.5 * (quadratic - trace), abs(trace) / effect.size
