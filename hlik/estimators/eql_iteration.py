"""One iteration of EQL: (beta, v) for the dispersions at hand, then a Newton step on the dispersions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hlik.augmented import AugmentedModel, Dispersions, Point, dispersions
from hlik.estimators.base import CONVERGED
from hlik.estimators.boundary import zero_sentences
from hlik.estimators.dispersion import Component, DispersionState, GammaSolution, dispersion_state, gamma_glm
from hlik.estimators.dispersion_slope import Slopes, slopes
from hlik.estimators.dispersion_step import Proposal, Trail, active_parameters, follow, propose, vanished
from hlik.estimators.eql_finish import UNKNOWN_SHARE
from hlik.estimators.eql_mean import MeanSolution, solve_mean
from hlik.estimators.joint_dispersion import JointStep, Vanished, joint_step

TIGHT = 1e-12  # standard errors: the last (beta, v) is solved to rounding
MAX_HALVINGS = 30
NEAR = 1.0  # standard errors: after a shorter step on theta estimated slopes are not estimated again
NO_STEP = (
    "no step on the dispersion parameters gives valid variances; a linear or inverse model of a variance may reach "
    "zero inside the data: use a log link for it"
)
NO_MEAN = (
    "the equations of the fixed and random effects could not be solved; pass other start values, or use another link"
)


@dataclass(frozen=True, eq=False)
class Solved:
    """What holds at one theta: (beta, v), the dispersion equations, and the step that they ask for.

    `gone` are the components whose dispersion has gone to zero, `active` the parameters that still move; `drive` is
    r = theta* - theta, theta* the solution of the gamma GLMs.
    """

    theta: np.ndarray
    spread: Dispersions
    mean: MeanSolution
    found: DispersionState
    gone: Sequence[Component | Vanished]
    active: np.ndarray
    drive: np.ndarray
    slopes: Slopes
    trail: Trail
    proposal: Proposal
    joint: JointStep | None = None


@dataclass(frozen=True, eq=False)
class EQLState:
    """What the next step needs: theta with a first guess of (beta, v), and what was solved last.

    `references` has the mean deviance without random effects of every response with a dispersion; `failure` says why
    the iteration cannot go on.
    """

    augmented: AugmentedModel
    correction: str | None
    theta: np.ndarray
    spread: Dispersions
    point: Point
    references: Mapping[str, float]
    solved: Solved | None = None
    decrement: float = 1.0
    failure: str | None = None


def solve(state: EQLState, tolerance: float) -> Solved:
    """Solve for (beta, v) at the state's theta, to `tolerance` standard errors, and ask for a step on theta."""
    model, theta, spread = state.augmented.model, state.theta, state.spread
    if model.prior.matrix is not None:
        return _solve_jointly(state, tolerance)
    mean = solve_mean(state.augmented, state.point, spread, tolerance, state.correction)
    found = dispersion_state(model, theta, spread, mean.point, mean.expected)
    gone = vanished(found.components, state.references)
    active = active_parameters(found.components, gone, theta.size)
    if theta.size:
        solution = gamma_glm(model, theta, found.components)
        slope = _kept_slopes(state, active) or slopes(
            model, spread, mean.point, mean.expected, mean.observed, found, solution
        )
    else:
        solution = GammaSolution(theta, (), np.zeros((0, 0)))
        slope = Slopes(np.zeros((0, 0)), np.zeros((model.n_beta, 0)), np.zeros((model.n_random, 0)), True)
    drive = solution.theta - theta
    trail = _trail(state, found, drive, solution, slope.exact and state.correction is None)
    proposal = propose(found.components, drive, solution.information, slope.score, active, trail)
    return Solved(theta, spread, mean, found, gone, active, drive, slope, trail, proposal)


def _solve_jointly(state: EQLState, tolerance: float) -> Solved:
    """As `solve`, for effects with joint densities."""
    last = None if state.solved is None else state.solved.joint
    found = joint_step(
        state.augmented,
        state.point,
        state.theta,
        state.spread,
        state.correction,
        state.references,
        tolerance,
        last,
    )
    step = found.proposal.step
    return Solved(
        state.theta,
        state.spread,
        found.mean,
        found.found,
        found.gone,
        found.active,
        step,
        found.slopes,
        Trail(),
        found.proposal,
        found,
    )


def _kept_slopes(state: EQLState, active: np.ndarray) -> Slopes | None:
    """The last slopes where they were estimated close to the solution: secants make up for the little that moved."""
    last = state.solved
    if last is None or last.slopes.exact or last.proposal.decrement >= NEAR or not np.array_equal(last.active, active):
        return None
    return last.slopes


def _trail(state: EQLState, found: DispersionState, drive: np.ndarray, solution: GammaSolution, exact: bool) -> Trail:
    """What the last step teaches; secants only where the derivative is not exact, as with a correction of beta."""
    last = state.solved
    if last is None:
        return Trail()
    move = state.theta - last.theta
    change, used = drive - last.drive, last.proposal.used
    trail = follow(last.trail, found.components, move, change, drive, solution.information, used)
    return replace(trail, secants=()) if exact else trail


def advance(state: EQLState, solved: Solved, tol: float) -> EQLState:
    """The next state: theta moved by the proposed step, halved until all dispersions and means are valid.

    (beta, v) is predicted to first order, and left where it was if that is not possible. A step shorter than `tol` is
    not taken.
    """
    new = replace(state, solved=solved, decrement=solved.proposal.decrement)
    if new.decrement < tol:
        return new
    augmented, point, step = state.augmented, solved.mean.point, solved.proposal.step
    change = max((float(np.max(np.abs(c.log_slope @ step))) for c in solved.found.components), default=0.0)
    for _ in range(MAX_HALVINGS):
        theta = solved.theta + step
        spread = dispersions(augmented.model, theta)
        if spread.valid():
            part = step / max(change, 1.0)  # beyond a factor of e in a dispersion a tangent is no prediction
            moved = augmented.at(
                point.beta + solved.slopes.beta @ part, point.v + solved.slopes.v @ part, spread
            ) or augmented.at_predictor(point.beta, point.v, point.eta, spread)
            if moved is not None:
                return replace(new, theta=theta, spread=spread, point=moved)
        step = 0.5 * step
    return replace(new, failure=NO_STEP)


def verdict(state: EQLState) -> str:
    """What a state is whose step on theta is short enough: converged, at a boundary, not identified, or unsolved."""
    assert state.solved is not None
    if not state.solved.mean.is_solved:
        return f"stopped: {NO_MEAN}"
    sentences = boundary_sentences(state)
    if sentences:
        return "boundary: " + "; ".join(sentences)
    names = unidentified_names(state)
    if names:
        return f"not identified: the data determine only a combination of {', '.join(map(repr, names))}"
    return CONVERGED


def boundary_sentences(state: EQLState) -> list[str]:
    """A sentence for every dispersion that is estimated at zero."""
    assert state.solved is not None
    return zero_sentences(state.augmented.model, [c.name for c in state.solved.gone], state.theta)


def unidentified_names(state: EQLState) -> list[str]:
    """The dispersion parameters of which only a combination is determined."""
    assert state.solved is not None
    unknown = state.solved.proposal.unknown
    parameters = state.augmented.model.dispersion_parameters
    return [p.name for p in parameters if np.any(np.abs(unknown[p.index]) > UNKNOWN_SHARE)]
