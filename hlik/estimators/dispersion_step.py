r"""Newton's method for the fixed point of EQL's dispersion step.

hglm iterates ``theta <- theta*(theta)``, theta* the solution of the gamma GLMs whose deviances and leverages belong to
theta. That map's derivative is ``I*^{-1} M``, with the gamma GLMs' observed information I* and M from
`hlik.estimators.dispersion_slope`: near 1 where leverages are near 1, which then takes hundreds of iterations. Newton's
method on ``r(theta) = theta* - theta`` is

.. math:: (I^* - M)\, s = I^* r,

and near the solution it is Newton's method on G itself. Far from it r has the better shape: on the scale of
log lambda it tends to a constant as lambda falls, where G tends to zero, and the sign of that constant says whether the
estimate is zero. There Newton's step is without bounds, and its sign that of other dispersions' errors: a term with
nearly zero effects moves by a large step in the direction of its own r instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hlik.estimators.dispersion import Component

MAX_LOG_CHANGE = 2.5  # a dispersion moves by a factor of at most 12 in one step
NEARLY_ZERO = 0.05  # mean of 1 - leverage below which the effects of a term are nearly zero,
FREE_CHANGE = 10.0  # where its dispersion may move by a factor of e^10,
LOWEST = 1e-9  # but not to below this mean: rounding would hide its sign
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
    step, decrement, unknown = _newton(drive, information, slope, active, trail)
    loose = [c for c in components if _is_loose(c, c.log_slope @ step)]
    own = active & ~_held(components, loose, drive.size) if loose else np.zeros_like(active)
    if own.any():
        step, decrement, unknown = _newton(drive, information, slope, active & ~own, trail)
    used = _overshoot([c for c in components if c not in loose], step)
    step *= min(1.0, trail.limit / used) if used > 0 else 1.0
    for c in loose:
        moves = own & np.any(c.log_slope != 0, axis=0)
        step[moves] = trail.limit * _free_step(c, np.where(moves, drive, 0.0))[moves]
    if loose and not own.any():
        step = np.where(active, drive, 0.0)  # it shares its parameters: the gamma GLMs' own step has the right sign
    return Proposal(step, max(decrement, float(bool(loose))), min(1.0, max(used, float(bool(loose)))), unknown)


def _newton(
    drive: np.ndarray, information: np.ndarray, slope: np.ndarray, active: np.ndarray, trail: Trail
) -> tuple[np.ndarray, float, np.ndarray]:
    """Newton's step on the active parameters, its length in standard errors, and the directions it knows nothing of."""
    step = np.zeros_like(drive)
    if not active.any():
        return step, 0.0, np.zeros((drive.size, 0))
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
    return step, float(np.linalg.norm(own)), unknown


def follow(
    trail: Trail,
    components: Sequence[Component],
    move: np.ndarray,
    change: np.ndarray,
    drive: np.ndarray,
    information: np.ndarray,
    used: float,
) -> Trail:
    """The trail after a step `move` that changed r by `change` to `drive` and used the part `used` of the bounds.

    Where r now points back, of all dispersions together or of one that is nearly zero, the solution lies between: the
    next step may be half as long as the last. Only short steps make secants.
    """
    turned = drive @ information @ move < 0
    turned |= any(
        c.is_term and c.mean_residual_df < NEARLY_ZERO and (c.log_slope @ move).sum() * (c.excess() - 1.0) < 0
        for c in components
    )
    limit = 0.5 * used if turned else min(1.0, 2.0 * trail.limit)
    length = np.sqrt(max(move @ information @ move, 0.0))
    if not 0 < length < SECANT_RANGE:
        return Trail((), limit)
    keep = min(MAX_SECANTS, move.size)
    return Trail((*trail.secants, (move, change))[-keep:], limit)


def _is_loose(c: Component, change: np.ndarray) -> bool:
    """Whether a nearly vanished term would move against its own r, or by more than Newton's method can know."""
    if not (c.is_term and c.mean_residual_df < NEARLY_ZERO) or not np.any(change):
        return False
    return float(np.max(np.abs(change))) > MAX_LOG_CHANGE or change.sum() * (c.excess() - 1.0) < 0


def _free_step(c: Component, drive: np.ndarray) -> np.ndarray:
    """The gamma GLM's own step, stretched to what a nearly vanished term may move by."""
    change = c.log_slope @ drive
    size = float(np.max(np.abs(change)))
    if c.excess() > 1.0:
        bound = np.log(NEARLY_ZERO / c.mean_residual_df)
    else:
        bound = np.log(max(c.mean_residual_df, LOWEST) / LOWEST)
    return drive * (min(max(float(bound), 0.0), FREE_CHANGE) + 0.1) / size if size > 0 else drive


def _held(components: Sequence[Component], loose: Sequence[Component], size: int) -> np.ndarray:
    """The parameters that move a component which is not loose, shape (r,)."""
    held = np.zeros(size, dtype=bool)
    for c in components:
        if not any(c is other for other in loose):
            held |= np.max(np.abs(c.log_slope), axis=0) > LIVING_SLOPE
    return held


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
    if values.size and values[0] < FLAT:
        return safe, flat
    step = np.linalg.solve(matrix, target)
    return (step if step @ target > 0 else safe), flat


def _overshoot(components: Sequence[Component], step: np.ndarray) -> float:
    """The largest change of a log dispersion, as a part of what it may be."""
    return max((float(np.max(np.abs(c.log_slope @ step))) / MAX_LOG_CHANGE for c in components), default=0.0)


def vanished(components: Sequence[Component], references: Mapping[str, float]) -> list[Component]:
    """The components whose dispersion has gone to zero and would fall further.

    Of a term that is seen by its leverages: the data no longer move its effects. Of a response by comparison with its
    entry in `references`, the mean deviance without random effects; and by its leverages too, which for more effects
    than observations go to one with rounding errors left of the deviance.
    """
    gone = []
    for c in components:
        is_zero = c.mean_residual_df < BOUNDARY
        if not c.is_term:
            is_zero |= float(np.max(c.dispersion)) < PERFECT * references[c.name]
        if is_zero and c.excess() < 1.0:
            gone.append(c)
    return gone


def active_parameters(components: Sequence[Component], gone: Sequence[Component], size: int) -> np.ndarray:
    """False for the parameters that move only dispersions which have gone to zero, shape (r,)."""
    if not gone:
        return np.ones(size, dtype=bool)
    dead = np.zeros(size, dtype=bool)
    for c in gone:
        dead |= np.any(c.log_slope != 0, axis=0)
    return _held(components, gone, size) | ~dead
