r"""The dispersion equations of EQL for models whose random effects have joint densities.

With precision Q(theta) of the effects v and H the matrix of the mixed-model equations, the equations are

.. math:: U_k = \tfrac12 \left[\mathrm{tr}(Q^{-1} \dot Q_k) - v'\dot Q_k v - \mathrm{tr}((H^{-1})_{vv} \dot Q_k)\right]
          + \text{the gamma GLMs of the responses and of independent effects},

the derivative of the adjusted profile likelihood p_bv(h) with the working weights W held fixed. In the eigenbasis of a
CAR's neighbour matrix this is the gamma GLM that hglm fits (Alam, Ronnegard & Shen 2015), whose deviances and leverages
are those of the rotated effects; for normal responses U is the score of REML. The traces take entries of the inverses
on the pattern of Q only.

U = 0 is solved by Newton's method, with the derivative of U, and of (beta, v), by differences of solved
mixed-model equations; near the solution the last derivative serves again. Its negative is the information on theta.

References
----------
Lee, Y. & Nelder, J. A. (2001). Biometrika 88, 987-1006.
Alam, M., Ronnegard, L. & Shen, X. (2015). Fitting conditional and simultaneous autoregressive spatial models in hglm.
The R Journal 7/2, 5-18.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hlik.augmented import AugmentedModel, Dispersions, Point, dispersions
from hlik.errors import ModelError
from hlik.estimators.dispersion import Component, DispersionState, dispersion_state
from hlik.estimators.dispersion_slope import Slopes
from hlik.estimators.dispersion_step import BOUNDARY, FLAT, MAX_LOG_CHANGE, Proposal, vanished
from hlik.estimators.eql_mean import MeanSolution, solve_mean
from hlik.linalg.bordered import Bordered
from hlik.model import HierarchicalModel
from hlik.precision import Precision

STEP = 1e-4  # of a difference on the unconstrained scale: its error, about 1e-4 of the second derivative, only steers
BASE, BESIDE = 1e-9, 1e-6  # standard errors: steps that end the mixed-model equations; the errors are their squares
NEAR = 1e-2  # standard errors from the solution, within which the last derivative serves again
BETTER = 0.1
MAX_HALVINGS = 60
LEAST = 1e-3  # of a curvature, as a part of the largest, where U has no maximum nearby


@dataclass(frozen=True, eq=False)
class Vanished:
    """A term with a joint density whose effects are estimated at zero."""

    name: str
    log_slope: np.ndarray


@dataclass(frozen=True, eq=False)
class JointStep:
    """What holds at one theta, and the step that the equations ask for; `jacobian` is dU/dtheta."""

    mean: MeanSolution
    found: DispersionState
    gone: list[Component | Vanished]
    active: np.ndarray
    slopes: Slopes
    proposal: Proposal
    jacobian: np.ndarray
    limit: float


def joint_step(
    augmented: AugmentedModel,
    point: Point,
    theta: np.ndarray,
    spread: Dispersions,
    correction: str | None,
    references: Mapping[str, float],
    tolerance: float,
    last: JointStep | None,
) -> JointStep:
    """Solve for (beta, v) at theta, and ask for a step on theta."""
    model = augmented.model
    mean = solve_mean(augmented, point, spread, min(tolerance, BASE), correction)
    found = joint_state(model, theta, spread, mean.point, mean.expected)
    gone = _gone(model, theta, found, mean, references)
    active = _active(model, theta, found.components, gone)
    slopes, jacobian = (None, None) if last is None else (last.slopes, last.jacobian)
    if last is None or slopes is None or jacobian is None or not _serves_again(last, found.score, active):
        slopes, jacobian = _differences(augmented, mean.point, theta, found.score, correction, active)
    information = -0.5 * (jacobian + jacobian.T)
    found = replace(found, gamma_information=information)
    limit = 1.0
    step, decrement, unknown = _newton(found.score, jacobian, active)
    if last is not None and decrement > 2.0 * last.proposal.decrement:
        limit = 0.5 * last.limit
    part = _bounded(model, theta, found.components, step, limit)
    proposal = Proposal(part * step, decrement, part, unknown)
    return JointStep(mean, found, gone, active, slopes, proposal, jacobian, limit)


def _serves_again(last: JointStep, score: np.ndarray, active: np.ndarray) -> bool:
    """Whether the last derivative is good enough: near the solution, and where it made the equations far better."""
    if last.proposal.decrement >= NEAR or not np.array_equal(active, last.active):
        return False
    return _newton(score, last.jacobian, active)[1] < BETTER * last.proposal.decrement


def joint_state(
    model: HierarchicalModel, theta: np.ndarray, spread: Dispersions, point: Point, bordered: Bordered
) -> DispersionState:
    """Leverages, gamma GLMs, and U."""
    found = dispersion_state(model, theta, spread, point, bordered)
    inverse = bordered.inverse_prior_pattern()
    score = found.score.copy()
    for k, effect in enumerate(model.random_effects):
        own, precision = spread.precisions[k], effect.precision
        if precision is None or own is None:
            continue
        v = point.v[effect.index]
        forms = precision.products(v, v) + precision.doubled(inverse[model.prior.entries[k]])
        score += 0.5 * precision.logdet_slope(own, theta) + precision.through(-0.5 * forms, theta)
    return replace(found, score=score)


def _differences(
    augmented: AugmentedModel,
    point: Point,
    theta: np.ndarray,
    score: np.ndarray,
    correction: str | None,
    active: np.ndarray,
) -> tuple[Slopes, np.ndarray]:
    """Derivatives of (beta, v) and of U by theta; zero for parameters that do not move."""
    model, r = augmented.model, theta.size
    beta, v, jacobian = np.zeros((model.n_beta, r)), np.zeros((model.n_random, r)), np.zeros((r, r))
    for k in np.flatnonzero(active):
        for step in (STEP, -STEP):
            found = _solved(augmented, point, theta + step * np.eye(r)[k], correction)
            if found is not None:
                break
        else:
            raise ModelError("The equations of the dispersions have no derivative at their values: pass start={...}.")
        beta[:, k], v[:, k] = (found[0].beta - point.beta) / step, (found[0].v - point.v) / step
        jacobian[:, k] = (found[1] - score) / step
    return Slopes(jacobian, beta, v, False), jacobian


def _solved(
    augmented: AugmentedModel, point: Point, theta: np.ndarray, correction: str | None
) -> tuple[Point, np.ndarray] | None:
    """(beta, v) and U at a theta near that of the point; None where a dispersion is invalid."""
    spread = dispersions(augmented.model, theta)
    begin = augmented.at_predictor(point.beta, point.v, point.eta, spread) if spread.valid() else None
    if begin is None:
        return None
    mean = solve_mean(augmented, begin, spread, BESIDE, correction)
    return mean.point, joint_state(augmented.model, theta, spread, mean.point, mean.expected).score


def _newton(score: np.ndarray, jacobian: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Newton's step, its length in standard errors, and the directions that nothing determines.

    Where minus the derivative is not positive definite, the step goes along its eigenvectors by the sizes of the
    eigenvalues, uphill in each.
    """
    step, unknown = np.zeros_like(score), np.zeros((score.size, 0))
    if not active.any():
        return step, 0.0, unknown
    part = np.ix_(active, active)
    matrix = -jacobian[part]
    information = 0.5 * (matrix + matrix.T)
    scale = np.sqrt(np.maximum(np.abs(np.diag(information)), 1e-300))
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    largest = max(float(np.abs(values).max()), 1e-300)
    if values.min() > FLAT * largest:
        own = np.linalg.solve(matrix, score[active])
        decrement = float(np.sqrt(max(own @ information @ own, 0.0)))
    else:
        sizes = np.maximum(np.abs(values), LEAST * largest)
        along = vectors.T @ (score[active] / scale)
        own = (vectors @ (along / sizes)) / scale
        decrement = float(np.sqrt(np.sum(along**2 / sizes)))
        flat = np.abs(values) <= FLAT * largest
        if flat.any() and decrement < NEAR:
            unknown = np.zeros((score.size, int(flat.sum())))
            unknown[active] = vectors[:, flat]
    step[active] = own
    return step, decrement, unknown


def _bounded(
    model: HierarchicalModel, theta: np.ndarray, components: Sequence[Component], step: np.ndarray, limit: float
) -> float:
    """The part of a step that keeps the changes of dispersions and of precisions within bounds.

    A precision may change by the same factor as a dispersion in every direction: ``Q_new - Q / c`` and ``c Q - Q_new``
    are positive definite.
    """
    change = max((float(np.max(np.abs(c.log_slope @ step))) for c in components), default=0.0)
    part = min(1.0, limit * MAX_LOG_CHANGE / change) if change > 0 else 1.0
    precisions = [effect.precision for effect in model.random_effects if effect.precision is not None]
    factor = float(np.exp(limit * MAX_LOG_CHANGE))
    for _ in range(MAX_HALVINGS):
        if all(_is_near(precision, theta, theta + part * step, factor) for precision in precisions):
            break
        part *= 0.5
    return part


def _is_near(precision: Precision, theta: np.ndarray, new: np.ndarray, factor: float) -> bool:
    c, moved = precision.coefficients.value(theta), precision.coefficients.value(new)
    if not np.all(np.isfinite(moved)):
        return False
    logdet = precision.determinant.logdet
    return bool(np.isfinite(logdet(moved - c / factor)) and np.isfinite(logdet(factor * c - moved)))


def _diagonal_slopes(precision: Precision, theta: np.ndarray) -> np.ndarray:
    """Derivatives of the logarithm of Q's diagonal, shape (q, r)."""
    diagonal = precision.pattern.diagonal_positions()
    rows = precision.matrices.tocsr()[diagonal]
    values = rows @ precision.coefficients.value(theta)
    return np.asarray(rows @ precision.coefficients.jacobian(theta)) / values[:, None]


def _gone(
    model: HierarchicalModel,
    theta: np.ndarray,
    found: DispersionState,
    mean: MeanSolution,
    references: Mapping[str, float],
) -> list[Component | Vanished]:
    """The components and terms whose dispersion has gone to zero: nothing is left of the effects but their prior."""
    gone: list[Component | Vanished] = list(vanished(found.components, references))
    for effect in model.random_effects:
        if effect.precision is not None and abs(1.0 - found.random_leverage[effect.index].mean()) < BOUNDARY:
            gone.append(Vanished(effect.name, _diagonal_slopes(effect.precision, theta)))
    return gone


def _active(
    model: HierarchicalModel,
    theta: np.ndarray,
    components: Sequence[Component],
    gone: Sequence[Component | Vanished],
) -> np.ndarray:
    """False for parameters that move nothing but dispersions which have gone to zero."""
    names = {part.name for part in gone}
    living = np.zeros(theta.size, dtype=bool)
    for c in components:
        if c.name not in names:
            living |= np.any(c.log_slope != 0, axis=0)
    for effect in model.random_effects:
        if effect.precision is not None and effect.name not in names:
            living |= np.any(effect.precision.coefficients.jacobian(theta) != 0, axis=0)
    dead = np.zeros(theta.size, dtype=bool)
    for part in gone:
        dead |= np.any(part.log_slope != 0, axis=0)
    return ~dead | living
