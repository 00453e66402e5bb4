r"""Newton's method for the fixed point of EQL's dispersion step.

hglm iterates ``theta <- theta*(theta)``, theta* the solution of the gamma GLMs whose deviances and leverages belong to
theta. That map's derivative is ``I*^{-1} M``, with the gamma GLMs' observed information I* and M from
`hlik.estimators.dispersion_slope`: near 1 where leverages are near 1, which then takes hundreds of iterations. Newton's
method on ``r(theta) = theta* - theta`` is

.. math:: (I^* - M)\, s = I^* r,

and near the solution it is Newton's method on G itself. Far from it r has the better shape: on the scale of
log lambda it tends to a constant, where G tends to zero, so that a variance whose estimate is zero is seen to be so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hlik.estimators.dispersion import Component

MAX_LOG_CHANGE = 2.5  # a dispersion moves by a factor of at most 12 in one step,
FREE_FALL = 10.0  # or by this logarithm where its effects are already nearly zero and it still falls
NEARLY_ZERO = 0.05  # mean of 1 - leverage
BOUNDARY = 1e-7  # mean of 1 - leverage below which the dispersion of a term counts as zero
PERFECT = 1e-10  # part of the deviance without random effects below which a response's dispersion counts as zero
LIVING_SLOPE = 1e-6  # d log(dispersion) / d theta below which a living component does not hold a parameter
FLAT = 1e-8  # curvature relative to the gamma GLMs' information, below which nothing is known of a direction
SECANT_RANGE, MAX_SECANTS = 1.0, 5  # standard errors
IDENTIFIED = 1e-10  # the same for the gamma GLMs' information itself, relative to its diagonal


@dataclass(frozen=True, eq=False)
class Trail:
    """What the next step learns from the one before.

    `secants` are moves of theta with the changes of r that they made, newest last; `limit` the part of the bounds on
    the change of a dispersion that a step may use.
    """

    secants: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
    limit: float = 1.0


@dataclass(frozen=True, eq=False)
class Proposal:
    """A step on theta, its length in standard errors before any bound, and what it uses of the bounds.

    The columns of `unknown`, shape (r, k), are directions of theta that nothing determines, of length one in units of
    the parameters' own standard errors.
    """

    step: np.ndarray
    decrement: float
    used: float
    unknown: np.ndarray


def propose(
    components: Sequence[Component],
    drive: np.ndarray,
    information: np.ndarray,
    slope: np.ndarray,
    active: np.ndarray,
    trail: Trail,
) -> Proposal:
    """Solve ``(I* - M) s = I* r`` on the active parameters, within bounds on the change of every dispersion.

    Parameters
    ----------
    components
        The gamma GLMs at theta.
    drive
        r, shape (r,).
    information, slope
        I* and M, shape (r, r).
    active
        The parameters that move, shape (r,).
    trail
        Secants, imposed on ``I* - M`` by Broyden's update, and the limit of the step.
    """
    step = np.zeros_like(drive)
    if not active.any():
        return Proposal(step, 0.0, 0.0, np.zeros((drive.size, 0)))
    index = np.ix_(active, active)
    own_information = information[index]
    whitening, null = _whitened(own_information)
    matrix = np.eye(whitening.shape[1]) - whitening.T @ slope[index] @ whitening
    for move, change in trail.secants:
        s, y = (whitening.T @ own_information @ part[active] for part in (move, -change))
        if s @ s > 0:
            matrix += np.outer(y - matrix @ s, s) / (s @ s)
    own, flat = _solve(matrix, whitening.T @ own_information @ drive[active])
    step[active] = whitening @ own
    unknown = np.zeros((drive.size, null.shape[1] + flat.shape[1]))
    unknown[active] = _unit(np.hstack([null, whitening @ flat]), own_information)
    used = _overshoot(components, step)
    shrink = min(1.0, trail.limit / used) if used > 0 else 1.0
    return Proposal(shrink * step, float(np.linalg.norm(own)), shrink * used, unknown)


def follow(
    trail: Trail, move: np.ndarray, change: np.ndarray, drive: np.ndarray, information: np.ndarray, used: float
) -> Trail:
    """The trail after a step `move` that changed r by `change` to `drive` and used the part `used` of the bounds.

    Where r now points back the solution lies between: the next step may be half as long as the last. Only short
    steps make secants.
    """
    turned = drive @ information @ move < 0
    limit = 0.5 * used if turned else min(1.0, 2.0 * trail.limit)
    length = np.sqrt(max(move @ information @ move, 0.0))
    if not 0 < length < SECANT_RANGE:
        return Trail((), limit)
    keep = min(MAX_SECANTS, move.size)
    return Trail((*trail.secants, (move, change))[-keep:], limit)


def _whitened(information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """T with ``T' I T = 1`` on the range of I, and its null space; a negative part of I is turned to positive."""
    scale = np.sqrt(np.maximum(np.abs(np.diag(information)), 1e-300))
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    size = np.abs(values)
    known = size > IDENTIFIED
    basis = vectors / scale[:, None]
    return basis[:, known] / np.sqrt(size[known]), basis[:, ~known]


def _unit(directions: np.ndarray, information: np.ndarray) -> np.ndarray:
    """The directions in units of the parameters' own standard errors, of length one."""
    scaled = directions * np.sqrt(np.maximum(np.abs(np.diag(information)), 1e-300))[:, None]
    return scaled / np.linalg.norm(scaled, axis=0)


def _solve(matrix: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newton's step where it follows the drive, else the step of the symmetric part with its signs made positive.

    Also returns the flat directions: those in which the matrix is zero to rounding.
    """
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    flat = vectors[:, np.abs(values) < FLAT]
    safe = vectors @ ((vectors.T @ target) / np.maximum(np.abs(values), FLAT))
    if values[0] < FLAT:
        return safe, flat
    step = np.linalg.solve(matrix, target)
    return (step if step @ target > 0 else safe), flat


def _overshoot(components: Sequence[Component], step: np.ndarray) -> float:
    """The largest change of a log dispersion, as a part of what it may be."""
    ratios = [0.0]
    for c in components:
        change = c.log_slope @ step
        falling = change.max() <= 0 and c.mean_residual_df < NEARLY_ZERO
        ratios.append(float(np.max(np.abs(change))) / (FREE_FALL if falling else MAX_LOG_CHANGE))
    return max(ratios)


def vanished(components: Sequence[Component], references: Mapping[str, float]) -> list[Component]:
    """The components whose dispersion has gone to zero and would fall further.

    Of a term that is seen by its leverages: the data no longer move its effects. Of a response by comparison with its
    entry in `references`, the mean deviance without random effects.
    """
    gone = []
    for c in components:
        level, bound = c.mean_residual_df, BOUNDARY
        if c.name in references:
            level, bound = float(np.max(c.dispersion)), PERFECT * references[c.name]
        if level < bound and c.excess() < 1.0:
            gone.append(c)
    return gone


def active_parameters(components: Sequence[Component], gone: Sequence[Component], size: int) -> np.ndarray:
    """False for the parameters that move only dispersions which have gone to zero, shape (r,)."""
    dead, living = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    for c in components:
        reach = np.max(np.abs(c.log_slope), axis=0)
        if any(c is other for other in gone):
            dead |= reach > 0
        else:
            living |= reach > LIVING_SLOPE
    return living | ~dead
